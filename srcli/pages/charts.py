"""Plots as SVG within a page, drawn in its colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 900
ROW, BAR = 30, 14  # heights of a row and of the bar in it
LETTER = 7.2  # width of a letter, about
TOP, BOTTOM = 8, 34
ROOM = 70  # right of the plot, for the value at the end of the longest bar
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a plot."""

    label: str
    value: float
    text: str
    """The value, as it is written beside the bar."""

    until: float | None = None
    """Where a thin line beyond the bar ends, such as the slowest of ten runs; None for no line."""


def bars(rows: Sequence[Bar], axis: str, *, from_zero: bool = True) -> str:
    """Return a plot of horizontal bars.

    Args:
        rows: From top to bottom.
        axis: Words below the plot: what is measured, and its unit.
        from_zero: True if bars begin at zero. Otherwise values are drawn as points: lengths would
            say nothing.
    """
    left = 12 + LETTER * max(len(row.label) for row in rows)
    left = min(left, WIDTH / 2)
    ends = [max(row.value, row.until or 0.0) for row in rows]
    lowest = 0.0 if from_zero else min(row.value for row in rows)
    ticks = _ticks(lowest, max(ends), from_zero=from_zero)
    scale = _Scale(ticks[0], ticks[-1], left, WIDTH - ROOM)
    height = TOP + ROW * len(rows) + BOTTOM
    drawn = [_tick(scale, tick, height - BOTTOM) for tick in ticks]
    drawn += [
        _row(scale, row, TOP + ROW * number + ROW / 2, from_zero=from_zero)
        for number, row in enumerate(rows)
    ]
    drawn.append(_text(left, height - 2, axis, "faint"))
    said = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{axis}. {said}")}">{"".join(drawn)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """The way from values to columns of the drawing."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)


def _ticks(low: float, high: float, *, from_zero: bool) -> list[float]:
    """Return about five round numbers that enclose all values."""
    extent = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(extent / 4))
    step = next((power * n for n in STEPS if power * n * 5 >= extent), power * 10)
    first = 0 if from_zero else math.floor(low / step - 0.25)
    last = max(first + 1, math.ceil(high / step))
    return [step * number for number in range(first, last + 1)]


def _tick(scale: _Scale, value: float, bottom: float) -> str:
    x = scale(value)
    return f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>' + _text(
        x, bottom + 14, f"{value:g}", "faint", anchor="middle"
    )


def _row(scale: _Scale, row: Bar, y: float, *, from_zero: bool) -> str:
    start, end = scale(scale.low), scale(row.value)
    drawn = _text(scale.left - 10, y + 4.5, row.label, anchor="end")
    if from_zero:
        drawn += (
            f'<rect class="bar" x="{start:.1f}" y="{y - BAR / 2:.1f}" '
            f'width="{end - start:.1f}" height="{BAR}" rx="2"/>'
        )
    else:
        drawn += f'<circle class="bar" cx="{end:.1f}" cy="{y:.1f}" r="5.5"/>'
    if row.until is not None and row.until > row.value:
        far = scale(row.until)
        drawn += f'<line class="spread" x1="{end:.1f}" x2="{far:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        end = far
    return drawn + _text(end + 10, y + 4.5, row.text)


def _text(x: float, y: float, words: str, name: str = "", *, anchor: str = "start") -> str:
    kind = f' class="{name}"' if name else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
