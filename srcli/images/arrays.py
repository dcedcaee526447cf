"""Convert arrays to pictures and back, for Python programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from srcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.images import Picture
    from srcli.images.picture import Pixels


def is_array(value: object) -> bool:
    """Tell whether a value is an array that may be a picture."""
    import numpy as np

    return isinstance(value, np.ndarray) and value.ndim >= 2


def as_picture(pixels: NDArray[np.generic]) -> Picture:
    """Take an array for a picture.

    Args:
        pixels: H x W or H x W x C, C = 1 to 4; uint8, uint16, or float32 in [0, 1].

    Raises:
        UsageError: It has another shape or type, or values outside the range.
    """
    import numpy as np

    from srcli.images import Picture

    layered = pixels[:, :, None] if pixels.ndim == 2 else pixels
    fits = layered.ndim == 3 and 1 <= layered.shape[2] <= 4 and layered.size > 0
    if not fits or layered.dtype.name not in ("uint8", "uint16", "float32"):
        raise UsageError(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture",
            "Give uint8, uint16 or float32 in [0, 1], H x W or H x W x C with 1 to 4 channels.",
        )
    if layered.dtype.name == "float32":
        layered = _as_integers(layered.astype(np.float32, copy=False))
    planes = cast("Pixels", layered)  # one of the three types, as just checked
    has_alpha = planes.shape[2] in (2, 4)
    color = planes[:, :, :-1] if has_alpha else planes
    return Picture(color=color, alpha=planes[:, :, -1] if has_alpha else None)


def _as_integers(pixels: NDArray[np.float32]) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Return floats in [0, 1] in 16 bits, or as they are where there is no alpha.

    Raises:
        UsageError: A value is outside, or no number.
    """
    import numpy as np

    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise UsageError(
            "an array of float32 has values outside [0, 1]",
            "Divide by 255 what is in 0 to 255, and clip the rest.",
        )
    if pixels.shape[2] in (2, 4):
        deep: NDArray[np.uint16] = np.rint(pixels * np.float32(65535)).astype(np.uint16)
        return deep
    return pixels


def as_array(picture: Picture, given: NDArray[np.generic]) -> Pixels | NDArray[np.float32]:
    """Return a picture as an array of the type and the number of axes that were given."""
    import numpy as np

    pixels: Pixels | NDArray[np.float32] = picture.color
    if picture.alpha is not None:
        pixels = np.dstack([picture.color, picture.alpha])
    if given.dtype == np.float32 and pixels.dtype != np.float32:
        pixels = (pixels / np.float32(65535)).astype(np.float32)
    return pixels[:, :, 0] if given.ndim == 2 else pixels
