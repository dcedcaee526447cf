"""Name the ways in which video codes colours: matrices and ranges of H.273."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from srcli.errors import UsageError

Matrix = NDArray[np.float64]

SMALL_HEIGHT = 576
"""Luma rows up to which a stream that states no matrix is taken for BT.601."""

_LUMA: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "bt709": (0.2126, 0.0722),
        "bt601": (0.299, 0.114),
        "fcc": (0.30, 0.11),
        "smpte240m": (0.212, 0.087),
        "bt2020": (0.2627, 0.0593),
    }
)
"""Shares of red and of blue in luma."""

CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "rgb",
        1: "bt709",
        4: "fcc",
        5: "bt601",
        6: "bt601",
        7: "smpte240m",
        8: "ycgco",
        9: "bt2020",
    }
)
"""Names by the number that streams state (H.273, table 4)."""

UNSTATED = 2
REFUSED: Mapping[int, str] = MappingProxyType(
    {
        10: "BT.2020 with constant luminance",
        11: "SMPTE 2085",
        12: "derived from the primaries",
        13: "derived from the primaries with constant luminance",
        14: "ICtCp",
        15: "IPT-C2",
        16: "YCgCo-Re",
        17: "YCgCo-Ro",
    }
)

MATRICES = ("auto", *_LUMA, "ycgco")
"""Names for `--matrix`."""

_TITLES = {
    "bt709": "BT.709",
    "bt601": "BT.601",
    "bt2020": "BT.2020",
    "fcc": "FCC",
    "smpte240m": "SMPTE 240M",
    "ycgco": "YCgCo",
    "rgb": "RGB",
}

RangeChoice = Literal["auto", "limited", "full"]


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """A matrix between RGB and the coded planes, and the range of the codes."""

    matrix: str
    """Name in `CODES`."""

    full_range: bool

    def from_rgb(self) -> Matrix:
        """Return the 3 x 3 matrix from RGB to Y, Cb, Cr; luma in [0, 1], chroma in [-0.5, 0.5]."""
        if self.matrix == "rgb":  # planes lie in the order G, B, R
            return np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
        if self.matrix == "ycgco":
            return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
        red, blue = _LUMA[self.matrix]
        luma = np.array([red, 1 - red - blue, blue])
        to_blue = (np.array([0.0, 0, 1]) - luma) / (2 * (1 - blue))
        to_red = (np.array([1.0, 0, 0]) - luma) / (2 * (1 - red))
        return np.array([luma, to_blue, to_red])

    def gains(self, bits: int) -> NDArray[np.float64]:
        """Return codes for each unit of the three planes."""
        luma, chroma = (219 << bits - 8, 224 << bits - 8)
        if self.full_range:
            luma = chroma = (1 << bits) - 1
        return np.array([luma, *((luma,) * 2 if self.matrix == "rgb" else (chroma,) * 2)], float)

    def zeros(self, bits: int) -> NDArray[np.float64]:
        """Return the codes of black and of no colour, in the three planes."""
        black, centre = 0 if self.full_range else 16 << bits - 8, 1 << bits - 1
        return np.array([black, *((black,) * 2 if self.matrix == "rgb" else (centre,) * 2)], float)

    @property
    def title(self) -> str:
        """Name for people: `BT.709, limited range`."""
        return f"{_TITLES[self.matrix]}, {'full' if self.full_range else 'limited'} range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Facts that a stream states of its colours; None where it does not."""

    matrix: str | None = None
    full_range: bool | None = None
    siting: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The user's own word on colours; `auto` takes what the stream states."""

    matrix: str = "auto"
    range: RangeChoice = "auto"
    siting: str = "auto"


def settled(stated: Stated, wanted: Wanted, *, height: int, kind: str) -> tuple[ColorSpace, str]:
    """Return the colour space to compute in, and how it is known, for people.

    Args:
        stated: By the stream.
        wanted: By the user.
        height: Of the stream's frames, in pixels: what the matrix is guessed by.
        kind: Of the layout; planes of RGB have no matrix.

    Raises:
        UsageError: A matrix is wanted for planes of RGB.
    """
    if kind == "rgb":
        if wanted.matrix != "auto":
            raise UsageError(f"--matrix {wanted.matrix}: frames are RGB", "Leave out --matrix.")
        full = wanted.range == "full" if wanted.range != "auto" else stated.full_range is not False
        return ColorSpace("rgb", full), "as stated"
    matrix, by = _matrix(stated, wanted, height)
    if wanted.range != "auto":
        return ColorSpace(matrix, wanted.range == "full"), f"{by}, range by --range"
    told = "" if stated.full_range is not None else ", range guessed: the stream states none"
    return ColorSpace(matrix, bool(stated.full_range)), by + told


def _matrix(stated: Stated, wanted: Wanted, height: int) -> tuple[str, str]:
    if wanted.matrix != "auto":
        return wanted.matrix, "matrix by --matrix"
    if stated.matrix is not None and stated.matrix != "rgb":
        return stated.matrix, "matrix stated"
    guess = "bt601" if height <= SMALL_HEIGHT else "bt709"
    return guess, f"matrix guessed by the height of {height}: the stream states none"
