"""Every model and scale of the registry as a graph: valid, right, and buildable.

    python benchmarks/every_graph.py --out benchmarks/results/every-graph.csv

For each: the ONNX file passes onnx.checker with full shape inference and holds no Resize; ONNX
Runtime computes what the published network computes at five sizes; TensorRT-RTX, which needs no
GPU for that, parses it and builds an engine of one dynamic profile in fp32 and fp16. Takes about an
hour on two cores; CI does the same at small sizes. The file is written after each model; what it
has of these weights is not measured again.

`differences` are the largest absolute ones, in output ranges of the published network (1 for a
picture); `limit` is what the model allows. A size that costs more multiply-adds than --afford or
more than --memory is left out ("-"), and done later if these are raised.

Weights are those that ship, else random ones, except for what `--checkpoint hpinet-s=FILE` has
under the same name, as far as it goes: a narrower network fills a corner of each tensor, and blocks
that it lacks repeat its last two. HPINet needs that, and is compared with the published network in
double precision: among thousands of patches two may be nearly equally good matches, and with random
weights many are. Even with its authors' weights the published network in float32 strays from itself
in double precision by 0.003. For HPINet-L, whose weights are not here, take those of HPINet-M.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from srcli.backends.base import Images
from srcli.checkpoints.reading import read_tensors
from srcli.checkpoints.shipped import find_weights
from srcli.errors import SrcliError, UsageError
from srcli.export import to_tensorrt
from srcli.export.to_onnx import OnnxOptions, to_onnx
from srcli.export.to_tensorrt import EngineOptions, build_engine, check_largest_tensor
from srcli.export.verify import sample_crops
from srcli.loading.model import LoadedModel, load
from srcli.models.registry import MODELS
from srcli.models.spec import ModelSpec
from srcli.system.files import atomic_path

SIZES = ((24, 24), (25, 31), (37, 24), (61, 47), (360, 640))
IN_DOUBLE = "hpinet"  # begins the names of those whose own digits in float32 are no reference
Row = dict[str, Any]
DIFFERENCES = [f"difference_{width}x{height}" for height, width in SIZES]
FIELDS = [
    *("model", "scale", "weights", "nodes", "valid", "resize", "limit"),
    *DIFFERENCES,
    *("trt_fp32", "trt_fp16"),
]


def variants() -> Iterator[tuple[ModelSpec, int]]:
    for spec in MODELS:
        for scale in spec.scales:
            yield spec, scale


def open_model(
    spec: ModelSpec, scale: int, folder: Path, checkpoint: Path | None
) -> tuple[LoadedModel, str]:
    """With the weights that ship, else with random ones, filled up; and which these are."""
    task = "upscale" if scale > 1 else "denoise"
    if find_weights(spec, scale, task):
        return load(spec.name, scale, task=task), "shipped"
    torch.manual_seed(7)
    weights, origin = spec.build(scale).state_dict(), "random"
    if checkpoint is not None:
        filled = fill(weights, read_tensors(checkpoint))
        origin = f"{filled} of {len(weights)} tensors of {checkpoint.stem}"
    file = folder / f"{spec.name}-x{scale}.pth"
    torch.save(weights, file)
    return load(spec.name, scale, task=task, weights=file), origin


def fill(weights: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> int:
    """Put a network's tensors into those of a larger one; how many of these there are some in."""
    theirs = {name.removeprefix("module."): tensor for name, tensor in theirs.items()}
    filled = 0
    for name, tensor in weights.items():
        two_blocks_before = re.sub(r"\d+", lambda block: f"{int(block[0]) - 2}", name, count=1)
        source = theirs.get(name, theirs.get(two_blocks_before))
        if source is not None:
            corner = tuple(
                slice(min(sides)) for sides in zip(tensor.shape, source.shape, strict=True)
            )
            tensor[corner] = source[corner]
            filled += 1
    return filled


def complete(row: Row, model: LoadedModel, folder: Path, limits: argparse.Namespace) -> None:
    """Fill what is empty."""
    file = folder / "graph.onnx"
    graph = to_onnx(model)
    file.write_bytes(graph.SerializeToString())
    onnx.checker.check_model(graph, full_check=True)
    row |= {
        "nodes": len(graph.graph.node),
        "valid": True,
        "resize": sum(node.op_type == "Resize" for node in graph.graph.node),
        "limit": model.spec.tolerance,
    }
    missing = {
        field: crop
        for field, crop in zip(DIFFERENCES, sample_crops(SIZES), strict=True)
        if row[field] == "-" and can_afford(model, *crop.shape[2:], limits)
    }
    if missing:
        row |= dict(zip(missing, differences(model, file, missing.values()), strict=True))
    for precision in ("fp32", "fp16"):
        found = row.get(f"trt_{precision}", "FAILED")
        row[f"trt_{precision}"] = built(model, precision) if "FAILED" in found else found


def can_afford(model: LoadedModel, height: int, width: int, limits: argparse.Namespace) -> bool:
    if min(height, width) < model.geometry.minimum:
        return False
    pixels = int(height * width * model.scale**2)
    cost = model.spec.multiply_adds(int(model.scale)).published_form * pixels
    memory = 4 * model.geometry.floats_per_pixel * pixels
    return cost <= limits.afford and memory <= limits.memory * 2**30


def differences(model: LoadedModel, graph: Path, crops: Iterable[Images]) -> Iterator[str]:
    exact = torch.float64 if model.spec.name.startswith(IN_DOUBLE) else torch.float32
    published, session = model.published_network().to(exact), _frugal_session(graph)
    for crop in crops:
        with torch.inference_mode():
            expected = published(torch.from_numpy(crop).to(exact)).numpy()
        extent = max(1.0, float(np.abs(expected).max()))
        (found,) = session.run(None, {session.get_inputs()[0].name: crop})
        yield f"{np.abs(found - expected).max() / extent:.1e}"


def _frugal_session(graph: Path) -> onnxruntime.InferenceSession:
    """Without ONNX Runtime's arena, which takes up to twice of what a graph needs at a time."""
    settings = onnxruntime.SessionOptions()
    settings.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(
        graph.read_bytes(), settings, providers=["CPUExecutionProvider"]
    )


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
    minimum = max(24, model.geometry.minimum)
    for divisor in (1, 2, 4):
        largest = (1, 3, 360 // divisor, 640 // divisor)
        with suppress(UsageError):
            check_largest_tensor(graph, largest)
            break
    return EngineOptions(
        precision="fp16" if half else "fp32",
        min_shape=(1, 3, minimum, minimum),
        opt_shape=(1, 3, largest[2] // 2, largest[3] // 2),
        max_shape=largest,
    )


def no_gpu() -> None:
    """TensorRT-RTX, whatever else is installed, as on a machine without a GPU."""
    sys.modules["tensorrt"] = None  # type: ignore[assignment]
    module: ModuleType = to_tensorrt
    module.current_gpu = lambda: None  # type: ignore[attr-defined]


def read_rows(file: Path, *keys: str) -> dict[tuple[str, ...], Row]:
    """Rows of a table by their values in some columns; none where there is no file yet."""
    if not file.exists():
        return {}
    with file.open(newline="") as stream:
        return {tuple(row[key] for key in keys): dict(row) for row in csv.DictReader(stream)}


def write_rows(file: Path, fields: Sequence[str], rows: Mapping[tuple[str, ...], Row]) -> None:
    with atomic_path(file) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="names that begin so")
    parser.add_argument("--afford", type=float, default=4e11, help="multiply-adds of one run")
    parser.add_argument("--memory", type=float, default=8, help="GiB of one run")
    parser.add_argument("--checkpoint", action="append", default=[], help="MODEL=FILE")
    arguments = parser.parse_args()
    checkpoints = dict(pair.split("=", 1) for pair in arguments.checkpoint)
    no_gpu()
    rows = read_rows(arguments.out, "model", "scale")
    for spec, scale in variants():
        if not spec.name.startswith(arguments.only):
            continue
        row = rows.setdefault((spec.name, str(scale)), {"model": spec.name, "scale": scale})
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(checkpoints[spec.name]) if spec.name in checkpoints else None
            model, origin = open_model(spec, scale, Path(folder), checkpoint)
            if row.get("weights") != origin:
                row |= {"weights": origin} | dict.fromkeys(DIFFERENCES, "-")
            complete(row, model, Path(folder), arguments)
        write_rows(arguments.out, FIELDS, rows)
        print(f"{spec.name} x{scale}: {time.perf_counter() - started:.0f} s  {row}", flush=True)


if __name__ == "__main__":
    main()
