"""Pure functions on pixel arrays: to and from float, colour under alpha, backgrounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srcli.images.picture import Pixels


def to_float(pixels: Pixels) -> NDArray[np.float32]:
    """Convert uint8 or uint16 of any shape to float32 in [0, 1]; `from_float` reverses it exactly.

    An array of float32 is returned unchanged.
    """
    if pixels.dtype == np.float32:
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_float(values: NDArray[np.floating], bits: int) -> Pixels:
    """Convert floats in [0, 1] to uint8 or uint16, clamped, rounded to nearest (ties to even).

    Raises:
        ValueError: a value is not a number, or `bits` is neither 8 nor 16.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits is {bits}; 8 or 16 expected")
    if np.isnan(values).any():
        raise ValueError("the picture holds values that are not numbers")
    scaled = np.rint(np.clip(values, 0.0, 1.0) * np.asarray(2**bits - 1, values.dtype))
    pixels: Pixels = scaled.astype(np.uint8 if bits == 8 else np.uint16)
    return pixels


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Convert uint16 to uint8, rounded to nearest: 65535 is 255, so one step is 257."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def over(color: Pixels, alpha: Pixels, background: tuple[int, int, int]) -> Pixels:
    """Lay a picture upon one colour.

    Args:
        color: H x W x C, C is 1 or 3.
        alpha: H x W of the same type.
        background: 8-bit RGB.

    Returns:
        H x W x C of the same type; C becomes 3 when a grey picture meets a coloured background.
    """
    top = np.iinfo(color.dtype).max
    grey = len(set(background)) == 1 and color.shape[2] == 1
    base = np.array(background[:1] if grey else background, np.uint32) * (top // 255)
    opacity = alpha[..., None].astype(np.uint32)
    # 65535 * 65535 + 32767 still fits in 32 bits.
    mixed: Pixels = ((color * opacity + base * (top - opacity) + top // 2) // top).astype(
        color.dtype
    )
    return mixed


def bleed(color: Pixels, alpha: Pixels, radius: int) -> Pixels:
    """Give fully transparent pixels the colour of their nearest visible neighbours.

    What lies under alpha 0 is arbitrary, often black or white, and enlarging would mix it into
    the edge. Each of `radius` steps fills the transparent pixels that touch (8 neighbours) a
    known one with the mean of those; so a pixel depends on nothing farther away than `radius`,
    and strips that overlap by it give the same as the whole picture.

    Args:
        color: H x W x C.
        alpha: H x W.
        radius: number of steps, in pixels; farther transparent pixels keep their colour.

    Returns:
        A new H x W x C array; pixels with alpha above 0 are unchanged.
    """
    filled = np.pad(color, ((1, 1), (1, 1), (0, 0)))
    known = np.pad(alpha > 0, 1)
    for _ in range(radius):
        rows, columns = np.nonzero(_touched(known) & ~known[1:-1, 1:-1])
        if not rows.size:
            break
        means = _means(filled, known, rows, columns)
        filled[rows + 1, columns + 1] = means
        known[rows + 1, columns + 1] = True
    return filled[1:-1, 1:-1].copy()


def _touched(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark pixels that are known or have a known one among 8 neighbours; without the border."""
    rows = known[:-2] | known[1:-1] | known[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _means(
    filled: Pixels, known: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Pixels:
    """Return the mean colour, n x C, of pixels' known neighbours; arrays have a border of 1."""
    total = np.zeros((rows.size, filled.shape[2]), np.uint32)
    count = np.zeros((rows.size, 1), np.uint32)
    for down in range(3):
        for right in range(3):
            counts = known[rows + down, columns + right][:, None]
            total += filled[rows + down, columns + right] * counts.astype(np.uint32)
            count += counts
    means: Pixels = ((total + count // 2) // count).astype(filled.dtype)
    return means
