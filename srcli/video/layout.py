"""Describe the planes of a frame: sizes, bits, and where chroma samples lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8 | np.uint16]
Planes = Sequence[Samples]
"""Planes of one frame, each H x W, in the order of its layout: Y, Cb, Cr; or Y; or G, B, R."""

Kind = Literal["yuv", "grey", "rgb"]
Place = tuple[Fraction, Fraction]
"""Place of the first chroma sample, across and down, in luma samples from the first of these."""

LARGEST_SIDE = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes and types of the planes of a frame."""

    width: int
    """Of luma, in pixels."""

    height: int

    kind: Kind = "yuv"
    bits: int = 8
    """Bits per sample, 8 to 16; more than 8 lie in 16-bit words, in the low bits."""

    across: int = 1
    """Luma samples for each chroma sample, from left to right: 1, 2 or 4."""

    down: int = 1
    """Luma samples for each chroma sample, from top to bottom: 1, 2 or 4."""

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.uint16]:
        """Type of the samples in memory, little endian."""
        return np.dtype("u1") if self.bits == 8 else np.dtype("<u2")

    @property
    def chroma_shape(self) -> tuple[int, int]:
        """Height and width of a chroma plane, rounded up at odd sizes."""
        return -(-self.height // self.down), -(-self.width // self.across)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each plane."""
        luma = self.height, self.width
        if self.kind == "grey":
            return (luma,)
        return (luma, luma, luma) if self.kind == "rgb" else (luma, *(self.chroma_shape,) * 2)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame's samples."""
        return sum(height * width for height, width in self.shapes) * self.dtype.itemsize

    @property
    def subsampling(self) -> str:
        """Name of the layout for people: `4:2:0`, `grey`, `RGB`."""
        if self.kind != "yuv":
            return "grey" if self.kind == "grey" else "RGB"
        names = {
            (2, 2): "4:2:0",
            (2, 1): "4:2:2",
            (1, 1): "4:4:4",
            (4, 1): "4:1:1",
            (1, 2): "4:4:0",
        }
        return names.get((self.across, self.down), "4:1:0")

    def enlarged(self, scale: int) -> Layout:
        """Return the layout of a frame that is `scale` times as wide and high."""
        return replace(self, width=self.width * scale, height=self.height * scale)


def split(samples: Samples, layout: Layout) -> list[Samples]:
    """Cut the samples of a frame, one plane after the other, into planes H x W."""
    planes, start = [], 0
    for height, width in layout.shapes:
        planes.append(samples[start : start + height * width].reshape(height, width))
        start += height * width
    return planes


@dataclass(frozen=True, slots=True)
class Siting:
    """A place of chroma samples among those of luma: left, centre..., for Cb and Cr."""

    name: str
    cb: tuple[str, str]
    """Column and row: `first`, `middle` or `last` of the luma samples that share the sample."""
    cr: tuple[str, str]

    def places(self, layout: Layout) -> tuple[Place, Place]:
        """Return where the first Cb and the first Cr sample lie."""
        return _place(self.cb, layout), _place(self.cr, layout)


def _place(words: tuple[str, str], layout: Layout) -> Place:
    across, down = (
        {"first": Fraction(0), "middle": Fraction(many - 1, 2), "last": Fraction(many - 1)}[word]
        for word, many in zip(words, (layout.across, layout.down), strict=True)
    )
    return across, down


def _sited(name: str, column: str, row: str) -> Siting:
    return Siting(name, (column, row), (column, row))


SITINGS: Mapping[str, Siting] = MappingProxyType(
    {
        "left": _sited("left", "first", "middle"),
        "center": _sited("center", "middle", "middle"),
        "topleft": _sited("topleft", "first", "first"),
        "top": _sited("top", "middle", "first"),
        "bottomleft": _sited("bottomleft", "first", "last"),
        "bottom": _sited("bottom", "middle", "last"),
        # PAL DV: Cr lies on the first line of each two, Cb on the second.
        "paldv": Siting("paldv", ("first", "last"), ("first", "first")),
    }
)
"""Names of sitings, as H.273 and FFmpeg use them, and that of PAL DV tapes."""

USUAL_SITING = "left"
"""Siting where a stream states none: that of MPEG-2, H.264 and H.265."""
