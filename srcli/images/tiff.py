"""Storage of a TIFF file's samples, read from its directory before any library decides.

Where the directory is odd, or says what libvips would not heed, libvips is given a clean one: the
same file with another directory at its end.

Source: TIFF 6.0 (1992), with Adobe's technical notes; libtiff's list of compressions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from srcli.errors import InputError
from srcli.images.exif_tiff import is_copy
from srcli.images.spliced import Piece
from srcli.images.tags import (
    DamagedTagsError,
    Directory,
    Field,
    Layout,
    Value,
    chain,
    layout_of,
    reader_of_file,
    serialized,
)
from srcli.images.tags import directory as read_directory

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, ORIENTATION, PLANAR = 273, 277, 278, 279, 274, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, SUBFILE = 338, 339, 254
JPEG_START, JPEG_SIZE = 513, 514
COEFFICIENTS, SUBSAMPLING, REFERENCE = 529, 530, 532
ICC = 34675
MAX_SAMPLES = 64
BIG = 3_500_000_000  # bytes of pixels above which offsets may pass 2^32

WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, MASK, INKS, YCBCR = 0, 1, 2, 3, 4, 5, 6
CIELAB, ICCLAB, ITULAB = 8, 9, 10
NO_COMPRESSION, OLD_JPEG, JPEG = 1, 6, 7

# Samples of colour that each meaning has.
COLORS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, MASK: 1, INKS: 4, YCBCR: 3,
          CIELAB: 3, ICCLAB: 3, ITULAB: 3}  # fmt: skip
UNKNOWN_MEANINGS = {
    32803: "a camera's raw samples (color filter array)", 34892: "a camera's raw samples",
    32844: "LogL, a range of brightness beyond that of a screen",
    32845: "LogLuv, a range of brightness beyond that of a screen",
    51177: "a depth map", 52527: "a mask",
}  # fmt: skip
COMPRESSIONS = {
    1: "no", 2: "CCITT", 3: "CCITT Group 3", 4: "CCITT Group 4", 5: "LZW", 6: "old-style JPEG",
    7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG", 32766: "NeXT", 32771: "CCITT",
    32773: "PackBits", 32809: "ThunderScan", 32895: "scanner", 32908: "Pixar film",
    32909: "Pixar log", 32946: "Deflate", 33003: "JPEG 2000", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI LogLuv", 34677: "SGI LogLuv",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34926: "ZSTD",
    34927: "WebP", 34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 50000: "ZSTD",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_BY_LIBVIPS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50001}

# What a clean directory takes over: how the samples are stored, and the profile that inks need.
_KEPT = frozenset((
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, STRIPS, SAMPLES, ROWS_PER_STRIP,
    STRIP_SIZES, PLANAR, 292, 293, 317, 320, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES, 332,
    EXTRA_SAMPLES, SAMPLE_FORMAT, 347, SUBSAMPLING, ICC,
))  # fmt: skip
# What else libtiff takes without a word, and of which types.
_USUAL = {
    SUBFILE: (4,), ORIENTATION: (3,), 282: (5,), 283: (5,), 286: (5,), 287: (5,), 297: (3,),
    700: (1, 7), 33723: (1, 4, 7), 34377: (1, 7), 34665: (4, 13), 34853: (4, 13), ICC: (1, 7),
}  # fmt: skip
_RESOLUTION_UNIT, _DATE = 296, 306
_LONGEST_TEXT = 1 << 20
_TEXTS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
_INTEGERS = (3, 4, 13, 16)
_LARGEST_BLOB = 64 << 20
_MAX_LIST_BYTES = 256 << 20  # bytes to read of the places and sizes of strips, some of them twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """One picture of a TIFF file, as its directory describes it."""

    index: int  # of the directory in the file
    width: int
    height: int
    bits: int  # of each sample; 0 where they differ
    compression: int
    meaning: int  # the photometric interpretation
    samples: int
    planar: bool  # each sample in a plane of its own
    extra: tuple[int, ...]  # what each sample beyond colour is: 1, 2 are alpha, 1 premultiplied
    kind: int  # sample format: 1 unsigned, 2 signed, 3 float, 5 and 6 complex
    subsampling: tuple[int, int]
    coefficients: tuple[float, float, float]
    reference: tuple[float, ...]  # black and white of Y, Cb, Cr
    stream: tuple[int, int] | None  # where a whole JPEG stream lies: old-style JPEG
    oddities: tuple[str, ...]
    usual: bool  # libvips can read the file as it is

    @property
    def by_libvips(self) -> bool:
        """True if libvips reads these samples, given the right directory."""
        if self.compression not in _BY_LIBVIPS or self.kind not in (1, 4):
            return False
        few = self.bits in (1, 2, 4) and self.samples == 1 and self.meaning in (0, 1, 3, 4)
        return self.bits in (8, 16) or few

    @property
    def compressed_by(self) -> str:
        return COMPRESSIONS.get(self.compression, f"number {self.compression}")


@dataclass(slots=True)
class Book:
    """A TIFF file's directories."""

    layout: Layout
    end: int  # size of the file
    offsets: list[int]
    mains: list[int]  # indices of pictures that are no reduced copy or mask of another

    def storage(self, page: int) -> Storage:
        """Return how the picture is stored, counted from 0 among those that are no copies."""
        index = self.mains[page] if page < len(self.mains) else 0
        fields = self.layout.entries(self.offsets[index])[0]
        return _storage(self, index, fields)

    def number(self, field: Field | None, default: int) -> int:
        found = self.numbers(field)
        return found[0] if found else default

    def numbers(self, field: Field | None) -> tuple[int, ...]:
        return () if field is None else _numbers(self.layout.value(field))

    def blob(self, storage: Storage, tag: int) -> bytes | None:
        """Return the bytes of an entry of the picture's directory; None if it has none."""
        for field in self.layout.entries(self.offsets[storage.index])[0]:
            if field.tag == tag:
                fresh = replace(self.layout, budget=_LARGEST_BLOB)
                return fresh.value(replace(field, kind=7)).data or None
        return None

    def rows_of_strip(self, storage: Storage) -> int:
        """Return the rows of pixels in each strip but the last."""
        fields = {f.tag: f for f in self.layout.entries(self.offsets[storage.index])[0]}
        return min(self.number(fields.get(ROWS_PER_STRIP), storage.height), storage.height)

    def clean(self, storage: Storage, changes: dict[int, Value]) -> tuple[Piece, ...]:
        """Return the file with a directory that states only how the samples are stored."""
        layout = self.layout
        fields = {f.tag: f for f in layout.entries(self.offsets[storage.index])[0]}
        kept = {
            tag: layout.exactly(field.entry, layout.entry_size)
            for tag, field in fields.items()
            if tag in _KEPT and tag not in changes and field.count and _belongs(tag, storage)
        }
        at = self.end + self.end % 2
        made = {tag: value for tag, value in changes.items() if value.data}
        own = serialized(Directory(made, {}), at, layout.order, layout.big, kept)
        place = 8 if layout.big else 4
        head = layout.exactly(0, place) + at.to_bytes(layout.offset_size, layout.order)
        return head, (len(head), self.end), bytes(self.end % 2) + own

    def repairs(self, storage: Storage) -> dict[int, Value]:
        """Return what a clean directory states differently from the file's."""
        fields = {f.tag: f for f in self.layout.entries(self.offsets[storage.index])[0]}
        changes = {SAMPLES: shorts(storage.samples), PLANAR: shorts(2 if storage.planar else 1)}
        changes[PHOTOMETRIC] = shorts(BLACK_IS_0 if storage.meaning == MASK else storage.meaning)
        changes[BITS] = shorts(*[storage.bits] * storage.samples)
        changes[EXTRA_SAMPLES] = shorts(*storage.extra)
        changes[SAMPLE_FORMAT] = shorts(*[storage.kind] * storage.samples)
        if not self.number(fields.get(ROWS_PER_STRIP), 1):
            changes[ROWS_PER_STRIP] = longs(False, storage.height)
        if TILES not in fields:
            sizes = self._sizes(storage, fields)
            changes |= {} if sizes is None else {STRIP_SIZES: longs(self.layout.big, *sizes)}
        return changes

    def _sizes(self, storage: Storage, fields: dict[int, Field]) -> list[int] | None:
        """Return the bytes of each strip if those that the file states need correction; else None.

        Raises:
            DamagedTagsError: a strip begins where the file has ended.
        """
        starts, stated = (self.numbers(fields.get(tag)) for tag in (STRIPS, STRIP_SIZES))
        complete = len(starts) == len(stated) and all(stated)
        if any(start >= self.end for start in starts):
            raise DamagedTagsError("some of its strips are missing")
        if storage.compression == NO_COMPRESSION:
            sizes = self._plain_sizes(storage, fields, len(starts))
        else:
            after = sorted({*starts, self.end})
            sizes = [next(end for end in after if end > start) - start for start in starts]
        if not complete:
            return sizes
        smaller = [min(pair) for pair in zip(sizes, stated, strict=True)]
        beyond = any(s + n > self.end for s, n in zip(starts, stated, strict=True))
        return smaller if beyond or storage.compression == NO_COMPRESSION else None

    def _plain_sizes(self, storage: Storage, fields: dict[int, Field], strips: int) -> list[int]:
        """Return the bytes of each strip of samples that are not compressed."""
        rows = self.number(fields.get(ROWS_PER_STRIP), storage.height) or storage.height
        planes = storage.samples if storage.planar else 1
        row = (storage.width * storage.samples // planes * storage.bits + 7) // 8
        each = max(1, strips // planes)
        left = [min(rows, storage.height - i * rows) for i in range(each)]
        sizes = [max(0, count) * row for count in left] * planes
        return (sizes + [0] * strips)[:strips]

    def planes(self, storage: Storage) -> Iterator[tuple[Piece, ...]]:
        """Return, for each sample's plane, the file as if it held a grey picture of only that."""
        fields = {f.tag: f for f in self.layout.entries(self.offsets[storage.index])[0]}
        tags = (TILES, TILE_SIZES) if TILES in fields else (STRIPS, STRIP_SIZES)
        repairs = self.repairs(storage)
        lists = [
            _numbers(repairs[tag]) if tag in repairs else self.numbers(fields.get(tag))
            for tag in tags
        ]
        alone = replace(storage, samples=1, extra=(), planar=False, meaning=BLACK_IS_0)
        for plane in range(storage.samples):
            count = len(lists[0]) // storage.samples
            part = slice(plane * count, (plane + 1) * count)
            own = {t: longs(self.layout.big, *v[part]) for t, v in zip(tags, lists, strict=True)}
            yield self.clean(storage, self.repairs(alone) | own)


def check_start(name: str, file: BinaryIO) -> None:
    """Raise `InputError` if it is a raw file of Canon's, whose first picture is a preview."""
    file.seek(8)
    if file.read(2) == b"CR":
        raise InputError(
            f"{name}: seems to be a camera's raw file, of which only a preview could be read",
            "develop it to a 16-bit TIFF first",
        )


def book(file: BinaryIO) -> Book:
    """Find the directories of a TIFF file.

    Raises:
        DamagedTagsError: they lead outside the file.
    """
    layout = layout_of(reader_of_file(file))
    offsets = list(chain(layout))
    if not offsets:
        raise DamagedTagsError("no directory")
    pages = [read_directory(layout, offset, (SUBFILE,)) for offset in offsets]
    mains = [i for i, page in enumerate(pages) if i == 0 or not is_copy(page)]
    layout.budget = _MAX_LIST_BYTES
    return Book(layout, file.seek(0, 2), offsets, mains)


def shorts(*numbers: int) -> Value:
    """Return a value of 16-bit numbers."""
    return Value(3, len(numbers), struct.pack(f"<{len(numbers)}H", *numbers))


def longs(big: bool, *numbers: int) -> Value:
    """Return a value of offsets or sizes."""
    code = "Q" if big else "I"
    fits = [min(number, 2**32 - 1) for number in numbers]
    return Value(16 if big else 4, len(fits), struct.pack(f"<{len(fits)}{code}", *fits))


def _numbers(value: Value) -> tuple[int, ...]:
    code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}.get(
        value.kind
    )
    if code is None or not value.data:
        return ()
    found = struct.unpack(f"<{len(value.data) // struct.calcsize('<' + code)}{code}", value.data)
    return () if min(found) < 0 else found


def _belongs(tag: int, storage: Storage) -> bool:
    """Tell whether a tag has a place beside samples of this meaning."""
    return storage.meaning == {320: PALETTE, ICC: INKS}.get(tag, storage.meaning)


def _ratios(value: Value | None) -> tuple[float, ...]:
    if value is None or value.kind not in (5, 10):
        return ()
    parts = struct.unpack(f"<{len(value.data) // 4}I", value.data)
    return tuple(
        above / max(1, below) for above, below in zip(parts[::2], parts[1::2], strict=True)
    )


def _storage(book: Book, index: int, fields: list[Field]) -> Storage:
    found = {field.tag: field for field in reversed(fields)}  # the first of several counts

    def number(tag: int, default: int) -> int:
        return book.number(found.get(tag), default)

    def ratios(tag: int) -> tuple[float, ...]:
        return _ratios(book.layout.value(found[tag])) if tag in found else ()

    samples = number(SAMPLES, 1)
    bits = book.numbers(found.get(BITS)) or (1,)
    formats = book.numbers(found.get(SAMPLE_FORMAT)) or (1,)
    formats = (1,) if set(formats) == {0} else formats
    meaning = number(PHOTOMETRIC, RGB if samples > 2 else BLACK_IS_0)
    oddities = tuple(_oddities(book, fields, found))
    beyond = min(MAX_SAMPLES, max(0, samples - COLORS.get(meaning, samples)))
    extra = (*book.numbers(found.get(EXTRA_SAMPLES)), *[0] * beyond)[:beyond]
    subsampling = (*book.numbers(found.get(SUBSAMPLING)), 0, 0)[:2]
    stream = (number(JPEG_START, 0), number(JPEG_SIZE, 0))
    coefficients, reference = ratios(COEFFICIENTS), ratios(REFERENCE)
    complete = len(extra) == len(book.numbers(found.get(EXTRA_SAMPLES)))
    return Storage(
        index=index,
        width=number(WIDTH, 0),
        height=number(HEIGHT, 0),
        bits=bits[0] if len(set(bits)) == 1 else 0,
        compression=number(COMPRESSION, 1),
        meaning=meaning,
        samples=samples,
        planar=number(PLANAR, 1) == 2 and samples > 1,
        extra=extra,
        kind=formats[0] if len(set(formats)) == 1 else 0,
        subsampling=(subsampling[0] or 2, subsampling[1] or 2),
        coefficients=_three(coefficients) or (0.299, 0.587, 0.114),
        reference=reference if len(reference) == 6 else (0, 255, 128, 255, 128, 255),
        stream=stream if all(stream) else None,
        oddities=oddities,
        usual=index == 0 and complete and not oddities and _is_usual(book, found, meaning),
    )


def _is_usual(book: Book, found: dict[int, Field], meaning: int) -> bool:
    """Tell whether libtiff takes all tags without a word."""
    if 320 in found and meaning != PALETTE:
        return False
    return all(_takes(book, field) for field in found.values() if field.tag not in _KEPT - {ICC})


def _takes(book: Book, field: Field) -> bool:
    if field.tag in _TEXTS:
        data = book.layout.value(field).data
        dated = field.tag != _DATE or field.count == 20
        return dated and data.count(b"\0") == 1 and len(data) <= _LONGEST_TEXT
    if field.tag == _RESOLUTION_UNIT:
        return book.number(field, 0) in (1, 2, 3) and field.kind == 3
    return field.count > 0 and field.kind in _USUAL.get(field.tag, ())


def _three(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    return values if len(values) == 3 and all(values) else None


def _oddities(book: Book, fields: list[Field], found: dict[int, Field]) -> Iterator[str]:
    """Yield what a reader might warn of, although the pixels are whole."""
    tags = [field.tag for field in fields]
    if tags != sorted(set(tags)):
        yield "tags out of order"
    if PHOTOMETRIC not in found:
        yield "the meaning of its samples is missing"
    for tag in _TEXTS:
        if tag in found and (found[tag].kind != 2 or not _ends(book, found[tag])):
            yield f"text {tag} without an end"
    if ORIENTATION in found and not 1 <= book.number(found[ORIENTATION], 0) <= 8:
        yield f"an orientation of {book.number(found[ORIENTATION], 0)}"
    sizes = TILE_SIZES if TILES in found else STRIP_SIZES
    if sizes not in found or not all(book.numbers(found[sizes])):
        yield "sizes of its strips are missing"
    elif _reach_beyond(book, found, sizes):
        yield "its strips reach beyond its end"
    if SAMPLE_FORMAT in found and 0 in book.numbers(found[SAMPLE_FORMAT]):
        yield "the type of its samples is missing"
    wrong = [f.tag for f in fields if f.tag in _KEPT - {ICC, 320, 347} and not _fits(f)]
    if wrong:
        yield f"tag {wrong[0]} of an unusual type"
    if book.number(found.get(PLANAR), 1) not in (1, 2):
        yield "an unknown order of its planes"
    if not book.number(found.get(ROWS_PER_STRIP), 1):
        yield "strips of no rows"
    if len(book.numbers(found.get(BITS)) or (1,)) != book.number(found.get(SAMPLES), 1):
        yield "bits of its samples are missing"


def _reach_beyond(book: Book, found: dict[int, Field], sizes: int) -> bool:
    starts = book.numbers(found.get(TILES if sizes == TILE_SIZES else STRIPS))
    stated = book.numbers(found[sizes])
    return any(start + size > book.end for start, size in zip(starts, stated, strict=False))


def _fits(field: Field) -> bool:
    return field.kind in _INTEGERS and field.count > 0


def _ends(book: Book, field: Field) -> bool:
    return book.layout.value(field).data[-1:] == b"\0"
