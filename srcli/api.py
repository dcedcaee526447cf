"""The Python API: open a model, and restore arrays, pictures and files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast, overload

from srcli.errors import UsageError
from srcli.images.arrays import as_array, as_picture, is_array
from srcli.jobs.sizes import parse_factor
from srcli.loading.options import FileOptions, LoadOptions, PathName, Precision, SaveFileOptions
from srcli.models.registry import DEFAULT_MODEL, DEFAULT_SCALE, MODELS, get_model
from srcli.models.spec import InputChoice, ModelSpec, Scale, Task
from srcli.system.closing import Closing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.images import Picture, SaveOptions, Subsampling
    from srcli.jobs.sizes import Size
    from srcli.jobs.steps import Rules, Step
    from srcli.loading.foreign import ForeignModel
    from srcli.loading.model import LoadedModel
    from srcli.loading.restorer import RunOptions
    from srcli.pipeline.restorer import Restorer

    Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

Factor = int | float | str | Fraction


def list_models() -> tuple[ModelSpec, ...]:
    """Return all models that srcli knows, with their facts."""
    return MODELS


class OpenModel(Closing):
    """A model that is ready to restore pictures. Use it as a context manager, or close it."""

    def __init__(
        self,
        factor: Fraction,
        spec: ModelSpec,
        rules: Rules,
        find: Callable[[Step], LoadedModel | ForeignModel],
        options: RunOptions,
    ) -> None:
        from srcli.images.picture import Metadata

        self._factor, self._spec, self._rules = factor, spec, rules
        self._find, self._options = find, options
        self._open: dict[Step, Restorer] = {}
        self._weights: dict[str, str] = {}
        self._closed = False
        for step in rules.steps(self._size(1, 1).passes, Metadata()):
            self._restorer(step)

    @property
    def scale(self) -> Scale:
        """Factor of enlargement."""
        whole = self._factor.denominator == 1
        return int(self._factor) if whole else self._factor

    @overload
    def __call__(self, pixels: Pixels) -> Pixels: ...

    @overload
    def __call__(self, pixels: Sequence[Pixels]) -> list[Pixels]: ...

    def __call__(self, pixels: Pixels | Sequence[Pixels]) -> Pixels | list[Pixels]:
        """Restore one array, or several.

        Args:
            pixels: H x W, or H x W x C with C = 1 (grey), 2, 3 (RGB) or 4: with 2 or 4 channels
                the last is alpha, not premultiplied. uint8 and uint16 use their full range,
                float32 is in [0, 1]. N x H x W x C and a list of arrays are several pictures.

        Returns:
            An array of the same type and number of axes; a list for a list. Floats are clipped to
            [0, 1].

        Raises:
            UsageError: An array is of another shape or type, or the model was closed.
        """
        import numpy as np

        if isinstance(pixels, str | os.PathLike):
            raise UsageError(
                f"{os.fspath(pixels)!r} is no picture but the name of one",
                "Give an array, or call srcli.upscale_file.",
            )
        if isinstance(pixels, list | tuple) and pixels and all(is_array(p) for p in pixels):
            return [self(picture) for picture in pixels]
        plain = np.asarray(pixels)  # matrices and masked arrays compute in their own ways
        if plain.ndim == 4 and len(plain):
            return cast("Pixels", np.stack([self(picture) for picture in plain]))
        return cast("Pixels", as_array(self.picture(as_picture(plain)), plain))

    def picture(self, picture: Picture) -> Picture:
        """Restore what `srcli.images.read` gives, with the weights that suit its file.

        Raises:
            UsageError: The model was closed.
        """
        from srcli.jobs.looking import steps_of
        from srcli.pipeline.passes import Passes

        self._check_open()

        size = self._size(picture.width, picture.height)
        steps = steps_of(self._rules, size.passes, picture)
        passes = Passes([self._restorer(step) for step in steps])
        return passes.restore_all([picture], size=(size.height, size.width))[0]

    def file(
        self,
        source: PathName,
        target: PathName | None = None,
        *,
        overwrite: bool = False,
        format: str | None = None,
        quality: int | None = None,
        lossless: bool = False,
        subsampling: Subsampling = "keep",
        background: tuple[int, int, int] | None = None,
        strip: bool = False,
        preserve: bool = False,
        page: int | None = None,
    ) -> Path:
        """Restore a file, and keep with it what the command keeps: profiles, EXIF, XMP.

        Args:
            source: A picture.
            target: The output, or the folder for it; None for beside the input (`photo_x4.png`).
            overwrite: Replace a file that exists.
            format: Of the output: `png`, `jpeg`, `webp`, `tiff`, `avif`, `bmp`; None takes it from
                the target's name.
            quality: 1 to 100, of JPEG, WebP and AVIF.
            lossless: For WebP and AVIF.
            subsampling: Of JPEG's colour: `keep`, `444` or `420`.
            background: RGB in 8 bits, for transparent pictures in formats without transparency.
            strip: Leave out all metadata.
            preserve: Give the output the input's time and permissions.
            page: The frame or page of a file that has several, counted from 1.

        Returns:
            Where the output is. It appears whole or not at all.

        Raises:
            SrcliError: The file cannot be read or written, or exists already.
        """
        from srcli.images import SaveOptions

        self._check_open()
        options = SaveOptions(
            format=format,
            quality=quality,
            lossless=lossless,
            subsampling=subsampling,
            background=background,
            strip=strip,
        )
        return self._file(source, target, options, overwrite, preserve, page)

    def _file(
        self,
        source: PathName,
        target: PathName | None,
        options: SaveOptions,
        overwrite: bool,
        preserve: bool,
        page: int | None,
    ) -> Path:
        from srcli import __version__
        from srcli.jobs.batch import Batch
        from srcli.jobs.naming import usual_suffix
        from srcli.jobs.planning import Wishes, plan_file
        from srcli.jobs.sizes import SizeRequest

        size = SizeRequest(scale=self._factor)
        wishes = Wishes(
            output=None if target is None else os.fspath(target),
            suffix=usual_suffix(self._rules.task, size.label),
            size=size,
            scales=self._scales,
            rules=self._rules,
            grid=self._spec.scale_grid,
            options=options,
            page=page,
        )
        plan = plan_file(os.fspath(source), wishes, overwrite=overwrite)
        facts = {"model": self._spec.name, "version": __version__, "weights_sha256": self._weights}
        batch = Batch(restorer=self._restorer, overwrite=overwrite, preserve=preserve, facts=facts)
        (outcome,) = batch.run(plan.jobs)
        if outcome.error is not None:
            raise outcome.error
        return plan[0].target

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        for restorer in self._open.values():
            restorer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this model has been closed", "Load it again.")

    @property
    def _scales(self) -> tuple[int, ...]:
        return self._rules.scales(self._spec.reached(self._rules.task))

    def _size(self, width: int, height: int) -> Size:
        from srcli.jobs.sizes import SizeRequest

        size = SizeRequest(scale=self._factor)
        return size.resolve(width, height, self._scales, self._spec.scale_grid)

    def _restorer(self, step: Step) -> Restorer:
        from srcli.loading.restorer import open_restorer

        if step not in self._open:
            model = self._find(step)
            self._weights[step.label] = model.weights.sha256
            self._open[step] = open_restorer(model, self._options, scale=model.grid)
        return self._open[step]


def load(
    model: str = DEFAULT_MODEL,
    scale: Factor | None = None,
    *,
    task: Task = "upscale",
    input: InputChoice = "auto",
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
    from srcli.jobs.steps import rules_for
    from srcli.loading import model as loading
    from srcli.loading.restorer import RunOptions

    options = RunOptions(
        backend=backend, precision=precision, tta=tta, threads=threads, tile=tile, memory=memory
    )
    if model_file is not None:
        return _load_foreign(Path(model_file), scale, options)
    spec = get_model(model)
    factor = _factor(scale, DEFAULT_SCALE if task == "upscale" else 1)
    if not spec.scales_for(task) or (task != "upscale" and factor != 1):
        from srcli.models.registry import check_scale

        check_scale(spec, int(factor), task)

    rules = rules_for(spec, task, input, own_weights=weights is not None)
    if rules.input == "photo" and not rules.photo:
        raise loading.no_photo_weights(spec)

    def find(step: Step) -> LoadedModel:
        own = None if weights is None else Path(weights)
        return loading.load(model, step.scale, task=step.task, kind=step.kind, weights=own)

    return OpenModel(factor, spec, rules, find, options)


def _load_foreign(file: Path, scale: Factor | None, options: RunOptions) -> OpenModel:
    from srcli.jobs.steps import Rules
    from srcli.loading.foreign import load_foreign

    network = load_foreign(file)
    task: Task = "upscale" if max(network.spec.scales) > 1 else "denoise"
    factor = _factor(scale, max(network.spec.scales))
    return OpenModel(factor, network.spec, Rules(task=task), lambda step: network, options)


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


_OF_FILES = frozenset(
    name
    for name, parameter in inspect.signature(OpenModel.file).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
)


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
