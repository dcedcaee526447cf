"""Enlarge by several passes of a network, for factors beyond its largest scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from srcli.images import Picture
from srcli.pipeline.planes import Part
from srcli.pipeline.restorer import Restorer
from srcli.pipeline.rows import Rows
from srcli.pipeline.tiling import enlarged
from srcli.pipeline.work import Progress, ignore_progress

ROWS_AT_ONCE = 256
BETWEEN = 16  # bits per channel of what lies between two passes


class Passes:
    """Restorers that a picture goes through one after the other.

    Between them pictures have 16 bits per channel (floats stay floats), so that they are rounded to
    8 once.
    """

    def __init__(self, restorers: Sequence[Restorer]) -> None:
        self._restorers = restorers

    def restore_all(
        self,
        pictures: Sequence[Picture],
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        """Restore pictures of one size, channels and bits; see `Restorer.restore_all`.

        Without restorers they stay as they are.
        """
        if not self._restorers:
            return list(pictures)
        *before, last = self._restorers
        bits = pictures[0].bits
        between = max(bits, BETWEEN)
        for number, restorer in enumerate(before):
            pictures = restorer.restore_all(pictures, self._share(progress, number), bits=between)
        return last.restore_all(pictures, self._share(progress, len(before)), size, bits)

    def restore_strips(
        self,
        rows: Rows,
        height: int,
        width: int,
        *,
        has_alpha: bool,
        bits: int,
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Part]:
        """Restore one picture of any height in bounded memory; see `Restorer.restore_strips`."""
        if not self._restorers:
            yield from _as_they_are(rows, height)
            return
        *before, last = self._restorers
        for restorer in before:
            parts = restorer.restore_strips(rows, height, width, has_alpha=has_alpha, bits=BETWEEN)
            rows = _rows_from(parts)
            height, width = enlarged(height, restorer.scale), enlarged(width, restorer.scale)
        yield from last.restore_strips(
            rows, height, width, has_alpha=has_alpha, progress=progress, size=size, bits=bits
        )

    def _share(self, progress: Progress, number: int) -> Progress:
        """Return progress within one pass, as a part of all of them: the last takes longest."""
        weights = np.cumprod([float(r.scale) ** 2 for r in self._restorers])
        first = weights[:number].sum() / weights.sum()
        share = weights[number] / weights.sum()
        thousand = 1000
        return lambda done, total: progress(
            round(thousand * (first + share * done / total)), thousand
        )


def _as_they_are(rows: Rows, height: int) -> Iterator[Part]:
    for top in range(0, height, ROWS_AT_ONCE):
        yield rows(top, min(top + ROWS_AT_ONCE, height))


def _rows_from(parts: Iterator[Part]) -> Rows:
    """Return rows as they are asked for, from parts of any height."""
    known = 0
    whole: list[Part] = []

    def fetch(top: int, bottom: int) -> Part:
        nonlocal known
        held = whole
        while known < bottom:
            part = next(parts)
            held.append(part)
            known += part[0].shape[0]
        color = np.concatenate([color for color, _ in held])
        alphas = [alpha for _, alpha in held if alpha is not None]
        alpha = np.concatenate(alphas) if alphas else None
        start = known - color.shape[0]
        held.clear()
        rest = bottom - start
        held.append((color[rest:], None if alpha is None else alpha[rest:]))
        return color[top - start : rest], None if alpha is None else alpha[top - start : rest]

    return fetch
