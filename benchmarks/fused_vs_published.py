"""How much faster the fused LAPAR is than the published one, on this machine's CPU.

    python benchmarks/fused_vs_published.py --model lapar-c --scale 4 --size 1280x720

Several ways to compute the same picture are run in turn (A B C A B C ...), because other work may
share the machine: only ratios within a round mean something. `--size` is the output, as in the
papers. Results go to `benchmarks/results/` with hardware and date.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from srcli.backends.base import SessionOptions
from srcli.backends.eager import TorchSession
from srcli.backends.native.session import NativeBackend
from srcli.backends.openvino.session import OpenVinoBackend
from srcli.backends.ort import OnnxRuntimeBackend, OnnxRuntimeSession
from srcli.bench.hardware import hardware
from srcli.bench.published import PublishedForm
from srcli.loading.model import LoadedModel, load

RESULTS = Path(__file__).parent / "results"


def contestants(model: LoadedModel, folder: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    options = SessionOptions()
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "published, PyTorch": TorchSession(model.published_network(), options),
        "published, ONNX Runtime": OnnxRuntimeSession(
            PublishedForm(model, folder).graph(), options
        ),
        "fused, PyTorch": TorchSession(model.network(), options),
        "fused, ONNX Runtime": OnnxRuntimeBackend().open(model, options),
    }
    if OpenVinoBackend().unavailable() is None:
        ways["fused, OpenVINO"] = OpenVinoBackend().open(model, options)
        if model.spec.eight_bits is not None:
            narrow = SessionOptions(precision="int8")
            ways["fused, OpenVINO, int8"] = OpenVinoBackend().open(model, narrow)
    native = NativeBackend()
    if not (native.unavailable() or native.declines(model.spec, "fp32")):
        ways["fused, native"] = native.open(model, options)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lapar-c")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", default="1280x720", help="of the output")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="keep the result")
    arguments = parser.parse_args()
    model = load(arguments.model, arguments.scale, note=print)
    width, height = (int(side) // arguments.scale for side in arguments.size.split("x"))
    batch = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        ways = contestants(model, Path(folder))
        reference = next(iter(ways.values()))(batch)
        errors = {name: float(np.abs(way(batch) - reference).max()) for name, way in ways.items()}
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way(batch)
                samples[name].append(1e3 * (time.perf_counter() - started))
    fastest = samples[next(reversed(ways))]
    rows = []
    for name, times in samples.items():
        ratio = statistics.median(a / b for a, b in zip(times, fastest, strict=True))
        median = statistics.median(times)
        rows.append({"way": name, "median_ms": median, "ratio": ratio, "error": errors[name]})
        print(f"{name:26} {median:8.0f} ms   {ratio:5.2f} x   error {errors[name]:.1e}")
    if arguments.save:
        save(arguments, rows, samples)


def save(arguments: argparse.Namespace, rows: list, samples: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    report = {
        "hardware": hardware(),
        "model": arguments.model,
        "scale": arguments.scale,
        "output_size": arguments.size,
        "rows": rows,
        "samples_ms": samples,
    }
    name = f"fused-vs-published-{arguments.model}-x{arguments.scale}-cpu.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
