"""What an AVIF file says of itself before any library believes it.

Source: ISO/IEC 23008-12 (HEIF).
"""

from __future__ import annotations

from typing import BinaryIO

_HEAD = 1 << 16
_USUAL_PRIMARIES = (1, 2)  # BT.709, which sRGB shares, or nothing said
_USUAL_TRANSFERS = (1, 2, 6, 13, 14, 15)  # those that everybody shows as sRGB


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height of the largest picture described before the pixel data."""
    boxes = _head(file).split(b"ispe")[1:]
    sizes = [
        (int.from_bytes(box[4:8], "big"), int.from_bytes(box[8:12], "big"))
        for box in boxes
        if len(box) >= 12
    ]
    return max(sizes, key=lambda sides: sides[0] * sides[1], default=None)


def color_chunk(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """What PNG calls cICP, if colours are stated by code points and are not about sRGB's."""
    codes = _head(file).partition(b"colrnclx")[2][:4]
    if len(codes) < 4:
        return None
    primaries, transfer = codes[1], codes[3]
    if primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFERS:
        return None
    return b"cICP", bytes((primaries, transfer, 0, 1))


def moves(file: BinaryIO) -> bool:
    """Whether it is a sequence of pictures."""
    file.seek(8)
    return file.read(4) == b"avis"


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_HEAD).partition(b"mdat")[0]
