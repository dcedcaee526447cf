"""Sizes of outputs, and the passes of the network that reach them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement

from srcli.errors import UsageError


def parse_size(text: str) -> tuple[int, int]:
    """Read `1280x720` as width and height in pixels.

    Raises:
        UsageError: It is no size.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"{text!r} is no size", "Write WIDTHxHEIGHT, for example 1280x720.")
    return int(sides[0]), int(sides[1])


def parse_factor(text: str) -> Fraction:
    """Read a factor of enlargement: `4`, `2.5`, `7/3`.

    Raises:
        UsageError: It is no number.
    """
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{text!r} is no number", "Write 4 or 2.5.") from None


Grid = Callable[[Fraction], Fraction]
"""A function from a factor to the least factor that a network can make and that is no less."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an output, and the passes of the network that lead to it."""

    passes: tuple[int | Fraction, ...]
    """Scales of the passes, one after the other; whole unless the network takes any."""

    width: int
    height: int
    """Width and height of the output; if the passes end at another, it is resampled once."""

    @property
    def network_scale(self) -> int | Fraction:
        """Factor by which all passes together enlarge."""
        return math.prod(self.passes)

    def notes(self, name: str, width: int, height: int) -> list[str]:
        """Say what is done besides one pass of the network, to an input of this size."""
        reached = (round(side * self.network_scale) for side in (width, height))
        resampled = (self.width, self.height) != tuple(reached)
        if len(self.passes) == 1 and not resampled:
            return []
        said = ", then by ".join(f"{float(scale):g}" for scale in self.passes)
        end = f", then resampled to {self.width} x {self.height}" if resampled else ""
        return [f"{name}: enlarged by {said}{end}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRequest:
    """A wanted size: exactly one of a factor, a width, a height, a box to fit into, or both sides.

    Raises:
        UsageError: Contradictory or impossible wishes.
    """

    scale: Fraction | None = None
    width: int | None = None
    height: int | None = None
    fit: tuple[int, int] | None = None
    """Width and height of a box; the largest picture of the same shape inside it."""

    def __post_init__(self) -> None:
        by_side = self.width is not None or self.height is not None
        if (self.scale is not None) + by_side + (self.fit is not None) != 1:
            raise UsageError(
                "--scale, --width and --height, and --fit exclude each other", "Choose one."
            )
        if self.scale is not None and self.scale <= 0:
            raise UsageError(
                f"a scale of {float(self.scale):g} is not possible", "Give a number above 0."
            )

    def resolve(
        self, width: int, height: int, scales: tuple[int, ...], grid: Grid | None = None
    ) -> Size:
        """Return the output size for an input, and the network scales that reach it.

        It is one pass of the smallest scale that reaches the size, so that the network's result is
        resampled downwards. If the largest scale is too small, it is as few passes as reach it. A
        network of any scale (it has a `grid`) takes a factor directly; for a size it takes the
        next larger factor of its grid.
        """
        wanted = self._size(width, height)
        factor = max(Fraction(wanted[0], width), Fraction(wanted[1], height))
        if self.scale is not None:
            factor = self.scale  # not blurred by rounding to whole pixels
        if grid is not None and 1 <= factor <= max(scales):
            exact = factor if self.scale is not None else grid(factor)
            return Size((_whole(exact),), *wanted)
        if grid is not None and factor > max(scales):
            return Size(_passes_of_any(factor, max(scales), grid), *wanted)
        return Size(passes_for(factor, scales), *wanted)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.width is not None and self.height is not None:
            return self.width, self.height
        factor = self._factor(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))

    def _factor(self, width: int, height: int) -> Fraction:
        if self.scale is not None:
            return self.scale
        if self.fit is not None:
            return min(Fraction(self.fit[0], width), Fraction(self.fit[1], height))
        if self.width is not None:
            return Fraction(self.width, width)
        assert self.height is not None, "one of the wishes is set"
        return Fraction(self.height, height)

    @property
    def label(self) -> str:
        """Text for file names: `x4`, `x2.5`, `1920w`, `1080h`, `1920x1080`."""
        if self.scale is not None:
            return f"x{float(self.scale):g}"
        box = self.fit or (self.width, self.height)
        if None not in box:
            return f"{box[0]}x{box[1]}"
        return f"{self.width}w" if self.width is not None else f"{self.height}h"


def passes_for(factor: Fraction | int, scales: Sequence[int]) -> tuple[int, ...]:
    """Choose the scales of as few passes as reach a factor, the largest first.

    Of equally few, those that exceed it least.
    """
    largest = max(scales)
    if largest < 2:
        return (largest,)
    count = 1
    while largest**count < factor:
        count += 1
    chosen = min(
        (c for c in combinations_with_replacement(sorted(scales), count) if math.prod(c) >= factor),
        key=math.prod,
    )
    return tuple(reversed(chosen))


def _passes_of_any(factor: Fraction, largest: int, grid: Grid) -> tuple[int | Fraction, ...]:
    """Choose passes of a network of any scale: the largest until the rest is one that it takes."""
    passes: list[int | Fraction] = []
    while factor > largest:
        passes.append(largest)
        factor /= largest
    return (*passes, _whole(grid(factor)))


def _whole(scale: Fraction) -> int | Fraction:
    return int(scale) if scale.denominator == 1 else scale
