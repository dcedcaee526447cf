"""Open a file: recognise its format by its first bytes, check it, call the format's opener."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images import avif, bmp, frames, vips
from srcli.images.formats import MAGIC_BYTES, Format, refusal, sniff
from srcli.images.openers import OPENERS
from srcli.images.picture import Header, Metadata, Pixels
from srcli.images.request import Found, ReadRequest, binary

if TYPE_CHECKING:
    from pyvips import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file whose header has been read."""

    name: str
    header: Header
    metadata: Metadata
    notes: tuple[str, ...]
    image: Image | Pixels  # a lazy one of libvips, grey or RGB; or the array, H x W x 1 to 4


def open_image(
    source: Path | bytes,
    *,
    max_pixels: int | None,
    name: str | None = None,
    decode: bool = True,
    page: int | None = None,
) -> Opened:
    """Check a file and read its header; the pixels follow when they are asked for.

    Raises:
        InputError: it cannot be opened, or is nothing that is read here.
        MissingPartError: it needs a package that is not installed.
        pyvips.Error: libvips cannot read it.
    """
    label = vips.shown(name or ("standard input" if isinstance(source, bytes) else source))
    request = ReadRequest(
        source=source, name=label, max_pixels=max_pixels, page=page, decode=decode
    )
    fmt = _format(request)
    with binary(source) as file:
        request.check_size(_stated_size(request, fmt, file))
        found = OPENERS[fmt.name](request, file)
    return _opened(request, fmt, found)


def _opened(request: ReadRequest, fmt: Format, found: Found) -> Opened:
    gathered, image = found.gathered, found.image
    if isinstance(image, np.ndarray):
        (height, width, bands), bits = image.shape, 8 * image.dtype.itemsize
    else:
        image = _as_grey_or_rgb(request.name, image)
        width, height, bands = image.width, image.height, image.bands
        bits = 8 if image.format == "uchar" else 16
    request.check_size((width, height))
    told = gathered.orientation if gathered.turned is None else gathered.turned
    stored = (height, width) if gathered.turned is not None and told >= 5 else (width, height)
    metadata = replace(gathered.metadata, size=stored, orientation=told)
    if found.profile_used:
        metadata = replace(metadata, icc=None, converted=True)
    if gathered.orientation >= 5:
        width, height = height, width
    header = Header(
        format=fmt.name, width=width, height=height, channels=1 if bands < 3 else 3,
        has_alpha=bands in (2, 4), bits=bits, orientation=gathered.orientation,
        streams=found.lazily and gathered.orientation == 1,
    )  # fmt: skip
    return Opened(
        name=request.name, header=header, metadata=metadata, notes=gathered.notes, image=image
    )


def _format(request: ReadRequest) -> Format:
    source, label = request.source, request.name
    head = source[:MAGIC_BYTES] if isinstance(source, bytes) else _head(source)
    if not head:
        raise InputError(f"{label}: the file is empty", "get a whole copy of it")
    fmt = sniff(head)
    if fmt is None:
        raise refusal(label, head)
    return fmt


def _head(path: Path) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode) or path.is_dir():
            with path.open("rb") as file:
                return file.read(MAGIC_BYTES)
    except ValueError as error:  # a NUL in the name
        raise InputError(
            f"{vips.shown(path)}: this cannot be a file's name", "rename the file"
        ) from error
    raise InputError(
        f"{vips.shown(path)}: not a regular file", "pipe it in and name `-` as the input"
    )


def _stated_size(request: ReadRequest, fmt: Format, file: BinaryIO) -> tuple[int, int] | None:
    """Return the stated width and height, to be checked before any library believes them."""
    readers = {"avif": avif.size, "heic": avif.size, "bmp": bmp.size, "gif": frames.gif_size}
    reader = readers.get(fmt.name)
    return reader(file) if reader else None


def _as_grey_or_rgb(label: str, image: Image) -> Image:
    """Return the picture as grey or RGB, if it has 1 to 4 bands of uchar or ushort."""
    known = image.interpretation in ("b-w", "grey16", "srgb", "rgb16", "rgb")
    if known and image.format in ("uchar", "ushort") and image.bands <= 4:
        return image
    raise InputError(
        f"{label}: holds {image.bands} x {image.format} {image.interpretation} samples, which "
        "cannot be kept exactly",
        "convert it to 8- or 16-bit grey or RGB first",
    )
