"""TIFF directories: the structure of EXIF data and of TIFF files, read, changed and written.

Parsed values are kept as little-endian bytes whatever order the file has, so that a tree from one
file can be written into another.

Source: TIFF 6.0 (1992); BigTIFF as libtiff defines it; EXIF 2.32 (CIPA DC-008-2019).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, Literal, TypeAlias

Order: TypeAlias = Literal["little", "big"]
ReadAt: TypeAlias = Callable[[int, int], bytes]  # (offset, size): may return less at the end

EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
_POINTERS = (EXIF_IFD, GPS_IFD, INTEROP_IFD)
# Bytes per item and per byte-swapped unit, by the type numbers of TIFF (13 is a pointer) and
# BigTIFF (16 to 18).
_ITEM = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
         16: 8, 17: 8, 18: 8}  # fmt: skip
_UNIT = {**_ITEM, 5: 4, 10: 4}
_UNSIGNED = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_MAX_ENTRIES = 1000
_MAX_DEPTH = 3
# What one walk may read, counting something for each step, so that no file can keep it going:
# directories may overlap, repeat and point to each other.
_BUDGET, _STEP = 16 << 20, 64


class DamagedTagsError(ValueError):
    """The directory structure is no such structure, or leads outside the data."""


@dataclass(frozen=True, slots=True)
class Value:
    """One tag's value.

    Attributes:
        kind: TIFF's type number.
        count: number of items.
        data: `count` items, little-endian; empty when they lie outside the data.
    """

    kind: int
    count: int
    data: bytes

    def integer(self) -> int | None:
        """Return the first item if the type is an unsigned integer; else None."""
        size = _UNSIGNED.get(self.kind)
        if size is None or len(self.data) < size:
            return None
        return int.from_bytes(self.data[:size], "little")


@dataclass(frozen=True, slots=True)
class Directory:
    """Tags by number, and the directories that some of them point to."""

    values: dict[int, Value]
    children: dict[int, Directory]


@dataclass(frozen=True, slots=True)
class Field:
    """The place of one entry in the data."""

    tag: int
    kind: int
    count: int
    entry: int  # offset of the entry itself
    start: int  # offset of its value, inside the entry or elsewhere
    size: int  # bytes of its value


@dataclass(slots=True)
class Layout:
    """Byte order and variant of the data, and how to walk it."""

    read: ReadAt
    order: Order
    big: bool  # BigTIFF: 8-byte offsets
    budget: int = _BUDGET

    @property
    def offset_size(self) -> int:
        return 8 if self.big else 4

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    def number(self, offset: int, size: int) -> int:
        return int.from_bytes(self.exactly(offset, size), self.order)

    def exactly(self, offset: int, size: int) -> bytes:
        self.budget -= size + _STEP
        if self.budget < 0 or offset >= 2**62:
            raise DamagedTagsError("its directories lead nowhere")
        data = self.read(offset, size)
        if len(data) != size:
            raise DamagedTagsError(f"{size} bytes at {offset} are missing")
        return data

    def first(self) -> int:
        """Return the offset of the first directory."""
        return self.number(8 if self.big else 4, self.offset_size)

    def entries(self, at: int) -> tuple[list[Field], int]:
        """Return the entries of the directory at `at`, and the place of the next one's offset."""
        width = 8 if self.big else 2
        count = self.number(at, width)
        if count > _MAX_ENTRIES:
            raise DamagedTagsError(f"a directory of {count} entries")
        start, step = at + width, self.entry_size
        table = self.exactly(start, count * step)
        fields = [self._field(table[i : i + step], start + i) for i in range(0, len(table), step)]
        return fields, start + len(table)

    def _field(self, raw: bytes, at: int) -> Field:
        tag = int.from_bytes(raw[0:2], self.order)
        kind = int.from_bytes(raw[2:4], self.order)
        count = int.from_bytes(raw[4 : 4 + self.offset_size], self.order)
        size = count * _ITEM.get(kind, 0)
        inline = size <= self.offset_size
        pointed = int.from_bytes(raw[4 + self.offset_size :], self.order)
        start = at + 4 + self.offset_size if inline else pointed
        return Field(tag, kind, count, at, start, size)

    def value(self, field: Field) -> Value:
        # Much honest data has a tag or two that lead nowhere: the others still count.
        try:
            data = self.exactly(field.start, field.size) if field.size <= self.budget else b""
        except DamagedTagsError:
            return Value(field.kind, field.count, b"")
        if self.order == "big":
            data = swapped(data, _UNIT.get(field.kind, 1))
        return Value(field.kind, field.count, data)


def layout_of(read: ReadAt) -> Layout:
    """Recognise the start of a TIFF structure.

    Raises:
        DamagedTagsError: it is none.
    """
    head = read(0, 4)
    orders: dict[bytes, Order] = {b"II": "little", b"MM": "big"}
    order = orders.get(head[:2])
    version = int.from_bytes(head[2:4], order) if order else 0
    if order is None or version not in (42, 43):
        raise DamagedTagsError("no TIFF header")
    return Layout(read, order, version == 43)


def reader_of(data: bytes | bytearray) -> ReadAt:
    return lambda offset, size: bytes(data[offset : offset + size])


def directory(
    layout: Layout, at: int, wanted: Container[int] | None = None, depth: int = 0
) -> Directory:
    """Parse the directory at `at`, and those it points to; those that are damaged are left out.

    Args:
        wanted: tags of the first directory that matter; None for all.

    Raises:
        DamagedTagsError: it leads outside the data itself.
    """
    found = Directory({}, {})
    for field in layout.entries(at)[0]:
        if wanted is not None and field.tag not in wanted:
            continue
        value = layout.value(field)
        offset = value.integer() if field.tag in _POINTERS else None
        if offset is None:
            found.values[field.tag] = value
        elif depth < _MAX_DEPTH:
            with suppress(DamagedTagsError):
                found.children[field.tag] = directory(layout, offset, None, depth + 1)
    return found


def chain(layout: Layout) -> Iterator[int]:
    """Return offsets of the directories that follow each other from the first, up to a loop."""
    seen: set[int] = set()
    at = layout.first()
    while at and at not in seen and len(seen) < _MAX_ENTRIES:
        seen.add(at)
        yield at
        at = layout.number(layout.entries(at)[1], layout.offset_size)


def serialized(
    root: Directory,
    base: int,
    order: Order = "little",
    big: bool = False,
    ready: Mapping[int, bytes] = MappingProxyType({}),
) -> bytes:
    """Write a directory tree as bytes that will lie at offset `base`; the root comes first.

    The root's pointer to a next directory is 0.

    Args:
        ready: more entries of the root, by tag, as bytes that are right already.
    """
    width, offset_size, entry_size = (8, 8, 20) if big else (2, 4, 12)
    tags = sorted({*_readable(root), *root.children, *ready})
    tail_at = base + width + len(tags) * entry_size + offset_size
    rows, tail = bytearray(len(tags).to_bytes(width, order)), bytearray()
    for tag in tags:
        if tag in ready:
            rows += ready[tag]
            continue
        place = tail_at + len(tail)
        value, more = _entry(root, tag, place, order, big)
        tail += more
        rows += tag.to_bytes(2, order) + value.kind.to_bytes(2, order)
        rows += value.count.to_bytes(offset_size, order) + value.data.ljust(offset_size, b"\0")
    return bytes(rows + bytes(offset_size) + tail)


def _readable(root: Directory) -> list[int]:
    return [tag for tag, value in root.values.items() if value.data]


def _entry(root: Directory, tag: int, place: int, order: Order, big: bool) -> tuple[Value, bytes]:
    """Return an entry's value in `order`, and the bytes that have to lie at `place` for it."""
    offset_size = 8 if big else 4
    if tag in root.children:
        inner = serialized(root.children[tag], place, order, big)
        return Value(16 if big else 4, 1, place.to_bytes(offset_size, order)), inner
    value = root.values[tag]
    data = value.data if order == "little" else swapped(value.data, _UNIT.get(value.kind, 1))
    if len(data) <= offset_size:
        return Value(value.kind, value.count, data), b""
    return (
        Value(value.kind, value.count, place.to_bytes(offset_size, order)),
        data + b"\0" * (len(data) % 2),
    )


def swapped(data: bytes, unit: int) -> bytes:
    """Reverse the bytes of every `unit`; what is left at the end stays."""
    if unit == 1:
        return data
    code = {2: "H", 4: "I", 8: "Q"}[unit]
    count, rest = divmod(len(data), unit)
    whole = struct.unpack(f">{count}{code}", data[: len(data) - rest])
    return struct.pack(f"<{count}{code}", *whole) + data[len(data) - rest :]


def reader_of_file(file: BinaryIO) -> ReadAt:
    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read


def extend(file: BinaryIO, added: Directory) -> None:
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
