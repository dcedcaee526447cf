"""Pictures too large to hold: rows in and rows out, top to bottom, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from srcli.images import bmp, vips
from srcli.images.formats import format_of
from srcli.images.picture import Header, Metadata, Pixels, SaveOptions
from srcli.images.pixels import over, to_8_bits
from srcli.images.reading import MAX_PIXELS, Opened, open_image, sample_type, split, turned
from srcli.images.writing import check_output, check_target, interpreted, save_image, whole_file

_ROWS = 256  # rows per step when a whole picture passes through


class StripReader:
    """Reads a picture's rows from top to bottom, each converted as `read` would.

    What cannot be decoded in that order (a turned picture) is decoded once into a temporary file
    and read from there. Use it as a context manager.
    """

    def __init__(
        self,
        source: Path | bytes,
        *,
        max_pixels: int | None = MAX_PIXELS,
        name: str | None = None,
        folder: Path | None = None,
    ) -> None:
        """Read the header. `folder` is where the temporary file goes, if one is needed.

        Raises:
            InputError: as `probe`.
        """
        opened = open_image(source, max_pixels=max_pixels, name=name)
        self._name = opened.name
        self.header: Header = opened.header
        self.metadata: Metadata = opened.metadata
        self.notes: tuple[str, ...] = opened.notes
        self._folder = folder
        self._spool: Path | None = None
        self._opened: Opened | None = opened
        self._pixels: Pixels | None = None
        self._region: Any = None
        self._next = 0

    @property
    def streams(self) -> bool:
        """Whether rows come straight from the file."""
        return self.header.streams

    def rows(self, top: int, bottom: int) -> tuple[Pixels, Pixels | None]:
        """Rows top..bottom-1: colour (n x W x C) and alpha (n x W) or None.

        Each call starts where the one before it ended, or further down.

        Raises:
            InputError: the file is damaged or incomplete.
        """
        if not 0 <= self._next <= top < bottom <= self.header.height:
            raise ValueError(f"rows {top}..{bottom} after {self._next}")
        self._next = bottom
        with vips.reading(self._name):
            return split(self._fetch(top, bottom))

    def strips(self, height: int) -> Iterator[tuple[int, Pixels, Pixels | None]]:
        """All rows, `height` at a time: (top, colour, alpha)."""
        for top in range(0, self.header.height, height):
            yield top, *self.rows(top, min(top + height, self.header.height))

    def close(self) -> None:
        self._opened = self._region = self._pixels = None
        if self._spool is not None:
            with suppress(FileNotFoundError):
                self._spool.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fetch(self, top: int, bottom: int) -> Pixels:
        if self._pixels is None and self._region is None:
            self._start()
        if self._pixels is not None:
            return self._pixels[top:bottom]
        return self._crop(top, bottom - top)

    def _start(self) -> None:
        assert self._opened is not None
        image = self._opened.image
        if isinstance(image, np.ndarray):
            self._pixels = image
            return
        self._region, self._image = vips.library().Region.new(image), image
        if self.header.orientation != 1:
            self._pixels = turned(self._spooled(), self.header.orientation)

    def _crop(self, top: int, rows: int) -> Pixels:
        image = self._image
        data = self._region.fetch(0, top, image.width, rows)
        pixels: Pixels = np.frombuffer(data, sample_type(image))
        return pixels.reshape(rows, image.width, image.bands)

    def _spooled(self) -> Pixels:
        """All rows as stored, in a temporary file that is mapped into memory."""
        image = self._image
        handle, path = tempfile.mkstemp(prefix=".srcli-", suffix=".part", dir=self._folder)
        os.close(handle)
        self._spool = Path(path)
        shape = (image.height, image.width, image.bands)
        pixels = np.memmap(self._spool, sample_type(image), "r+", shape=shape)
        for top in range(0, image.height, _ROWS):
            rows = min(_ROWS, image.height - top)
            pixels[top : top + rows] = self._crop(top, rows)
        return pixels


class StripWriter:
    """Takes a picture's rows from top to bottom, then writes the file in bounded memory.

    The rows wait uncompressed in a file beside the target, which libvips maps and encodes from.
    `close` finishes the file; `abort`, or leaving the `with` block by an exception, leaves
    nothing behind.
    """

    def __init__(
        self,
        target: Path,
        *,
        width: int,
        height: int,
        channels: int,
        has_alpha: bool,
        bits: int,
        metadata: Metadata | None = None,
        options: SaveOptions | None = None,
    ) -> None:
        self._target, self._options = target, options or SaveOptions()
        self._format = format_of(self._options.format or target)
        check_output(width, height, has_alpha, bits, self._format.name, self._options, str(target))
        check_target(target)
        self._metadata = metadata or Metadata()
        self._width, self._height = width, height
        self._lay = has_alpha and (self._options.background is not None)
        self._rows = 0
        self._bands = 0
        with vips.writing(str(target)):
            handle, path = tempfile.mkstemp(prefix=".srcli-", suffix=".part", dir=target.parent)
            self._path = Path(path)
            self._file = os.fdopen(handle, "wb")

    def write(self, color: Pixels, alpha: Pixels | None = None) -> None:
        """Append rows: colour n x W x C, alpha n x W.

        Raises:
            OutputError: the disk is full, for example.
        """
        if alpha is not None and self._lay:
            color, alpha = over(color, alpha, self._options.background or (0, 0, 0)), None
        pixels = color if alpha is None else np.concatenate([color, alpha[..., None]], axis=2)
        if self._format.bits == 8:
            pixels = to_8_bits(pixels)
        self._bands, self._kind = pixels.shape[2], pixels.dtype
        self._rows += pixels.shape[0]
        with vips.writing(str(self._target)):
            self._file.write(np.ascontiguousarray(pixels).data)

    def close(self) -> None:
        """Encode the rows and give the file its name.

        Raises:
            OutputError: the file cannot be written; nothing is left behind.
            ValueError: rows are missing.
        """
        try:
            if self._rows != self._height:
                raise ValueError(f"{self._rows} of {self._height} rows were written")
            with vips.writing(str(self._target)):
                self._file.close()
                self._encode()
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove everything that is not finished."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _encode(self) -> None:
        if self._format.name == "bmp":
            shape = (self._height, self._width, self._bands)
            pixels = np.memmap(self._path, np.uint8, "r", shape=shape)
            with whole_file(self._target) as file:
                file.write(bmp.encode(pixels, self._metadata.dpi))
            return
        image = vips.library().Image.rawload(
            str(self._path), self._width, self._height, self._bands,
            format="uchar" if self._kind == np.uint8 else "ushort", access="sequential",
        )  # fmt: skip
        with whole_file(self._target) as file:
            save_image(interpreted(image), file, self._format, self._metadata, self._options)
