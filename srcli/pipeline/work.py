"""Pictures of one size on their way through a network, and their progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from srcli.backends.base import Images, not_finite
from srcli.pipeline.planes import BLEED, Plane
from srcli.pipeline.rows import Sliding

RawPart = tuple[Plane, Plane | None, int]
"""Rows of output before they are rounded: colour, alpha, and bits per channel of the input."""

NETWORK_SHARE, ROWS_SHARE = 0.45, 0.15  # of --memory; the rest is for what reads and writes

Progress = Callable[[int, int], None]
"""A function that is called with the number of input pixels done and their total."""


def ignore_progress(done: int, total: int) -> None:
    """Ignore progress, for callers that do not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Pictures of one size on their way through the network, with their frames."""

    sources: Sequence[Sliding]
    height: int
    width: int
    has_alpha: bool
    progress: Progress

    @property
    def layers(self) -> int:
        """Pictures that the network gets, alpha counted as one of its own."""
        return len(self.sources) * (2 if self.has_alpha else 1)

    @property
    def context(self) -> int:
        """Rows above and below a strip that transparent pixels may take their colour from."""
        return BLEED if self.has_alpha else 0


def check_finite(restored: Images) -> None:
    """Raise `SrcliError` if a value is infinite or not a number."""
    if not np.isfinite(restored).all():
        raise not_finite()
