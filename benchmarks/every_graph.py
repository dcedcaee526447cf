"""Every model and scale of the registry as a graph: valid, right, and buildable.

    python benchmarks/every_graph.py --out benchmarks/results/every-graph.csv

For each: the ONNX file passes onnx.checker with full shape inference and holds no Resize; ONNX
Runtime computes what the published network computes at five sizes; TensorRT-RTX, which needs no
GPU for that, parses it and builds an engine of one dynamic profile in fp32 and fp16. Weights are
drawn at random but for those that ship. Takes about an hour on two cores: the test suite does the
same at small sizes for what is small. Rows are written as they come; those that are there already
are not done again.

`differences` are the largest absolute ones, in output ranges of the published network (1 for a
picture); `limit` is what the model allows. Where a size costs more multiply-adds than --afford,
it is left out ("-"). HPINet with random weights differs at 640 x 360: among thousands of patches
some have two matches that are equally good to the last digit, and each form takes one of them.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch

from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import SrcliError, UsageError
from srcli.export import to_tensorrt
from srcli.export.to_onnx import OnnxOptions, to_onnx
from srcli.export.to_tensorrt import EngineOptions, build_engine, check_largest_tensor
from srcli.export.verify import sample_crops
from srcli.loading import LoadedModel, load
from srcli.registry import MODELS
from srcli.spec import ModelSpec
from srcli.store import find_weights

SIZES = ((24, 24), (25, 31), (37, 24), (61, 47), (360, 640))
FIELDS = [
    *("model", "scale", "weights", "nodes", "valid", "resize", "limit"),
    *(f"difference_{width}x{height}" for height, width in SIZES),
    *("trt_fp32", "trt_fp16"),
]


def variants() -> Iterator[tuple[ModelSpec, int]]:
    for spec in MODELS:
        for scale in spec.scales:
            yield spec, scale


def open_model(spec: ModelSpec, scale: int, folder: Path) -> LoadedModel:
    """With the weights that ship, else with random ones."""
    task = "upscale" if scale > 1 else "denoise"
    if find_weights(spec, scale, task):
        return load(spec.name, scale, task=task)
    torch.manual_seed(7)
    file = folder / f"{spec.name}-x{scale}.pth"
    torch.save(spec.build(scale).state_dict(), file)
    return load(spec.name, scale, task=task, weights=file)


def row_of(spec: ModelSpec, scale: int, folder: Path, afford: float) -> dict[str, Any]:
    model = open_model(spec, scale, folder)
    graph = to_onnx(model)
    onnx.checker.check_model(graph, full_check=True)
    row: dict[str, Any] = {
        "model": spec.name,
        "scale": scale,
        "weights": "random" if model.weights.path.suffix == ".pth" else "shipped",
        "nodes": len(graph.graph.node),
        "valid": True,
        "resize": sum(node.op_type == "Resize" for node in graph.graph.node),
        "limit": spec.tolerance,
    }
    file = folder / "graph.onnx"
    file.write_bytes(graph.SerializeToString())
    session = OnnxRuntimeSession(file, SessionOptions())
    published = model.published()
    for crop in sample_crops(SIZES):
        height, width = crop.shape[2:]
        cost = spec.multiply_adds(scale).published * height * width * scale**2
        value = "-"
        if min(height, width) >= model.geometry.minimum and cost <= afford:
            with torch.inference_mode():
                expected = published(torch.from_numpy(crop)).numpy()
            extent = max(1.0, float(np.abs(expected).max()))
            value = f"{np.abs(session(crop) - expected).max() / extent:.1e}"
        row[f"difference_{width}x{height}"] = value
    for precision in ("fp32", "fp16"):
        row[f"trt_{precision}"] = built(model, precision)
    return row


def built(model: LoadedModel, precision: str) -> str:
    """How long the engine took to build and how large it is, or why there is none."""
    half = precision == "fp16"
    if half and model.spec.half_tolerance is None:
        return "not offered: float16 ruins the result"
    started = time.perf_counter()
    try:
        content = to_onnx(
            model, OnnxOptions(precision="fp16" if half else "fp32")
        ).SerializeToString()
        options = options_for(model, content, half=half)
        plan, _ = build_engine(content, options, {"model": model.spec.name})
    except SrcliError as error:
        return f"FAILED: {error}"
    _, _, height, width = options.max_shape
    seconds = time.perf_counter() - started
    return f"built up to {width}x{height} in {seconds:.1f} s, {len(plan) / 1e6:.1f} MB"


def options_for(model: LoadedModel, graph: bytes, *, half: bool) -> EngineOptions:
    """A profile up to 640 x 360, or the half or fourth of that where a tensor became too large."""
    least = max(24, model.geometry.minimum)
    for divisor in (1, 2, 4):
        largest = (1, 3, 360 // divisor, 640 // divisor)
        with suppress(UsageError):
            check_largest_tensor(graph, largest)
            break
    return EngineOptions(
        precision="fp16" if half else "fp32",
        min_shape=(1, 3, least, least),
        opt_shape=(1, 3, largest[2] // 2, largest[3] // 2),
        max_shape=largest,
    )


def no_gpu() -> None:
    """TensorRT-RTX, whatever else is installed, as on a machine without a GPU."""
    sys.modules["tensorrt"] = None  # type: ignore[assignment]
    module: ModuleType = to_tensorrt
    module.current_gpu = lambda: None  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="names that begin so")
    parser.add_argument("--afford", type=float, default=4e11, help="multiply-adds of one run")
    arguments = parser.parse_args()
    no_gpu()
    done = set()
    if arguments.out.exists():
        with arguments.out.open(newline="") as stream:
            done = {(row["model"], int(row["scale"])) for row in csv.DictReader(stream)}
    else:
        with arguments.out.open("w", newline="") as stream:
            csv.DictWriter(stream, FIELDS).writeheader()
    for spec, scale in variants():
        if (spec.name, scale) in done or not spec.name.startswith(arguments.only):
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            row = row_of(spec, scale, Path(folder), arguments.afford)
        with arguments.out.open("a", newline="") as stream:
            csv.DictWriter(stream, FIELDS).writerow(row)
        print(f"{spec.name} x{scale}: {time.perf_counter() - started:.0f} s  {row}", flush=True)


if __name__ == "__main__":
    main()
