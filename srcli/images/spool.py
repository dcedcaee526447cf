"""A decoded picture in a temporary file, whose rows can be had turned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from srcli.images.picture import Pixels
from srcli.images.reading import TURNS

_ROWS = 256  # stored rows per block


class TurnedSpool:
    """Rows of an upright picture, from one that was stored in another orientation.

    When rows become columns, each block of stored rows is transposed before it goes to the file:
    then a few upright rows are one contiguous piece of every block, and neither writing nor
    reading jumps about in the file.
    """

    def __init__(
        self,
        stored: Callable[[int, int], Pixels],
        height: int,
        orientation: int,
        folder: Path | None = None,
    ) -> None:
        """Take over a picture.

        Args:
            stored: gives rows [top, bottom) as stored, h x w x C; called from top to bottom.
            height: of the picture as stored.
            orientation: EXIF's 1..8.
            folder: for the temporary file.
        """
        self._transposed, self._flip_rows, self._flip_columns = TURNS[orientation]
        self._blocks = [(top, min(top + _ROWS, height)) for top in range(0, height, _ROWS)]
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as we do
        try:
            for top, bottom in self._blocks:
                block = stored(top, bottom)
                self._width, self._channels, self._kind = *block.shape[1:], block.dtype
                turned = block.swapaxes(0, 1) if self._transposed else block
                self._file.write(np.ascontiguousarray(turned).data)
        except BaseException:
            self.close()
            raise
        self._height = self._width if self._transposed else height

    def rows(self, top: int, bottom: int) -> Pixels:
        """Upright rows top..bottom-1, in any order."""
        if self._flip_rows:
            top, bottom = self._height - bottom, self._height - top
        pixels = self._across(top, bottom) if self._transposed else self._piece(top, bottom)
        down, right = (-1 if flip else 1 for flip in (self._flip_rows, self._flip_columns))
        return pixels[::down, ::right]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _piece(self, top: int, bottom: int) -> Pixels:
        return self._load(top * self._width, (bottom - top, self._width))

    def _across(self, top: int, bottom: int) -> Pixels:
        pieces = []
        for first, last in self._blocks:
            rows = last - first
            start = first * self._width + top * rows
            pieces.append(self._load(start, (bottom - top, rows)))
        return np.concatenate(pieces, axis=1)

    def _load(self, start: int, shape: tuple[int, int]) -> Pixels:
        """Pixels from the file; `start` counts pixels."""
        size = self._channels * self._kind.itemsize
        self._file.seek(start * size)
        data = self._file.read(shape[0] * shape[1] * size)
        pixels: Pixels = np.frombuffer(data, self._kind)
        return pixels.reshape(*shape, self._channels)
