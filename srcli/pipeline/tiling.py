"""Cut a picture into tiles whose joined results equal the result of the whole picture.

Every output pixel of a network depends on the input within a margin, its receptive field. So a
window is run for each tile: the tile and a halo of that margin. Windows are all of one size
(engines and CUDA graphs need that): at the far border they are moved inwards, not padded. At the
picture's own border a window ends where the picture ends, and the network meets the same border
that it meets on the whole picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


def enlarged(length: int, scale: int | Fraction) -> int:
    """Return the number of output pixels for `length` input pixels, halves rounded up."""
    return math.floor(length * scale + Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in input pixels."""

    start: int
    """First pixel of the window."""
    stop: int
    """End of the window, exclusive."""
    first: int
    """First pixel of the tile: the window without its halo."""
    last: int
    """End of the tile, exclusive."""

    def inner(self, scale: int | Fraction) -> slice:
        """Return the slice of the tile within the window's output."""
        first, last = self.first - self.start, self.last - self.start
        return slice(enlarged(first, scale), enlarged(last, scale))

    def outer(self, scale: int | Fraction) -> slice:
        """Return the slice of the tile within the picture's output."""
        return slice(enlarged(self.first, scale), enlarged(self.last, scale))

    def magnified(self, multiple: int, length: int) -> Span:
        """Return the span in pixels if this one counts cells of `multiple`, cut off at `length`."""
        edges = (self.start, self.stop, self.first, self.last)
        return Span(*(min(edge * multiple, length) for edge in edges))


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of a picture: its spans down and across."""

    rows: Span
    columns: Span


def spans(length: int, window: int, margin: int, multiple: int = 1) -> list[Span]:
    """Cover `length` pixels by windows of `window` pixels with a halo of `margin`.

    The tiles `[first, last)` are a partition of `[0, length)`. All edges but the picture's own lie
    at multiples of `multiple`: there a fractional scale meets whole output pixels, and begins anew.

    Raises:
        ValueError: The window is no larger than its two halos.
    """
    if length <= window:
        return [Span(0, length, 0, length)]
    if multiple > 1:
        halo = -(-margin // multiple)
        cells = spans(-(-length // multiple), max(-(-window // multiple), 2 * halo + 1), halo)
        return [cell.magnified(multiple, length) for cell in cells]
    stride = window - 2 * margin
    if stride < 1:
        raise ValueError(f"a window of {window} has no room inside two halos of {margin}")
    count = math.ceil((length - 2 * margin) / stride)
    starts = [min(index * stride, length - window) for index in range(count)]
    edges = [0, *(start + margin for start in starts[1:]), length]
    return [
        Span(start, start + window, first, last)
        for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True)
    ]


def plan(
    height: int, width: int, window: tuple[int, int], margin: int, multiple: int = 1
) -> list[Tile]:
    """Return the tiles of a picture, row by row.

    Args:
        height: Of the picture, in input pixels.
        width: Of the picture, in input pixels.
        window: Largest (height, width) that the network may be given at once.
        margin: The network's receptive field, in input pixels.
        multiple: Of which tiles' edges are; see `spans`.
    """
    rows = spans(height, window[0], margin, multiple)
    columns = spans(width, window[1], margin, multiple)
    return [Tile(row, column) for row in rows for column in columns]


def choose_window(height: int, width: int, *, margin: int, pixels: int) -> tuple[int, int]:
    """Choose the window (height, width) of at most `pixels` input pixels with the least halo.

    Of windows that compute equally much, those that cut the picture across fewest are preferred:
    rows are contiguous in memory. Where even the smallest sensible tile (as large as its halo)
    exceeds `pixels`, that tile is taken.
    """
    smallest = 4 * margin + 1
    best = min(height, smallest), min(width, smallest)
    minimum = math.inf
    for across in range(1, max(1, math.ceil((width - 2 * margin) / (2 * margin + 1))) + 1):
        columns = _window_side(width, across, margin)
        max_rows = pixels // columns
        if max_rows >= height:
            down = 1
        elif max_rows >= min(height, smallest):
            down = math.ceil((height - 2 * margin) / (max_rows - 2 * margin))
        else:
            continue
        rows = _window_side(height, down, margin)
        if (computed := across * down * rows * columns) < minimum:
            minimum, best = computed, (rows, columns)
    return best


def _window_side(length: int, count: int, margin: int) -> int:
    """Return the smallest window with which `count` tiles cover `length` pixels."""
    return length if count == 1 else math.ceil((length - 2 * margin) / count) + 2 * margin


def halved(window: tuple[int, int], margin: int) -> tuple[int, int] | None:
    """Halve what a window has inside its halos along the longer side; None if it is too small."""
    height, width = window
    longer = max(height, width)
    inside = (longer - 2 * margin) // 2
    if inside < 1:
        return None
    smaller = inside + 2 * margin
    return (smaller, width) if height == longer else (height, smaller)
