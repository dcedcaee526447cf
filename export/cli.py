"""`srcli export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from srcli import console
from srcli.commands import options
from srcli.commands.sections import SectionedCommand, section
from srcli.models.registry import DEFAULT_SCALE
from srcli.models.spec import Scale, Task, number, whole

from .requested import (
    ExportRequest,
    engine_options,
    named,
    onnx_options,
    tags,
)

if TYPE_CHECKING:
    from srcli.backends.trt.engine import EngineInfo
    from srcli.loading.model import LoadedModel

    from .verify import Comparison


def _size(text: str) -> tuple[int, int]:
    """Read `1280x720` as height and width, the order of a graph's axes."""
    width, height = options.size(text)
    return height, width


def _scale(text: str) -> Scale:
    return whole(options.factor(text))


@click.command(cls=SectionedCommand)
@section(
    "Model",
    options.model,
    click.option(
        "-s",
        "--scale",
        type=_scale,
        metavar="FACTOR",
        default=str(DEFAULT_SCALE),
        show_default=True,
        help="Scale of the model.",
    ),
    click.option(
        "--task",
        type=click.Choice(("denoise", "deblock")),
        default=None,
        help="Task of the weights, at scale 1.",
    ),
    options.input_kind,
    options.weights,
    options.prune_branches,
)
@section(
    "Output",
    click.option("--onnx", is_flag=True, help="Write an ONNX file.  [default]"),
    click.option("--trt", is_flag=True, help="Build a TensorRT engine for this machine's GPU."),
    click.option(
        "-o",
        "--output",
        type=options.FILE,
        metavar="FILE",
        help="The ONNX file, or with --trt the engine.  [default: named after the model, here]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace files that exist."),
    click.option(
        "--triton",
        type=options.PLACE,
        metavar="REPO",
        help="Write into a model repository of Triton Inference Server; a model that is there gets "
        "a new version.",
    ),
    click.option(
        "--max-batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --triton: most pictures of one size to run together.  [default: 8]",
    ),
    click.option("--fp16", is_flag=True, help="Compute in float16; input and output stay float32."),
    click.option(
        "--int8", is_flag=True, help="Compute in 8 bits where results allow it: LAPAR, for CPUs."
    ),
    click.option(
        "--opset", type=int, default=20, show_default=True, help="Opset of the ONNX file."
    ),
    click.option(
        "--size",
        type=_size,
        metavar="WxH",
        help="Size of the input, if the file is to take only this one.",
    ),
)
@section(
    "TensorRT engine",
    click.option("--min-shape", type=_size, metavar="WxH", help="Smallest input of the engine."),
    click.option("--opt-shape", type=_size, metavar="WxH", help="Input that it is tuned for."),
    click.option("--max-shape", type=_size, metavar="WxH", help="Largest input of the engine."),
    click.option(
        "--timing-cache",
        type=options.FILE,
        metavar="FILE",
        help="Timing cache to read and update; it makes the next build faster.",
    ),
    click.option(
        "--builder-optimization-level", type=click.IntRange(0, 5), help="More takes longer to tune."
    ),
    click.option("--hardware-compatible", is_flag=True, help="Run on other GPUs too, slower."),
    click.option("--version-compatible", is_flag=True, help="Run in newer TensorRT too, slower."),
    click.option(
        "--workspace", type=options.memory_size, metavar="SIZE", help="GPU memory for tuning."
    ),
)
@section(
    "Results",
    click.option(
        "--report",
        type=options.FILE,
        metavar="FILE",
        help="Write the figures of the verification as JSON.",
    ),
    options.as_json,
)
def export(task: Task | None, **given: Any) -> None:
    """Write a model as a verified ONNX file or TensorRT engine.

    The file computes the fused network: the same function as the published one, several times
    cheaper. It is compared with the published network on a photograph before it gets its name.

    \b
    Examples:
        srcli export -m lapar-c -s 4
        srcli export --trt --fp16 --max-shape 1920x1080
        srcli export --triton models/ -m lapar-c -s 4
    """
    from srcli.loading.model import load
    from srcli.models.registry import check_scale, get_model

    request = ExportRequest(task=task or ("upscale" if given["scale"] > 1 else "denoise"), **given)
    check_scale(get_model(request.model), request.scale, request.task)
    model = load(
        request.model,
        request.scale,
        task=request.task,
        kind=request.kind,
        weights=request.weights,
        note=console.note,
        prune_below=request.prune_below,
    )
    for line in model.removed() if request.prune_below is not None else ():
        console.note(line)
    _check_targets(request, model)
    report: dict[str, object] = {"model": model.spec.name, "scale": number(model.scale)}
    if request.triton is not None:
        report |= _export_for_triton(request, model, request.triton)
    elif request.trt:
        report |= _export_engine(request, model)
    else:
        report |= _export_onnx(request, model, request.output or named(model, request, ".onnx"))
    if request.report is not None:
        _write_report(request.report, report, replace=request.overwrite)
    if request.as_json:
        console.print_json(report)


def _check_targets(request: ExportRequest, model: LoadedModel) -> None:
    from srcli.errors import UsageError

    if request.onnx and request.trt and request.output is not None:
        raise UsageError("-o names one file", "Leave it out, or choose --onnx or --trt.")
    if request.triton is None and request.max_batch is not None:
        raise UsageError("--max-batch is for --triton", "Leave it out.")
    if request.triton is not None and (request.onnx or request.output is not None):
        raise UsageError("--triton names the files itself", "Leave out -o and --onnx.")
    if request.int8 and (request.trt or request.fp16):
        raise UsageError("--int8 makes ONNX files for CPUs", "For a GPU choose --trt --fp16.")
    targets = _targets(request, model)
    if request.report is not None:
        if request.report.resolve() in [target.resolve() for target in targets]:
            raise UsageError(
                f"{request.report}: would be replaced by its own report", "Give another --report."
            )
        options.check_free(request.report, request.overwrite, "another --report")
    for target in targets:
        options.check_free(target, request.overwrite, "another -o")


def _targets(request: ExportRequest, model: LoadedModel) -> list[Path]:
    if request.triton is not None:
        return []  # a new version
    if not request.trt:
        return [request.output or named(model, request, ".onnx")]
    engine = request.output or named(model, request, ".engine")
    return [engine, *([named(model, request, ".onnx")] if request.onnx else [])]


def _export_onnx(request: ExportRequest, model: LoadedModel, target: Path) -> dict[str, object]:
    from .to_onnx import export_verified

    comparisons = export_verified(model, target, onnx_options(request), replace=request.overwrite)
    if not request.as_json:
        _show(comparisons)
        console.result(f"{target}  {target.stat().st_size:,} bytes")
    return {"onnx": str(target), "comparisons": [asdict(c) for c in comparisons]}


def _export_engine(request: ExportRequest, model: LoadedModel) -> dict[str, object]:
    """Build from a verified graph; the graph is kept only if it was asked for."""
    import tempfile

    from srcli.backends.trt.engine import flavour_of

    from .engines import trtexec_line, write_engine
    from .to_tensorrt import build_engine, load_tensorrt

    load_tensorrt()  # before any work: is there one?
    engine = request.output or named(model, request, ".engine")
    settings = engine_options(request, model)
    with tempfile.TemporaryDirectory() as folder:
        onnx = named(model, request, ".onnx") if request.onnx else Path(folder, "graph.onnx")
        report = (
            _export_onnx(request, model, onnx) if request.onnx else _silent(request, model, onnx)
        )
        with console.progress() as bar:
            advance = bar.start("building the engine")
            plan, info = build_engine(
                onnx.read_bytes(),
                settings,
                tags(model),
                lambda phase, share: advance(round(100 * share), 100),
            )
    write_engine(engine, plan, info, replace=request.overwrite)
    line = trtexec_line(
        named(model, request, ".onnx"),
        engine,
        settings,
        flavour=flavour_of(load_tensorrt()),
        version=info.version,
        dynamic=request.size is None,
    )
    if not request.as_json:
        _show_engine(engine, info)
        console.note(f"the same with NVIDIA's own tool: {line}")
    return {**report, "engine": str(engine), "info": asdict(info), "trtexec": line}


def _export_for_triton(
    request: ExportRequest, model: LoadedModel, repository: Path
) -> dict[str, object]:
    """Make the file in a temporary folder, then put it into the repository."""
    import tempfile
    from dataclasses import replace

    from .to_triton import ServingOptions, write_repository

    serving = ServingOptions()
    if request.max_batch is not None:
        serving = replace(serving, max_batch=request.max_batch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model")
        if request.trt:
            _check_for_triton(request)
            serving = replace(serving, max_batch=1)  # that of the engine's shapes
            report = _export_engine(replace(request, output=file), model)
        else:
            report = _silent(request, model, file)
        place = write_repository(
            repository,
            named(model, request, "").name.replace(".", "_"),
            file.read_bytes(),
            serving,
            scale=float(model.grid),
            is_plan=request.trt,
            size=request.size,
        )
    if not request.as_json:
        console.result(f"{place}")
        console.note(f"To serve it, run: tritonserver --model-repository {repository.absolute()}")
    return {**report, "repository": str(repository), "version": str(place)}


def _check_for_triton(request: ExportRequest) -> None:
    """Raise unless this machine builds engines that Triton loads, with the batch that is wanted."""
    from srcli.backends.trt.engine import flavour_of
    from srcli.errors import BackendError, UsageError

    from .to_tensorrt import load_tensorrt

    if request.max_batch not in (None, 1):
        raise UsageError("engines are built for one picture at a time", "Leave out --max-batch.")
    if flavour_of(load_tensorrt()) != "tensorrt":
        raise BackendError(
            "Triton loads engines of TensorRT, not of TensorRT for RTX, which is installed here",
            "Leave out --trt: Triton runs the ONNX file too.",
        )


def _silent(request: ExportRequest, model: LoadedModel, onnx: Path) -> dict[str, object]:
    from .to_onnx import export_verified

    comparisons = export_verified(model, onnx, onnx_options(request))
    return {"comparisons": [asdict(c) for c in comparisons]}


def _show(comparisons: list[Comparison]) -> None:
    console.table(
        ("form", "input", "largest difference from the published network (of 1)"),
        [(c.form, f"{c.width}x{c.height}", f"{c.difference:.1e}") for c in comparisons],
    )


def _show_engine(engine: Path, info: EngineInfo) -> None:
    console.result(f"{engine}  {engine.stat().st_size:,} bytes  {info.flavour} {info.version}")
    console.result(f"layers as parsed: {info.network_types}; as built: {info.engine_types}")


def _write_report(file: Path, report: dict[str, object], *, replace: bool) -> None:
    import json

    from srcli.system.files import atomic_path

    with atomic_path(file, replace=replace) as partial:
        partial.write_text(json.dumps(report, indent=2, default=str) + "\n", "utf-8")
