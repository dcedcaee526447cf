"""Convert planes of YCbCr to RGB for a network, and its result back, in float32.

A chain of conversions alone would lose something even where the network changes nothing: chroma
that is enlarged and reduced again is blurred, and codes outside of RGB's cube are clipped. So the
result is made of the input and of what the network changed:

    luma'   = luma(network) + enlarged(what clipping took from luma)
    chroma' = enlarged(chroma) + reduced(chroma(network)) - reduced(enlarged(chroma given to it))

All operations on the right are linear, and the last two cancel where the network is the identity,
so the planes come out as they went in. Values are rounded once, at the very end. The transfer
function is never undone: PQ and HLG pass as code values.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from srcli.errors import SrcliError
from srcli.video.colorspace import ColorSpace
from srcli.video.layout import Layout, Place, Planes, Samples, Siting
from srcli.video.resampling import Grid, Resampler, resampler

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Held:
    """Parts of a frame that do not go through the network, in codes of the output.

    Chroma without the network's share, and what clipping took from luma; None where nothing is.
    """

    chroma: Array | None
    """2 x H x W, centred at zero."""

    luma: Array | None


class Converter:
    """A converter between frames of one stream and pictures for a network.

    Args:
        layout: Of the frames that come in.
        out: Of those that go out; sides are whole multiples of the input's.
        space: Matrix and range, of both.
        siting: Place of chroma samples, in both.
        dither: Spread the error of rounding in a fixed 8 x 8 pattern.
    """

    def __init__(
        self,
        layout: Layout,
        out: Layout,
        space: ColorSpace,
        siting: Siting,
        *,
        dither: bool = False,
    ) -> None:
        self.layout, self.out, self.space = layout, out, space
        self.scale = out.width // layout.width
        self._grey = layout.kind == "grey"
        self._pattern = _pattern(out) if dither else None
        matrix = space.from_rgb()
        self._zeros_in = space.zeros(layout.bits).astype(np.float32)
        self._zeros_out = space.zeros(out.bits).astype(np.float32)
        self._gain = np.float32(space.gains(layout.bits)[0])
        gains = space.gains(out.bits)
        # Codes change depth by these factors: in full range that is no shift.
        self._depth = (gains / space.gains(layout.bits)).astype(np.float32)
        self._to_rgb = (np.linalg.inv(matrix) / space.gains(layout.bits)).astype(np.float32)
        self._from_rgb = (gains[:, None] * matrix).astype(np.float32)
        self._filters = [
            _Filters(layout, out, self.scale, here, there)
            for here, there in zip(siting.places(layout), siting.places(out), strict=True)
        ]

    def to_rgb(self, planes: Planes) -> tuple[Array, Held]:
        """Return a frame as 3 x H x W RGB in [0, 1], and what goes beside the network."""
        luma = planes[0].astype(np.float32) - self._zeros_in[0]
        if self._grey:
            return self._grey_picture(luma)
        chroma = np.stack(planes[1:]).astype(np.float32) - self._zeros_in[1]
        full = self._each(chroma, "up")
        coded = np.concatenate([luma[None], full])
        raw = _product(self._to_rgb, coded)
        rgb: Array = np.clip(raw, 0, 1)
        raw -= rgb
        clipped = _product(self._from_rgb, raw) if raw.any() else None
        given = full * self._depth[1]
        if clipped is not None:
            given -= clipped[1:]
        held = self._each(chroma * self._depth[1], "across")
        held -= self._each(given, "around")
        return rgb, Held(held, self._enlarged(clipped))

    def _grey_picture(self, luma: Array) -> tuple[Array, Held]:
        raw = luma / self._gain
        grey: Array = np.clip(raw, 0, 1)
        rest = (raw - grey)[None] * (self._gain * self._depth[0])
        return np.repeat(grey[None], 3, 0), Held(None, self._enlarged(rest if rest.any() else None))

    def _enlarged(self, clipped: Array | None) -> Array | None:
        """Enlarge what clipping took from luma, given in the first of some planes."""
        if clipped is None:
            return None
        made: Array = self._filters[0].luma(clipped[:1])[0]
        return made

    def _each(self, chroma: Array, name: str) -> Array:
        """Filter Cb and Cr, each by its own siting, mostly the same."""
        first, second = self._filters
        if first.places == second.places:
            return first.named(name, chroma)
        return np.concatenate(
            [f.named(name, plane[None]) for f, plane in zip(self._filters, chroma, strict=True)]
        )

    def from_rgb(self, rgb: Array, held: Held) -> list[Samples]:
        """Return the planes of a frame that the network has restored.

        Args:
            rgb: 3 x H x W, in the size of the output, in [0, 1].
            held: As `to_rgb` gave it.

        Raises:
            SrcliError: The network made another size.
        """
        if rgb.shape[1:] != (self.out.height, self.out.width):
            raise SrcliError(
                f"the network made {rgb.shape[2]} x {rgb.shape[1]} of {self.layout.width} x "
                f"{self.layout.height} pixels",
                "Choose another model.",
            )
        if self._grey:
            coded = (rgb.mean(0, keepdims=True)) * (self._gain * self._depth[0])
        else:
            coded = _product(self._from_rgb, rgb)
        luma = coded[0] if held.luma is None else coded[0] + held.luma
        planes = [self._rounded(luma, self._zeros_out[0])]
        if held.chroma is None:
            return planes
        chroma = held.chroma + self._each(coded[1:], "down")
        return planes + [self._rounded(plane, self._zeros_out[1]) for plane in chroma]

    def _rounded(self, plane: Array, zero: np.float32) -> Samples:
        codes = plane + (zero + np.float32(0.5))
        if self._pattern is not None:
            height, width = codes.shape
            codes += self._pattern[:height, :width]
        np.clip(codes, 0, np.float32((1 << self.out.bits) - 1), out=codes)
        samples: Samples = codes.astype(self.out.dtype)  # towards zero, which is down
        return samples


class _Filters:
    """Filters for a chroma plane between all grids, and for luma."""

    def __init__(self, layout: Layout, out: Layout, scale: int, here: Place, there: Place) -> None:
        self.places = (here, there)
        self._axes = [
            _Axis(*sides, scale, first, target)
            for sides, first, target in zip(
                (
                    (layout.height, out.height, layout.down, out.down),
                    (layout.width, out.width, layout.across, out.across),
                ),
                reversed(here),
                reversed(there),
                strict=True,
            )
        ]

    def named(self, name: str, planes: Array) -> Array:
        """Filter planes n x H x W: `up`, `across`, `around` or `down`."""
        rows, columns = (getattr(axis, name) for axis in self._axes)
        return _both(rows, columns, planes)

    def luma(self, planes: Array) -> Array:
        """Enlarge planes of luma, n x H x W."""
        rows, columns = self._axes
        return _both(rows.luma, columns.luma, planes)


class _Axis:
    """Filters along one axis.

    Args:
        side: Of luma of the input, in samples.
        large: Of luma of the output.
        many: Luma samples for each chroma sample of the input.
        many_out: The same of the output.
        scale: Factor of enlargement.
        first: Place of the first chroma sample of the input, in its luma samples.
        target: The same of the output.
    """

    def __init__(
        self,
        side: int,
        large: int,
        many: int,
        many_out: int,
        scale: int,
        first: Fraction,
        target: Fraction,
    ) -> None:
        self._luma = Grid(Fraction(1), Fraction(0), side)
        self._chroma = Grid(Fraction(many), first, -(-side // many))
        self._large = self._luma.enlarged(scale, large)
        own = Grid(Fraction(many_out), target, 0)
        self._out = own.enlarged(scale, -(-large // many_out))

    @cached_property
    def up(self) -> Resampler:
        """From chroma to luma of the input."""
        return resampler(self._chroma, self._luma)

    @cached_property
    def luma(self) -> Resampler:
        """From luma of the input to that of the output."""
        return resampler(self._luma, self._large)

    @cached_property
    def across(self) -> Resampler:
        """From chroma of the input to that of the output."""
        return resampler(self._chroma, self._out)

    @cached_property
    def down(self) -> Resampler:
        """From luma to chroma of the output."""
        return resampler(self._large, self._out)

    @cached_property
    def around(self) -> Resampler:
        """From luma of the input to chroma of the output, by way of its luma."""
        return resampler(self._luma, self._out, self._large)


def _both(rows: Resampler, columns: Resampler, planes: Array) -> Array:
    """Filter along both axes, the one first that leaves less for the other."""
    if rows.shrinks:
        return columns.columns(rows.rows(planes))
    return rows.rows(columns.columns(planes))


def _product(matrix: Array, planes: Array) -> Array:
    """Multiply 3 planes by a 3 x 3 matrix."""
    # Not `@`: the threads of a linear algebra library would take the cores from the network.
    made: Array = np.einsum("ij,jhw->ihw", matrix, planes)
    return made


def _pattern(layout: Layout) -> Array:
    """Return thresholds of an ordered dither, in (-0.5, 0.5), as large as luma."""
    small = np.array([[0]])
    for _ in range(3):
        small = np.block([[4 * small, 4 * small + 2], [4 * small + 3, 4 * small + 1]])
    turns = -(-layout.height // 8), -(-layout.width // 8)
    pattern: Array = np.tile((small + 0.5) / 64 - 0.5, turns).astype(np.float32)
    return pattern
