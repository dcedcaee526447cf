"""Write EXIF data into TIFF files, and read it from them.

In both, offsets count from the start of the file, and maker notes hold offsets that only their
maker knows: they must stay at their place, or be removed.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from srcli.images import exif
from srcli.images.tags import (
    EXIF_IFD,
    GPS_IFD,
    DamagedTagsError,
    Directory,
    Field,
    Layout,
    Order,
    ReadAt,
    Value,
    directory,
    extend,
    layout_of,
    reader_of,
    reader_of_file,
    serialized,
    swapped,
)

_SUBFILE, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x00FE, 0x011A, 0x011B, 0x0128
_DNG_VERSION, _SUB_IFDS, _MAKER_NOTE = 0xC612, 0x014A, 0x927C
_GEO_TAGS = (0x830E, 0x8482, 0x85D8, 0x87AF)  # scale, tie points, matrix, keys
_USER_COMMENT, _UNICODE = 0x9286, b"UNICODE\0"
_IMAGE_DESCRIPTION, _STRIPS, _TILES = 0x010E, 0x0111, 0x0144
_OF_LAYOUT = re.compile(rb'^\{"(?:shape|axes)"|^ImageJ=|<OME\b|^SCANIMAGE')
# Maker notes whose offsets count from their own start, by how they begin.
_SELF_CONTAINED = (b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"Apple iOS\0")
_FARTHEST_NOTE = 60_000  # so that the data still fits into a JPEG segment

# What a TIFF file's first directory says of the picture rather than of its storage. The others
# belong to whoever writes the file.
_DESCRIPTIVE = (
    0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C,  # name, text, make to host
    0x013E, 0x013F,  # white point and primaries
    0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,  # rating, copyright, XP...
)  # fmt: skip
_OF_INTEREST = frozenset((
    *_DESCRIPTIVE, EXIF_IFD, GPS_IFD, _SUBFILE, exif.ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION,
    _RESOLUTION_UNIT, _DNG_VERSION, *_GEO_TAGS, _SUB_IFDS,
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffFacts:
    """Metadata in a TIFF file's directories."""

    orientation: int | None
    dpi: tuple[float, float] | None
    aspect: tuple[float, float] | None  # density without a unit, where pixels are not square
    exif: bytes | None
    lost: tuple[str, ...]  # what of it cannot be taken over, in words
    preview: bool  # the first directory is a reduced copy: a camera's raw file
    located: bool  # holds a map's coordinates


def of_tiff(layout: Layout, offsets: list[int], index: int) -> TiffFacts:
    """Return what one directory of a TIFF file, given by its index, says beside its pixels.

    Raises:
        DamagedTagsError: it leads outside the file.
    """
    first = directory(layout, offsets[index], _OF_INTEREST)
    others = len(offsets) > 1 or _SUB_IFDS in first.values
    described, lost = _description(first, layout, layout.order)
    blob, without_note = _blob(described, layout.order, _note_start(layout, offsets[index]))
    return TiffFacts(
        orientation=exif.orientation_in(first),
        dpi=exif.dpi_in(first),
        aspect=_aspect(first),
        exif=blob,
        lost=(*lost, *(["the maker's notes in its EXIF data"] if without_note else [])),
        preview=index == 0 and ((is_copy(first) and others) or _DNG_VERSION in first.values),
        located=any(tag in first.values for tag in _GEO_TAGS),
    )


def has_maker_note(data: bytes | None) -> bool:
    """Tell whether it holds a maker's notes, which may break when they are moved."""
    return data is not None and _note_field(layout_of(reader_of(data))) is not None


def stays_in_front(data: bytes | None, wide: bool, huge: bool) -> bool:
    """Tell whether a TIFF file can begin with this EXIF data, so that nothing in it moves.

    Args:
        wide: the samples have 16 bits, which are written in this machine's order of bytes.
        huge: the file is a BigTIFF.
    """
    if data is None or huge:
        return False
    layout = layout_of(reader_of(data))
    return not layout.big and (not wide or layout.order == sys.byteorder)


def loses_maker_note(data: bytes | None, wide: bool, huge: bool) -> bool:
    """Tell whether a TIFF file cannot hold these maker notes unharmed."""
    if data is None or not has_maker_note(data) or stays_in_front(data, wide, huge):
        return False
    layout = layout_of(reader_of(data))
    field = _note_field(layout)
    return field is not None and not layout.value(field).data.startswith(_SELF_CONTAINED)


def into_tiff(file: BinaryIO, data: bytes) -> None:
    """Add what EXIF data describes to the TIFF file that `file` holds; it is written anew."""
    source, target = layout_of(reader_of(data)), layout_of(reader_of_file(file))
    first = directory(source, source.first())
    inner = first.children.get(EXIF_IFD, Directory({}, {})).values
    note = inner.get(_MAKER_NOTE)
    if note is not None and not note.data.startswith(_SELF_CONTAINED):
        del inner[_MAKER_NOTE]
    extend(file, _description(first, source, target.order)[0])


def behind(file: BinaryIO, data: bytes, start: int) -> None:
    """Join EXIF data at the start of a file with a TIFF file that lies behind it.

    The file gets a first directory that describes the picture, and points to where the EXIF data
    has its own directories. So maker notes stay where they were.

    Args:
        file: `data`, then at offset `start` a whole TIFF file.
    """
    inner = layout_of(_shifted(reader_of_file(file), start))
    picture = directory(inner, inner.first())
    outer = layout_of(reader_of(data))
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


def is_copy(page: Directory) -> bool:
    """Tell whether a page is a reduced copy or a mask of another one."""
    kind = page.values.get(_SUBFILE)
    return bool(((kind.integer() if kind else 0) or 0) & 0b101)


def _note_start(layout: Layout, at: int) -> int | None:
    with suppress(DamagedTagsError):
        for field in layout.entries(at)[0]:
            if field.tag == EXIF_IFD:
                note = _note_below(layout, layout.value(field).integer() or 0)
                return None if note is None or note.start >= 2**32 else note.start
    return None


def _note_field(layout: Layout) -> Field | None:
    """Return where the maker notes lie."""
    with suppress(DamagedTagsError):
        for field in layout.entries(layout.first())[0]:
            if field.tag == EXIF_IFD:
                return _note_below(layout, layout.value(field).integer() or 0)
    return None


def _note_below(layout: Layout, at: int) -> Field | None:
    fields = layout.entries(at)[0]
    return next((field for field in fields if field.tag == _MAKER_NOTE), None)


def _shifted(read: ReadAt, start: int) -> ReadAt:
    return lambda offset, size: read(start + offset, size)


def _moved_by(offsets: Value, start: int) -> Value:
    size = 2 if offsets.kind == 3 else 4
    numbers = [
        int.from_bytes(offsets.data[at : at + size], "little") + start
        for at in range(0, len(offsets.data), size)
    ]
    return Value(4, len(numbers), b"".join(number.to_bytes(4, "little") for number in numbers))


def _picked(first: Directory) -> dict[int, Value]:
    """Return the values of a first directory that say something of the picture."""
    return {tag: first.values[tag] for tag in _DESCRIPTIVE if tag in first.values}


def _description(first: Directory, layout: Layout, order: Order) -> tuple[Directory, list[str]]:
    """Return the tags of a first directory that describe the picture, to be written in `order`.

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
    """Return EXIF data as bytes, and whether maker notes had to be left out.

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


def _aspect(first: Directory) -> tuple[float, float] | None:
    unit = first.values.get(_RESOLUTION_UNIT)
    x, y = (exif.ratio_in(first.values.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    none = unit is not None and unit.integer() == 1
    return (x, y) if none and x and y and abs(x / y - 1) > 1e-3 else None
