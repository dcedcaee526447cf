"""Read and write pictures row by row, from top to bottom, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from srcli.images import vips
from srcli.images.formats import MAX_PIXELS, format_of
from srcli.images.opening import Opened, open_image
from srcli.images.picture import Header, Metadata, Pixels, SaveOptions
from srcli.images.pixels import over, to_8_bits
from srcli.images.reading import decoded, label, split, turned
from srcli.images.request import sample_type
from srcli.images.spool import RowSpool, TurnedSpool
from srcli.images.writing import check_output, check_target, save_bmp, save_image
from srcli.system.closing import Closing
from srcli.system.files import atomic_path, temporary_name

if TYPE_CHECKING:
    from pyvips import Image, Region

_ROWS_AT_ONCE = 256


class StripReader(Closing):
    """Reads a picture's rows from top to bottom, each converted as `read` would.

    A turned picture cannot be decoded in that order: it is decoded once into a temporary file,
    and its rows are taken from there. WebP, AVIF and BMP are decoded whole; their own limits (or
    `max_pixels`) bound the memory. Use it as a context manager.
    """

    def __init__(
        self,
        source: Path | bytes,
        *,
        max_pixels: int | None = MAX_PIXELS,
        name: str | None = None,
        folder: Path | None = None,
        page: int | None = None,
    ) -> None:
        """Read the header.

        Args:
            source, max_pixels, name, page: as for `read`.
            folder: where the temporary file goes, if one is needed; the system's by default.

        Raises:
            InputError: as `probe`.
        """

        def again() -> Opened:
            return open_image(source, max_pixels=max_pixels, name=name, page=page)

        self._again = again
        with vips.reading(label(source, name)):
            opened = vips.attempt(again)
        self.header: Header = opened.header
        self.metadata: Metadata = opened.metadata
        self.notes: tuple[str, ...] = opened.notes
        self._name, self._folder = opened.name, folder
        self._image: Image | Pixels | None = opened.image
        self._region: Region | None = None
        self._spool: TurnedSpool | None = None
        self._next = 0

    @property
    def streams(self) -> bool:
        """True if rows come straight from the file, in little memory."""
        return self.header.streams

    def rows(self, top: int, bottom: int) -> tuple[Pixels, Pixels | None]:
        """Return rows top..bottom-1: colour (n x W x C) and alpha (n x W) or None.

        Each call starts where the one before it ended, or further down.

        Raises:
            InputError: the file is damaged or incomplete.
        """
        if not self._next <= top < bottom <= self.header.height:
            raise ValueError(f"rows {top} to {bottom} of {self.header.height} after {self._next}")
        self._next = bottom
        with vips.reading(self._name):
            return self._attempt(top, bottom)

    def strips(self, height: int) -> Iterator[tuple[int, Pixels, Pixels | None]]:
        """Yield all rows, `height` at a time: (top, colour, alpha)."""
        for top in range(0, self.header.height, height):
            yield top, *self.rows(top, min(top + height, self.header.height))

    def close(self) -> None:
        """Close the file and remove the temporary one."""
        self._image = self._region = None
        if self._spool is not None:
            self._spool.close()

    def _attempt(self, top: int, bottom: int) -> tuple[Pixels, Pixels | None]:
        """Read rows; if libvips fails or warns, open the file anew and read alone."""

        def again() -> tuple[Pixels, Pixels | None]:
            self.close()
            self._spool, self._image = None, self._again().image
            for first in range(0, top, _ROWS_AT_ONCE):
                self._fetch(first, min(first + _ROWS_AT_ONCE, top))
            return split(self._fetch(top, bottom))

        found: list[tuple[Pixels, Pixels | None]] = []
        with vips.Watch() as watch:
            found.append(split(self._fetch(top, bottom)))
        return found[0] if watch.quiet else vips.attempt_alone(again)

    def _fetch(self, top: int, bottom: int) -> Pixels:
        if isinstance(self._image, np.ndarray):
            return turned(self._image, self.header.orientation)[top:bottom]
        if self.header.orientation == 1:
            return self._stored(top, bottom)
        if self._spool is None:
            height = self._lazy().height
            orientation = self.header.orientation
            self._spool = TurnedSpool(self._stored, height, orientation, self._folder)
        return self._spool.rows(top, bottom)

    def _stored(self, top: int, bottom: int) -> Pixels:
        """Return rows as the file has them, before turning."""
        image = self._lazy()
        self._region = self._region or vips.library().Region.new(image)
        data = self._region.fetch(0, top, image.width, bottom - top)
        pixels: Pixels = np.frombuffer(data, sample_type(image))
        return pixels.reshape(bottom - top, image.width, image.bands)

    def _lazy(self) -> Image:
        image = self._image
        assert image is not None and not isinstance(image, np.ndarray), "libvips decodes it"
        return image


class StripWriter:
    """Takes a picture's rows from top to bottom, then writes the file in bounded memory.

    The rows wait uncompressed in a file beside the target, from which libvips encodes. `close`
    finishes the file; `abort`, or leaving the `with` block by an exception, leaves nothing
    behind. WebP, AVIF and BMP are encoded in memory as a whole.
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
        replace: bool = True,
    ) -> None:
        """Check that the picture can be written, and start.

        Raises:
            UsageError: as `check_output`.
            OutputError: nothing can be written there.
        """
        self._target, self._options = target, options or SaveOptions()
        self._replace = replace
        self._name = vips.shown(target)
        self._format = format_of(self._options.format or target)
        check_output(width, height, has_alpha, bits, self._format.name, self._options, self._name)
        self._metadata = metadata or Metadata()
        self._height, self._given = height, (width, channels, has_alpha, bits)
        self._written = 0
        self._spool: RowSpool | None = None
        check_target(target)

    def write(self, color: Pixels, alpha: Pixels | None = None) -> None:
        """Append rows.

        Args:
            color: n x W x C, of the type that `bits` says.
            alpha: n x W of the same type, or None, as `has_alpha` says.

        Raises:
            OutputError: the disk is full, for example.
        """
        given = (color.shape[1], color.shape[2], alpha is not None, 8 * color.dtype.itemsize)
        if given != self._given:
            raise ValueError(f"rows of {given}, but {self._given} were announced")
        if alpha is not None and self._options.background is not None:
            color, alpha = over(color, alpha, self._options.background), None
        pixels = color if alpha is None else np.concatenate([color, alpha[..., None]], axis=2)
        pixels = to_8_bits(pixels) if self._format.bits == 8 else pixels
        with vips.writing(self._name):
            self._spool = self._spool or self._started(pixels)
            self._spool.write(pixels)
        self._written += pixels.shape[0]

    def close(self) -> None:
        """Encode the rows and give the file its name.

        Raises:
            OutputError: the file cannot be written; nothing is left behind.
            ValueError: there are too few rows or too many.
        """
        try:
            if self._spool is None or self._written != self._height:
                raise ValueError(f"{self._written} rows of {self._height} were written")
            with vips.writing(self._name):
                self._encode(self._spool.image())
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove everything that is not finished."""
        if self._spool is not None:
            self._spool.remove()

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

    def _started(self, pixels: Pixels) -> RowSpool:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        path = self._target.with_name(temporary_name(".rows"))
        _, width, bands = pixels.shape
        return RowSpool(path, width, self._height, bands, 8 * pixels.dtype.itemsize)

    def _encode(self, image: Image) -> None:
        with (
            atomic_path(self._target, replace=self._replace) as partial,
            partial.open("r+b") as file,
        ):
            if self._format.name == "bmp":
                save_bmp(decoded(image), file, self._metadata, self._options)
            else:
                save_image(image, file, self._format, self._metadata, self._options)
