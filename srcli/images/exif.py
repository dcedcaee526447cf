"""EXIF data: what it says of the pixels, brought up to date byte by byte, and to and from TIFF.

The data is changed in place instead of being rebuilt: maker notes hold offsets that nobody but
their maker knows, and unknown tags stay as they are.
"""

from __future__ import annotations

import io
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from srcli.images.geometry import Change
from srcli.images.tags import (
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    DamagedTagsError,
    Directory,
    Field,
    Layout,
    Order,
    ReadAt,
    Value,
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
_DNG_VERSION, _SUB_IFDS, _MAKER_NOTE = 0xC612, 0x014A, 0x927C
_GEO_TAGS = (0x830E, 0x8482, 0x85D8, 0x87AF)  # scale, tie points, matrix, keys
_USER_COMMENT, _UNICODE = 0x9286, b"UNICODE\0"
_THOUSAND = (1000).to_bytes(4, "little")
_WIDTHS = (0x0100, 0xA002, 0x1001)  # in the first, the EXIF and the interoperability directory
_HEIGHTS = (0x0101, 0xA003, 0x1002)
_COLOR_SPACE = 0xA001
_SUBJECTS = (0x9214, 0xA214)  # where the subject is: numbers of pixels, as stored
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels for each unit of the sensor
# How samples were stored, where they lay, and copies of other metadata that would get out of date:
# in the first directory, and in the EXIF one.
_OF_STORAGE = (
    frozenset((
        0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x0140, 0x0142, 0x0143,
        0x0144, 0x0145, 0x014A, 0x0152, 0x0153, 0x0201, 0x0202, 0x0212, 0x0214, 0x02BC, 0x83BB,
        0x8649, 0x8773,
    )),
    frozenset((0x9102,)),
)  # fmt: skip
_IMAGE_DESCRIPTION, _STRIPS, _TILES = 0x010E, 0x0111, 0x0144
_OF_LAYOUT = re.compile(rb'^\{"(?:shape|axes)"|^ImageJ=|<OME\b|^SCANIMAGE')
# Maker notes whose offsets count from their own start, by how they begin.
_SELF_CONTAINED = (b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"Apple iOS\0")
_FARTHEST_NOTE = 60_000  # so that the data still fits into a JPEG segment
_INCHES = {2: 1.0, 3: 2.54}  # dots per inch for one dot per unit, by ResolutionUnit

# What a TIFF file's first directory says of the picture rather than of its storage. The others
# belong to whoever writes the file.
_DESCRIPTIVE = (
    0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C,  # name, text, make to host
    0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,  # rating, copyright, XP...
)  # fmt: skip
_OF_INTEREST = frozenset((
    *_DESCRIPTIVE, EXIF_IFD, GPS_IFD, _SUBFILE, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION,
    _RESOLUTION_UNIT, _DNG_VERSION, *_GEO_TAGS, _SUB_IFDS,
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffFacts:
    """What a TIFF file's directories say beside its pixels."""

    orientation: int | None
    dpi: tuple[float, float] | None
    aspect: tuple[float, float] | None  # density without a unit, where pixels are not square
    exif: bytes | None
    lost: tuple[str, ...]  # what of it cannot be taken over, in words
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


def orientation_of(exif: bytes | None) -> int | None:
    """1..8; None when nothing sensible is said."""
    if exif is None:
        return None
    layout = layout_of(reader_of(exif))
    return _orientation(directory(layout, layout.first()))


def resolution_of(exif: bytes | None) -> tuple[float, float] | None:
    """Dots per inch, horizontal and vertical."""
    if exif is None:
        return None
    layout = layout_of(reader_of(exif))
    return _dpi(directory(layout, layout.first()))


def updated(exif: bytes, change: Change, converted: bool = False) -> bytes:
    """EXIF data that is true of the picture to write.

    Orientation becomes 1, sizes and places are scaled and turned, the thumbnail goes, and so does
    what describes how the samples were stored. Nothing else moves.

    Args:
        converted: colours became sRGB.
    """
    data = bytearray(exif)
    layout = layout_of(reader_of(data))
    _correct(data, layout, layout.first(), change, converted)
    return _without_thumbnail(data, layout, layout.entries(layout.first())[1])


def _correct(
    data: bytearray, layout: Layout, at: int, change: Change, converted: bool, depth: int = 0
) -> None:
    size = (change.width, change.height)
    gone = []
    fields = layout.entries(at)[0]
    for field in fields:
        if field.tag == _ORIENTATION:
            _set_long(data, layout, field, 1)
        elif field.tag in _WIDTHS:
            _set_long(data, layout, field, size[0])
        elif field.tag in _HEIGHTS:
            _set_long(data, layout, field, size[1])
        elif field.tag == _COLOR_SPACE and converted:
            _set_long(data, layout, field, 1)
        elif field.tag in _SUBJECTS:
            gone += [] if _moved(data, layout, field, change) else [field.tag]
        elif field.tag in (EXIF_IFD, INTEROP_IFD) and depth < 2:
            inner = layout.value(field).integer() or 0
            with suppress(DamagedTagsError):
                _correct(data, layout, inner, change, converted, depth + 1)
    _swap_axes(data, layout, fields, change)
    gone += [field.tag for field in fields if field.tag in _OF_STORAGE[min(depth, 1)]]
    for tag in gone:
        _drop(data, layout, at, tag)


def _moved(data: bytearray, layout: Layout, field: Field, change: Change) -> bool:
    """Whether a subject's place could be brought up to date."""
    raw = layout.value(field).data
    if field.kind != 3:
        return False
    numbers = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
    moved = change.subject(numbers)
    if moved is None or not all(0 <= number < 2**16 for number in moved):
        return False
    data[field.start : field.start + field.size] = b"".join(
        number.to_bytes(2, layout.order) for number in moved
    )
    return True


def _swap_axes(data: bytearray, layout: Layout, fields: list[Field], change: Change) -> None:
    """Resolutions along x and y: exchanged in a turned picture; on the sensor, scaled as well."""
    found = {field.tag: field for field in fields if field.kind == 5 and field.size == 8}
    for tags, factors in (
        ((_X_RESOLUTION, _Y_RESOLUTION), (1.0, 1.0)),
        (_FOCAL_PLANE, change.factors),
    ):
        same = factors == (1.0, 1.0) and not change.transposed
        if same or not all(tag in found for tag in tags):
            continue
        values = [bytes(data[found[tag].start : found[tag].start + 8]) for tag in tags]
        if change.transposed:
            values.reverse()
        for tag, value, factor in zip(tags, values, factors, strict=True):
            if len(value) == 8:
                data[found[tag].start : found[tag].start + 8] = _times(value, factor, layout.order)


def _times(ratio: bytes, factor: float, order: Order) -> bytes:
    """A ratio of two integers of 4 bytes, multiplied."""
    above, below = (int.from_bytes(ratio[at : at + 4], order) for at in (0, 4))
    above = round(above * factor)
    while above >= 2**32:
        above, below = above // 2, max(1, below // 2)
    return above.to_bytes(4, order) + below.to_bytes(4, order)


def _drop(data: bytearray, layout: Layout, at: int, tag: int) -> None:
    """Take an entry out of a directory; those after it, and the link to the next, move up."""
    fields, next_at = layout.entries(at)
    entry = next((field.entry for field in fields if field.tag == tag), None)
    if entry is None:
        return
    width, end = (8 if layout.big else 2), next_at + layout.offset_size
    data[at : at + width] = (len(fields) - 1).to_bytes(width, layout.order)
    data[entry:end] = data[entry + layout.entry_size : end] + bytes(layout.entry_size)


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


def of_tiff(layout: Layout, offsets: list[int], index: int) -> TiffFacts:
    """What one directory of a TIFF file, given by its index, says beside its pixels.

    Raises:
        DamagedTagsError: it leads outside the file.
    """
    first = directory(layout, offsets[index], _OF_INTEREST)
    others = len(offsets) > 1 or _SUB_IFDS in first.values
    described, lost = _description(first, layout, layout.order)
    blob, without_note = _blob(described, layout.order, _note_start(layout, offsets[index]))
    return TiffFacts(
        orientation=_orientation(first),
        dpi=_dpi(first),
        aspect=_aspect(first),
        exif=blob,
        lost=(*lost, *(["the maker's notes in its EXIF data"] if without_note else [])),
        preview=index == 0 and ((is_copy(first) and others) or _DNG_VERSION in first.values),
        located=any(tag in first.values for tag in _GEO_TAGS),
    )


def _note_start(layout: Layout, at: int) -> int | None:
    with suppress(DamagedTagsError):
        for field in layout.entries(at)[0]:
            if field.tag == EXIF_IFD:
                note = _note_below(layout, layout.value(field).integer() or 0)
                return None if note is None or note.start >= 2**32 else note.start
    return None


def has_maker_note(exif: bytes | None) -> bool:
    """Whether it holds a maker's notes, which may break when they are moved."""
    return exif is not None and _note_field(layout_of(reader_of(exif))) is not None


def stays_in_front(exif: bytes | None, wide: bool, huge: bool) -> bool:
    """Whether a TIFF file can begin with this EXIF data, so that nothing in it moves.

    Args:
        wide: the samples have 16 bits, which are written in this machine's order of bytes.
        huge: the file is a BigTIFF.
    """
    if exif is None or huge:
        return False
    layout = layout_of(reader_of(exif))
    return not layout.big and (not wide or layout.order == sys.byteorder)


def loses_maker_note(exif: bytes | None, wide: bool, huge: bool) -> bool:
    """Whether a TIFF file cannot hold these maker notes unharmed."""
    if exif is None or not has_maker_note(exif) or stays_in_front(exif, wide, huge):
        return False
    layout = layout_of(reader_of(exif))
    field = _note_field(layout)
    return field is not None and not layout.value(field).data.startswith(_SELF_CONTAINED)


def into_tiff(file: BinaryIO, exif: bytes) -> None:
    """Add what EXIF data describes to the TIFF file that `file` holds; it is written anew."""
    source, target = layout_of(reader_of(exif)), layout_of(reader_of_file(file))
    first = directory(source, source.first())
    inner = first.children.get(EXIF_IFD, Directory({}, {})).values
    note = inner.get(_MAKER_NOTE)
    if note is not None and not note.data.startswith(_SELF_CONTAINED):
        del inner[_MAKER_NOTE]
    _extend(file, _description(first, source, target.order)[0])


def behind(file: BinaryIO, exif: bytes, start: int) -> None:
    """Join EXIF data at the start of a file with a TIFF file that lies behind it.

    The file gets a first directory that describes the picture, and points to where the EXIF data
    has its own directories. So maker notes stay where they were.

    Args:
        file: `exif`, then at offset `start` a whole TIFF file.
    """
    inner = layout_of(_shifted(reader_of_file(file), start))
    picture = directory(inner, inner.first())
    outer = layout_of(reader_of(exif))
    values = picture.values | _picked(directory(outer, outer.first()))
    for tag in (_STRIPS, _TILES):
        if tag in values:
            values[tag] = _moved_by(values[tag], start)
    pointers = {field.tag: outer.value(field) for field in outer.entries(outer.first())[0]}
    values |= {tag: pointers[tag] for tag in (EXIF_IFD, GPS_IFD) if tag in pointers}
    end = file.seek(0, 2)
    file.write(b"\0" * (end % 2))
    end += end % 2
    file.write(serialized(Directory(values, {}), end, outer.order))
    file.seek(4)
    file.write(end.to_bytes(4, outer.order))


def _shifted(read: ReadAt, start: int) -> ReadAt:
    return lambda offset, size: read(start + offset, size)


def _moved_by(offsets: Value, start: int) -> Value:
    size = 2 if offsets.kind == 3 else 4
    numbers = [
        int.from_bytes(offsets.data[at : at + size], "little") + start
        for at in range(0, len(offsets.data), size)
    ]
    return Value(4, len(numbers), b"".join(number.to_bytes(4, "little") for number in numbers))


def _note_field(layout: Layout) -> Field | None:
    """Where the maker notes lie."""
    with suppress(DamagedTagsError):
        for field in layout.entries(layout.first())[0]:
            if field.tag == EXIF_IFD:
                return _note_below(layout, layout.value(field).integer() or 0)
    return None


def _note_below(layout: Layout, at: int) -> Field | None:
    fields = layout.entries(at)[0]
    return next((field for field in fields if field.tag == _MAKER_NOTE), None)


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


def without_resolution(file: BinaryIO, start: int = 0) -> None:
    """Make the resolution that a TIFF file must state one without a unit: unknown.

    Args:
        start: where in `file` the TIFF file begins.
    """
    layout = layout_of(_shifted(reader_of_file(file), start))
    for field in layout.entries(layout.first())[0]:
        if field.tag == _RESOLUTION_UNIT:
            file.seek(start + field.start)
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


def _picked(first: Directory) -> dict[int, Value]:
    """The values of a first directory that say something of the picture."""
    return {tag: first.values[tag] for tag in _DESCRIPTIVE if tag in first.values}


def _description(first: Directory, layout: Layout, order: Order) -> tuple[Directory, list[str]]:
    """The part of a first directory that says something of the picture, to be written in `order`.

    Returns:
        It, and in words what is left out.
    """
    values, lost = _picked(first), []
    text = values.get(_IMAGE_DESCRIPTION)
    if text is not None and _OF_LAYOUT.search(text.data):
        del values[_IMAGE_DESCRIPTION]
        lost.append("a program's description of the file's layout")
    children = {tag: first.children[tag] for tag in (EXIF_IFD, GPS_IFD) if tag in first.children}
    inner = children.get(EXIF_IFD, Directory({}, {})).values
    comment = inner.get(_USER_COMMENT)
    # The only text whose bytes follow the order of the file.
    if layout.order != order and comment and comment.data.startswith(_UNICODE):
        swap = swapped(comment.data[len(_UNICODE) :], 2)
        inner[_USER_COMMENT] = replace(comment, data=_UNICODE + swap)
    return Directory(values, children), lost


def _blob(described: Directory, order: Order, note_at: int | None) -> tuple[bytes | None, bool]:
    """EXIF data of its own, and whether maker notes had to be left out.

    Args:
        note_at: where the maker notes lay; they must stay there unless they are self-contained.
    """
    if not described.values and not described.children:
        return None, False
    head = b"II*\0\x08\0\0\0" if order == "little" else b"MM\0*\0\0\0\x08"
    inner = described.children.get(EXIF_IFD, Directory({}, {})).values
    note = inner.get(_MAKER_NOTE)
    if note is None or note_at is None or note.data.startswith(_SELF_CONTAINED):
        return head + serialized(described, 8, order), False
    inner[_MAKER_NOTE] = Value(4, 1, note_at.to_bytes(4, "little", signed=False))
    blob = bytearray(head + serialized(described, 8, order))
    if not len(blob) <= note_at <= _FARTHEST_NOTE:
        del inner[_MAKER_NOTE]
        return head + serialized(described, 8, order), True
    field = _note_field(layout_of(reader_of(blob)))
    if field is not None:
        blob[field.entry + 2 : field.entry + 4] = (7).to_bytes(2, order)
        blob[field.entry + 4 : field.entry + 8] = len(note.data).to_bytes(4, order)
    return bytes(blob).ljust(note_at, b"\0") + note.data, False


def is_copy(page: Directory) -> bool:
    """Whether a page is a reduced copy or a mask of another one."""
    kind = page.values.get(_SUBFILE)
    return bool(((kind.integer() if kind else 0) or 0) & 0b101)


def _orientation(first: Directory) -> int | None:
    value = first.values.get(_ORIENTATION)
    number = value.integer() if value else None
    return number if number is not None and 1 <= number <= 8 else None


def _dpi(first: Directory) -> tuple[float, float] | None:
    unit = first.values.get(_RESOLUTION_UNIT)
    inches = _INCHES.get((unit.integer() if unit else 2) or 2)
    x, y = (_ratio(first.values.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return (x * inches, y * inches) if x and y and inches else None


def _aspect(first: Directory) -> tuple[float, float] | None:
    unit = first.values.get(_RESOLUTION_UNIT)
    x, y = (_ratio(first.values.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    none = unit is not None and unit.integer() == 1
    return (x, y) if none and x and y and abs(x / y - 1) > 1e-3 else None


def _ratio(value: Value | None) -> float | None:
    if value is None or value.kind != 5 or len(value.data) < 8:
        return None
    above, below = (int.from_bytes(value.data[at : at + 4], "little") for at in (0, 4))
    return above / below if below else None
