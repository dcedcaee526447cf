"""Find, keep and write the chunks of a PNG file that hold metadata.

They are copied byte by byte where that is right, because the codec knows only some of them.

Source: PNG specification, third edition (W3C, 2025).
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from srcli.errors import InputError
from srcli.images.picture import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD_SIZE = len(SIGNATURE) + 25  # up to the end of the header chunk
Chunk = tuple[bytes, bytes]  # type and data

_COLOR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_SRGB_PRIMARIES = b"".join(
    value.to_bytes(4, "big") for value in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
)
# Chunks that say what is no longer true or have no place, in words.
_LOST = {
    b"oFFs": "its position on a page (oFFs)", b"sCAL": "the size of its pixels (sCAL)",
    b"pCAL": "the meaning of its pixels (pCAL)", b"sTER": "that it is a stereo pair (sTER)",
    b"caBX": "content credentials (C2PA)",
}  # fmt: skip
_WANTED = frozenset((
    *_COLOR, *_LOST, b"tEXt", b"zTXt", b"iTXt", b"acTL", b"bKGD", b"eXIf", b"pHYs", b"sBIT",
))  # fmt: skip
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_RAW = b"Raw profile type "  # ImageMagick's way, from before PNG had a chunk for EXIF
_APP1_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_CHUNKS, _MAX_KEPT = 2_000_000, 64 << 20
_INCH = 0.0254  # in meters


@dataclass(slots=True)
class Facts:
    """Metadata and facts from the chunks of a PNG file."""

    frames: int = 1
    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None  # as text; a chunk of its own goes before it
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None  # density without a unit, if not square
    depth: int | None = None  # bits that samples really have, if fewer than are stored
    background: bytes | None = None  # a suggested colour, in samples like the picture's
    lost: list[str] = field(default_factory=list)  # in words, what is not taken over
    unknown: bytes | None = None  # a chunk that has to be understood, and is not
    color: list[Chunk] = field(default_factory=list)
    text: list[Chunk] = field(default_factory=list)


def size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height from the header chunk."""
    file.seek(len(SIGNATURE) + 8)
    width, height = (int.from_bytes(file.read(4), "big") for _ in range(2))
    return width, height


def check_start(name: str, file: BinaryIO) -> None:
    """Raise `InputError` if the file does not begin as every PNG does."""
    file.seek(len(SIGNATURE) + 4)
    kind = file.read(4)
    if kind == b"CgBI":
        raise InputError(
            f"{name}: a PNG changed by Xcode for iPhones (CgBI), which other programs do not read",
            "change it back with `pngcrush -revert-iphone-optimizations` or `sips -s format png`",
        )
    if kind != b"IHDR":
        raise InputError(
            f"{name}: damaged or incomplete (a PNG without a header chunk)",
            "get a whole copy of it",
        )


def facts(file: BinaryIO) -> Facts:
    """Collect the facts from a file, up to the first sign of damage."""
    found = Facts()
    for kind, data in _chunks(file):
        if kind == b"acTL":
            found.frames = int.from_bytes(data[:4], "big")
        elif kind == b"eXIf":
            found.exif = data
        elif kind == b"pHYs" and len(data) == 9:
            _density(found, data)
        elif kind == b"bKGD":
            found.background = _background(file, data)
        elif kind == b"sBIT":
            found.depth = max(data, default=0) or None
        elif kind in _LOST:
            found.lost.append(_LOST[kind])
        elif _is_critical(kind):
            found.unknown = found.unknown or kind
        elif kind in _COLOR:
            found.color.append((kind, data))
        elif kind in _TEXT:
            _text(found, kind, data)
    return found


def _background(file: BinaryIO, data: bytes) -> bytes | None:
    """Return a suggested background if its samples are of the kind that will be written."""
    at = file.tell()
    file.seek(len(SIGNATURE) + 16)
    depth, kind = file.read(2)
    file.seek(at)
    size = {0: 2, 4: 2, 2: 6, 6: 6}.get(kind)
    return data if depth in (8, 16) and len(data) == size else None


def _density(found: Facts, data: bytes) -> None:
    x, y = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4))
    if x and y and data[8] == 1:
        found.dpi = (x * _INCH, y * _INCH)
    elif x and y and x != y:
        found.aspect = (x, y)


def chunks_for(metadata: Metadata) -> bytes:
    """Return the chunks to put after the header chunk."""
    chunks: list[Chunk] = list(metadata.png_color)
    if metadata.icc is not None:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi is not None:
        per_meter = (round(value / _INCH).to_bytes(4, "big") for value in metadata.dpi)
        chunks.append((b"pHYs", b"".join(per_meter) + b"\1"))
    elif metadata.aspect is not None:
        chunks.append((b"pHYs", _small_ratio(metadata.aspect) + b"\0"))
    if metadata.png_background is not None:
        chunks.append((b"bKGD", metadata.png_background))
    if metadata.exif is not None:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", _XMP + b"\0\0\0\0\0" + metadata.xmp))
    comments = [(b"tEXt", b"Comment\0" + text) for text in metadata.comments if b"\0" not in text]
    return b"".join(_encoded(*chunk) for chunk in (*chunks, *metadata.png_text, *comments))


def _small_ratio(aspect: tuple[float, float]) -> bytes:
    """Return two integers of 4 bytes in about the same ratio."""
    factor = 1 if all(value == round(value) for value in aspect) else 1000
    return b"".join(max(1, round(value * factor)).to_bytes(4, "big") for value in aspect)


def spliced(head: bytes, chunks: bytes) -> bytes:
    """Insert `chunks` into the start of a PNG file; drop the resolution that libvips makes up."""
    rest = head[HEAD_SIZE:]
    if rest[4:8] == b"pHYs":
        rest = rest[21:]
    return head[:HEAD_SIZE] + chunks + rest


def odd_color(metadata: Metadata) -> bool:
    """Tell whether colours differ from sRGB by chunks that no other format has."""
    chunks = dict(metadata.png_color)
    if b"cICP" in chunks:  # goes before all others
        return chunks[b"cICP"][:2] not in (b"\1\x0d", b"\1\1", b"\1\6")
    if metadata.icc is not None or b"sRGB" in chunks:
        return False
    gamma = int.from_bytes(chunks.get(b"gAMA", b"\0\0\xb1\x8f"), "big")
    return abs(gamma - 45455) > 500 or _odd_primaries(chunks.get(b"cHRM", _SRGB_PRIMARIES))


def _odd_primaries(chunk: bytes) -> bool:
    """Tell whether white or a primary differs from sRGB's by more than a thousandth or two."""
    pairs = zip(_numbers(chunk), _numbers(_SRGB_PRIMARIES), strict=False)
    return any(abs(own - usual) > 200 for own, usual in pairs)


def _numbers(chunk: bytes) -> list[int]:
    return [int.from_bytes(chunk[at : at + 4], "big") for at in range(0, len(chunk), 4)]


def _chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield chunks other than pixel data, up to the end or the first sign of damage."""
    file.seek(len(SIGNATURE))
    kept = 0
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            return
        wanted = _is_critical(kind) or kind in _WANTED
        if not wanted or kept + size > _MAX_KEPT:
            file.seek(size + 4, 1)
            continue
        data, crc = file.read(size), file.read(4)
        kept += size
        if int.from_bytes(crc, "big") == zlib.crc32(data, zlib.crc32(kind)):
            yield kind, data


def updated_text(
    chunks: tuple[Chunk, ...], width: int, height: int, turned: bool
) -> tuple[Chunk, ...]:
    """Return text chunks that are true of the picture to write.

    ImageMagick copies EXIF tags into text: `exif:PixelXDimension`, `exif:Orientation`.

    Args:
        width, height: of the picture to write, in pixels.
        turned: whether it was stored in another orientation.
    """
    numbers = {b"exif:PixelXDimension": width, b"exif:ExifImageWidth": width,
               b"exif:PixelYDimension": height, b"exif:ExifImageLength": height,
               b"exif:ImageWidth": width, b"exif:ImageLength": height,
               b"tiff:ImageWidth": width, b"tiff:ImageLength": height}  # fmt: skip
    if turned:
        numbers |= {b"exif:Orientation": 1, b"tiff:Orientation": 1}
    made: list[Chunk] = []
    for kind, data in chunks:
        keyword = data.partition(b"\0")[0]
        if keyword in numbers:
            made.append((b"tEXt", keyword + b"\0" + str(numbers[keyword]).encode()))
        elif not keyword.startswith(b"exif:thumbnail:"):
            made.append((kind, data))
    return tuple(made)


def _is_critical(kind: bytes) -> bool:
    """Tell whether a chunk has to be understood, and no PNG specification has it."""
    return kind.isalpha() and kind[:1].isupper() and kind not in _CRITICAL


def _text(found: Facts, kind: bytes, data: bytes) -> None:
    """Store a text chunk: metadata packets under their kind, other texts unchanged."""
    keyword = data.partition(b"\0")[0]
    if keyword == _XMP:
        found.xmp = found.xmp or _content(kind, data) or None
    elif keyword.startswith(_RAW):
        profile = keyword.removeprefix(_RAW)
        content = _unhexed(_content(kind, data))
        if profile in (b"exif", b"APP1") and content.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
            found.exif = found.exif or content
        elif profile == b"xmp":
            found.xmp = found.xmp or content or None
        elif profile == b"APP1" and content.startswith(_APP1_XMP):
            found.xmp = found.xmp or content.removeprefix(_APP1_XMP) or None
        elif profile in (b"icc", b"icm"):
            found.icc = found.icc or content or None
        elif profile in (b"exif", b"APP1"):
            found.lost.append("EXIF data as text, which is damaged")
        else:
            found.text.append((kind, data))
    else:
        found.text.append((kind, data))


def _content(kind: bytes, data: bytes) -> bytes:
    """Return the text of a text chunk; empty if it is damaged."""
    rest = data.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:])
    packed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.split(b"\0", 2)[-1]
    return _inflated(text) if packed else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_KEPT)
    except zlib.error:
        return b""


def _unhexed(text: bytes) -> bytes:
    """Decode a raw profile: a line with its name, one with its length, then hexadecimal lines."""
    try:
        return binascii.unhexlify(b"".join(text.split()[2:]))
    except binascii.Error:
        return b""


def _encoded(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(data, zlib.crc32(kind))
    return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")
