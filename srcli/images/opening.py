"""What may be opened at all, and how each kind of file becomes grey or RGB."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images import avif, bmp, codecs, colors, frames, heif, jpeg, png, tiff, vips, webp
from srcli.images.formats import MAGIC_BYTES, MAX_SIDE, READABLE, Format, names, refusal, sniff
from srcli.images.metadata import Gathered, gather, gather_tiff
from srcli.images.picture import Header, Metadata
from srcli.images.spliced import Spliced
from srcli.images.tags import DamagedTagsError
from srcli.images.tiff_reading import open_tiff

# Decoded bytes for each byte of a PNG or TIFF. Deflate reaches a thousand, thirty times as much
# where one bit stands for an RGBA pixel; no lossless compression of a TIFF comes near.
LARGEST_EXPANSION = 100_000
# Of a JPEG file that another decoder than libjpeg reads, which nothing can stop on its way.
LARGEST_OF_RARE_JPEG = 2_000

_PASSES = ("interlaced", "jpeg-multiscan")  # libvips' words for a picture stored in several passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file whose header has been read."""

    name: str
    header: Header
    metadata: Metadata
    notes: tuple[str, ...]
    image: Any  # a lazy pyvips.Image, grey or RGB; or the array itself, H x W x 1 to 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be opened, and how."""

    source: Path | bytes
    name: str
    max_pixels: int | None
    page: int | None  # counted from 1; None where a file should hold one picture
    decode: bool  # whether pixels will be asked for

    def check_size(self, size: tuple[int, int] | None) -> None:
        """Raise `InputError` if it is more than may be read."""
        if size is None:
            return
        width, height = size
        if min(size) < 1:
            raise InputError(
                f"{self.name}: damaged or incomplete (it says it has {width} x {height} pixels); "
                "get a whole copy of it"
            )
        what = f"{self.name}: {width} x {height} is {width * height:,} pixels"
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise InputError(
                f"{what}, more than the limit of {self.max_pixels:,}; "
                "if you trust the file, raise --max-pixels"
            )
        if max(size) > MAX_SIDE:
            raise InputError(f"{what}, more than the {MAX_SIDE:,} a side that can be read; cut it")

    def check_page(self, pages: int) -> int:
        """The wanted page, counted from 0; raises `InputError` if it is none or not said."""
        if self.page is None and pages > 1:
            raise InputError(
                f"{self.name}: holds {pages} pages or frames, of which one is restored; say which, "
                f"as in --page 1 (up to {pages}), or save them as separate files first"
            )
        if self.page is not None and not 1 <= self.page <= pages:
            has = "only one page" if pages == 1 else f"{pages} pages or frames"
            raise InputError(f"{self.name}: has {has}; --page {self.page} is none of them")
        return (self.page or 1) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one format's opener found."""

    image: Any
    gathered: Gathered
    profile_used: bool = False  # the colour profile has done its work; the result is sRGB
    lazily: bool = False  # rows can be had from top to bottom, in little memory


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
    request = Request(source=source, name=label, max_pixels=max_pixels, page=page, decode=decode)
    fmt = _format(request)
    with binary(source) as file:
        request.check_size(_stated_size(request, fmt, file))
        found = _OPENERS[fmt.name](request, file)
    return _opened(request, fmt, found)


def binary(source: Path | bytes) -> BinaryIO:
    """The source as an open file."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def sample_type(image: Any) -> np.dtype[np.uint8 | np.uint16]:
    """The array type of a libvips image of uchar or ushort."""
    return np.dtype(np.uint8) if image.format == "uchar" else np.dtype(np.uint16)


def _opened(request: Request, fmt: Format, found: Found) -> Opened:
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


def _format(request: Request) -> Format:
    source, label = request.source, request.name
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


def _stated_size(request: Request, fmt: Format, file: BinaryIO) -> tuple[int, int] | None:
    """Width and height where a header can state absurd ones, before any library believes it."""
    if fmt.name == "png":
        png.check_start(request.name, file)
    readers = {
        "png": png.size, "avif": avif.size, "heic": avif.size,
        "bmp": bmp.size, "gif": frames.gif_size,
    }  # fmt: skip
    reader = readers.get(fmt.name)
    return reader(file) if reader else None


def _check_content(
    request: Request,
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
            f"{request.name}: says it has {size[0]} x {size[1]} pixels, but holds only "
            f"{held:,} bytes. The file is damaged or incomplete; get it again."
        )


def _lazy(loader: str, source: Path | bytes | Spliced, fail_on: str, **options: Any) -> Any:
    """A libvips image. Only these loaders are ever called, each on its own magic bytes."""
    return vips.load(loader, source, fail_on=fail_on, **options)


def _as_grey_or_rgb(label: str, image: Any) -> Any:
    """The picture, if it has 1 to 4 bands of uchar or ushort."""
    known = image.interpretation in ("b-w", "grey16", "srgb", "rgb16", "rgb")
    if known and image.format in ("uchar", "ushort") and image.bands <= 4:
        return image
    raise InputError(
        f"{label}: holds {image.bands} x {image.format} {image.interpretation} samples, which "
        "cannot be kept exactly; convert it to 8- or 16-bit grey or RGB first"
    )


# One for each format ------------------------------------------------------------------------------


def _png(request: Request, file: BinaryIO) -> Found:
    found = png.facts(file)
    if found.unknown is not None:
        raise InputError(
            f"{request.name}: a PNG with a chunk that changes its meaning and is not known here "
            f"({vips.shown(found.unknown.decode('latin-1'))}); save it again as an ordinary PNG"
        )
    # In PNG libvips would refuse harmless oddities by "warning".
    image = _lazy("pngload_source", request.source, "error")
    request.check_size((image.width, image.height))
    _check_content(
        request, (image.width, image.height), image.bands * sample_type(image).itemsize, file
    )
    gathered = gather(request.name, "png", file, image)
    page = request.check_page(found.frames)
    if found.frames > 1:
        shown = frames.of_png(request.name, request.source, page, request.decode)
        return Found(image=shown, gathered=gathered)
    return Found(image=image, gathered=gathered, lazily=_in_order(image))


def _jpeg(request: Request, file: BinaryIO) -> Found:
    pictures = jpeg.pictures(file)
    if request.page is not None:
        start, size = pictures[request.check_page(len(pictures))]
        if start:
            content = Spliced(request.source, ((start, start + size),)).content()
            return _jpeg(replace(request, source=content, page=None), io.BytesIO(content))
    survey = jpeg.survey(request.name, file)
    gathered = gather(request.name, "jpeg", file, None)
    gathered = replace(gathered, notes=(*survey.notes, *gathered.notes))
    if not survey.by_libvips:
        request.check_size(survey.size)
        pixel = survey.channels * (2 if survey.bits > 8 else 1)
        _check_content(request, survey.size, pixel, file, LARGEST_OF_RARE_JPEG)
        return _rare_jpeg(request, survey, gathered)
    source: Any = request.source
    if survey.pieces is not None:
        source = Spliced(request.source, survey.pieces).content()
    # "warning" is where libvips counts damaged data.
    image = _lazy("jpegload_source", source, "warning")
    lazily = _in_order(image)
    if image.interpretation != "cmyk":
        return Found(image=image, gathered=gathered, lazily=lazily)
    notes = (*gathered.notes, f"{request.name}: CMYK became RGB (sRGB)")
    return Found(
        image=colors.from_inks(image),
        gathered=replace(gathered, notes=notes),
        profile_used=True,
        lazily=lazily,
    )


def _rare_jpeg(request: Request, survey: jpeg.Survey, gathered: Gathered) -> Found:
    """Through another decoder: more than 8 bits, or without loss."""
    if survey.unread:
        raise InputError(
            f"{request.name}: is {survey.kind}, which is not read here; convert it to PNG or to an "
            "ordinary JPEG"
        )
    if not codecs.available("imagecodecs"):
        raise codecs.missing(request.name, survey.kind)
    width, height = survey.size
    wide = survey.bits > 8
    metadata = replace(gathered.metadata, depth=survey.bits)
    gathered = replace(gathered, metadata=metadata)
    if not request.decode:
        shape = (height, width, survey.channels)
        return Found(
            image=np.broadcast_to(np.uint16(0) if wide else np.uint8(0), shape), gathered=gathered
        )
    with binary(request.source) as file:
        samples = codecs.jpeg_samples(request.name, file.read())
    if samples.shape != (height, width, survey.channels):
        raise InputError(
            f"{request.name}: damaged or incomplete (its pixels are not as many as it says); "
            "get a whole copy of it"
        )
    return Found(image=codecs.scaled(samples, survey.bits), gathered=gathered)


def _tiff(request: Request, file: BinaryIO) -> Found:
    try:
        book = tiff.book(file)
        gathered = gather_tiff(request.name, book, book.storage(0))
        storage = book.storage(request.check_page(len(book.mains)))
        size = (storage.width, storage.height)
        request.check_size(size)
        _check_content(request, size, max(1, storage.samples * storage.bits // 8), file)
        if storage.index:
            gathered = gather_tiff(request.name, book, storage)
        opened = open_tiff(request.name, request.source, book, storage, request.decode)
    except DamagedTagsError as error:
        raise InputError(
            f"{request.name}: damaged or incomplete ({error}); get a whole copy"
        ) from error
    return Found(
        image=opened.image,
        gathered=replace(gathered, notes=(*opened.notes, *gathered.notes)),
        profile_used=opened.profile_used,
        lazily=opened.lazily,
    )


def _webp(request: Request, file: BinaryIO) -> Found:
    source, notes = webp.mended(request.name, request.source, file)
    image = _lazy("webpload_source", source, "error")
    gathered = gather(request.name, "webp", file, image)
    gathered = replace(gathered, notes=(*notes, *gathered.notes))
    page = request.check_page(gathered.frames)
    if page:
        image = _lazy("webpload_source", source, "error", page=page)
    return Found(image=image, gathered=gathered)


def _avif(request: Request, file: BinaryIO) -> Found:
    facts = avif.facts(file)
    if facts.moves:
        count = frames.count_of_avif(request.name, request.source)
        page = request.check_page(count)
        shown = frames.of_avif(request.name, request.source, page, request.decode)
        gathered = gather(request.name, "avif", file, None)
        return Found(image=shown, gathered=_with_8_bits(request, gathered))
    image = _lazy("heifload_source", request.source, "error")
    gathered = gather(request.name, "avif", file, image)
    page = request.check_page(gathered.frames)
    if facts.monochrome and facts.full_range is None and gathered.frames == 1:
        # libheif does not look into the stream for the range; libavif does, in Pillow.
        shown = frames.of_avif(request.name, request.source, 0, request.decode)
        shown = shown[..., : image.bands]
        return Found(image=shown, gathered=_with_8_bits(request, gathered))
    if page:
        image = _lazy("heifload_source", request.source, "error", page=page)
    return Found(image=avif.repaired(image, facts), gathered=gathered)


def _with_8_bits(request: Request, gathered: Gathered) -> Gathered:
    depth = gathered.metadata.depth
    if depth is None:
        return gathered
    note = f"{request.name}: read with 8 of its {depth} bits per channel"
    metadata = replace(gathered.metadata, depth=None)
    return replace(gathered, metadata=metadata, notes=(*gathered.notes, note))


def _heic(request: Request, file: BinaryIO) -> Found:
    if not codecs.available("pillow_heif"):
        raise codecs.missing(request.name, "a HEIC picture", "pillow_heif")
    opened = heif.Container(request.name, request.source)
    page = request.check_page(opened.count)
    request.check_size(opened.size(page))
    image = opened.pixels(page) if request.decode else opened.empty(page)
    return Found(image=image, gathered=opened.gathered(page))


def _gif(request: Request, file: BinaryIO) -> Found:
    image = _lazy("gifload_source", request.source, "error")
    gathered = gather(request.name, "gif", file, image)
    page = request.check_page(gathered.frames)
    if page:
        image = _lazy("gifload_source", request.source, "error", page=page)
    return Found(image=image, gathered=gathered)


def _bmp(request: Request, file: BinaryIO) -> Found:
    inner = bmp.embedded(file)
    if inner is not None:
        opened = open_image(
            inner, max_pixels=request.max_pixels, name=request.name, decode=request.decode
        )
        gathered = Gathered(
            metadata=replace(opened.metadata, format="bmp"),
            orientation=opened.header.orientation, frames=1, notes=opened.notes,
        )  # fmt: skip
        return Found(image=opened.image, gathered=gathered)
    pixels, dpi = bmp.decode(request.name, file, request.decode)
    gathered = Gathered(metadata=Metadata(format="bmp", dpi=dpi), orientation=1, frames=1)
    return Found(image=pixels, gathered=gathered)


def _in_order(image: Any) -> bool:
    """Whether the rows lie in the file from top to bottom, once."""
    return not any(image.get_typeof(name) and image.get(name) for name in _PASSES)


_OPENERS: dict[str, Callable[[Request, BinaryIO], Found]] = {
    "png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "avif": _avif, "heic": _heic,
    "gif": _gif, "bmp": _bmp,
}  # fmt: skip
assert set(_OPENERS) == set(READABLE)
