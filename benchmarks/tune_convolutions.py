"""Measure how each layer of LAPAR and AWSRN is best cut into programs of a GPU.

    python benchmarks/tune_convolutions.py --table srcli/backends/cuda/tunings.json

Prints one line for each layer, with the fastest ways. Kernels are compiled by several processes
first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from srcli.backends.cuda.blocked import Blocked, Tuning, block
from srcli.backends.cuda.convolutions import convolve
from srcli.backends.cuda.pictures import SIDES, filter_pixels
from srcli.backends.cuda.tunings import Role, key

PICTURE = (180, 320)  # enlarged by 4: 1280 x 720
LAUNCHES = 20  # in one graph
MAX_SHARED = 200 << 10
# Blocks, warps and stages. Without a second stage, loads go through the first level of the cache.
PROGRAMS = ((64, 4, 1), (64, 4, 2), (64, 4, 3), (128, 4, 2), (128, 4, 3), (128, 8, 3))
BLOCKS = ((1, 1), (1, 2), (1, 4), (2, 2))  # rows and columns of pixels
NARROW = 16  # channels up to which single pixels are not worth trying


@dataclass(frozen=True)
class Layer:
    """A layer as `tuning_for` is asked for it, and where it is used."""

    role: Role
    inputs: int
    outputs: int
    side: int
    scale: int = 1
    planes: int = 1
    enlarged: int = 1
    """What its source is larger than the picture by."""

    residual: bool = False

    def key(self, dtype: torch.dtype) -> str:
        """Name it as `tunings.json` does."""
        return key(self.role, self.inputs, self.outputs, self.side, self.scale, dtype)


def layers(model: str) -> list[Layer]:
    """Name the different layers of a model at x4."""
    if model.startswith("awsrn"):
        c = 16 if model == "awsrn-sd" else 32
        units = 8 if model == "awsrn-sd" else 4
        return [
            Layer("body", c, 128, 3),
            Layer("body", 128, c, 3, residual=True),
            Layer("reduction", c, c, 3, planes=units, residual=True),
            Layer("tail", c, 3, 9, scale=4),
        ]
    c = {"lapar-a": 32, "lapar-b": 24, "lapar-c": 16}[model]
    return [
        Layer("high", c, c, 5, enlarged=4),
        Layer("filter", c, 16, 3, enlarged=4),
        Layer("high", c, c, 3, enlarged=4),
        Layer("up", c, c, 3, scale=4),
        Layer("body", c, c, 3, residual=True),
        Layer("reduction", c, c, 3, planes=4, residual=True),
        Layer("head", 8, c, 3),
    ]


def candidates(layer: Layer, dtype: torch.dtype) -> Iterator[Tuning]:
    """Give all ways that are worth trying."""
    size = 4 if dtype == torch.float32 else 2
    parts = [p for p in (1, 2, 4) if layer.scale % p == 0] if layer.scale > 1 else [0]
    for (step, group), part in itertools.product(BLOCKS, parts):
        if layer.scale > 1 and (step > 1 or group > 2):
            continue
        if layer.scale == 1 and step * group == 1 and layer.inputs <= NARROW:
            continue
        rows = part or step
        columns = rows << (group * layer.scale * layer.outputs - 1).bit_length()
        run = (group + layer.side - 1) * layer.inputs
        if not 16 <= columns <= 256:
            continue
        piece = largest_piece(run)
        if piece is None:
            continue
        for size_of_block, warps, stages in PROGRAMS:
            shared = stages * piece * (size_of_block + columns) * size
            if shared > MAX_SHARED or columns * size_of_block > warps * 32 * 128:
                continue
            yield Tuning(
                step=step,
                group=group,
                part=part,
                piece=piece,
                block=size_of_block,
                warps=warps,
                stages=stages,
            )


def largest_piece(run: int) -> int | None:
    """Return the largest piece that leaves little over at the end of a row; None if none does."""
    fitting = [piece for piece in (16, 32, 64, 128) if -(-run // piece) * piece <= 1.25 * run]
    return max(fitting, default=None)


class Case:
    """A layer with its tensors."""

    def __init__(self, layer: Layer, dtype: torch.dtype) -> None:
        height, width = (side * layer.enlarged for side in PICTURE)
        self.layer, self._dtype = layer, dtype
        generator = torch.Generator("cuda").manual_seed(0)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device="cuda", generator=generator)

        channels = layer.scale**2 * layer.outputs
        self._weight = noise(channels, layer.planes * layer.inputs, layer.side, layer.side)
        self._bias = noise(channels)
        self._source = noise(layer.planes, 1, height, width, layer.inputs).to(dtype)
        size = (1, height * layer.scale, width * layer.scale)
        self._out = torch.empty(*size, layer.outputs, device="cuda", dtype=dtype)
        self._residual = torch.randn_like(self._out) if layer.residual else None
        if layer.role == "filter":
            self._picture = noise(1, 3, height + 4, width + 2 * SIDES)
            self._out = torch.empty(1, 3, height, width, device="cuda")
        if layer.role == "tail":
            self._out = torch.empty(1, layer.outputs, *size[1:], device="cuda")

    def arrange(self, tuning: Tuning) -> Blocked:
        """Arrange the weights."""
        layer = self.layer
        return block(
            self._weight,
            self._bias,
            tuning,
            dtype=self._dtype,
            scale=layer.scale,
            planes=layer.planes,
        )

    def run(self, arranged: Blocked) -> None:
        """Launch the layer once."""
        if self.layer.role == "filter":
            filter_pixels(arranged, self._source[0], self._picture, self._out)
            return
        source = self._source if self.layer.planes > 1 else self._source[0]
        planar = self.layer.role == "tail"
        convolve(arranged, source, self._out, residual=self._residual, relu=True, planar=planar)


def microseconds(case: Case, tuning: Tuning) -> float:
    """Return the time of one launch among many in a graph."""
    arranged = case.arrange(tuning)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        case.run(arranged)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(LAUNCHES):
                case.run(arranged)
        times = []
        for _ in range(5):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end))
    return 1e3 * statistics.median(times) / LAUNCHES


def compile_some(job: tuple[Layer, torch.dtype, list[Tuning]]) -> None:
    """Fill Triton's cache."""
    layer, dtype, tunings = job
    case = Case(layer, dtype)
    for tuning in tunings:
        try:
            case.run(case.arrange(tuning))
        except Exception as error:  # one that does not fit is no candidate
            print(f"{layer.role}: {str(error)[:80]}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--dtype", action="append", default=[])
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    parser.add_argument("--table", type=Path, help="tunings.json to be brought up to date")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=min(14, os.cpu_count() or 1))
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    cases = [
        (model, layer, getattr(torch, dtype))
        for dtype in given.dtype or ["float16"]
        for model in given.model or ["lapar-c"]
        for layer in layers(model)
    ]
    jobs = []
    for _, layer, dtype in cases:
        every = list(candidates(layer, dtype))
        jobs += [(layer, dtype, every[first::4]) for first in range(4)]
    results: dict[str, list[tuple[float, dict[str, int]]]] = {}
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        waiting = pool.map_async(compile_some, jobs, chunksize=1)
        waiting.wait(max(1.0, 0.7 * (end - time.monotonic())))
        print(f"compiled: {waiting.ready()}, {end - time.monotonic():.0f} s left", flush=True)
        pool.terminate()
    for _, layer, dtype in cases:
        if time.monotonic() > end:
            break
        case, found = Case(layer, dtype), []
        for tuning in candidates(layer, dtype):
            if time.monotonic() > end:
                break
            try:
                found.append((microseconds(case, tuning), asdict(tuning)))
            except Exception:  # one that does not fit is no candidate
                continue
        found.sort(key=lambda pair: pair[0])
        results[layer.key(dtype)] = found
        best = [f"{t:.1f} us {tuple(v.values())}" for t, v in found[:3]]
        print(f"{layer.key(dtype)} of {len(found)}:", *best, flush=True)
        write(given, results)


def write(
    given: argparse.Namespace, results: dict[str, list[tuple[float, dict[str, int]]]]
) -> None:
    """Write all figures, and the table of the fastest."""
    if given.out:
        given.out.write_text(json.dumps(results))
    if given.table:
        known = json.loads(given.table.read_text("utf-8")) if given.table.exists() else {}
        known |= {name: found[0][1] for name, found in results.items() if found}
        lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
        given.table.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
