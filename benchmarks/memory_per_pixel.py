"""What a tile costs in memory, measured against what `--memory` reckons with.

    python benchmarks/memory_per_pixel.py --out benchmarks/results/memory-per-pixel.csv

For each model, scale and backend, in a process of its own: the float32 numbers alive at the worst
moment of one run, for each output pixel, and `Geometry.floats_per_pixel` times the session's
`memory_share`. A ratio above 1 means that tiles need more than the user allowed. Linux only.

Pictures are such that --memory should about suffice; a small one comes before, so that what a
runtime needs once is not counted. Weights are those that ship, else random ones. The file is
written after each row; what it has is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
from every_graph import Row, open_model, read_rows, variants, write_rows

from srcli.backends import BACKENDS, get_backend
from srcli.backends.base import SessionOptions
from srcli.bench.memory import forget_peak, peak_bytes, resident_bytes
from srcli.models.registry import get_model

FIELDS = ("model", "scale", "backend", "width", "height", "said", "measured", "ratio")
FLOAT = 4  # bytes
SMALL = 24  # side of a picture
MAX_PIXELS = 2_200_000  # of output; at x8 as many as OpenVINO takes itself, see its session
KEYS = FIELDS[:3]


def measure(name: str, scale: int, backend: str, memory: int) -> Row:
    """In this process, which must not have done anything of the sort before."""
    with tempfile.TemporaryDirectory() as folder:
        model, _ = open_model(get_model(name), scale, Path(folder), None)
        session = get_backend(backend).open(model, SessionOptions())
        geometry = model.geometry
        pixels = min(memory / FLOAT / geometry.floats_per_pixel, MAX_PIXELS)
        height = geometry.accepted(int(sqrt(pixels / 2) / scale))
        width = geometry.accepted(2 * height)
        small = geometry.accepted(SMALL)
        batch = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        session(batch[:, :, :small, :small])
        forget_peak()
        before = resident_bytes()
        session(batch)
        peak = peak_bytes()
    if before is None or peak is None:
        sys.exit("this system does not tell what a process takes")
    said = geometry.floats_per_pixel * session.memory_share
    found = (peak - before) / FLOAT / (height * width * scale**2)
    values = (name, scale, backend, width, height, f"{said:.0f}", f"{found:.0f}")
    return dict(zip(FIELDS, map(str, (*values, f"{found / said:.2f}")), strict=True))


def measured_apart(name: str, scale: int, backend: str, memory: int) -> Row | None:
    """The same in a new process; None, and why on stderr, where the backend does not run it."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, str(scale), backend]
    for size in (1, memory):  # first only to export the graph, which leaves memory behind
        done = subprocess.run(
            [*command, "--memory", str(size)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:]
        print(f"{name} x{scale} {backend}: left out: {' '.join(why)}", file=sys.stderr)
        return None
    return next(csv.DictReader(done.stdout.splitlines()[-1:], FIELDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="names that begin so")
    parser.add_argument("--memory", type=int, default=2 << 30, help="bytes")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "SCALE", "BACKEND"))
    arguments = parser.parse_args()
    if arguments.one:
        name, scale, backend = arguments.one
        row = measure(name, int(scale), backend, arguments.memory)
        csv.DictWriter(sys.stdout, FIELDS).writerow(row)
        return
    if arguments.out is None:
        parser.error("--out is missing")
    rows = read_rows(arguments.out, *KEYS)
    for (spec, scale), backend in product(variants(), BACKENDS):
        key = (spec.name, str(scale), backend.name)
        cannot = backend.unavailable() or backend.declines(spec, "fp32")
        if key in rows or cannot or not spec.name.startswith(arguments.only):
            continue
        row = measured_apart(spec.name, scale, backend.name, arguments.memory)
        if row is not None:
            rows[key] = row
            print(",".join(row.values()), flush=True)
            write_rows(arguments.out, FIELDS, rows)


if __name__ == "__main__":
    main()
