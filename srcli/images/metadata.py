"""Metadata: gathered from a file of any format, brought up to date for the picture to write.

XMP and Photoshop resources repeat what EXIF says of the pixels, so they are corrected as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from srcli.errors import InputError
from srcli.images import avif, exif, jpeg, png, webp
from srcli.images.formats import FORMATS
from srcli.images.picture import Metadata
from srcli.images.tags import DamagedTagsError

_SIZE_TAGS = {"tiff:ImageWidth": 0, "exif:PixelXDimension": 0,
              "tiff:ImageLength": 1, "exif:PixelYDimension": 1}  # fmt: skip
_XMP_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>", re.DOTALL)
_LEAST, _MOST = 0.01, 100_000.0  # dots per inch that are believed
_RESOURCE_THUMBNAILS = (0x0409, 0x040C)
_RESOURCE = b"8BIM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a file says beside its pixels."""

    metadata: Metadata
    orientation: int  # 1..8, as stored
    frames: int  # pictures in the file
    notes: tuple[str, ...] = ()


def gather(name: str, format: str, file: BinaryIO, image: Any) -> Gathered:
    """Collect what libvips' `image` and our own look into `file` find.

    Raises:
        InputError: the file's structure is damaged, or it is a camera's raw file.
    """
    metadata = Metadata(
        format=format,
        icc=_blob(image, "icc-profile-data"),
        xmp=_blob(image, "xmp-data"),
        iptc=_resources(image),
        lossless=format in ("png", "tiff"),
    )
    own = {"png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "avif": _avif}[format]
    found = own(name, file, image, metadata)
    return _checked(name, found)


def current(metadata: Metadata, format: str, width: int, height: int, channels: int) -> Metadata:
    """The metadata for an upright picture of this size, as far as the format holds it."""
    data, dpi = metadata.exif, metadata.dpi
    dpi = dpi if dpi is not None and all(_LEAST < value < _MOST for value in dpi) else None
    if data is not None:
        data = exif.updated(data, width, height)
    if format in ("webp", "avif") and dpi is not None:
        data = exif.with_resolution(data, dpi)
    made = replace(
        metadata,
        dpi=dpi,
        icc=metadata.icc if profile_fits(metadata.icc, format, channels) else None,
        exif=data,
        xmp=_current_xmp(metadata.xmp, width, height) if metadata.xmp is not None else None,
        iptc=_current_resources(metadata.iptc) if metadata.iptc is not None else None,
    )
    return jpeg.fitting(made) if format == "jpeg" else made


def losses(metadata: Metadata, format: str, channels: int) -> list[str]:
    """What a format cannot take over, in words."""
    lost = []
    if format != "png" and metadata.png_text:
        lost.append("PNG text")
    if format != "png" and png.odd_color(metadata):
        lost.append("gamma or colour space (colours will look different)")
    if metadata.icc is not None and not profile_fits(metadata.icc, format, channels):
        lost.append("colour profile (colours may look different)")
    fits = Metadata() if format == "bmp" else metadata
    fits = jpeg.fitting(fits) if format == "jpeg" else fits
    fits = replace(fits, iptc=None) if format not in ("jpeg", "tiff") else fits
    pairs = (("EXIF", metadata.exif, fits.exif), ("XMP", metadata.xmp, fits.xmp),
             ("IPTC", metadata.iptc, fits.iptc))  # fmt: skip
    return lost + [name for name, had, has in pairs if had is not None and has is None]


def profile_fits(icc: bytes | None, format: str, channels: int) -> bool:
    """Whether a colour profile describes what the format stores for this many channels."""
    fmt = FORMATS[format]
    space = b"GRAY" if channels == 1 and fmt.grey else b"RGB "
    return icc is not None and icc[16:20] == space and format != "bmp"


def _png(name: str, file: BinaryIO, image: Any, metadata: Metadata) -> Gathered:
    found = png.facts(file)
    data = exif.checked(found.exif)
    metadata = replace(
        metadata, exif=found.exif, xmp=found.xmp, dpi=found.dpi,
        png_text=tuple(found.text), png_color=tuple(found.color),
    )  # fmt: skip
    return Gathered(metadata=metadata, orientation=exif.orientation_of(data), frames=found.frames)


def _jpeg(name: str, file: BinaryIO, image: Any, metadata: Metadata) -> Gathered:
    found = jpeg.facts(file)
    raw = _blob(image, "exif-data")
    data = exif.checked(raw)
    dpi = found.dpi or exif.resolution_of(data)
    notes = (f"{name}: only the main picture is used, not its preview, gain or depth map",)
    return Gathered(
        metadata=replace(metadata, exif=raw, dpi=dpi, subsampling=found.subsampling),
        orientation=exif.orientation_of(data),
        frames=1,
        notes=notes if found.several else (),
    )


def _tiff(name: str, file: BinaryIO, image: Any, metadata: Metadata) -> Gathered:
    try:
        found = exif.of_tiff(exif.reader_of_file(file))
    except DamagedTagsError as error:
        raise InputError(f"{name}: damaged or incomplete ({error}); get a whole copy") from error
    if found.preview:
        raise InputError(
            f"{name}: seems to be a camera's raw file, of which only a preview could be read; "
            "develop it to a 16-bit TIFF first"
        )
    notes = (f"{name}: the map coordinates (GeoTIFF) are left out",)
    return Gathered(
        metadata=replace(metadata, exif=found.exif, dpi=found.dpi),
        orientation=found.orientation,
        frames=found.pages,
        notes=notes if found.located else (),
    )


def _webp(name: str, file: BinaryIO, image: Any, metadata: Metadata) -> Gathered:
    raw = _blob(image, "exif-data")
    data = exif.checked(raw)
    metadata = replace(
        metadata, exif=raw, dpi=exif.resolution_of(data), lossless=webp.is_lossless(file)
    )
    return Gathered(
        metadata=metadata,
        orientation=exif.orientation_of(data),
        frames=_field(image, "n-pages", 1),
    )


def _avif(name: str, file: BinaryIO, image: Any, metadata: Metadata) -> Gathered:
    raw = _blob(image, "exif-data")
    chunk = avif.color_chunk(file) if metadata.icc is None else None
    metadata = replace(
        metadata,
        exif=raw,
        dpi=exif.resolution_of(exif.checked(raw)),
        png_color=() if chunk is None else (chunk,),
    )
    # The decoder turns the picture as the container says; EXIF's word does not count here.
    frames = max(_field(image, "n-pages", 1), 2 if avif.moves(file) else 1)
    return Gathered(metadata=metadata, orientation=1, frames=frames)


def _checked(name: str, found: Gathered) -> Gathered:
    """Leave out what is damaged, and say so."""
    metadata, notes = found.metadata, list(found.notes)
    data = exif.checked(metadata.exif)
    if metadata.exif is not None and data is None:
        notes.append(f"{name}: its EXIF data is damaged and left out")
    icc = metadata.icc
    if icc is not None and (len(icc) < 128 or icc[36:40] != b"acsp"):
        icc = None
        notes.append(f"{name}: its colour profile is damaged and left out")
    metadata = replace(metadata, exif=data, icc=icc)
    return replace(found, metadata=metadata, notes=tuple(notes))


def _current_xmp(xmp: bytes, width: int, height: int) -> bytes:
    xmp = _xmp_set(xmp, "tiff:Orientation", 1)
    for tag, axis in _SIZE_TAGS.items():
        xmp = _xmp_set(xmp, tag, (width, height)[axis])
    return _XMP_THUMBNAILS.sub(b"", xmp)


def _xmp_set(xmp: bytes, tag: str, number: int) -> bytes:
    """Change a number, where it is given, as an attribute or as an element."""
    name = re.escape(tag.encode())
    pattern = rb"(" + name + rb"\s*=\s*[\"']|<" + name + rb">\s*)\d+"
    return re.sub(pattern, lambda match: match[1] + str(number).encode(), xmp)


def _resources(image: Any) -> bytes | None:
    """Photoshop image resources (with IPTC among them) from where JPEG or TIFF have them."""
    data = _blob(image, "photoshop-data") or _blob(image, "iptc-data") or b""
    data = data.removeprefix(jpeg.IPTC_PREFIX)
    if data.startswith(_RESOURCE):
        return data
    # A TIFF may hold the bare IPTC records: resource 0x0404 is what wraps them.
    if data[:1] != b"\x1c":
        return None
    return (
        _RESOURCE + b"\x04\x04\0\0" + len(data).to_bytes(4, "big") + data + b"\0" * (len(data) % 2)
    )


def _current_resources(data: bytes) -> bytes:
    """Photoshop resources without the thumbnails."""
    kept, at = b"", 0
    while data[at : at + 4] == _RESOURCE:
        name_size = data[at + 6] + 1 if at + 6 < len(data) else 1
        size_at = at + 6 + name_size + name_size % 2
        size = int.from_bytes(data[size_at : size_at + 4], "big")
        end = size_at + 4 + size + size % 2
        if int.from_bytes(data[at + 4 : at + 6], "big") not in _RESOURCE_THUMBNAILS:
            kept += data[at:end]
        at = end
    return kept


def _blob(image: Any, name: str) -> bytes | None:
    value = _field(image, name, None)
    return None if value is None else bytes(value)


def _field(image: Any, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default
