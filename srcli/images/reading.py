"""Read pictures: from a file to pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from srcli.images import vips
from srcli.images.formats import MAX_PIXELS
from srcli.images.geometry import TURNS
from srcli.images.opening import Opened, open_image
from srcli.images.picture import Header, Metadata, Picture, Pixels
from srcli.images.request import sample_type

if TYPE_CHECKING:
    from pyvips import Image


class _Options(TypedDict):
    max_pixels: int | None
    name: str | None
    page: int | None


def probe(
    source: Path | bytes,
    *,
    max_pixels: int | None = MAX_PIXELS,
    name: str | None = None,
    page: int | None = None,
) -> Header:
    """Read only the header.

    Args:
        source: a file, or all bytes of one.
        max_pixels: refuse more than this; None for no limit.
        name: what messages call it; the path by default.
        page: which page or frame, counted from 1; None where there should be one only.

    Raises:
        InputError: it cannot be opened, or is nothing that `read` would take.
        MissingPartError: it needs a package that is not installed.
    """
    return probe_all(source, max_pixels=max_pixels, name=name, page=page)[0]


def probe_all(
    source: Path | bytes,
    *,
    max_pixels: int | None = MAX_PIXELS,
    name: str | None = None,
    page: int | None = None,
) -> tuple[Header, Metadata]:
    """Read the header, as `probe`, and the metadata, which may be megabytes."""
    with vips.reading(label(source, name)):
        opened = vips.attempt(
            lambda: open_image(source, max_pixels=max_pixels, name=name, decode=False, page=page)
        )
    return opened.header, opened.metadata


def read(
    source: Path | bytes,
    *,
    max_pixels: int | None = MAX_PIXELS,
    name: str | None = None,
    page: int | None = None,
) -> Picture:
    """Decode a picture, upright, as grey or RGB with or without alpha, 8 or 16 bits.

    Palette becomes RGB, 1 bit becomes 0 and 255, CMYK becomes sRGB through its profile.
    Arguments and errors are those of `probe`; damaged or incomplete data is an error as well.
    """

    def whole() -> tuple[Opened, Pixels]:
        opened = open_image(source, max_pixels=max_pixels, name=name, page=page)
        image = opened.image
        return opened, image if isinstance(image, np.ndarray) else decoded(image)

    with vips.reading(label(source, name)):
        opened, pixels = vips.attempt(whole)
    return _picture(opened, pixels)


class Opening:
    """A picture whose header has been read, and whose pixels follow if they are asked for.

    Args:
        source: as for `probe`.
        max_pixels: as for `probe`.
        name: as for `probe`.
        page: as for `probe`.

    Raises:
        InputError: as for `probe`.
        MissingPartError: as for `probe`.
    """

    def __init__(
        self,
        source: Path | bytes,
        *,
        max_pixels: int | None = MAX_PIXELS,
        name: str | None = None,
        page: int | None = None,
    ) -> None:
        self._source = source
        self._options: _Options = {"max_pixels": max_pixels, "name": name, "page": page}
        with vips.reading(label(source, name)):
            self._opened = vips.attempt(lambda: open_image(source, **self._options))

    @property
    def header(self) -> Header:
        return self._opened.header

    @property
    def metadata(self) -> Metadata:
        return self._opened.metadata

    def read(self) -> Picture:
        """Decode the picture, once; the errors are those of the function `read`."""
        image = self._opened.image
        with vips.reading(label(self._source, self._options["name"])), vips.Watch() as watch:
            pixels = image if isinstance(image, np.ndarray) else decoded(image)
        if watch.quiet:
            return _picture(self._opened, pixels)
        # What was decoded in part is of no use, and only a second time tells the reason.
        return read(self._source, **self._options)


def _picture(opened: Opened, pixels: Pixels) -> Picture:
    color, alpha = split(turned(pixels, opened.header.orientation))
    return Picture(color=color, alpha=alpha, metadata=opened.metadata, notes=opened.notes)


def is_opaque(
    source: Path | bytes,
    *,
    max_pixels: int | None = MAX_PIXELS,
    name: str | None = None,
    page: int | None = None,
) -> bool:
    """Tell whether no pixel is transparent; the whole picture is decoded for that if it has alpha.

    Arguments and errors are those of `read`.
    """

    def seen() -> bool:
        opened = open_image(source, max_pixels=max_pixels, name=name, page=page)
        image = opened.image
        if not opened.header.has_alpha:
            return True
        if isinstance(image, np.ndarray):
            minimum = int(image[..., -1].min())
        else:
            band = image.extract_band(image.bands - 1)
            minimum = int(vips.interruptible(band, band.min))
        return minimum >= (255 if opened.header.bits == 8 else 65535)

    with vips.reading(label(source, name)):
        return vips.attempt(seen)


def label(source: Path | bytes, name: str | None) -> str:
    """Return what messages call the source."""
    return vips.shown(name or ("standard input" if isinstance(source, bytes) else source))


def decoded(image: Image) -> Pixels:
    """Return all pixels of a libvips image, H x W x bands."""
    data = vips.interruptible(image, image.write_to_memory)
    pixels: Pixels = np.frombuffer(data, sample_type(image))
    return pixels.reshape(image.height, image.width, image.bands)


def split(pixels: Pixels) -> tuple[Pixels, Pixels | None]:
    """Split H x W x 1..4 into contiguous colour (H x W x 1 or 3) and alpha (H x W) or None."""
    channels = 1 if pixels.shape[2] < 3 else 3
    alpha = pixels[..., channels] if pixels.shape[2] > channels else None
    color = np.ascontiguousarray(pixels[..., :channels])
    return color, None if alpha is None else np.ascontiguousarray(alpha)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to H x W x C, as a view."""
    transpose, flip_rows, flip_columns = TURNS[orientation]
    upright = pixels.swapaxes(0, 1) if transpose else pixels
    return upright[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
