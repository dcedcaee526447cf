"""Pictures in temporary files, to be turned or encoded in little memory."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.images import vips
from srcli.images.geometry import TURNS
from srcli.images.picture import Pixels
from srcli.images.tags import Directory, Value, serialized
from srcli.system import files

if TYPE_CHECKING:
    from pyvips import Image

_ROWS = 256  # stored rows per block
_STRIP = 1 << 20  # bytes


class RowSpool:
    """Rows in a file beside the target, from which libvips can encode.

    The file is an uncompressed BigTIFF, because libvips reads a TIFF strip by strip; plain
    samples it would map as a whole, and the process would grow with the picture.
    """

    def __init__(self, path: Path, width: int, height: int, bands: int, bits: int) -> None:
        """Create the file; errors are those of the operating system."""
        self._path = path
        files.begin(path)  # before it is there: Ctrl-C may come at any moment
        try:
            self._file = path.open("xb")
        except OSError:
            files.end(path)
            raise
        try:
            self._file.write(_tiff_head(width, height, bands, bits))
        except BaseException:
            self.remove()
            raise

    def write(self, pixels: Pixels) -> None:
        """Append rows, n x width x bands."""
        self._file.write(np.ascontiguousarray(pixels).data)

    def image(self) -> Image:
        """Return all rows as a lazy libvips image, once they are written."""
        self._file.close()
        return vips.load("tiffload_source", self._path, unlimited=True)

    def remove(self) -> None:
        """Delete the file."""
        with suppress(OSError):  # what was buffered may not fit on a full disk
            self._file.close()
        self._path.unlink(missing_ok=True)
        files.end(self._path)


def _tiff_head(width: int, height: int, bands: int, bits: int) -> bytes:
    """Return a BigTIFF file without its samples, which follow in rows without gaps."""
    row = width * bands * bits // 8
    rows = max(1, min(height, _STRIP // row))
    sizes = [min(rows, height - top) * row for top in range(0, height, rows)]

    def short(*numbers: int) -> Value:
        return Value(3, len(numbers), struct.pack(f"<{len(numbers)}H", *numbers))

    def long(*numbers: int) -> Value:
        return Value(16, len(numbers), struct.pack(f"<{len(numbers)}Q", *numbers))

    def directory(first: int) -> bytes:
        offsets = [first + rows * row * i for i in range(len(sizes))]
        values = {
            256: long(width), 257: long(height), 258: short(*[bits] * bands), 259: short(1),
            262: short(1 if bands < 3 else 2), 273: long(*offsets), 277: short(bands),
            278: long(rows), 279: long(*sizes),
        }  # fmt: skip
        if bands in (2, 4):
            values[338] = short(2)  # the last band is alpha, not premultiplied
        return serialized(Directory(values, {}), 16, sys.byteorder, big=True)

    start = 16 + len(directory(0))
    order = "<" if sys.byteorder == "little" else ">"
    mark = b"II" if sys.byteorder == "little" else b"MM"
    return mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + directory(start)


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
        self._file = tempfile.TemporaryFile(dir=folder)
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
        """Return upright rows top..bottom-1; calls may come in any order."""
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
        """Read pixels from the file; `start` counts pixels."""
        size = self._channels * self._kind.itemsize
        self._file.seek(start * size)
        data = self._file.read(shape[0] * shape[1] * size)
        pixels: Pixels = np.frombuffer(data, self._kind)
        return pixels.reshape(*shape, self._channels)
