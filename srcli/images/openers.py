"""Openers of files: one function for each format."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images import avif, bmp, codecs, colors, frames, heif, jpeg, png, tiff, vips, webp
from srcli.images.formats import READABLE
from srcli.images.metadata import Gathered, gather, gather_tiff
from srcli.images.picture import Metadata
from srcli.images.request import (
    LARGEST_OF_RARE_JPEG,
    Found,
    ReadRequest,
    binary,
    check_content,
    lazy,
    sample_type,
)
from srcli.images.spliced import Spliced
from srcli.images.tags import DamagedTagsError
from srcli.images.tiff_reading import open_tiff

if TYPE_CHECKING:
    from pyvips import Image

_PASSES = ("interlaced", "jpeg-multiscan")  # libvips' words for a picture stored in several passes


def _png(request: ReadRequest, file: BinaryIO) -> Found:
    png.check_start(request.name, file)
    request.check_size(png.size(file))
    found = png.facts(file)
    if found.unknown is not None:
        raise InputError(
            f"{request.name}: a PNG with a chunk that changes its meaning and is not known here "
            f"({vips.shown(found.unknown.decode('latin-1'))})",
            "save it again as an ordinary PNG",
        )
    # In PNG libvips would refuse harmless oddities by "warning".
    image = lazy("pngload_source", request.source, "error")
    request.check_size((image.width, image.height))
    check_content(
        request, (image.width, image.height), image.bands * sample_type(image).itemsize, file
    )
    gathered = gather(request.name, "png", file, image)
    page = request.check_page(found.frames)
    if found.frames > 1:
        shown = frames.of_png(request.name, request.source, page, request.decode)
        return Found(image=shown, gathered=gathered)
    return Found(image=image, gathered=gathered, lazily=_in_order(image))


def _jpeg(request: ReadRequest, file: BinaryIO) -> Found:
    if request.page is not None:
        pictures = jpeg.pictures(file)
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
        check_content(request, survey.size, pixel, file, LARGEST_OF_RARE_JPEG)
        return _rare_jpeg(request, survey, gathered)
    source = request.source
    if survey.pieces is not None:
        source = Spliced(request.source, survey.pieces).content()
    # "warning" is where libvips counts damaged data.
    image = lazy("jpegload_source", source, "warning")
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


def _rare_jpeg(request: ReadRequest, survey: jpeg.Survey, gathered: Gathered) -> Found:
    """Open a JPEG of more than 8 bits, or without loss, by another decoder than libvips."""
    if survey.unread:
        raise InputError(
            f"{request.name}: is {survey.kind}, which is not read here",
            "convert it to PNG or to an ordinary JPEG",
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
            f"{request.name}: damaged or incomplete (its pixels are not as many as it says)",
            "get a whole copy of it",
        )
    return Found(image=codecs.scaled(samples, survey.bits), gathered=gathered)


def _tiff(request: ReadRequest, file: BinaryIO) -> Found:
    try:
        tiff.check_start(request.name, file)
        book = tiff.book(file)
        gathered = gather_tiff(request.name, book, book.storage(0))
        storage = book.storage(request.check_page(len(book.mains)))
        size = (storage.width, storage.height)
        request.check_size(size)
        check_content(request, size, max(1, storage.samples * storage.bits // 8), file)
        if storage.index:
            gathered = gather_tiff(request.name, book, storage)
        opened = open_tiff(request.name, request.source, book, storage, request.decode)
    except DamagedTagsError as error:
        raise InputError(
            f"{request.name}: damaged or incomplete ({error})", "get a whole copy"
        ) from error
    return Found(
        image=opened.image,
        gathered=replace(gathered, notes=(*opened.notes, *gathered.notes)),
        profile_used=opened.profile_used,
        lazily=opened.lazily,
    )


def _webp(request: ReadRequest, file: BinaryIO) -> Found:
    source, notes = webp.mended(request.name, request.source, file)
    image = lazy("webpload_source", source, "error")
    gathered = gather(request.name, "webp", file, image)
    gathered = replace(gathered, notes=(*notes, *gathered.notes))
    page = request.check_page(gathered.frames)
    if page:
        image = lazy("webpload_source", source, "error", page=page)
    return Found(image=image, gathered=gathered)


def _avif(request: ReadRequest, file: BinaryIO) -> Found:
    facts = avif.facts(file)
    if facts.moves:
        count = frames.count_of_avif(request.name, request.source)
        page = request.check_page(count)
        shown = frames.of_avif(request.name, request.source, page, request.decode)
        gathered = gather(request.name, "avif", file, None)
        return Found(image=shown, gathered=_with_8_bits(request, gathered))
    image = lazy("heifload_source", request.source, "error")
    gathered = gather(request.name, "avif", file, image)
    page = request.check_page(gathered.frames)
    if facts.monochrome and facts.full_range is None and gathered.frames == 1:
        # libheif does not look into the stream for the range; libavif does, in Pillow.
        shown = frames.of_avif(request.name, request.source, 0, request.decode)
        shown = shown[..., : image.bands]
        return Found(image=shown, gathered=_with_8_bits(request, gathered))
    if page:
        image = lazy("heifload_source", request.source, "error", page=page)
    return Found(image=avif.repaired(image, facts), gathered=gathered)


def _with_8_bits(request: ReadRequest, gathered: Gathered) -> Gathered:
    depth = gathered.metadata.depth
    if depth is None:
        return gathered
    note = f"{request.name}: read with 8 of its {depth} bits per channel"
    metadata = replace(gathered.metadata, depth=None)
    return replace(gathered, metadata=metadata, notes=(*gathered.notes, note))


def _heic(request: ReadRequest, file: BinaryIO) -> Found:
    if not codecs.available("pillow_heif"):
        raise codecs.missing(request.name, "a HEIC picture", "pillow_heif")
    opened = heif.Container(request.name, request.source)
    page = request.check_page(opened.count)
    request.check_size(opened.size(page))
    image = opened.pixels(page) if request.decode else opened.empty(page)
    return Found(image=image, gathered=opened.gathered(page))


def _gif(request: ReadRequest, file: BinaryIO) -> Found:
    image = lazy("gifload_source", request.source, "error")
    gathered = gather(request.name, "gif", file, image)
    page = request.check_page(gathered.frames)
    if page:
        image = lazy("gifload_source", request.source, "error", page=page)
    return Found(image=image, gathered=gathered)


def _bmp(request: ReadRequest, file: BinaryIO) -> Found:
    inner = bmp.embedded(file)
    if inner is not None:
        opener = _png if inner.startswith(png.SIGNATURE) else _jpeg
        found = opener(replace(request, source=inner, page=None), io.BytesIO(inner))
        metadata = replace(found.gathered.metadata, format="bmp")
        return replace(found, gathered=replace(found.gathered, metadata=metadata))
    pixels, dpi = bmp.decode(request.name, file, request.decode)
    gathered = Gathered(metadata=Metadata(format="bmp", dpi=dpi), orientation=1, frames=1)
    return Found(image=pixels, gathered=gathered)


def _in_order(image: Image) -> bool:
    """Tell whether the rows lie in the file from top to bottom, once."""
    return not any(image.get_typeof(name) and image.get(name) for name in _PASSES)


OPENERS: dict[str, Callable[[ReadRequest, BinaryIO], Found]] = {
    "png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "avif": _avif, "heic": _heic,
    "gif": _gif, "bmp": _bmp,
}  # fmt: skip
assert set(OPENERS) == set(READABLE)
