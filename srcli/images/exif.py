"""Bring EXIF data up to date for the picture to write, byte by byte.

The data is changed in place instead of being rebuilt: maker notes hold offsets that only their
maker knows, and unknown tags stay as they are.
"""

from __future__ import annotations

import io
from contextlib import suppress

from srcli.images.geometry import Change
from srcli.images.tags import (
    EXIF_IFD,
    INTEROP_IFD,
    DamagedTagsError,
    Directory,
    Field,
    Layout,
    Order,
    Value,
    directory,
    extend,
    layout_of,
    reader_of,
)

PREFIX = b"Exif\0\0"  # before the TIFF structure in JPEG, and wrongly in some WebP files

ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION = 0x0112, 0x011A, 0x011B
_RESOLUTION_UNIT = 0x0128
_THUMBNAIL, _THUMBNAIL_SIZE = 0x0201, 0x0202
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
_INCHES = {2: 1.0, 3: 2.54}  # dots per inch for one dot per unit, by ResolutionUnit


def checked(exif: bytes | None) -> bytes | None:
    """Return the TIFF structure without what precedes it; None if it is damaged or absent."""
    data = (exif or b"").removeprefix(PREFIX)
    try:
        layout = layout_of(reader_of(data))
        directory(layout, layout.first())
    except DamagedTagsError:
        return None
    return data


def orientation_of(exif: bytes | None) -> int | None:
    """Return the orientation, 1..8; None if the data states no valid one."""
    if exif is None:
        return None
    layout = layout_of(reader_of(exif))
    return orientation_in(directory(layout, layout.first()))


def resolution_of(exif: bytes | None) -> tuple[float, float] | None:
    """Return dots per inch, horizontal and vertical."""
    if exif is None:
        return None
    layout = layout_of(reader_of(exif))
    return dpi_in(directory(layout, layout.first()))


def updated(exif: bytes, change: Change, converted: bool = False) -> bytes:
    """Return EXIF data that is true of the picture to write.

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
        if field.tag == ORIENTATION:
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
    """Tell whether a subject's place could be brought up to date."""
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
    """Exchange resolutions along x and y for a turned picture; scale those of the sensor."""
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
    """Multiply a ratio of two integers of 4 bytes."""
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


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Add the resolution to EXIF data, for formats with no other place for it."""
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
    extend(file, added)
    return file.getvalue()


def orientation_in(first: Directory) -> int | None:
    value = first.values.get(ORIENTATION)
    number = value.integer() if value else None
    return number if number is not None and 1 <= number <= 8 else None


def dpi_in(first: Directory) -> tuple[float, float] | None:
    unit = first.values.get(_RESOLUTION_UNIT)
    inches = _INCHES.get((unit.integer() if unit else 2) or 2)
    x, y = (ratio_in(first.values.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return (x * inches, y * inches) if x and y and inches else None


def ratio_in(value: Value | None) -> float | None:
    if value is None or value.kind != 5 or len(value.data) < 8:
        return None
    above, below = (int.from_bytes(value.data[at : at + 4], "little") for at in (0, 4))
    return above / below if below else None
