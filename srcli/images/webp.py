"""Find and write the chunks of a WebP file that hold metadata.

Source: RFC 9649.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from srcli.images.picture import Metadata
from srcli.images.spliced import Spliced

_ALPHA, _ICC, _EXIF, _XMP = 0x10, 0x20, 0x08, 0x04
_MAX_CHUNKS = 10_000


def is_lossless(file: BinaryIO) -> bool:
    """Tell whether the first picture is compressed without loss."""
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[:4] in (b"VP8 ", b"ALPH", b"ANMF"):
            return False
        if head[:4] == b"VP8L":
            return True
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, 1)
    return False


def mended(
    name: str, source: Path | bytes, file: BinaryIO
) -> tuple[Path | bytes | Spliced, tuple[str, ...]]:
    """Return the source with its header's size corrected to that of its chunks, and a note.

    A file whose last chunk is not whole is left as it is.
    """
    end = file.seek(0, 2)
    file.seek(4)
    stated = int.from_bytes(file.read(4), "little") + 8
    at = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or not head[:4].strip().isalnum():
            break
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
    if at == stated or at not in (end, end + 1) or at == 12:
        return source, ()
    whole = bytes(at - end) if at > end else b""
    pieces = ((0, 4), (at - 8).to_bytes(4, "little"), (8, end), whole)
    note = f"{name}: its header is odd (another size than the file has); the pixels are whole"
    return Spliced(source, pieces), (note,)


def has_credentials(file: BinaryIO) -> bool:
    """Tell whether it holds content credentials (C2PA)."""
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return False
        if head[:4] == b"C2PA":
            return True
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, 1)
    return False


def with_metadata(
    data: bytes, metadata: Metadata, width: int, height: int, has_alpha: bool
) -> bytes:
    """Add metadata to a WebP file that has none."""
    present = ((_ICC, metadata.icc), (_EXIF, metadata.exif), (_XMP, metadata.xmp))
    flags = sum(flag for flag, content in present if content is not None)
    if not flags:
        return data
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    flags += _ALPHA if has_alpha else 0
    pixels = b"".join(_chunk(kind, body) for kind, body in _chunks(data) if kind != b"VP8X")
    body = b"".join((
        b"WEBP", _chunk(b"VP8X", bytes((flags, 0, 0, 0)) + canvas), _chunk(b"ICCP", metadata.icc),
        pixels, _chunk(b"EXIF", metadata.exif), _chunk(b"XMP ", metadata.xmp),
    ))  # fmt: skip
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _chunk(kind: bytes, data: bytes | None) -> bytes:
    if data is None:
        return b""
    return kind + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)
