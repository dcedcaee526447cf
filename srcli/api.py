"""The library behind the command line, for Python programs."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from srcli.errors import UsageError
from srcli.registry import DEFAULT_MODEL, DEFAULT_SCALE, MODELS
from srcli.spec import ModelSpec, Scale, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.images import Picture
    from srcli.pipeline import Restorer

    Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def list_models() -> tuple[ModelSpec, ...]:
    """All models that srcli knows, with their facts."""
    return MODELS


class OpenModel:
    """A model that is ready to restore pictures. Use it as a context manager, or close it."""

    def __init__(self, restorer: Restorer, scale: Scale) -> None:
        self._restorer = restorer
        self._scale = scale
        self._closed = False

    @property
    def scale(self) -> Scale:
        """Factor of enlargement."""
        return self._scale

    def __call__(self, pixels: Pixels) -> Pixels:
        """Restore an array: H x W, or H x W x C with C = 1 (grey), 2, 3 (RGB) or 4.

        With 2 or 4 channels the last is alpha, not premultiplied. uint8 and uint16 use their full
        range; the result has the same type and number of axes.

        Raises:
            UsageError: The array is of another shape or type, or the model was closed.
        """
        import numpy as np

        plain: Any = np.asarray(pixels)  # matrices and masked arrays compute in their own ways
        return _as_array(self.picture(_as_picture(plain)), plain.ndim)

    def picture(self, picture: Picture) -> Picture:
        """Restore what `srcli.images.read` gives.

        Raises:
            UsageError: The model was closed.
        """
        if self._closed:
            raise UsageError("this model has been closed. Load it again.")
        height, width = (max(1, round(s * self._scale)) for s in (picture.height, picture.width))
        return self._restorer(picture, size=(height, width))

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        self._restorer.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(
    model: str = DEFAULT_MODEL,
    scale: Scale = DEFAULT_SCALE,
    *,
    task: Task = "upscale",
    weights: str | Path | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> OpenModel:
    """Open a model for use on many pictures.

    Args:
        model: Its name; see `list_models`.
        scale: Factor of enlargement; 1 to denoise and deblock. A `Fraction` for models of any
            scale.
        task: Which of the model's weights.
        weights: Your own checkpoint instead of what srcli ships.
        backend: `native`, `openvino`, `ort`, `torch`, `trt`, or `auto` for the fastest that works.
        threads: CPU threads; None for one on each core.

    Raises:
        SrcliError: Any of these does not exist or does not work; the message says what to do.
    """
    from srcli import loading
    from srcli.backends import open_model
    from srcli.backends.base import SessionOptions
    from srcli.pipeline import Restorer

    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot compute. Give 1 or more.")
    file = None if weights is None else Path(weights)
    loaded = loading.load(model, scale, task=task, weights=file)
    session = open_model(backend, loaded, SessionOptions(threads=threads))[1]
    restorer = Restorer(session=session, geometry=loaded.geometry, scale=loaded.grid)
    return OpenModel(restorer, scale)


def upscale(pixels: Pixels, model: str = DEFAULT_MODEL, scale: Scale = DEFAULT_SCALE) -> Pixels:
    """Enlarge one array; see `OpenModel.__call__`. For many, `load` the model once."""
    with load(model, scale) as network:
        return network(pixels)


def restore(
    pixels: Pixels,
    task: Task,
    model: str = DEFAULT_MODEL,
    *,
    weights: str | Path | None = None,
) -> Pixels:
    """Denoise or deblock one array; see `OpenModel.__call__`."""
    with load(model, 1, task=task, weights=weights) as network:
        return network(pixels)


def _as_picture(pixels: Pixels) -> Picture:
    from srcli.images import Picture

    layered = pixels[:, :, None] if pixels.ndim == 2 else pixels
    fits = layered.ndim == 3 and 1 <= layered.shape[2] <= 4 and layered.size > 0
    if not fits or layered.dtype.name not in ("uint8", "uint16"):
        raise UsageError(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture. Give uint8 "
            "or uint16, H x W or H x W x C with 1 to 4 channels."
        )
    has_alpha = layered.shape[2] in (2, 4)
    color = layered[:, :, :-1] if has_alpha else layered
    return Picture(color=color, alpha=layered[:, :, -1] if has_alpha else None)


def _as_array(picture: Picture, axes: int) -> Pixels:
    import numpy as np

    if picture.alpha is not None:
        return np.dstack([picture.color, picture.alpha])
    return picture.color[:, :, 0] if axes == 2 else picture.color  # type: ignore[return-value]
