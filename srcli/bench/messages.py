"""Records that a benchmark and the processes that measure send each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Session
from srcli.bench.timing import Step
from srcli.models.spec import Geometry, Scale

FileRoute = Callable[[Session, Geometry, Scale, Sequence[NDArray[np.uint8]], Path], Step]
"""A function that writes pictures (H x W x 3) and returns a run from file to file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Settings of a worker that hold for all rows."""

    keep_memory: bool = True
    """True if memory that a run frees stays with the process for the next run."""

    files: FileRoute | None = None
    """Function for rows of scope `file`; this package itself reads and writes no pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A reference result: a picture, and what the published float32 network makes of it."""

    weights: Path | None
    """None for the weights that ship; else a file of random ones, which take the same time."""

    picture: Path
    restored: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Measurements of a row in one turn."""

    samples: list[float]
    """Milliseconds by the row's clock."""

    host: list[float]
    """On CUDA: milliseconds by the host's clock, from the launch to the end."""

    burst: float | None
    """On CUDA: milliseconds of a run, as the mean of many that are launched in a row."""

    faults: float | None
    """Page faults in one run; None where the system does not count them."""

    others: float | None
    """CPU cores that other processes kept busy meanwhile; None where this is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A row that is open, and its result compared with the reference."""

    error: float
    """Largest difference from the reference, relative to its largest value."""

    tolerance: float
    facts: dict[str, object]
    """Facts from the session, clock, allocator, peak of memory, and the weights' checksum."""
