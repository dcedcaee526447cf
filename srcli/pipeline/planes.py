"""Turn pictures into planes that a network takes, and its result into pictures.

Colour goes through the network as three planes; alpha, where it varies, as a grey picture beside
it. Results are resampled if necessary, and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Images
from srcli.images import Picture, Pixels, bleed, from_float, to_float
from srcli.models.spec import Scale
from srcli.pipeline.resample import RowResampler
from srcli.pipeline.tiling import enlarged

Part = tuple[Pixels, Pixels | None]
"""Some rows of a picture: colour (rows x width x C) and alpha (rows x width)."""

Plane = NDArray[np.floating]
"""H x W x C in [0, 1], not clamped."""

# Rows are turned into pixels so many numbers at a time: each step of that makes a copy.
BLOCK = 1 << 19

# How far colour is drawn into transparent regions before enlarging, in input pixels. Beyond that
# nothing visible depends on it.
BLEED = 16

FLOAT = 32  # bits of what is not rounded: Python programs give and get float32

# Alpha is held within the range of its neighbours at most this far away, in input pixels: the
# reach of the filter that makes an output pixel.
ALPHA_REACH = 2


def layers(part: Part, *, always: bool = False) -> list[Plane]:
    """Return the pictures for the network: the colour, and alpha as a grey picture.

    Alpha that does not vary is left out, unless `always` asks for it.

    What lies under transparent pixels is arbitrary; it is replaced by the colour around them, so
    that it does not bleed a fringe into visible pixels.
    """
    color, alpha = part
    if alpha is None:
        return [to_float(color)]
    found = [to_float(bleed(color, alpha, BLEED))]
    if always or alpha.min() != alpha.max():
        found.append(to_float(alpha)[:, :, None])
    return found


def planes(parts: Sequence[Plane]) -> Images:
    """Stack H x W x C arrays, C = 1 or 3, to n x 3 x H x W; grey ones get equal planes."""
    height, width = parts[0].shape[:2]
    return np.stack(
        [np.broadcast_to(part, (height, width, 3)).transpose(2, 0, 1) for part in parts]
    )


def unlayered(
    restored: Images,
    stored: Sequence[Part],
    rows: slice,
    scale: Scale,
    *,
    columns: slice = slice(None),
    always: bool = False,
) -> list[tuple[Plane, Plane | None, int]]:
    """Reverse `layers` and `planes` on the output, of which `rows` have been cut out.

    Returns:
        Colour (H x W x C) and alpha (H x W x 1) in [0, 1], and bits per channel.
    """
    outputs = iter(restored)
    parts: list[tuple[Plane, Plane | None, int]] = []
    for color, alpha in stored:
        out = _picture(next(outputs), grey=color.shape[2] == 1)
        held = None
        if alpha is not None:
            varies = always or alpha.min() != alpha.max()
            plane = _picture(next(outputs), grey=True) if varies else None
            held = _held(plane, alpha, (rows, columns), scale)
        parts.append((out, held, 8 * color.itemsize))
    return parts


def _picture(planes: Plane, *, grey: bool) -> Plane:
    # A grey picture went in as three equal planes. Networks treat them differently (the mean of
    # the training pictures is not grey), so take what the planes agree on.
    return (planes.mean(axis=0, keepdims=True) if grey else planes).transpose(1, 2, 0)


def _held(plane: Plane | None, alpha: Pixels, part: tuple[slice, slice], scale: Scale) -> Plane:
    """Clamp enlarged alpha between the least and the greatest alpha nearby.

    So opaque parts stay opaque and transparent parts stay transparent, also if the network
    overshoots at the edge between them.
    """
    minimum = _repeated(_extreme(alpha, np.minimum), scale)[part]
    if plane is None:
        return minimum
    return np.clip(plane, minimum, _repeated(_extreme(alpha, np.maximum), scale)[part])


def _extreme(plane: Pixels, choose: np.ufunc) -> Pixels:
    """Return the least or greatest value within ALPHA_REACH of each pixel."""
    for axis in (0, 1):
        width = [(ALPHA_REACH, ALPHA_REACH) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(plane, width, mode="edge")
        size = plane.shape[axis]
        shifts = [padded.take(range(k, k + size), axis) for k in range(2 * ALPHA_REACH + 1)]
        plane = choose.reduce(shifts)
    return plane


def _repeated(plane: Pixels, scale: Scale) -> Plane:
    """Enlarge by repetition: each output pixel is the input pixel that its centre lies in."""
    rows, columns = (
        np.minimum(
            (2 * np.arange(enlarged(side, scale)) + 1) * scale.denominator // (2 * scale.numerator),
            side - 1,
        )
        for side in plane.shape
    )
    repeated: Plane = to_float(plane)[rows][:, columns, None]
    return repeated


class Finisher:
    """A last step for the float rows of one output: resampling if necessary, and quantising."""

    def __init__(
        self, size: tuple[int, int], wanted: tuple[int, int], bits: int | None = None
    ) -> None:
        self._bits = bits
        self._color = RowResampler(*size, *wanted) if wanted != size else None
        self._alpha = RowResampler(*size, *wanted) if wanted != size else None

    def __call__(self, color: Plane, alpha: Plane | None, bits: int) -> Part:
        if self._color is not None:
            color = self._color.feed(color)
        if self._alpha is not None and alpha is not None:
            alpha = self._alpha.feed(alpha)
        bits = self._bits or bits
        return _quantised(color, bits), None if alpha is None else _quantised(alpha, bits)[:, :, 0]


def _quantised(plane: Plane, bits: int) -> Pixels:
    """Convert floats in [0, 1] to 8 or 16 bits, a few rows at a time."""
    if bits == FLOAT:
        clipped: Pixels = np.clip(plane, 0, 1).astype(np.float32)
        return clipped
    height, width, channels = plane.shape
    out: Pixels = np.empty(plane.shape, np.uint8 if bits == 8 else np.uint16)
    rows = max(1, BLOCK // max(1, width * channels))
    for top in range(0, height, rows):
        out[top : top + rows] = from_float(plane[top : top + rows], bits)
    return out


def with_pixels(picture: Picture, parts: Sequence[Part]) -> Picture:
    """Return the picture with other pixels, given from top to bottom."""
    alphas = [alpha for _, alpha in parts if alpha is not None]
    return replace(
        picture,
        color=np.concatenate([color for color, _ in parts]),
        alpha=np.concatenate(alphas) if alphas else None,
    )
