"""The Python API: open a model, and restore arrays, pictures and files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from srcli.api.opened import OpenModel
from srcli.errors import UsageError
from srcli.jobs.sizes import parse_factor
from srcli.loading.options import FileOptions, LoadOptions, PathName, Precision, SaveFileOptions
from srcli.models.registry import DEFAULT_MODEL, DEFAULT_SCALE, MODELS, get_model
from srcli.models.spec import InputChoice, ModelSpec, Task

if TYPE_CHECKING:
    from srcli.api.opened import Pixels
    from srcli.jobs.steps import Step
    from srcli.loading.foreign import ForeignModel
    from srcli.loading.model import LoadedModel
    from srcli.loading.restorer import RunOptions

__all__ = [
    "Factor",
    "OpenModel",
    "Precision",
    "deblock_file",
    "denoise_file",
    "list_models",
    "load",
    "restore",
    "upscale",
    "upscale_file",
]

Factor = int | float | str | Fraction


def list_models() -> tuple[ModelSpec, ...]:
    """Return all models that srcli knows, with their facts."""
    return MODELS


def load(
    model: str = DEFAULT_MODEL,
    scale: Factor | None = None,
    *,
    task: Task = "upscale",
    input: InputChoice = "auto",
    denoise: bool = False,
    deblock: bool = False,
    kernel: PathName | None = None,
    weights: PathName | None = None,
    model_file: PathName | None = None,
    backend: str = "auto",
    precision: Precision = "fp32",
    tta: bool = False,
    threads: int | None = None,
    tile: int | None = None,
    memory: int | None = None,
) -> OpenModel:
    """Open a model for use on many pictures.

    Args:
        model: Its name; see `list_models`.
        scale: Factor of enlargement, any number: passes of the network, then one resampling. None
            is 4 (of `model_file`, its own), and 1 to denoise and deblock.
        task: Which of the model's weights.
        input: Which weights for upscaling: `clean`, `photo` for JPEG compression and noise, or
            `auto` for those that measured better on files of this format and quality, and on
            pixels with traces of JPEG. An array is taken to be clean.
        denoise: Remove noise before enlarging.
        deblock: Remove JPEG's blocks before enlarging.
        kernel: File of the blur of the pictures where it is known, for DCLS: `.png` or `.npy`, in
            pixels of the large picture.
        weights: Your own checkpoint instead of what srcli ships.
        model_file: Another network instead: an ONNX file, or with spandrel a checkpoint.
        backend: `native`, `openvino`, `ort`, `torch`, `trt`, or `auto` for the fastest that works.
        precision: Number type that the network computes in.
        tta: Average over the eight flips and turns of a picture.
        threads: CPU threads; None for one on each core.
        tile: Side of a tile of the input; None chooses by `memory`.
        memory: Bytes that a run may take; None for a quarter of what is free.

    Raises:
        SrcliError: Any of these does not exist or does not work; the message says what to do.
    """
    from srcli.jobs.steps import rules_for, wanted_before
    from srcli.loading import model as loading
    from srcli.loading.restorer import RunOptions

    blur = None
    if kernel is not None:
        from srcli.pipeline.kernels import read_kernel

        blur = read_kernel(Path(kernel))
        backend = "torch" if backend == "auto" else backend  # where the network can be told
    options = RunOptions(
        backend=backend, precision=precision, tta=tta, threads=threads, tile=tile, memory=memory
    )
    before = wanted_before(deblock=deblock, denoise=denoise)
    if model_file is not None:
        if blur is not None:
            raise UsageError("another network takes no blur kernel", "Leave out kernel=.")
        return _load_foreign(Path(model_file), scale, options, before)
    spec = get_model(model)
    factor = _factor(scale, DEFAULT_SCALE if task == "upscale" else 1)
    if task != "upscale" and factor != 1:
        from srcli.models.registry import check_scale

        check_scale(spec, int(factor), task)

    rules = rules_for(spec, task, input, own_weights=weights is not None, before=before)
    if rules.input == "photo" and not rules.photo:
        raise loading.no_photo_weights(spec)

    def find(step: Step) -> LoadedModel:
        own = None if weights is None or step.model is not None else Path(weights)
        name = step.model or model
        return loading.load(name, step.scale, task=step.task, kind=step.kind, weights=own)

    return OpenModel(factor, spec, rules, find, options, blur)


def _load_foreign(
    file: Path, scale: Factor | None, options: RunOptions, before: Sequence[Task]
) -> OpenModel:
    from srcli.jobs.steps import Rules, steps_before
    from srcli.loading.foreign import load_foreign
    from srcli.loading.model import load as load_own

    network = load_foreign(file)
    task: Task = "upscale" if max(network.spec.scales) > 1 else "denoise"
    rules = Rules(task=task, before=steps_before(network.spec.name, before))

    def find(step: Step) -> LoadedModel | ForeignModel:
        return network if step.model is None else load_own(step.model, 1, task=step.task)

    factor = _factor(scale, max(network.spec.scales))
    return OpenModel(factor, network.spec, rules, find, options)


def upscale(
    pixels: Pixels,
    model: str = DEFAULT_MODEL,
    scale: Factor = DEFAULT_SCALE,
    **options: Unpack[LoadOptions],
) -> Pixels:
    """Enlarge one array; see `OpenModel.__call__`, and `load` for options.

    For many arrays, `load` the model once.
    """
    with load(model, scale, **options) as network:
        return network(pixels)


def restore(
    pixels: Pixels, task: Task, model: str = DEFAULT_MODEL, **options: Unpack[LoadOptions]
) -> Pixels:
    """Denoise or deblock one array; see `OpenModel.__call__`, and `load` for options."""
    with load(model, 1, task=task, **options) as network:
        return network(pixels)


def upscale_file(
    source: PathName,
    target: PathName | None = None,
    model: str = DEFAULT_MODEL,
    scale: Factor = DEFAULT_SCALE,
    **options: Unpack[FileOptions],
) -> Path:
    """Enlarge a file; returns where the output is. For many files, `load` the model once.

    Args:
        source: A picture.
        target: The output, or the folder for it; None for beside the input.
        model: Its name.
        scale: Factor of enlargement.
        **options: Of `load`, and of `OpenModel.file`.

    Raises:
        SrcliError: Something does not exist, does not work, or is there already.
    """
    return _one_file(source, target, options, model=model, scale=scale)


def denoise_file(
    source: PathName,
    target: PathName | None = None,
    model: str = DEFAULT_MODEL,
    **options: Unpack[FileOptions],
) -> Path:
    """Remove noise from a file; see `upscale_file`."""
    return _one_file(source, target, options, model=model, scale=1, task="denoise")


def deblock_file(
    source: PathName,
    target: PathName | None = None,
    model: str = DEFAULT_MODEL,
    **options: Unpack[FileOptions],
) -> Path:
    """Remove JPEG's blocks from a file; see `upscale_file`."""
    return _one_file(source, target, options, model=model, scale=1, task="deblock")


def _one_file(
    source: PathName,
    target: PathName | None,
    options: FileOptions,
    *,
    model: str,
    scale: Factor,
    task: Task = "upscale",
) -> Path:
    own = SaveFileOptions.__annotations__
    # Each option goes where it belongs; `load` refuses one that does not exist.
    of_file = cast("SaveFileOptions", {k: v for k, v in options.items() if k in own})
    of_model = cast("LoadOptions", {k: v for k, v in options.items() if k not in own})
    with load(model, scale, task=task, **of_model) as network:
        return network.file(source, target, **of_file)


def _factor(scale: Factor | None, default: int) -> Fraction:
    factor = parse_factor(str(default if scale is None else scale))
    if factor <= 0:
        raise UsageError(f"a scale of {float(factor):g} is not possible", "Give a number above 0.")
    return factor
