"""Read a TIFF file as grey or RGB, by libvips or other codecs, as the file states its samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.errors import InputError, MissingPartError
from srcli.images import codecs, colors, tiff, vips
from srcli.images.picture import Pixels
from srcli.images.spliced import Spliced
from srcli.images.tiff import Book, Storage
from srcli.system.installation import pip_install

if TYPE_CHECKING:
    from pyvips import Image

# "warning" is where libvips counts damaged tiles. libtiff's own limit refuses honest pictures
# stored as one strip; --max-pixels bounds them.
_OPTIONS = {"fail_on": "warning", "unlimited": True}
_LOADER = "tiffload_source"
_PLAIN = "save it as 8- or 16-bit grey or RGB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A picture of a TIFF file."""

    image: Image  # a libvips image, grey or RGB with or without alpha
    notes: tuple[str, ...]
    storage: Storage
    profile_used: bool  # colour is sRGB now, whatever the file's profile says
    lazily: bool  # rows can be had one after the other


def open_tiff(
    name: str, source: Path | bytes, book: Book, storage: Storage, decode: bool
) -> Opened:
    """Open one picture of a TIFF file.

    Args:
        decode: False if only the header is wanted.

    Raises:
        InputError: it is stored as is not read here.
        MissingPartError: it needs a package that is not installed.
        DamagedTagsError: its directory leads outside the file.
    """
    _check(name, storage)
    notes = [f"{name}: {text}" for text in _notes(storage)]
    if storage.compression == tiff.OLD_JPEG:
        raw, lazily = _old_jpeg(name, source, storage), True
        return Opened(
            image=raw, notes=tuple(notes), storage=storage, profile_used=False, lazily=lazily
        )
    if not storage.by_libvips or _blocks(storage):
        raw, lazily = _by_others(name, source, book, storage, decode), False
    else:
        raw, lazily = _by_libvips(source, book, storage), True
    image = _converted(_chosen(raw, storage), storage)
    used = storage.meaning in (tiff.INKS, tiff.CIELAB, tiff.ICCLAB)
    return Opened(
        image=image, notes=tuple(notes), storage=storage, profile_used=used, lazily=lazily
    )


def _notes(storage: Storage) -> list[str]:
    notes = []
    if storage.oddities:
        notes.append(f"its header is odd ({', '.join(storage.oddities)}); the pixels are whole")
    left = sum(1 for kind in storage.extra if kind not in (1, 2))
    left += max(0, sum(1 for kind in storage.extra if kind in (1, 2)) - 1)
    if left:
        channels = "a channel" if left == 1 else f"{left} channels"
        notes.append(f"{channels} beside its colour, not said to be transparency, left out")
    words = {
        tiff.INKS: "CMYK became RGB (sRGB)", tiff.CIELAB: "CIELab became RGB (sRGB)",
        tiff.ICCLAB: "CIELab became RGB (sRGB)", tiff.MASK: "a mask is read as a grey picture",
    }  # fmt: skip
    notes += [words[storage.meaning]] if storage.meaning in words else []
    if storage.kind == 3:
        notes.append(f"{storage.bits}-bit floating-point samples became 16-bit integers")
    return notes


def _check(name: str, storage: Storage) -> None:
    """Raise an error that names what cannot be read."""
    what = tiff.UNKNOWN_MEANINGS.get(storage.meaning)
    kinds = {2: "signed integers", 5: "complex integers", 6: "complex numbers"}
    if what is None and storage.meaning not in tiff.COLORS:
        what = f"samples of an unknown meaning ({storage.meaning})"
    elif what is None and storage.samples < tiff.COLORS[storage.meaning]:
        what = f"only {storage.samples} samples of colour"
    elif what is None and storage.samples > tiff.MAX_SAMPLES:
        what = f"{storage.samples} channels"
    elif what is None and storage.meaning == tiff.BLACK_IS_0 and storage.samples > 2:
        what = f"{storage.samples} channels without a meaning as colour"
    elif what is None and storage.kind in kinds:
        what = f"{storage.bits}-bit {kinds[storage.kind]}"
    elif what is None and (storage.bits == 0 or storage.kind == 0):
        what = "channels of different types"
    elif what is None and storage.kind in (1, 4) and storage.bits > 16:
        what = f"{storage.bits}-bit integers"
    elif what is None and storage.meaning == tiff.ITULAB:
        what = "ITULab colour"
    if what is not None:
        raise InputError(f"{name}: holds {what}, which are not read here", f"Convert it: {_PLAIN}.")


def _blocks(storage: Storage) -> bool:
    """Tell whether chroma is stored in fewer samples, without JPEG's own way of doing so."""
    return (
        storage.meaning == tiff.YCBCR
        and storage.compression != tiff.JPEG
        and storage.subsampling != (1, 1)
    )


def _by_libvips(source: Path | bytes, book: Book, storage: Storage) -> Image:
    if storage.planar and storage.samples == 2:  # libvips takes one plane for both
        grey, other = (
            vips.load(_LOADER, Spliced(source, pieces), **_OPTIONS)
            for pieces in book.planes(storage)
        )
        return grey.bandjoin(other)
    raw = storage.meaning in (tiff.CIELAB, tiff.ICCLAB) or (
        storage.meaning == tiff.YCBCR and storage.compression != tiff.JPEG
    )
    spare = len(storage.extra) > 1 or 0 in storage.extra
    if storage.usual and not raw and not spare and storage.meaning != tiff.MASK:
        return vips.load(_LOADER, source, **_OPTIONS)
    changes = book.repairs(storage)
    if raw:
        changes[tiff.PHOTOMETRIC] = tiff.shorts(tiff.RGB)
    if spare:
        changes[tiff.EXTRA_SAMPLES] = tiff.shorts(*[0] * len(storage.extra))
    return vips.load(_LOADER, Spliced(source, book.clean(storage, changes)), **_OPTIONS)


def _by_others(
    name: str, source: Path | bytes, book: Book, storage: Storage, decode: bool
) -> Image:
    """Return the samples as a libvips image of 8 or 16 bits, from another decoder."""
    _installed(name, storage)
    if decode:
        image = colors.of_array(_array(name, source, book, storage))
    else:
        wide = storage.kind == 3 or storage.bits > 8
        black = vips.library().Image.black(storage.width, storage.height, bands=storage.samples)
        image = black.cast("ushort" if wide else "uchar")
    profile = book.blob(storage, tiff.ICC) if storage.meaning == tiff.INKS else None
    if profile is not None:
        image = image.copy()
        image.set_type(vips.library().GValue.blob_type, "icc-profile-data", profile)
    return image


def _array(name: str, source: Path | bytes, book: Book, storage: Storage) -> Pixels:
    """Return samples from another decoder than libvips, as 8 or 16 bits."""
    if _blocks(storage):
        return _unpacked(name, source, book, storage)
    size = storage.width * storage.height * storage.samples * -(-storage.bits // 8)
    samples = codecs.tiff_samples(name, source, storage.index, size)
    if storage.kind == 3:
        return codecs.of_float(name, samples)
    if storage.meaning == tiff.PALETTE:
        raise InputError(
            f"{name}: holds a palette of {storage.bits} bits", f"Convert it: {_PLAIN}."
        )
    pixels = codecs.scaled(samples, storage.bits)
    inverted = storage.meaning == tiff.WHITE_IS_0
    return np.invert(pixels) if inverted else pixels


def _installed(name: str, storage: Storage) -> None:
    if _blocks(storage) or codecs.available("tifffile", "imagecodecs"):
        return
    raise MissingPartError(
        f"{name}: holds {storage.bits}-bit samples with {storage.compressed_by} compression, "
        "which needs tifffile and imagecodecs to be read",
        f"Run `{pip_install('codecs')}`, or {_PLAIN}, with LZW or Deflate compression.",
    )


def _unpacked(name: str, source: Path | bytes, book: Book, storage: Storage) -> Pixels:
    """Expand blocks of luma with one Cb and one Cr each to three full planes.

    libvips unpacks the strips as if they were rows of a grey picture; each row is one row of
    blocks.
    """
    across, down = storage.subsampling
    rows = book.rows_of_strip(storage)
    if storage.bits != 8 or storage.planar or (rows < storage.height and rows % down):
        raise InputError(
            f"{name}: holds YCbCr samples in an unusual order", f"Convert it: {_PLAIN}."
        )
    wide, high = -(-storage.width // across), -(-storage.height // down)
    size = across * down + 2
    changes = book.repairs(storage) | {
        tiff.WIDTH: tiff.longs(False, wide * size), tiff.HEIGHT: tiff.longs(False, high),
        tiff.ROWS_PER_STRIP: tiff.longs(False, max(1, -(-rows // down))),
        tiff.BITS: tiff.shorts(8), tiff.SAMPLES: tiff.shorts(1), tiff.EXTRA_SAMPLES: tiff.shorts(),
        tiff.SAMPLE_FORMAT: tiff.shorts(1),
        tiff.PHOTOMETRIC: tiff.shorts(tiff.BLACK_IS_0), tiff.SUBSAMPLING: tiff.shorts(),
    }  # fmt: skip
    pieces = book.clean(storage, changes)
    image = vips.load(_LOADER, Spliced(source, pieces), **_OPTIONS)
    flat = np.frombuffer(image.write_to_memory(), np.uint8).reshape(high, wide, size)
    luma = flat[..., :-2].reshape(high, wide, down, across).swapaxes(1, 2)
    planes = [luma.reshape(high * down, wide * across)]
    planes += [flat[..., i].repeat(down, 0).repeat(across, 1) for i in (-2, -1)]
    return np.stack(planes, -1)[: storage.height, : storage.width].copy()


def _old_jpeg(name: str, source: Path | bytes, storage: Storage) -> Image:
    """Find the whole JPEG file inside the TIFF file, as in old-style JPEG compression."""
    start, size = storage.stream or (0, 0)
    content = Spliced(source, ((start, start + size),)).content() if storage.stream else b""
    if content[:2] != b"\xff\xd8" or b"\xff\xda" not in content:
        raise InputError(
            f"{name}: holds old-style JPEG data in pieces, which are not read here",
            f"Convert it: {_PLAIN}.",
        )
    image = vips.load("jpegload_source", content, fail_on="warning")
    if (image.width, image.height) != (storage.width, storage.height):
        raise InputError(
            f"{name}: its old-style JPEG data is of another size than it states",
            f"Convert it: {_PLAIN}.",
        )
    return image


def _chosen(image: Image, storage: Storage) -> Image:
    """Return colour, and alpha if there is one."""
    colors_ = 3 if storage.meaning == tiff.PALETTE else tiff.COLORS[storage.meaning]
    alphas = [i for i, kind in enumerate(storage.extra) if kind in (1, 2)]
    if image.bands == colors_:
        return image
    bands = [*range(colors_), *(colors_ + i for i in alphas[:1])]
    chosen = colors.selected(image, bands)
    joined = storage.planar and storage.samples == 2
    undone = len(storage.extra) > 1 or joined or not storage.by_libvips  # libvips divides the rest
    if undone and alphas and storage.extra[alphas[0]] == 1:
        return colors.without_premultiplying(colors.named(chosen))
    return chosen


def _converted(image: Image, storage: Storage) -> Image:
    if storage.meaning == tiff.YCBCR and storage.compression != tiff.JPEG:
        return colors.from_ycbcr(image, storage.coefficients, storage.reference)
    if storage.meaning == tiff.INKS:
        return colors.from_inks(image.copy(interpretation="cmyk"))
    if storage.meaning in (tiff.CIELAB, tiff.ICCLAB):
        return colors.from_lab(image, storage.meaning == tiff.CIELAB)
    return colors.named(image)
