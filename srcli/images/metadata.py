"""Gather metadata from a file of any format, and bring it up to date for the picture to write.

XMP and Photoshop resources repeat what EXIF says of the pixels, so they are corrected as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from srcli.errors import InputError
from srcli.images import avif, exif, exif_tiff, jpeg, packet, png, resources, tiff, webp, xmp
from srcli.images.formats import FORMATS
from srcli.images.geometry import Change
from srcli.images.picture import Metadata
from srcli.images.tiff import Book, Storage

if TYPE_CHECKING:
    from pyvips import Image

_FLATTEST, _LARGEST_SIDE = 0.01, 10_000.0  # of the ratio of a pixel's sides, and its numbers
_LEAST, _MOST = 0.01, 100_000.0  # dots per inch that are believed
_XMP, _PHOTOSHOP, _IPTC, _C2PA, _JPEG_TABLES = 700, 34377, 33723, 52545, 347  # tags of TIFF
_LOSSY = (tiff.OLD_JPEG, tiff.JPEG, 34892)  # compressions of TIFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Metadata of a file, and what else is known of it beside the pixels."""

    metadata: Metadata
    orientation: int  # 1..8, as stored
    frames: int  # pictures in the file
    turned: int | None = None  # the orientation that the decoder has applied, as EXIF states it
    notes: tuple[str, ...] = ()


def gather(name: str, format: str, file: BinaryIO, image: Image | None) -> Gathered:
    """Collect what libvips' `image` (or None) and our own look into `file` find."""
    metadata = Metadata(
        format=format,
        icc=_blob(image, "icc-profile-data"),
        xmp=_blob(image, "xmp-data"),
        lossless=format in ("png", "gif"),
    )
    own = {"png": _png, "jpeg": _jpeg, "webp": _webp, "avif": _avif, "gif": _gif}[format]
    return checked(name, own(name, file, image, metadata))


def gather_tiff(name: str, book: Book, storage: Storage) -> Gathered:
    """Collect what one picture of a TIFF file says beside its pixels.

    Raises:
        InputError: it is a camera's raw file.
        DamagedTagsError: a directory leads outside the file.
    """
    found = exif_tiff.of_tiff(book.layout, book.offsets, storage.index)
    if found.preview:
        raise InputError(
            f"{name}: seems to be a camera's raw file, of which only a preview could be read",
            "develop it to a 16-bit TIFF first",
        )
    packet_ = book.blob(storage, _XMP)
    quality, estimated = _quality_inside(book, storage)
    metadata = Metadata(
        format="tiff", exif=found.exif, dpi=found.dpi, aspect=found.aspect,
        icc=book.blob(storage, tiff.ICC), xmp=packet_,
        iptc=resources.joined(_photoshop(book, storage), book.blob(storage, _IPTC)),
        depth=storage.bits if storage.kind != 3 and storage.bits not in (8, 16) else None,
        lossless=storage.compression not in _LOSSY, quality=quality, quality_estimated=estimated,
    )  # fmt: skip
    lost = list(found.lost)
    lost += ["content credentials (C2PA)"] if book.blob(storage, _C2PA) else []
    lost += ["the map coordinates (GeoTIFF)"] if found.located else []
    orientation = found.orientation or xmp.orientation_of(packet_) or 1
    return checked(
        name,
        Gathered(
            metadata=metadata,
            orientation=orientation,
            frames=len(book.mains),
            notes=_left_out(name, lost),
        ),
    )


def _quality_inside(book: Book, storage: Storage) -> tuple[int | None, bool]:
    """Return what the tables of JPEG within a TIFF file, which has a tag for them, tell.

    Returns:
        The quality, or None; and whether it is an estimate.
    """
    stream = book.blob(storage, _JPEG_TABLES) if storage.compression in _LOSSY else None
    if stream is None:
        return None, False
    found = jpeg.facts(io.BytesIO(stream))
    return found.quality, found.quality_estimated


def current(metadata: Metadata, format: str, width: int, height: int, channels: int) -> Metadata:
    """Return the metadata for an upright picture of this size, as far as the format holds it."""
    change = change_of(metadata, width, height)
    data, dpi = metadata.exif, metadata.dpi
    dpi = dpi if dpi is not None and all(_LEAST < value < _MOST for value in dpi) else None
    dpi, aspect = (_turned(pair, change) for pair in (dpi, _small(metadata.aspect)))
    if data is not None:
        data = exif.updated(data, change, metadata.converted)
    if format in ("webp", "avif") and dpi is not None:
        data = exif.with_resolution(data, dpi)
    made = replace(
        metadata,
        dpi=dpi,
        aspect=aspect,
        icc=metadata.icc if profile_fits(metadata.icc, format, channels) else None,
        exif=data,
        xmp=None if metadata.xmp is None else _current_xmp(metadata, change, format).data,
        iptc=None if metadata.iptc is None else resources.current(metadata.iptc, change)[0] or None,
        png_background=_fitting(metadata.png_background, channels),
        png_text=png.updated_text(metadata.png_text, width, height, change.turned),
    )
    return jpeg.fitting(made) if format == "jpeg" else made


def losses(
    metadata: Metadata, format: str, width: int, height: int, channels: int, bits: int
) -> tuple[list[str], list[str]]:
    """Describe lost metadata: what no output could have, and what this format cannot hold."""
    change = change_of(metadata, width, height)
    gone = [] if metadata.xmp is None else [*_current_xmp(metadata, change, format).lost]
    gone += [] if metadata.iptc is None else resources.current(metadata.iptc, change)[1]
    lost = []
    if format not in ("png", "jpeg") and metadata.comments:
        lost.append("comment")
    if format not in ("png", "jpeg", "tiff") and metadata.aspect is not None:
        lost.append("pixel aspect (the picture will look stretched)")
    if format != "png" and metadata.png_text:
        lost.append("PNG text")
    if format != "png" and png.odd_color(metadata):
        lost.append("gamma or colour space (colours will look different)")
    if metadata.icc is not None and not profile_fits(metadata.icc, format, channels):
        lost.append("colour profile (colours may look different)")
    huge = width * height * (channels + 1) * bits // 8 > tiff.BIG
    if format == "tiff" and exif_tiff.loses_maker_note(metadata.exif, bits == 16, huge):
        lost.append("the maker's notes in its EXIF data")
    fits = Metadata() if format == "bmp" else metadata
    fits = jpeg.fitting(fits) if format == "jpeg" else fits
    fits = replace(fits, iptc=None) if format not in ("jpeg", "tiff") else fits
    pairs = (("EXIF", metadata.exif, fits.exif), ("XMP", metadata.xmp, fits.xmp),
             ("IPTC", metadata.iptc, fits.iptc))  # fmt: skip
    lost += [name for name, had, has in pairs if had is not None and has is None]
    return list(dict.fromkeys(gone)), lost


def _current_xmp(metadata: Metadata, change: Change, format: str) -> xmp.Brought:
    return xmp.current(metadata.xmp or b"", change, format, metadata.converted)


def change_of(metadata: Metadata, width: int, height: int) -> Change:
    """Return the change from the picture that the metadata came with to one of this size."""
    return Change(
        stored=metadata.size, orientation=metadata.orientation, width=width, height=height
    )


def profile_fits(icc: bytes | None, format: str, channels: int) -> bool:
    """Tell whether a colour profile suits what the format stores for this many channels."""
    fmt = FORMATS[format]
    space = b"GRAY" if channels == 1 and fmt.grey else b"RGB "
    return icc is not None and icc[16:20] == space and format != "bmp"


def checked(name: str, found: Gathered) -> Gathered:
    """Leave out what is damaged, and say so."""
    metadata, notes = found.metadata, list(found.notes)
    data = exif.checked(metadata.exif)
    if metadata.exif is not None and data is None:
        notes.append(f"{name}: its EXIF data is damaged and left out")
    icc, packet_ = metadata.icc, metadata.xmp
    if icc is not None and (icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc)):
        icc = None
        notes.append(f"{name}: its colour profile is damaged and left out")
    if packet_ is not None and not xmp.is_whole(packet_):
        packet_ = None
        notes.append(f"{name}: its XMP is damaged and left out")
    metadata = replace(metadata, exif=data, icc=icc, xmp=packet_)
    return replace(found, metadata=metadata, notes=tuple(notes))


def _png(name: str, file: BinaryIO, image: Image | None, metadata: Metadata) -> Gathered:
    found = png.facts(file)
    metadata = replace(
        metadata, exif=found.exif, xmp=found.xmp, dpi=found.dpi, aspect=found.aspect,
        depth=found.depth, png_background=found.background, png_text=tuple(found.text),
        png_color=tuple(found.color), icc=metadata.icc or found.icc,
    )  # fmt: skip
    return Gathered(
        metadata=metadata,
        orientation=_orientation(metadata),
        frames=found.frames,
        notes=_left_out(name, found.lost),
    )


def _jpeg(name: str, file: BinaryIO, image: Image | None, metadata: Metadata) -> Gathered:
    found = jpeg.facts(file)
    more = _more_xmp(found)
    lost = ["a part of its XMP that is damaged"] if found.extended and more is None else []
    lost += ["content credentials (C2PA)"] if found.credentials else []
    lost += ["what Samsung phones append, as a moving picture or sound"] if found.appended else []
    data = exif.checked(found.exif)
    dpi = found.dpi or (None if found.aspect else exif.resolution_of(data))
    metadata = replace(
        metadata, exif=found.exif, xmp=more or found.xmp, icc=found.icc, iptc=found.iptc or None,
        dpi=dpi, aspect=found.aspect, subsampling=found.subsampling, comments=found.comments,
        lossless=found.lossless, quality=found.quality, quality_estimated=found.quality_estimated,
    )  # fmt: skip
    notes = _left_out(name, lost)
    if found.several or found.gain_map:
        notes += (f"{name}: only the main picture is used, not its preview, gain or depth map",)
    return Gathered(metadata=metadata, orientation=_orientation(metadata), frames=1, notes=notes)


def _more_xmp(found: jpeg.Facts) -> bytes | None:
    """Return the XMP with its parts in other segments, if these are whole."""
    wanted = None if found.xmp is None else xmp.extended(found.xmp)
    rest = None if wanted is None else found.extended.get(wanted.encode())
    if rest is None or found.xmp is None:
        return None
    try:
        return xmp.merged(found.xmp, rest)
    except packet.DamagedPacketError:
        return None


def _webp(name: str, file: BinaryIO, image: Image | None, metadata: Metadata) -> Gathered:
    raw = _blob(image, "exif-data")
    data = exif.checked(raw)
    metadata = replace(
        metadata, exif=raw, dpi=exif.resolution_of(data), lossless=webp.is_lossless(file)
    )
    lost = ["content credentials (C2PA)"] if webp.has_credentials(file) else []
    return Gathered(
        metadata=metadata,
        orientation=_orientation(metadata),
        frames=_frames(image),
        notes=_left_out(name, lost),
    )


def _avif(name: str, file: BinaryIO, image: Image | None, metadata: Metadata) -> Gathered:
    raw = _blob(image, "exif-data")
    found = avif.facts(file)
    chunk = avif.color_chunk(file) if metadata.icc is None else None
    metadata = replace(
        metadata,
        exif=raw,
        dpi=exif.resolution_of(exif.checked(raw)),
        aspect=found.pixel_density,
        png_color=() if chunk is None else (chunk,),
        depth=found.depth if found.depth > 8 else None,
        lossless=found.lossless,
    )
    lost = ["gain map"] if found.gain_map else []
    lost += ["content credentials (C2PA)"] if found.credentials else []
    # The decoder turns the picture as the container says; EXIF's word does not count here.
    return Gathered(
        metadata=metadata,
        orientation=1,
        turned=found.turned,
        frames=_frames(image),
        notes=_left_out(name, lost),
    )


def _gif(name: str, file: BinaryIO, image: Image | None, metadata: Metadata) -> Gathered:
    text = _field(image, "gif-comment")
    comments = (text.encode(),) if isinstance(text, str) and text else ()
    return Gathered(
        metadata=replace(metadata, comments=comments),
        orientation=1,
        frames=_frames(image),
    )


def _orientation(metadata: Metadata) -> int:
    """Return the orientation by EXIF, or else by XMP."""
    stated = exif.orientation_of(exif.checked(metadata.exif))
    return stated or xmp.orientation_of(metadata.xmp) or 1


def _left_out(name: str, lost: Sequence[str]) -> tuple[str, ...]:
    return (f"{name}: left out: {', '.join(lost)}",) if lost else ()


def _turned(pair: tuple[float, float] | None, change: Change) -> tuple[float, float] | None:
    """Return the values for x and y, exchanged if the picture was turned by a quarter."""
    return (pair[1], pair[0]) if pair is not None and change.transposed else pair


def _fitting(background: bytes | None, channels: int) -> bytes | None:
    """Return a PNG's background if it has as many channels as the picture to write."""
    return background if background is not None and len(background) == 2 * channels else None


def _small(aspect: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the ratio in numbers that every format can hold; None if it is absurd."""
    if aspect is None or not _FLATTEST < aspect[0] / aspect[1] < 1 / _FLATTEST:
        return None
    factor = min(1.0, _LARGEST_SIDE / max(aspect))
    return aspect[0] * factor, aspect[1] * factor


def _photoshop(book: Book, storage: Storage) -> bytes | None:
    data = book.blob(storage, _PHOTOSHOP) or b""
    return data if next(resources.split(data), None) is not None else None


def _blob(image: Image | None, name: str) -> bytes | None:
    value = _field(image, name)
    return value if isinstance(value, bytes) else None


def _frames(image: Image | None) -> int:
    """Return the number of frames of an animation; 1 for a picture."""
    count = _field(image, "n-pages")
    return count if isinstance(count, int) else 1


def _field(image: Image | None, name: str) -> object:
    """Return what libvips has noted under a name; None if nothing."""
    return image.get(name) if image is not None and image.get_typeof(name) else None
