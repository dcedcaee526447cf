"""Resample planes between grids: luma, chroma at any siting, and both enlarged.

All filters are linear with weights of sum 1, and repeat at a short period, so each is a few shifted
sums. Between coarser and finer grids they interpolate by cubics (Catmull-Rom); between finer and
coarser ones they average by a triangle as wide as the coarser step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Taps = dict[int, float]
"""Weights by the index of the sample; indices may lie beyond the border."""

TapsOf = Callable[[int], Taps]
"""A function from an output sample's index to its taps."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Places of samples along one axis, in luma samples of the input."""

    step: Fraction
    first: Fraction
    count: int

    def enlarged(self, scale: int, count: int) -> Grid:
        """Return the same samples' places in a picture enlarged by `scale`.

        Pixels keep their areas: their corners are aligned, not their centres.
        """
        first = (self.first + Fraction(1, 2)) / scale - Fraction(1, 2)
        return Grid(self.step / scale, first, count)


def taps(source: Grid, target: Grid) -> TapsOf:
    """Return the filter from one grid to another."""
    start = (target.first - source.first) / source.step
    ratio = target.step / source.step
    width = max(ratio, Fraction(1))

    def of(index: int) -> Taps:
        place = start + index * ratio
        return _averaged(place, width) if width > 1 else _interpolated(place)

    return of


def _interpolated(place: Fraction) -> Taps:
    """Weights of Catmull-Rom's cubic."""
    below = math.floor(place)
    t = float(place - below)
    if t == 0:
        return {below: 1.0}
    weights = (
        ((-t + 2) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((-3 * t + 4) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    return {below - 1 + k: weight for k, weight in enumerate(weights)}


def _averaged(place: Fraction, width: Fraction) -> Taps:
    """Weights of a triangle that falls to zero at `width` from its middle."""
    indices = range(math.floor(place - width) + 1, math.ceil(place + width))
    weights = {k: float(1 - abs(k - place) / width) for k in indices}
    total = sum(weights.values())
    return {k: weight / total for k, weight in weights.items()}


def composed(first: TapsOf, then: TapsOf) -> TapsOf:
    """Return the filter that does one after the other."""

    def of(index: int) -> Taps:
        joined: Taps = {}
        for middle, weight in then(index).items():
            for source, inner in first(middle).items():
                joined[source] = joined.get(source, 0.0) + weight * inner
        return joined

    return of


class Resampler:
    """A filter along one axis; beyond the border the outermost sample is repeated.

    Args:
        filtered: Taps of each output sample.
        ratio: Step of the target in samples of the source.
        source: Number of samples.
        target: Number of samples.
    """

    def __init__(self, filtered: TapsOf, ratio: Fraction, source: int, target: int) -> None:
        self._count, self._period, self._advance = target, ratio.denominator, ratio.numerator
        self.shrinks = target < source
        phases = [filtered(phase) for phase in range(min(self._period, target))]
        self._phases = [
            [(index, np.float32(weight)) for index, weight in sorted(found.items()) if weight]
            for found in phases
        ]
        lowest = min(index for phase in self._phases for index, _ in phase)
        turns = -(-target // self._period) - 1
        highest = max(index for phase in self._phases for index, _ in phase)
        self._before = max(0, -lowest)
        self._after = max(0, highest + turns * self._advance - (source - 1))
        self.is_identity = (
            ratio == 1 and self._phases == [[(0, np.float32(1))]] and (source == target)
        )

    def rows(self, planes: Array) -> Array:
        """Filter n x H x W from top to bottom."""
        return self._along(planes, 1)

    def columns(self, planes: Array) -> Array:
        """Filter n x H x W from left to right."""
        return self._along(planes, 2)

    def _along(self, planes: Array, axis: int) -> Array:
        if self.is_identity:
            return planes
        padded = self._padded(planes, axis)
        shape = list(planes.shape)
        shape[axis] = self._count
        out = np.empty(shape, np.float32)
        for number, phase in enumerate(self._phases):
            place = out[_at(axis, slice(number, None, self._period))]
            self._sum(padded, phase, place, axis)
        return out

    def _sum(
        self, padded: Array, phase: list[tuple[int, np.float32]], out: Array, axis: int
    ) -> None:
        count = out.shape[axis]
        total: Array | None = None
        for index, weight in phase:
            start = index + self._before
            stop = start + (count - 1) * self._advance + 1
            part = padded[_at(axis, slice(start, stop, self._advance))]
            if total is None:
                total = part * weight
            else:
                total += part * weight
        out[...] = 0 if total is None else total

    def _padded(self, planes: Array, axis: int) -> Array:
        if not self._before and not self._after:
            return planes
        first = planes[_at(axis, slice(0, 1))].repeat(self._before, axis)
        last = planes[_at(axis, slice(-1, None))].repeat(self._after, axis)
        return np.concatenate([first, planes, last], axis)


def _at(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)


def resampler(source: Grid, target: Grid, between: Grid | None = None) -> Resampler:
    """Return the filter from one grid to another, on request by way of a third."""
    found = taps(source, target)
    if between is not None:
        found = composed(taps(source, between), taps(between, target))
    return Resampler(found, target.step / source.step, source.count, target.count)
