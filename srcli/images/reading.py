"""From a file to pixels: what may be opened at all, and how each kind becomes grey or RGB."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images import avif, bmp, exif, png, vips
from srcli.images.formats import MAGIC_BYTES, MAX_SIDE, Format, names, refusal, sniff
from srcli.images.metadata import Gathered, gather
from srcli.images.picture import Header, Metadata, Picture, Pixels

MAX_PIXELS = 500_000_000

# Decoded bytes for each byte of a PNG or TIFF. Deflate reaches a thousand, thirty times as much
# where one bit stands for an RGBA pixel; no lossless compression of a TIFF comes near.
LARGEST_EXPANSION = 100_000

# What each loader is told. Only these five are ever called, and each on a file that starts with
# its own magic bytes. "warning" is where libvips counts damaged JPEG data and TIFF tiles; in PNG
# it would refuse harmless oddities.
_LOADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("pngload_source", {"fail_on": "error"}),
    "jpeg": ("jpegload_source", {"fail_on": "warning"}),
    # libtiff's own limit refuses honest pictures stored as one strip; --max-pixels bounds them.
    "tiff": ("tiffload_source", {"fail_on": "warning", "unlimited": True}),
    "webp": ("webpload_source", {"fail_on": "error"}),
    "avif": ("heifload_source", {"fail_on": "error"}),
}
_PASSES = ("interlaced", "jpeg-multiscan")  # libvips' words for a picture stored in several passes
# Turning upright: (transpose first?, flip rows?, flip columns?) for EXIF orientations 1 to 8.
TURNS = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file whose header has been read; `image` is libvips' lazy picture, grey or RGB."""

    name: str
    header: Header
    metadata: Metadata
    notes: tuple[str, ...]
    image: Any  # a pyvips.Image, or for a BMP the array itself


def probe(
    source: Path | bytes, *, max_pixels: int | None = MAX_PIXELS, name: str | None = None
) -> Header:
    """Read only the header.

    Args:
        source: a file, or all bytes of one.
        max_pixels: refuse more than this; None for no limit.
        name: what messages call it; the path by default.

    Raises:
        InputError: it cannot be opened, or is nothing that `read` would take.
    """
    return probe_all(source, max_pixels=max_pixels, name=name)[0]


def probe_all(
    source: Path | bytes, *, max_pixels: int | None = MAX_PIXELS, name: str | None = None
) -> tuple[Header, Metadata]:
    """As `probe`, with what the file says beside its pixels, which may be megabytes."""
    opened = open_image(source, max_pixels=max_pixels, name=name, decode=False)
    return opened.header, opened.metadata


def read(
    source: Path | bytes, *, max_pixels: int | None = MAX_PIXELS, name: str | None = None
) -> Picture:
    """Decode a picture, upright, as grey or RGB with or without alpha, 8 or 16 bits.

    Palette becomes RGB, 1 bit becomes 0 and 255, CMYK becomes sRGB through its profile.
    Arguments and errors are those of `probe`; damaged or incomplete data is an error as well.
    """
    opened = open_image(source, max_pixels=max_pixels, name=name)
    with vips.reading(opened.name):
        pixels = opened.image if isinstance(opened.image, np.ndarray) else decoded(opened.image)
    color, alpha = split(turned(pixels, opened.header.orientation))
    return Picture(color=color, alpha=alpha, metadata=opened.metadata, notes=opened.notes)


def decoded(image: Any) -> Pixels:
    """All pixels of a libvips image, H x W x bands."""
    data = vips.interruptible(image, image.write_to_memory)
    pixels: Pixels = np.frombuffer(data, sample_type(image))
    return pixels.reshape(image.height, image.width, image.bands)


def sample_type(image: Any) -> np.dtype[np.uint8 | np.uint16]:
    """The array type of a libvips image of uchar or ushort."""
    return np.dtype(np.uint8) if image.format == "uchar" else np.dtype(np.uint16)


def split(pixels: Pixels) -> tuple[Pixels, Pixels | None]:
    """H x W x 1..4 to contiguous colour (H x W x 1 or 3) and alpha (H x W) or None."""
    channels = 1 if pixels.shape[2] < 3 else 3
    alpha = pixels[..., channels] if pixels.shape[2] > channels else None
    color = np.ascontiguousarray(pixels[..., :channels])
    return color, None if alpha is None else np.ascontiguousarray(alpha)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to H x W x C; a view."""
    transpose, flip_rows, flip_columns = TURNS[orientation]
    upright = pixels.swapaxes(0, 1) if transpose else pixels
    return upright[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def open_image(
    source: Path | bytes,
    *,
    max_pixels: int | None = MAX_PIXELS,
    name: str | None = None,
    decode: bool = True,
) -> Opened:
    """Check a file and read its header; the pixels follow when they are asked for."""
    label = name or ("standard input" if isinstance(source, bytes) else vips.shown(source))
    with vips.reading(label):
        fmt = _format(source, label)
        with binary(source) as file:
            _check_size(label, _stated_size(fmt, file), max_pixels)
            if fmt.name == "bmp":
                return _opened_bmp(label, file, decode)
            loader, options = _LOADERS[fmt.name]
            load = getattr(vips.library().Image, loader)
            image = load(vips.source_of(source), access="sequential", **options)
            _check_size(label, (image.width, image.height), max_pixels)
            if fmt.name in ("png", "tiff"):
                _check_content(label, image, file)
            found = gather(label, fmt.name, file, image)
        _check_frames(label, found.frames)
        return _opened(label, fmt, image, found)


def _opened(label: str, fmt: Format, image: Any, found: Gathered) -> Opened:
    plain = _as_grey_or_rgb(label, image)
    # A CMYK picture's profile has done its work; the result is plain sRGB.
    metadata = found.metadata if plain is image else replace(found.metadata, icc=None)
    sides = (image.width, image.height)
    width, height = reversed(sides) if found.orientation >= 5 else sides
    header = Header(
        format=fmt.name,
        width=width,
        height=height,
        channels=1 if plain.bands < 3 else 3,
        has_alpha=plain.bands in (2, 4),
        bits=8 if plain.format == "uchar" else 16,
        orientation=found.orientation,
        streams=found.orientation == 1 and _in_order(fmt, image),
    )
    return Opened(name=label, header=header, metadata=metadata, notes=found.notes, image=plain)


def _in_order(fmt: Format, image: Any) -> bool:
    """Whether the rows lie in the file from top to bottom, once."""
    passes = any(image.get_typeof(name) and image.get(name) for name in _PASSES)
    return fmt.name in ("png", "jpeg", "tiff") and not passes


def binary(source: Path | bytes) -> BinaryIO:
    """The source as an open file."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _format(source: Path | bytes, label: str) -> Format:
    head = source[:MAGIC_BYTES] if isinstance(source, bytes) else _head(source)
    if not head:
        raise InputError(f"{label}: the file is empty; get a whole copy of it")
    fmt = sniff(head)
    if fmt is None:
        raise InputError(f"{label}: {refusal(head)}; convert it to one of {names()}")
    return fmt


def _head(path: Path) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode) or path.is_dir():
            with path.open("rb") as file:
                return file.read(MAGIC_BYTES)
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{vips.shown(path)}: this cannot be a file's name") from error
    raise InputError(
        f"{vips.shown(path)}: not a regular file; pipe it in and name `-` as the input"
    )


def _stated_size(fmt: Format, file: BinaryIO) -> tuple[int, int] | None:
    """Width and height where a header can state absurd ones, before any library believes it."""
    readers = {"png": png.size, "tiff": exif.tiff_size, "avif": avif.size, "bmp": bmp.size}
    reader = readers.get(fmt.name)
    return reader(file) if reader else None


def _check_content(label: str, image: Any, file: BinaryIO) -> None:
    """Refuse a header that promises more than the bytes behind it could hold.

    Otherwise a damaged TIFF of 2 kB takes half a minute and gigabytes to be found out.
    """
    held = file.seek(0, os.SEEK_END)
    file.seek(0)
    promised = image.width * image.height * image.bands * sample_type(image).itemsize
    if promised > LARGEST_EXPANSION * held:
        raise InputError(
            f"{label}: says it has {image.width} x {image.height} pixels, but holds only "
            f"{held:,} bytes. The file is damaged or incomplete; get it again."
        )


def _check_size(label: str, size: tuple[int, int] | None, max_pixels: int | None) -> None:
    if size is None:
        return
    width, height = size
    what = f"{label}: {width} x {height} is {width * height:,} pixels"
    if max_pixels is not None and width * height > max_pixels:
        raise InputError(
            f"{what}, more than the limit of {max_pixels:,}; "
            "if you trust the file, raise --max-pixels"
        )
    if max(size) > MAX_SIDE:
        raise InputError(f"{what}, more than the {MAX_SIDE:,} a side that can be read; cut it")


def _check_frames(label: str, frames: int) -> None:
    if frames > 1:
        raise InputError(
            f"{label}: holds {frames} pages or frames, of which only one would be kept; "
            "save them as separate files first"
        )


def _as_grey_or_rgb(label: str, image: Any) -> Any:
    """The lazy picture with 1 to 4 bands, uchar or ushort; CMYK converted to sRGB."""
    if image.interpretation == "cmyk" and image.format == "uchar" and image.bands in (4, 5):
        return image.icc_transform("srgb", embedded=True, input_profile="cmyk")
    known = image.interpretation in ("b-w", "grey16", "srgb", "rgb16", "rgb")
    if known and image.format in ("uchar", "ushort") and image.bands <= 4:
        return image
    raise InputError(
        f"{label}: holds {image.bands} x {image.format} {image.interpretation} samples, which "
        "cannot be kept exactly; convert it to 8- or 16-bit grey or RGB first"
    )


def _opened_bmp(label: str, file: BinaryIO, decode: bool) -> Opened:
    pixels, dpi = bmp.decode(label, file, decode)
    height, width, bands = pixels.shape
    header = Header(
        format="bmp", width=width, height=height, channels=1 if bands < 3 else 3,
        has_alpha=bands in (2, 4), bits=8, orientation=1, streams=False,
    )  # fmt: skip
    metadata = Metadata(format="bmp", dpi=dpi)
    return Opened(name=label, header=header, metadata=metadata, notes=(), image=pixels)
