"""What an AVIF file says of itself before any library believes it.

Source: ISO/IEC 23008-12 (HEIF).
"""

from __future__ import annotations

from typing import BinaryIO

_HEAD = 1 << 16


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height of the largest picture described before the pixel data."""
    file.seek(0)
    boxes = file.read(_HEAD).partition(b"mdat")[0].split(b"ispe")[1:]
    sizes = [
        (int.from_bytes(box[4:8], "big"), int.from_bytes(box[8:12], "big"))
        for box in boxes
        if len(box) >= 12
    ]
    return max(sizes, key=lambda sides: sides[0] * sides[1], default=None)


def moves(file: BinaryIO) -> bool:
    """Whether it is a sequence of pictures."""
    file.seek(8)
    return file.read(4) == b"avis"
