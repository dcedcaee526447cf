"""Bicubic resampling of arrays, as MATLAB's `imresize` does it.

The test pictures of super-resolution are made with it, so it serves training and evaluation; and
it takes a network's output to a size that no whole factor reaches.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SUPPORT = 4.0  # width of the cubic kernel, in source pixels
_A = -0.5


def resize(picture: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """Resample an H x W or H x W x C array to `height` x `width`; values are not clamped.

    Cubic kernel with a = -0.5, half-pixel centres, borders reflected; widened by the factor of
    reduction when a side shrinks, so nothing aliases. The data type is kept.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
    """
    for axis, size in ((0, height), (1, width)):
        if picture.shape[axis] != size:
            picture = _resize_axis(picture, axis, size)
    return picture


def reduce(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Reduce an 8-bit picture as the low-resolution pictures of the usual test sets were made.

    Sides that are no multiple of the scale are cut to one first.
    """
    height, width = (side // scale for side in picture.shape[:2])
    whole = picture[: height * scale, : width * scale]
    small = resize(whole.astype(np.float32), height, width)
    rounded: NDArray[np.uint8] = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    return rounded


def _resize_axis(picture: NDArray[np.floating], axis: int, size: int) -> NDArray[np.floating]:
    sources, weights = contributions(picture.shape[axis], size)
    moved = np.moveaxis(picture, axis, 0)
    shape = (-1,) + (1,) * (moved.ndim - 1)
    out = np.zeros((size, *moved.shape[1:]), picture.dtype)
    for tap in range(sources.shape[1]):
        out += moved[sources[:, tap]] * weights[:, tap].reshape(shape).astype(picture.dtype)
    return np.moveaxis(out, 0, axis)


def contributions(source: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the source samples of each of `size` output samples, and their weights.

    Returns:
        Two arrays of shape (size, taps): indices into the source, and weights of sum 1.
    """
    factor = size / source
    shrink = min(factor, 1.0)
    centers = (np.arange(size) + 0.5) / factor - 0.5
    taps = math.ceil(_SUPPORT / shrink) + 2
    first = np.floor(centers - _SUPPORT / shrink / 2)
    positions = first[:, None] + np.arange(taps)
    weights = _cubic((centers[:, None] - positions) * shrink)
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    return _reflected(positions[:, used].astype(np.intp), source), weights[:, used]


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _reflected(positions: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Mirror positions outside the picture back into it; the border sample is repeated."""
    wrapped = np.mod(positions, 2 * size)
    return np.where(wrapped < size, wrapped, 2 * size - 1 - wrapped)


class RowResampler:
    """A resampler of a picture whose rows arrive from top to bottom; it gives what `resize` gives.

    Args:
        height: Of the source.
        width: Of the source.
        to_height: Of the result.
        to_width: Of the result.
    """

    def __init__(self, height: int, width: int, to_height: int, to_width: int) -> None:
        self._to_width = to_width
        self._sources, self._weights = contributions(height, to_height)
        # A row of the result is ready when the last row that it needs has arrived, and a source row
        # may be dropped when no later row needs it.
        self._last = np.maximum.accumulate(self._sources.max(axis=1))
        self._first = np.minimum.accumulate(self._sources.min(axis=1)[::-1])[::-1]
        self._kept: NDArray[np.floating] | None = None
        self._start = 0  # source row at which `_kept` begins
        self._done = 0  # rows of the result given so far

    def feed(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Take further rows (k x W x C) and return the rows that are ready (j x W' x C)."""
        wide = resize(rows, rows.shape[0], self._to_width)
        kept = wide if self._kept is None else np.concatenate([self._kept, wide])
        stop = self._start + len(kept)
        ready = int(np.searchsorted(self._last, stop))
        out = np.zeros((ready - self._done, *kept.shape[1:]), kept.dtype)
        sources = self._sources[self._done : ready] - self._start
        weights = self._weights[self._done : ready].astype(kept.dtype)
        for tap in range(sources.shape[1]):
            out += kept[sources[:, tap]] * weights[:, tap].reshape(-1, 1, 1)
        self._done = ready
        keep = int(self._first[ready]) if ready < len(self._first) else stop
        self._kept, self._start = kept[keep - self._start :], keep
        return out
