"""The request to open a file, the result, and the checks that all formats share."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images import vips
from srcli.images.formats import MAX_SIDE
from srcli.images.metadata import Gathered
from srcli.images.spliced import Spliced

if TYPE_CHECKING:
    from pyvips import Image

    from srcli.images.picture import Pixels

# Decoded bytes for each byte of a PNG or TIFF. Deflate reaches a thousand, thirty times as much
# where one bit stands for an RGBA pixel; no lossless compression of a TIFF comes near.
LARGEST_EXPANSION = 100_000
# Of a JPEG file that another decoder than libjpeg reads, which nothing can stop on its way.
LARGEST_OF_RARE_JPEG = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A request to open a picture: its source and options."""

    source: Path | bytes
    name: str
    max_pixels: int | None
    page: int | None  # counted from 1; None where a file should hold one picture
    decode: bool  # whether pixels will be asked for

    def check_size(self, size: tuple[int, int] | None) -> None:
        """Raise `InputError` if a picture of this size is larger than may be read."""
        if size is None:
            return
        width, height = size
        if min(size) < 1:
            raise InputError(
                f"{self.name}: damaged or incomplete (it says it has {width} x {height} pixels)",
                "get a whole copy of it",
            )
        what = f"{self.name}: {width} x {height} is {width * height:,} pixels"
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise InputError(
                f"{what}, more than the limit of {self.max_pixels:,}",
                "if you trust the file, raise --max-pixels",
            )
        if max(size) > MAX_SIDE:
            raise InputError(
                f"{what}, more than the {MAX_SIDE:,} a side that can be read", "crop it"
            )

    def check_page(self, pages: int) -> int:
        """Return the wanted page, from 0; raise `InputError` if it is not named or not there."""
        if self.page is None and pages > 1:
            raise InputError(
                f"{self.name}: holds {pages} pages or frames, of which one is restored",
                f"say which, as in --page 1 (up to {pages}), to a command that restores; for other "
                "commands save them as separate files first",
            )
        if self.page is not None and not 1 <= self.page <= pages:
            has = "only one page" if pages == 1 else f"{pages} pages or frames"
            raise InputError(
                f"{self.name}: has {has}; --page {self.page} is none of them",
                f"Give a number from 1 to {pages}.",
            )
        return (self.page or 1) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of one format's opener."""

    image: Image | Pixels
    """Of libvips, or the array itself, H x W x 1 to 4."""

    gathered: Gathered
    profile_used: bool = False  # the colour profile has done its work; the result is sRGB
    lazily: bool = False  # rows can be had from top to bottom, in little memory


def binary(source: Path | bytes) -> BinaryIO:
    """Return the source as an open file."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def sample_type(image: Image) -> np.dtype[np.uint8 | np.uint16]:
    """Return the array type of a libvips image of uchar or ushort."""
    return np.dtype(np.uint8) if image.format == "uchar" else np.dtype(np.uint16)


def check_content(
    request: ReadRequest,
    size: tuple[int, int],
    pixel: int,
    file: BinaryIO,
    largest: int = LARGEST_EXPANSION,
) -> None:
    """Refuse a header that promises more than the bytes behind it could hold.

    Otherwise a damaged TIFF of 2 kB takes half a minute and gigabytes to be found out.
    """
    held = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size[0] * size[1] * pixel > largest * held:
        raise InputError(
            f"{request.name}: says it has {size[0]} x {size[1]} pixels, but holds only {held:,} "
            "bytes",
            "The file is damaged or incomplete; get it again.",
        )


def lazy(loader: str, source: Path | bytes | Spliced, fail_on: str, **options: object) -> Image:
    """Return a lazy libvips image; each loader is only called on its own magic bytes."""
    return vips.load(loader, source, fail_on=fail_on, **options)
