"""An open model: restores arrays, pictures and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from srcli.errors import UsageError
from srcli.images.arrays import as_array, as_picture, is_array
from srcli.loading.options import PathName
from srcli.models.spec import ModelSpec, Scale, whole
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
    from srcli.models.dcls.reduction import Kernel
    from srcli.pipeline.passes import Passes
    from srcli.pipeline.restorer import Restorer

    Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]


class OpenModel(Closing):
    """A model that is ready to restore pictures. Use it as a context manager, or close it."""

    def __init__(
        self,
        factor: Fraction,
        spec: ModelSpec,
        rules: Rules,
        find: Callable[[Step], LoadedModel | ForeignModel],
        options: RunOptions,
        blur: Kernel | None = None,
    ) -> None:
        from srcli.images.picture import Metadata

        self._factor, self._spec, self._rules = factor, spec, rules
        self._find, self._options, self._blur = find, options, blur
        self._open: dict[Step, Restorer] = {}
        self._weights: dict[str, str] = {}
        self._closed = False
        passes = self._size(1, 1).passes
        if blur is not None and len(passes) > 1:
            raise UsageError(
                f"a known blur goes with one pass, and x{float(factor):g} takes more",
                "Give a smaller scale.",
            )
        for step in rules.steps(passes, Metadata()):
            self._restorer(step)

    @property
    def scale(self) -> Scale:
        """Factor of enlargement."""
        return whole(self._factor)

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
        self._check_open()
        from srcli.jobs.looking import steps_of

        size = self._size(picture.width, picture.height)
        steps = steps_of(self._rules, size.passes, picture)
        return self._through(steps).restore_all([picture], size=(size.height, size.width))[0]

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

    def _through(self, steps: Sequence[Step]) -> Passes:
        from srcli.pipeline.passes import Passes

        return Passes([self._restorer(step) for step in steps])

    def _restorer(self, step: Step) -> Restorer:
        from srcli.loading.restorer import open_restorer

        if step not in self._open:
            model = self._find(step)
            self._weights[step.label] = model.weights.sha256
            blur = self._blur if step.model is None else None
            self._open[step] = open_restorer(model, self._options, scale=model.grid, blur=blur)
        return self._open[step]
