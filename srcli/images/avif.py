"""Read the boxes of an AVIF or HEIC file, before a library decodes it.

Source: ISO/IEC 23008-12 (HEIF); AV1 Image File Format; AV1 bitstream specification 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from srcli.images import colors

if TYPE_CHECKING:
    from pyvips import Image

_HEAD = 1 << 16
_EXIF_WORDS = {
    (0, 1): 2, (2, None): 3, (0, 0): 4, (1, 0): 5, (3, 1): 5, (3, None): 6, (3, 0): 7, (1, 1): 7,
    (1, None): 8, (2, 0): 2, (2, 1): 4,
}  # fmt: skip
_USUAL_PRIMARIES = (1, 2)  # BT.709, which sRGB shares, or nothing said
_USUAL_TRANSFERS = (1, 2, 6, 13, 14, 15)  # those that everybody shows as sRGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about the storage of the pixels, read from the boxes of the file."""

    moves: bool  # a sequence of pictures
    monochrome: bool
    full_range: bool | None  # None where only the stream itself says
    depth: int  # bits of each sample
    gain_map: bool
    premultiplied: bool  # colour is already multiplied by alpha
    credentials: bool
    turned: int  # EXIF's word for how the container says that the picture is to be turned
    lossless: bool
    pixel_density: tuple[float, float] | None  # along x and y, without a unit, where not square


def facts(file: BinaryIO) -> Facts:
    """Read the facts from the boxes before the pixel data."""
    head = _head(file)
    flags = [config[2] for config in head.split(b"av1C")[1:] if len(config) > 2]
    deep, twelve = (any(flag & bit for flag in flags) for bit in (0x40, 0x20))
    # Of colour and alpha, which is always grey, either may come first.
    monochrome = bool(flags) and all(flag & 0x10 for flag in flags)
    codes = head.partition(b"colrnclx")[2][:7]
    full = bool(codes[6] & 0x80) if len(codes) == 7 else None
    spacing = head.partition(b"pasp")[2][:8]
    ratio = tuple(int.from_bytes(spacing[at : at + 4], "big") for at in (0, 4))
    return Facts(
        moves=moves(file),
        monochrome=monochrome,
        full_range=full,
        depth=(12 if twelve else 10) if deep else 8,
        gain_map=b"tmap" in head,
        premultiplied=b"prem" in head.partition(b"iref")[2],
        turned=_turned(head),
        # RGB as it is, where loss would be costly: encoders choose it for compression without loss.
        lossless=len(codes) == 7 and codes[4:6] == b"\0\0",
        credentials=b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c" in head,
        # Spacing says how wide a pixel is; density is the inverse.
        pixel_density=(ratio[1], ratio[0]) if len(spacing) == 8 and ratio[0] != ratio[1] else None,
    )


def _turned(head: bytes) -> int:
    """Return EXIF's orientation for quarter turns anticlockwise (irot), then a mirror (imir)."""
    quarters, axes = (
        [box[0] for box in head.split(name)[1:] if box] for name in (b"irot", b"imir")
    )
    if len(quarters) > 1 or len(axes) > 1:  # of several pictures; who knows of which
        return 1
    quarter = quarters[0] & 3 if quarters else 0
    axis = axes[0] & 1 if axes else None
    return _EXIF_WORDS.get((quarter, axis), 1)


def repaired(image: Image, found: Facts) -> Image:
    """Do what the decoder leaves undone: expand the range of grey, divide by alpha."""
    if found.premultiplied and image.bands in (2, 4):
        image = colors.named(colors.without_premultiplying(image))
    if not found.monochrome or found.full_range is not False:
        return image
    alpha = image.bands in (2, 4)
    color = image.extract_band(0, n=image.bands - 1) if alpha else image
    spread = colors.full_range(color, found.depth)
    return colors.named(spread.bandjoin(image.extract_band(image.bands - 1)) if alpha else spread)


def put_exif(file: BinaryIO, exif: bytes) -> None:
    """Replace the EXIF item of a written file by these bytes, which libexif would have rebuilt.

    They go to the end of the file, and the item's location is changed. Does nothing where the file
    is laid out otherwise than libheif does.
    """
    head = _head(file)
    item = head.partition(b"Exif\0")[0][-4:-2]  # a number, two bytes that protect nothing, the type
    table = head.find(b"iloc\0\0\0\0\x44\x40")
    if b"infe" not in head or len(item) != 2 or table < 0:
        return
    count = int.from_bytes(head[table + 10 : table + 12], "big")
    at = table + 12
    for _ in range(count):
        extents = int.from_bytes(head[at + 8 : at + 10], "big")
        if head[at : at + 2] == item and extents == 1:
            _append(file, at + 4, b"\0\0\0\x06Exif\0\0" + exif)
            return
        at += 10 + 8 * extents


def _append(file: BinaryIO, location: int, data: bytes) -> None:
    """Append data in a box of its own, and write its place at `location`.

    There lie the base of offsets, the number of extents, and the one extent's offset and size.
    """
    end = file.seek(0, 2)
    file.write((len(data) + 8).to_bytes(4, "big") + b"mdat" + data)
    file.seek(location)
    file.write(bytes(4) + b"\0\1")
    file.write((end + 8).to_bytes(4, "big") + len(data).to_bytes(4, "big"))


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Return width and height of the largest picture described before the pixel data."""
    boxes = _head(file).split(b"ispe")[1:]
    sizes = [
        (int.from_bytes(box[4:8], "big"), int.from_bytes(box[8:12], "big"))
        for box in boxes
        if len(box) >= 12
    ]
    return max(sizes, key=lambda sides: sides[0] * sides[1], default=None)


def color_chunk(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """Return PNG's cICP chunk if code points state colours that differ from sRGB; else None."""
    codes = _head(file).partition(b"colrnclx")[2][:4]
    if len(codes) < 4:
        return None
    primaries, transfer = codes[1], codes[3]
    if primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFERS:
        return None
    return b"cICP", bytes((primaries, transfer, 0, 1))


def moves(file: BinaryIO) -> bool:
    """Tell whether the file is a sequence of pictures."""
    file.seek(8)
    return file.read(4) == b"avis"


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_HEAD).partition(b"mdat")[0]
