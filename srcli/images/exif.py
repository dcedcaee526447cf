"""EXIF data: what it says of the pixels, brought up to date byte by byte, and to and from TIFF.

The data is changed in place instead of being rebuilt: maker notes hold offsets that nobody but
their maker knows, and unknown tags stay as they are.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from srcli.images.tags import (
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    DamagedTagsError,
    Directory,
    Field,
    Layout,
    ReadAt,
    Value,
    chain,
    directory,
    layout_of,
    reader_of,
    serialized,
    swapped,
)

PREFIX = b"Exif\0\0"  # before the TIFF structure in JPEG, and wrongly in some WebP files

_SUBFILE, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION = 0x00FE, 0x0112, 0x011A, 0x011B
_RESOLUTION_UNIT = 0x0128
_THUMBNAIL, _THUMBNAIL_SIZE = 0x0201, 0x0202
_DNG_VERSION, _GEO_KEYS, _SUB_IFDS = 0xC612, 0x87AF, 0x014A
_USER_COMMENT, _UNICODE = 0x9286, b"UNICODE\0"
_THOUSAND = (1000).to_bytes(4, "little")
_WIDTHS = (0x0100, 0xA002, 0x1001)  # in the first, the EXIF and the interoperability directory
_HEIGHTS = (0x0101, 0xA003, 0x1002)
_INCHES = {2: 1.0, 3: 2.54}  # dots per inch for one dot per unit, by ResolutionUnit

# What a TIFF file's first directory says of the picture rather than of its storage. The others
# belong to whoever writes the file.
_DESCRIPTIVE = (
    0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C,  # name, text, make to host
    0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,  # rating, copyright, XP...
)  # fmt: skip
_OF_INTEREST = frozenset((
    *_DESCRIPTIVE, EXIF_IFD, GPS_IFD, _SUBFILE, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION,
    _RESOLUTION_UNIT, _DNG_VERSION, _GEO_KEYS, _SUB_IFDS,
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffFacts:
    """What a TIFF file's directories say beside its pixels."""

    orientation: int
    dpi: tuple[float, float] | None
    exif: bytes | None
    pages: int  # pictures, not counting reduced copies and masks of the first
    preview: bool  # the first directory is a reduced copy: a camera's raw file
    located: bool  # holds a map's coordinates


def checked(exif: bytes | None) -> bytes | None:
    """The TIFF structure without what precedes it, or None when it is damaged or absent."""
    data = (exif or b"").removeprefix(PREFIX)
    try:
        layout = layout_of(reader_of(data))
        directory(layout, layout.first())
    except DamagedTagsError:
        return None
    return data


def orientation_of(exif: bytes | None) -> int:
    """1..8; 1 when nothing sensible is said."""
    if exif is None:
        return 1
    layout = layout_of(reader_of(exif))
    return _orientation(directory(layout, layout.first()))


def resolution_of(exif: bytes | None) -> tuple[float, float] | None:
    """Dots per inch, horizontal and vertical."""
    if exif is None:
        return None
    layout = layout_of(reader_of(exif))
    return _dpi(directory(layout, layout.first()))


def updated(exif: bytes, width: int, height: int) -> bytes:
    """EXIF data for an upright picture of this size.

    Orientation becomes 1, sizes that are given become the new ones, the thumbnail goes.
    """
    data = bytearray(exif)
    layout = layout_of(reader_of(data))
    fields, next_at = layout.entries(layout.first())
    _correct(data, layout, fields, (width, height))
    return _without_thumbnail(data, layout, next_at)


def _correct(
    data: bytearray, layout: Layout, fields: list[Field], size: tuple[int, int], depth: int = 0
) -> None:
    for field in fields:
        if field.tag == _ORIENTATION:
            _set_long(data, layout, field, 1)
        elif field.tag in _WIDTHS:
            _set_long(data, layout, field, size[0])
        elif field.tag in _HEIGHTS:
            _set_long(data, layout, field, size[1])
        elif field.tag in (EXIF_IFD, INTEROP_IFD) and depth < 2:
            inner = layout.value(field).integer() or 0
            with suppress(DamagedTagsError):
                _correct(data, layout, layout.entries(inner)[0], size, depth + 1)


def _set_long(data: bytearray, layout: Layout, field: Field, number: int) -> None:
    """Make an entry one integer: SHORT where it was one and still fits, else LONG."""
    kind = 3 if field.kind == 3 and number < 2**16 else 4
    size = 2 if kind == 3 else 4
    entry = field.tag.to_bytes(2, layout.order) + kind.to_bytes(2, layout.order)
    entry += (1).to_bytes(layout.offset_size, layout.order)
    entry += number.to_bytes(size, layout.order)
    data[field.entry : field.entry + layout.entry_size] = entry.ljust(layout.entry_size, b"\0")


def _without_thumbnail(data: bytearray, layout: Layout, next_at: int) -> bytes:
    """Cut the link to the second directory, and overwrite what only that one used."""
    try:
        second = layout.number(next_at, layout.offset_size)
        fields, end = layout.entries(second) if second else ([], 0)
    except DamagedTagsError:
        fields, second, end = [], 0, 0
    spans = [(second, end + layout.offset_size)] if second else []
    spans += [(field.start, field.start + field.size) for field in fields]
    numbers = {field.tag: layout.value(field).integer() for field in fields if field.size <= 8}
    start, size = numbers.get(_THUMBNAIL), numbers.get(_THUMBNAIL_SIZE)
    if start and size:
        spans.append((start, start + size))
    data[next_at : next_at + layout.offset_size] = bytes(layout.offset_size)
    after = next_at + layout.offset_size  # nothing before it may be touched
    return _blanked(data, [span for span in spans if after <= span[0] and span[1] <= len(data)])


def _blanked(data: bytearray, spans: list[tuple[int, int]]) -> bytes:
    """Overwrite spans with zeros, and drop those that the data ends with."""
    for start, end in sorted(spans, key=lambda span: span[1], reverse=True):
        if end >= len(data) - 1:
            del data[start:]
        else:
            data[start:end] = bytes(end - start)
    return bytes(data)


def tiff_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height that a TIFF file's first directory states, if it does."""
    with suppress(DamagedTagsError):
        layout = layout_of(reader_of_file(file))
        first = directory(layout, layout.first(), (_WIDTHS[0], _HEIGHTS[0]))
        width, height = (first.values.get(tag) for tag in (_WIDTHS[0], _HEIGHTS[0]))
        if width is not None and height is not None:
            return width.integer() or 0, height.integer() or 0
    return None


def of_tiff(read: ReadAt) -> TiffFacts:
    """Read the directories of a TIFF file.

    Raises:
        DamagedTagsError: they lead outside the file.
    """
    layout = layout_of(read)
    offsets = list(chain(layout))
    if not offsets:
        raise DamagedTagsError("no directory")
    first = directory(layout, offsets[0], _OF_INTEREST)
    pages = [directory(layout, offset, (_SUBFILE,)) for offset in offsets[1:]]
    others = bool(pages) or _SUB_IFDS in first.values
    return TiffFacts(
        orientation=_orientation(first),
        dpi=_dpi(first),
        exif=_blob(_description(first, layout)),
        pages=1 + sum(not _is_copy(page) for page in pages),
        preview=(_is_copy(first) and others) or _DNG_VERSION in first.values,
        located=_GEO_KEYS in first.values,
    )


def into_tiff(file: BinaryIO, exif: bytes) -> None:
    """Add what EXIF data describes to the TIFF file that `file` holds."""
    source = layout_of(reader_of(exif))
    _extend(file, _description(directory(source, source.first()), source))


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """EXIF data that also gives the resolution, for formats with no other place for it."""
    if resolution_of(exif) is not None:
        return exif or b""
    x, y = (round(value * 1000).to_bytes(4, "little") + _THOUSAND for value in dpi)
    added = Directory(
        {
            _X_RESOLUTION: Value(5, 1, x),
            _Y_RESOLUTION: Value(5, 1, y),
            _RESOLUTION_UNIT: Value(3, 1, b"\2\0"),
        },
        {},
    )
    file = io.BytesIO(exif or b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    _extend(file, added)
    return file.getvalue()


def without_resolution(file: BinaryIO) -> None:
    """Make the resolution that a TIFF file must state one without a unit: unknown."""
    layout = layout_of(reader_of_file(file))
    for field in layout.entries(layout.first())[0]:
        if field.tag == _RESOLUTION_UNIT:
            file.seek(field.start)
            file.write((1).to_bytes(2, layout.order))


def _extend(file: BinaryIO, added: Directory) -> None:
    """Append a first directory that has the old one's entries and `added`'s; added ones win."""
    read = reader_of_file(file)
    layout = layout_of(read)
    old = layout.entries(layout.first())[0]
    ready = {field.tag: read(field.entry, layout.entry_size) for field in old}
    for tag in (*added.values, *added.children):
        ready.pop(tag, None)
    end = file.seek(0, 2)
    file.write(b"\0" * (end % 2))
    end += end % 2
    file.write(serialized(added, end, layout.order, layout.big, ready))
    file.seek(8 if layout.big else 4)
    file.write(end.to_bytes(layout.offset_size, layout.order))


def reader_of_file(file: BinaryIO) -> ReadAt:
    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read


def _description(first: Directory, layout: Layout) -> Directory:
    """The part of a first directory that says something of the picture."""
    values = {tag: first.values[tag] for tag in _DESCRIPTIVE if tag in first.values}
    children = {tag: first.children[tag] for tag in (EXIF_IFD, GPS_IFD) if tag in first.children}
    inner = children.get(EXIF_IFD, Directory({}, {})).values
    comment = inner.get(_USER_COMMENT)
    # The only text whose bytes follow the order of the file.
    if layout.order == "big" and comment and comment.data.startswith(_UNICODE):
        text = swapped(comment.data[len(_UNICODE) :], 2)
        inner[_USER_COMMENT] = replace(comment, data=_UNICODE + text)
    return Directory(values, children)


def _blob(described: Directory) -> bytes | None:
    if not described.values and not described.children:
        return None
    return b"II*\0\x08\0\0\0" + serialized(described, 8)


def _is_copy(page: Directory) -> bool:
    """Whether a page is a reduced copy or a mask of another one."""
    kind = page.values.get(_SUBFILE)
    return bool(((kind.integer() if kind else 0) or 0) & 0b101)


def _orientation(first: Directory) -> int:
    value = first.values.get(_ORIENTATION)
    number = value.integer() if value else None
    return number if number is not None and 1 <= number <= 8 else 1


def _dpi(first: Directory) -> tuple[float, float] | None:
    unit = first.values.get(_RESOLUTION_UNIT)
    inches = _INCHES.get((unit.integer() if unit else 2) or 2)
    x, y = (_ratio(first.values.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return (x * inches, y * inches) if x and y and inches else None


def _ratio(value: Value | None) -> float | None:
    if value is None or value.kind != 5 or len(value.data) < 8:
        return None
    above, below = (int.from_bytes(value.data[at : at + 4], "little") for at in (0, 4))
    return above / below if below else None
