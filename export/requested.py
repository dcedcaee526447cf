"""What `srcli export` is asked for, and the options that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.models.spec import GraphPrecision, InputKind, Scale, Task, number

if TYPE_CHECKING:
    from srcli.loading.model import LoadedModel

    from .engines import EngineOptions
    from .to_onnx import OnnxOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """The options of the command, as parsed."""

    model: str
    scale: Scale
    task: Task
    kind: InputKind
    weights: Path | None
    prune_below: float | None
    onnx: bool
    trt: bool
    triton: Path | None
    max_batch: int | None
    output: Path | None
    overwrite: bool
    opset: int
    size: tuple[int, int] | None
    fp16: bool
    int8: bool
    min_shape: tuple[int, int] | None
    opt_shape: tuple[int, int] | None
    max_shape: tuple[int, int] | None
    timing_cache: Path | None
    builder_optimization_level: int | None
    hardware_compatible: bool
    version_compatible: bool
    workspace: int | None
    report: Path | None
    as_json: bool


def named(model: LoadedModel, request: ExportRequest, suffix: str) -> Path:
    """Return the usual name of a file for the model."""
    task = f"-{request.task}" if model.scale == 1 else ""
    task += "" if request.kind == "clean" else f"-{request.kind}"
    chosen = precision_of(request)
    precision = "" if chosen == "fp32" else f"-{chosen}"
    return Path(f"{model.spec.name}-x{float(model.scale):g}{task}{precision}{suffix}")


def onnx_options(request: ExportRequest) -> OnnxOptions:
    """Return the options for the ONNX file."""
    from .to_onnx import OnnxOptions

    return OnnxOptions(opset=request.opset, precision=precision_of(request), size=request.size)


def precision_of(request: ExportRequest) -> GraphPrecision:
    """Return the number type that the graph computes in."""
    return "int8" if request.int8 else "fp16" if request.fp16 else "fp32"


def engine_options(request: ExportRequest, model: LoadedModel) -> EngineOptions:
    """Return the options for the engine, within what the model takes."""
    from .engines import EngineOptions

    shapes = EngineOptions()
    minimum = max(8, model.geometry.minimum)
    smallest = request.size or request.min_shape or (minimum, minimum)
    best = request.size or request.opt_shape or shapes.opt_shape[2:]
    largest = request.size or request.max_shape or shapes.max_shape[2:]
    return EngineOptions(
        min_shape=(1, 3, *smallest),
        opt_shape=(1, 3, *(min(a, b) for a, b in zip(best, largest, strict=True))),
        max_shape=(1, 3, *largest),
        precision="fp16" if request.fp16 else "fp32",
        timing_cache=request.timing_cache,
        optimization_level=request.builder_optimization_level,
        hardware_compatible=request.hardware_compatible,
        version_compatible=request.version_compatible,
        workspace_bytes=request.workspace,
    )


def tags(model: LoadedModel) -> Mapping[str, str | int | float]:
    """Return the facts that an engine carries about its model."""
    return {
        "model": model.spec.name,
        "scale": number(model.scale),
        "weights_sha256": model.weights.sha256,
        "licence": model.weights.licence,
        "margin": model.geometry.margin,
        "minimum": model.geometry.minimum,
    }
