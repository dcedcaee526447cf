"""Find and write the segments of a JPEG file that hold metadata.

Source: JPEG File Interchange Format 1.02; EXIF 2.32; ICC.1:2022 annex B; XMP part 3; CIPA DC-007.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import BinaryIO

from srcli.images import exif
from srcli.images.picture import Metadata
from srcli.images.quantisation import Table, quality_of, scaled, tables_in
from srcli.images.spliced import Piece
from srcli.images.tags import DamagedTagsError, directory, layout_of, reader_of

HEAD_SIZE = 2  # the start-of-image marker
MAX_SEGMENT = 65533  # bytes of data after the length
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_PREFIX = b"http://ns.adobe.com/xmp/extension/\0"
IPTC_PREFIX = b"Photoshop 3.0\0"
_ICC_PREFIX = b"ICC_PROFILE\0"
_ICC_PART = MAX_SEGMENT - len(_ICC_PREFIX) - 2
_ISO_GAIN = b"urn:iso:std:iso:ts:21496"
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # start of frame: baseline, progressive...
_ALL_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical",
               0xCB: "lossless arithmetic", 0xCD: "hierarchical", 0xCE: "hierarchical",
               0xCF: "hierarchical", 0xF7: "JPEG-LS"} | dict.fromkeys(_FRAMES, "")  # fmt: skip
_LOSSLESS = (0xC3, 0xCB, 0xF7)
_SOS, _EOI, _COM, _DQT = 0xDA, 0xD9, 0xFE, 0xDB
_SUBSAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (1, 2): "4:4:0", (2, 2): "4:2:0",
                 (4, 1): "4:1:1"}  # fmt: skip
_MAX_SEGMENTS = 10_000
_LONGEST_STRAY = 1 << 16
_TAIL = 1 << 16
_MAX_PICTURES = 100
_XMP_PART = 65000
_LARGEST_XMP = 16 << 20
_POINTER = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
    b' xmpNote:HasExtendedXMP="GUID"/></rdf:RDF></x:xmpmeta>'
)


@dataclass(slots=True)
class Facts:
    """Metadata and facts from the segments of a JPEG file."""

    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None  # density without a unit, if not square
    subsampling: str | None = None  # of chroma: "4:2:0"...
    several: bool = False  # more pictures follow: a preview, a gain map, a depth map
    exif: bytes | None = None
    xmp: bytes | None = None
    extended: dict[bytes, bytes] = field(default_factory=dict)  # more XMP, by its GUID
    icc: bytes | None = None
    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    credentials: bool = False  # C2PA or another JUMBF box
    gain_map: bool = False
    appended: bool = False  # what Samsung's phones put behind the picture
    lossless: bool = False
    tables: dict[int, Table] = field(default_factory=dict)  # of quantisation, by their numbers
    brightness: int = 0  # number of the table that the first component, mostly Y, has

    @property
    def quality(self) -> int | None:
        """Quality that it was written with, 1 to 100, by its tables; None if it has none."""
        table = self.tables.get(self.brightness)
        return None if table is None or self.lossless else quality_of(table)

    @property
    def quality_estimated(self) -> bool:
        """True if the tables are not those that the usual library has for a quality."""
        quality, table = self.quality, self.tables.get(self.brightness)
        return quality is not None and table != scaled(quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The storage of the pixels, and the repairs that a file needs to be read."""

    size: tuple[int, int]
    bits: int
    channels: int
    kind: str
    by_libvips: bool
    unread: bool  # nobody here reads it
    pieces: tuple[Piece, ...] | None  # the file without what is odd, if something is
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    data: bytes
    start: int  # of the marker
    stray: int  # bytes before it that belong to nothing


def facts(file: BinaryIO) -> Facts:
    """Collect the facts from the segments before the pixel data."""
    found = Facts()
    icc: dict[int, bytes] = {}
    for segment in _segments(file):
        _note(found, segment.marker, segment.data, icc)
    if icc:
        found.icc = b"".join(part for _, part in sorted(icc.items()))
    file.seek(max(0, file.seek(0, 2) - 4))
    found.appended = file.read() == b"SEFT"
    return found


def _note(found: Facts, marker: int, data: bytes, icc: dict[int, bytes]) -> None:
    if marker == 0xE0 and data[:5] == b"JFIF\0" and len(data) >= 12:
        _density(found, data)
    elif marker in _ALL_FRAMES and len(data) >= 9:
        _note_frame(found, marker, data)
    elif marker == _DQT:
        found.tables.update(tables_in(data))
    elif marker == 0xE1:
        _note_app1(found, data)
    elif marker == 0xE2 and data[:4] == b"MPF\0":
        found.several = True
    elif marker == 0xE2 and data.startswith(_ICC_PREFIX) and len(data) > 14:
        icc.setdefault(data[12], data[14:])
    elif marker == 0xE2 and data.startswith(_ISO_GAIN):
        found.gain_map = True
    elif marker == 0xEB and data[:2] == b"JP":
        found.credentials = True
    elif marker == 0xED and data.startswith(IPTC_PREFIX):
        found.iptc = (found.iptc or b"") + data[len(IPTC_PREFIX) :]
    elif marker == _COM:
        found.comments += (data.rstrip(b"\0"),)


def _note_frame(found: Facts, marker: int, data: bytes) -> None:
    found.lossless = marker in _LOSSLESS
    found.brightness = data[8]
    if marker in _FRAMES and len(data) >= 15 and data[5] == 3:
        found.subsampling = _subsampling(data[6:15])


def _note_app1(found: Facts, data: bytes) -> None:
    if data.startswith(exif.PREFIX[:5]) and found.exif is None:
        found.exif = data[6:]
    elif data.startswith(XMP_PREFIX) and found.xmp is None:
        found.xmp = data[len(XMP_PREFIX) :]
    elif data.startswith(EXTENDED_PREFIX):
        rest = data[len(EXTENDED_PREFIX) :]
        guid, size, at = rest[:32], *(int.from_bytes(rest[i : i + 4], "big") for i in (32, 36))
        known = found.extended.get(guid, b"")
        if len(known) == at and at + len(rest) - 40 <= size:  # they come in order
            found.extended[guid] = known + rest[40:]


def _density(found: Facts, data: bytes) -> None:
    unit = {1: 1.0, 2: 2.54}.get(data[7], 0.0)
    x, y = (int.from_bytes(data[at : at + 2], "big") for at in (8, 10))
    found.dpi = (x * unit, y * unit) if x and y and unit else None
    found.aspect = (x, y) if x and y and x != y and not unit else None


def survey(name: str, file: BinaryIO) -> Survey:
    """Look for what is odd before the first scan, and for a missing end."""
    frame, scan, pieces, kept, notes = None, None, [], HEAD_SIZE, []
    fixed: list[Piece] = [(0, HEAD_SIZE)]
    for segment in _segments(file, scan=True):
        end = segment.start + 4 + len(segment.data)
        if segment.stray:
            notes.append(f"{segment.stray} stray bytes in its header")
        if segment.stray or segment.start != kept:
            fixed.append((segment.start, end))
            pieces = fixed
        else:
            fixed.append((segment.start, end))
        kept = end
        if segment.marker in _ALL_FRAMES and frame is None:
            frame = segment
        changed = _mended(segment, frame)
        if changed is not None:
            fixed[-1] = bytes((0xFF, segment.marker)) + changed[0]
            pieces = fixed
            notes.append(changed[1])
        if segment.marker == _SOS:
            scan = segment
    size_of_file = file.seek(0, 2)
    fixed.append((kept, size_of_file))
    if frame is not None and scan is not None and _lacks_end(file, kept, frame, scan):
        fixed.append(b"\xff\xd9")
        pieces = fixed
        notes.append("the marker at its end is missing")
    said = f"{name}: its header is odd ({', '.join(dict.fromkeys(notes))}); the pixels are whole"
    return replace(
        _surveyed(frame), pieces=tuple(pieces) if pieces else None, notes=(said,) if notes else ()
    )


def _surveyed(frame: _Segment | None) -> Survey:
    data = b"" if frame is None else frame.data
    marker = 0xC0 if frame is None else frame.marker
    bits, channels = (data[0], data[5]) if len(data) > 5 else (8, 3)
    height, width = (int.from_bytes(data[at : at + 2], "big") for at in (1, 3))
    kind = _ALL_FRAMES[marker] or (f"{bits}-bit" if bits != 8 else "")
    if frame is not None and not height:
        kind = "headless (its height stands at its end)"
    return Survey(
        size=(width, height),
        bits=bits,
        channels=channels,
        kind=f"a {kind} JPEG".replace("a JPEG-LS JPEG", "a JPEG-LS file"),
        by_libvips=bits == 8 and height > 0 and (marker in _FRAMES or marker == 0xC3),
        unread=marker not in (*_FRAMES, 0xC3) or (frame is not None and not height),
        pieces=None,
        notes=(),
    )


def _mended(segment: _Segment, frame: _Segment | None) -> tuple[bytes, str] | None:
    """Return a repaired segment with its length, and what was odd; None if nothing was."""
    data = segment.data
    size = (len(data) + 2).to_bytes(2, "big")
    if segment.marker == _SOS and frame is not None and frame.marker in (0xC0, 0xC1):
        if len(data) >= 3 and data[-3:] != b"\0\x3f\0":
            return size + data[:-3] + b"\0\x3f\0", "the parameters of its scan"
    elif segment.marker == 0xE0 and data[:5] == b"JFIF\0" and data[5:6] not in (b"\1", b"\2"):
        return size + data[:5] + b"\1" + data[6:], "its JFIF version"
    return None


def _lacks_end(file: BinaryIO, start: int, frame: _Segment, scan: _Segment) -> bool:
    """Tell whether a file of one scan ends without its last marker.

    The decoder then says whether pixels are missing. Of several scans some could be.
    """
    whole = frame.marker in (0xC0, 0xC1) and scan.data[:1] == frame.data[5:6]
    end = file.seek(0, 2)
    if not whole or end <= start:
        return False
    file.seek(max(start, end - _TAIL))
    if b"\xff\xd9" in file.read():
        return False
    file.seek(start)
    return b"\xff\xd9" not in file.read()


def pictures(file: BinaryIO) -> list[tuple[int, int]]:
    """Return offset and size of each picture in a multi-picture file; (0, 0) for the first."""
    found = [(0, 0)]
    for segment in _segments(file):
        if segment.marker == 0xE2 and segment.data[:4] == b"MPF\0":
            base = segment.start + 8  # of the index's own TIFF structure
            end = file.seek(0, 2)
            found += [
                (base + at, min(size, end - base - at))
                for size, at in _index(segment.data[4:])
                if at and size and base + at < end
            ]
            break
    return found[:_MAX_PICTURES]


def _index(data: bytes) -> list[tuple[int, int]]:
    """Return size and offset of each entry of a multi-picture index."""
    try:
        layout = layout_of(reader_of(data))
        value = directory(layout, layout.first()).values.get(0xB002)
    except DamagedTagsError:
        return []
    entries = b"" if value is None else value.data
    order = layout.order
    return [
        (
            int.from_bytes(entries[i + 4 : i + 8], order),
            int.from_bytes(entries[i + 8 : i + 12], order),
        )
        for i in range(0, len(entries) - 15, 16)
    ]


def segments_for(metadata: Metadata) -> bytes:
    """Return the segments to put after the start-of-image marker."""
    parts = [_segment(0xE0, _jfif(metadata))]
    if metadata.exif is not None:
        parts.append(_segment(0xE1, exif.PREFIX + metadata.exif))
    if metadata.xmp is not None:
        parts += _xmp_segments(metadata.xmp)
    if metadata.icc is not None:
        pieces = [
            metadata.icc[at : at + _ICC_PART] for at in range(0, len(metadata.icc), _ICC_PART)
        ]
        for number, piece in enumerate(pieces, 1):
            parts.append(_segment(0xE2, _ICC_PREFIX + bytes((number, len(pieces))) + piece))
    if metadata.iptc is not None:
        parts.append(_segment(0xED, IPTC_PREFIX + metadata.iptc))
    parts += [_segment(_COM, comment) for comment in metadata.comments]
    return b"".join(parts)


def _xmp_segments(xmp: bytes) -> list[bytes]:
    """Return one segment, or several of extended XMP (XMP part 3, 1.1.3.1) if it is too long."""
    if len(xmp) <= MAX_SEGMENT - len(XMP_PREFIX):
        return [_segment(0xE1, XMP_PREFIX + xmp)]
    guid = hashlib.md5(xmp, usedforsecurity=False).hexdigest().upper().encode()
    pointer = _POINTER.replace(b"GUID", guid)
    segments = [_segment(0xE1, XMP_PREFIX + pointer)]
    for at in range(0, len(xmp), _XMP_PART):
        place = len(xmp).to_bytes(4, "big") + at.to_bytes(4, "big")
        part = EXTENDED_PREFIX + guid + place + xmp[at : at + _XMP_PART]
        segments.append(_segment(0xE1, part))
    return segments


def fitting(metadata: Metadata) -> Metadata:
    """Leave out metadata that does not fit into JPEG segments."""

    def limited(data: bytes | None, limit: int) -> bytes | None:
        return data if data is not None and len(data) <= limit else None

    return replace(
        metadata,
        exif=limited(metadata.exif, MAX_SEGMENT - len(exif.PREFIX)),
        xmp=limited(metadata.xmp, _LARGEST_XMP),
        icc=limited(metadata.icc, 255 * _ICC_PART),
        iptc=limited(metadata.iptc, MAX_SEGMENT - len(IPTC_PREFIX)),
        comments=tuple(c for c in metadata.comments if len(c) <= MAX_SEGMENT),
    )


def spliced(head: bytes, segments: bytes) -> bytes:
    """Insert `segments` into the start of a JPEG file."""
    return head[:HEAD_SIZE] + segments + head[HEAD_SIZE:]


def _segments(file: BinaryIO, scan: bool = False) -> Iterator[_Segment]:
    """Yield the segments before the first scan, and the scan's own if that is wanted.

    Bytes that belong to nothing are skipped, as decoders do.
    """
    file.seek(HEAD_SIZE)
    for _ in range(_MAX_SEGMENTS):
        start, stray = _next_marker(file)
        if start is None:
            return
        file.seek(start)
        head = file.read(4)
        if len(head) < 4 or head[1] == _EOI or (head[1] == _SOS and not scan):
            return
        size = int.from_bytes(head[2:], "big")
        yield _Segment(head[1], file.read(max(0, size - 2)), start, stray)
        file.seek(start + 2 + max(2, size))
        if head[1] == _SOS:
            return


def _next_marker(file: BinaryIO) -> tuple[int | None, int]:
    """Return where the next marker begins, and how many stray bytes (no fill) are before it."""
    begin = file.tell()
    head = file.read(2)
    if len(head) == 2 and head[0] == 0xFF and head[1] not in (0, 0xFF):
        return begin, 0
    data = head + file.read(_LONGEST_STRAY)
    for at in range(len(data) - 1):
        if data[at] == 0xFF and data[at + 1] not in (0, 0xFF):
            return begin + at, len(data[:at].replace(b"\xff", b""))
    return None, 0


def _subsampling(components: bytes) -> str | None:
    """Return the chroma subsampling, from the 3 components of a frame header, 3 bytes each."""
    luma, *chroma = (divmod(factors, 16) for factors in components[1::3])
    if chroma[0] != chroma[1] or 0 in chroma[0]:
        return None
    return _SUBSAMPLINGS.get((luma[0] // chroma[0][0], luma[1] // chroma[0][1]))


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data


def _jfif(metadata: Metadata) -> bytes:
    density = [round(value) for value in metadata.dpi or ()]
    if density and all(0 < value < 2**16 for value in density):
        unit, x, y = 1, *density
    else:
        unit, (x, y) = 0, _small_ratio(metadata.aspect or (1, 1))
    return b"JFIF\0\1\1" + bytes((unit,)) + x.to_bytes(2, "big") + y.to_bytes(2, "big") + b"\0\0"


def _small_ratio(aspect: tuple[float, float]) -> tuple[int, int]:
    """Return two integers of 16 bits in the same ratio."""
    if all(value == round(value) and 0 < value < 2**16 for value in aspect):
        return round(aspect[0]), round(aspect[1])
    ratio = Fraction(aspect[0] / aspect[1]).limit_denominator(10_000)
    return max(1, min(65535, ratio.numerator)), max(1, ratio.denominator)
