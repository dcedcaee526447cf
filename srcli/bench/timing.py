"""Measure and summarise latencies: one definition for every figure that srcli prints."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Step = Callable[[], object]
"""A function that does one run of what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A summary of samples, in milliseconds."""

    runs: int
    median: float
    mean: float
    minimum: float
    p90: float
    p99: float
    deviation: float
    """Standard deviation."""

    @property
    def variation(self) -> float:
        """Coefficient of variation."""
        return self.deviation / self.mean if self.mean else 0.0


def summarise(samples: Sequence[float]) -> Summary:
    """Summarise samples, at least one."""
    return Summary(
        runs=len(samples),
        median=statistics.median(samples),
        mean=statistics.fmean(samples),
        minimum=min(samples),
        p90=percentile(samples, 90),
        p99=percentile(samples, 99),
        deviation=statistics.stdev(samples) if len(samples) > 1 else 0.0,
    )


def percentile(samples: Sequence[float], share: float) -> float:
    """Return a percentile, interpolated linearly between samples as numpy does by default."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * share / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def clock(step: Step) -> float:
    """Return the wall-clock milliseconds of one run that returns when its work is done."""
    started = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - started)


def for_a_while(sample: Callable[[], float], seconds: float, maximum: int = 1000) -> list[float]:
    """Take samples until `seconds` are over: at least one, at most `maximum`."""
    end = time.perf_counter() + seconds
    samples = [sample()]
    while time.perf_counter() < end and len(samples) < maximum:
        samples.append(sample())
    return samples


def ratio_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95, draws: int = 2000
) -> tuple[float, float, float]:
    """Return median(second) / median(first), and its bootstrap confidence interval.

    Percentile method; the same samples give the same interval.

    Returns:
        The ratio, and the interval's lower and upper end.
    """
    chance = random.Random(0)
    ratios = sorted(
        statistics.median(chance.choices(second, k=len(second)))
        / statistics.median(chance.choices(first, k=len(first)))
        for _ in range(draws)
    )
    tail = 100 * (1 - confidence) / 2
    ratio = statistics.median(second) / statistics.median(first)
    return ratio, percentile(ratios, tail), percentile(ratios, 100 - tail)
