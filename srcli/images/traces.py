"""Find out whether pixels went through JPEG, when the file that holds them does not tell.

JPEG leaves the cosines of each 8 x 8 block near multiples of its steps. The library's tables are
tried one after the other: the one whose multiples fit is that of the file which the picture was in.
Blocks must begin at the picture's corner, so nothing is seen in a picture that was cut or resampled
since. Source of the idea: Fan and de Queiroz, "Identification of bitmap compression history: JPEG
detection and quantizer estimation", IEEE TIP 2003.

Measured on Set5, Set14, B100 and LIVE1, originals and reduced ones: of 505 pictures as they are 502
are taken for what never was JPEG, and the other three have been, by all appearance; after JPEG of
quality 30, 50, 70, 80 and 90 all 5,050 are found out (`benchmarks/traces_of_jpeg.py`).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srcli.images.quantisation import SIDE, scaled

if TYPE_CHECKING:
    from srcli.images.strips import StripReader

LARGEST = 512  # pixels of a side that is looked at; the middle of larger pictures
PLACES = (1, 8, 16, 9, 2, 3, 10, 17, 24)  # of the coarsest cosines in a block, row by row
QUALITIES = range(20, 97)  # beyond, steps are as fine as what rounding leaves
FIT = 0.25  # mean cosine of the distances to multiples: 1 where all are multiples, 0 where none is
LEAST, LEAST_PLACES = 16, 6  # cosines beyond half a step that a place must have, and such places
BINS_PER_STEP = 4  # of a histogram of cosines, for a step of 1
MOST = 256  # larger cosines, of a few blocks, are left out
LUMA = (0.299, 0.587, 0.114)  # as JPEG files have it

Values = NDArray[np.float32]


def quality_seen(pixels: NDArray[np.generic]) -> int | None:
    """Return the quality of the JPEG file that a picture was in; None if there is no trace of one.

    Args:
        pixels: H x W x 1 or 3, uint8. Of other types nothing is said.
    """
    if pixels.dtype != np.uint8 or min(pixels.shape[:2]) < SIDE:
        return None
    middle = tuple(_middle(side) for side in pixels.shape[:2])
    counts = _histograms(_cosines(pixels[middle]))
    fits = _fits(_product(counts, _beyond_half()), _product(counts, _nearness()))
    best = int(fits.argmax())
    return QUALITIES[best] if fits[best] > FIT else None


def _fits(beyond: Values, near: Values) -> Values:
    """Return how well the cosines fit the steps of each quality: at most 1.

    Args:
        beyond: Number of cosines beyond half a step, places x steps.
        near: Sum of what says how near these are to multiples, places x steps.
    """
    chosen = np.arange(len(PLACES)), _steps_of_qualities() - 1
    enough = beyond[chosen]
    told = (enough >= LEAST).sum(1) >= LEAST_PLACES
    fits: Values = np.where(told, near[chosen].sum(1) / np.maximum(enough.sum(1), 1), 0.0)
    return fits


@cache
def _steps_of_qualities() -> NDArray[np.integer]:
    return np.array([[scaled(quality)[place] for place in PLACES] for quality in QUALITIES])


def quality_in_strips(reader: StripReader) -> int | None:
    """Return what `quality_seen` gives for all pixels of a file, in the memory of a few rows."""
    height, width = reader.header.height, reader.header.width
    rows, columns = _middle(height), _middle(width)
    for top in range(0, rows.start, LARGEST):
        reader.rows(top, min(top + LARGEST, rows.start))
    if rows.start >= rows.stop:
        return None
    return quality_seen(reader.rows(rows.start, rows.stop)[0][:, columns])


def _middle(length: int) -> slice:
    """Return where whole blocks lie in the middle of a line of pixels."""
    start = max(0, length - LARGEST) // 2 // SIDE * SIDE
    return slice(start, start + min(length, LARGEST) // SIDE * SIDE)


def _cosines(pixels: NDArray[np.generic]) -> Values:
    """Return the coarsest cosines of each block: blocks x places."""
    grey = pixels[..., 0] if pixels.shape[2] == 1 else _luma(pixels)
    height, width = grey.shape
    blocks = grey.reshape(height // SIDE, SIDE, width // SIDE, SIDE).transpose(0, 2, 1, 3)
    return _product(blocks.reshape(-1, SIDE**2).astype(np.float32), _waves())


def _luma(pixels: NDArray[np.generic]) -> Values:
    luma = np.zeros(pixels.shape[:2], np.float32)
    values = pixels.astype(np.float32)
    for channel, share in enumerate(LUMA):
        luma += values[..., channel] * np.float32(share)
    return np.rint(luma, out=luma)


@cache
def _waves() -> Values:
    """Return the cosines of a block as a matrix, pixels x places; in memory each place is a row."""
    x, u = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    line = np.cos((2 * x + 1) * u * np.pi / (2 * SIDE)) / 2
    line[0] *= np.sqrt(0.5)
    both = [np.outer(line[place // SIDE], line[place % SIDE]).ravel() for place in PLACES]
    return np.stack(both).astype(np.float32).T


def _histograms(cosines: Values) -> Values:
    """Count the absolute values of each place: places x bins."""
    bins = np.rint(np.abs(cosines.T) * BINS_PER_STEP).astype(np.intp)
    most = MOST * BINS_PER_STEP
    counted = [np.bincount(of_place[of_place < most], minlength=most) for of_place in bins]
    return np.stack(counted).astype(np.float32)


def _product(first: Values, second: Values) -> Values:
    """Multiply matrices in this thread.

    The library that numpy's `@` calls wakes threads of its own, which disturb those that compute
    networks: a folder of small pictures took twice as long.
    """
    product: Values = np.einsum("ij,jk->ik", first, second)
    return product


@cache
def _beyond_half() -> Values:
    """Tell which values are beyond half a step: bins x steps, 1 or 0."""
    values = np.arange(MOST * BINS_PER_STEP)[:, None] / BINS_PER_STEP
    return (values > _steps() / 2).astype(np.float32)


@cache
def _nearness() -> Values:
    """Return 1 for multiples of a step and -1 for what is between, bins x steps; 0 below half."""
    values = np.arange(MOST * BINS_PER_STEP)[:, None] / BINS_PER_STEP
    waves = np.cos(2 * np.pi * values / _steps())
    return (waves * _beyond_half()).astype(np.float32)


def _steps() -> NDArray[np.integer]:
    return np.arange(1, 1 + _steps_of_qualities().max())
