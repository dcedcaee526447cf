"""The segments of a JPEG file that say something beside the pixels: found and written.

Source: JPEG File Interchange Format 1.02; EXIF 2.32; ICC.1:2022 annex B; XMP part 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from srcli.images import exif
from srcli.images.picture import Metadata

HEAD_SIZE = 2  # the start-of-image marker
MAX_SEGMENT = 65533  # bytes of data after the length
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
IPTC_PREFIX = b"Photoshop 3.0\0"
_ICC_PREFIX = b"ICC_PROFILE\0"
_ICC_PART = MAX_SEGMENT - len(_ICC_PREFIX) - 2
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # start of frame: baseline, progressive...
_SUBSAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (1, 2): "4:4:0", (2, 2): "4:2:0",
                 (4, 1): "4:1:1"}  # fmt: skip
_MAX_SEGMENTS = 10_000


@dataclass(slots=True)
class Facts:
    """What the segments say and the codec does not pass on."""

    dpi: tuple[float, float] | None = None
    subsampling: str | None = None  # of chroma: "4:2:0"...
    several: bool = False  # more pictures follow: a preview, a gain map, a depth map


def facts(file: BinaryIO) -> Facts:
    """Collect them from the segments before the pixel data."""
    found = Facts()
    for marker, data in _segments(file):
        if marker == 0xE0 and data[:5] == b"JFIF\0" and len(data) >= 12:
            unit = {1: 1.0, 2: 2.54}.get(data[7], 0.0)
            x, y = (int.from_bytes(data[at : at + 2], "big") * unit for at in (8, 10))
            found.dpi = (x, y) if x and y else None
        elif marker in _FRAMES and len(data) >= 15 and data[5] == 3:
            found.subsampling = _subsampling(data[6:15])
        elif marker == 0xE2 and data[:4] == b"MPF\0":
            found.several = True
    return found


def segments_for(metadata: Metadata) -> bytes:
    """The segments to put after the start-of-image marker."""
    parts = [_segment(0xE0, _jfif(metadata.dpi))]
    if metadata.exif is not None:
        parts.append(_segment(0xE1, exif.PREFIX + metadata.exif))
    if metadata.xmp is not None:
        parts.append(_segment(0xE1, XMP_PREFIX + metadata.xmp))
    if metadata.icc is not None:
        pieces = [
            metadata.icc[at : at + _ICC_PART] for at in range(0, len(metadata.icc), _ICC_PART)
        ]
        for number, piece in enumerate(pieces, 1):
            parts.append(_segment(0xE2, _ICC_PREFIX + bytes((number, len(pieces))) + piece))
    if metadata.iptc is not None:
        parts.append(_segment(0xED, IPTC_PREFIX + metadata.iptc))
    return b"".join(parts)


def fitting(metadata: Metadata) -> Metadata:
    """The metadata without what does not fit into JPEG segments."""

    def limited(data: bytes | None, limit: int) -> bytes | None:
        return data if data is not None and len(data) <= limit else None

    return replace(
        metadata,
        exif=limited(metadata.exif, MAX_SEGMENT - len(exif.PREFIX)),
        xmp=limited(metadata.xmp, MAX_SEGMENT - len(XMP_PREFIX)),
        icc=limited(metadata.icc, 255 * _ICC_PART),
        iptc=limited(metadata.iptc, MAX_SEGMENT - len(IPTC_PREFIX)),
    )


def spliced(head: bytes, segments: bytes) -> bytes:
    """The start of a JPEG file with `segments` in it."""
    return head[:HEAD_SIZE] + segments + head[HEAD_SIZE:]


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and data of each segment before the scan, up to the first sign of damage."""
    file.seek(HEAD_SIZE)
    for _ in range(_MAX_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        if head[1] == 0xFF:  # fill byte
            file.seek(-3, 1)
            continue
        size = int.from_bytes(head[2:], "big")
        yield head[1], file.read(max(0, size - 2))


def _subsampling(components: bytes) -> str | None:
    """From the three components of a frame header, 3 bytes each: how much finer luma is."""
    luma, *chroma = (divmod(factors, 16) for factors in components[1::3])
    if chroma[0] != chroma[1] or 0 in chroma[0]:
        return None
    return _SUBSAMPLINGS.get((luma[0] // chroma[0][0], luma[1] // chroma[0][1]))


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data


def _jfif(dpi: tuple[float, float] | None) -> bytes:
    density = [round(value) for value in dpi or ()]
    if density and all(0 < value < 2**16 for value in density):
        unit, x, y = 1, *density
    else:
        unit, x, y = 0, 1, 1
    return b"JFIF\0\1\1" + bytes((unit,)) + x.to_bytes(2, "big") + y.to_bytes(2, "big") + b"\0\0"
