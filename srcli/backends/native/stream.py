"""Run the compiled network over a picture of any height, a few rows at a time.

Each stage of the network goes as far as the one before it allows, so no row is computed twice and
memory grows with the width of the picture alone. Very wide pictures go in bands of columns. The
digits are those of the whole picture at once: rectangles begin at the same places, and a pixel is
given out only where everything that its tiles read was there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srcli.backends.native.weights import aligned

if TYPE_CHECKING:
    from srcli.backends.native.network import CompiledNetwork

Array = NDArray[np.float32]
Rectangle = tuple[int, int, int, int]

TILE = 4
REACH = 4  # rows that a stage must be behind the one before it: what its tiles read
TAIL_REACH = 12  # the same for what follows the body
KEPT = 8  # rows above those to be done that are still read
MIN_STEP, MAX_STEP = 8, 64  # rows at a time


class Band(NamedTuple):
    """Columns that go through the network together, in input pixels."""

    left: int
    right: int
    first: int
    """Where the columns that are given out begin; what lies before them is the halo."""
    last: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the part of a picture that is in work at once."""

    step: int
    """Rows that are taken in at a time."""

    bands: tuple[Band, ...]


class RowStream:
    """One picture on its way through the network, from top to bottom.

    Args:
        network: What to run.
        height: Of the picture, in input pixels.
        width: Of the picture, in input pixels.
        memory: Bytes that the features may take.
        tile: Rows and columns to take at a time instead; None chooses by `memory`.
    """

    def __init__(
        self,
        network: CompiledNetwork,
        height: int,
        width: int,
        *,
        memory: int,
        tile: int | None = None,
    ) -> None:
        shape = shape_for(network, height, width, memory, tile)
        self.step = shape.step
        self._scale = network.scale
        self._bands = shape.bands
        self._streams = [
            _BandStream(network, height, band.right - band.left, shape.step) for band in shape.bands
        ]

    def feed(self, rows: Array) -> Array:
        """Take in the next rows, 3 x n x w with n at most `step`; give out what is finished.

        Returns:
            3 x m x s*w, not clamped; m can be 0, and is all that is left after the last row.
        """
        s = self._scale
        parts = []
        for band, stream in zip(self._bands, self._streams, strict=True):
            done = stream.feed(rows[:, :, band.left : band.right])
            inner = slice((band.first - band.left) * s, (band.last - band.left) * s)
            parts.append(done[:, :, inner])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def bytes_needed(
    network: CompiledNetwork, height: int, width: int, memory: int, tile: int | None = None
) -> int:
    """Return the bytes that a `RowStream` of these arguments takes, without making one."""
    shape = shape_for(network, height, width, memory, tile)
    return 4 * sum(_floats(network, b.right - b.left, shape.step) for b in shape.bands)


def exact_margin(network: CompiledNetwork) -> int:
    """Return how far from a cut pixels may differ in their last digits, in input pixels.

    A tile reads up to a tile's width beyond itself, and so does the next convolution.
    """
    return TILE * network.convolutions + TAIL_REACH


def shape_for(
    network: CompiledNetwork, height: int, width: int, memory: int, tile: int | None = None
) -> Shape:
    """Choose rows at a time; with `tile` also bands of columns, which save no memory."""
    if tile is not None:
        return Shape(_rounded(min(max(tile, TILE), height)), _bands(network, width, tile))
    fixed, each = _floats(network, width, 0), _floats(network, width, 1)
    rows = int((memory / 4 - fixed) // (each - fixed)) // TILE * TILE
    step = max(MIN_STEP, min(MAX_STEP, rows, _rounded(height)))
    return Shape(step, (Band(0, width, 0, width),))


def _floats(network: CompiledNetwork, width: int, step: int) -> int:
    """Numbers that are held for a band."""
    of_block = (network.maps * network.width + 3) * (_block_rows(network, step))
    out = 3 * network.scale**2
    tail = (network.width + 3 + out) * _tail_rows(network, step)
    tail += (3 * out + 12) * step + 3 * (network.convolutions * TILE + TAIL_REACH)
    return width * (network.blocks * of_block + tail)


def _block_rows(network: CompiledNetwork, step: int) -> int:
    # A block's stages follow each other at a distance of REACH.
    return step + REACH * network.maps + TILE


def _tail_rows(network: CompiledNetwork, step: int) -> int:
    return step + network.tail_period[0] + TAIL_REACH + KEPT + 2 * TILE


def _bands(network: CompiledNetwork, width: int, columns: int) -> tuple[Band, ...]:
    """Cut columns, each band with a halo in which digits may differ."""
    period = math.lcm(TILE, network.tail_period[1])
    halo = -(-exact_margin(network) // period) * period
    stride = max(period, columns // period * period)
    bands = []
    for first in range(0, width, stride):
        last = min(first + stride, width)
        bands.append(Band(max(0, first - halo), min(width, last + halo), first, last))
        if bands[-1].right == width and last + period > width:
            bands[-1] = bands[-1]._replace(last=width)
            break
    return tuple(bands)


class _Rows:
    """Rows of several maps that move on downwards, in one piece of memory.

    Its height and that of the picture differ by a multiple of TILE: so the last row can be the
    picture's, where the compiled code meets the border.
    """

    def __init__(self, maps: Sequence[Array], start: int, capacity: int, height: int) -> None:
        self.maps, self.start, self.capacity, self._height = maps, start, capacity, height

    def reserve(self, needed: int, upto: int) -> None:
        """Drop rows above `needed`, so that there is memory for rows up to `upto`."""
        if upto <= self.start + self.capacity:
            return
        start = min(needed // TILE * TILE, self._height - self.capacity)
        moved = start - self.start
        assert moved > 0 and upto <= start + self.capacity, "rows are let go of in time"
        for map_ in self.maps:
            map_[:, : self.capacity - moved] = map_[:, moved:].copy()
        self.start = start

    def local(self, row: int) -> int:
        return row - self.start


def _capacity(rows: int, height: int) -> int:
    """Round up to what differs from `height` by a multiple of TILE."""
    return height if rows >= height else height - (height - rows) // TILE * TILE


class _BandStream:
    """A band of columns on its way through the network."""

    def __init__(self, network: CompiledNetwork, height: int, width: int, step: int) -> None:
        self._network, self._height, self._step = network, height, step
        rows = _capacity(_block_rows(network, step), height)
        self._blocks = [_BlockRows(network, rows, width, height) for _ in range(network.blocks)]
        self._tail = _TailRows(network, _capacity(_tail_rows(network, step), height), width, height)
        self._fed = 0
        self._waiting = np.empty((3, 0, width), np.float32)  # the picture, for the tail

    def feed(self, rows: Array) -> Array:
        top, self._fed = self._fed, self._fed + rows.shape[1]
        self._waiting = np.concatenate([self._waiting, rows], axis=1)
        self._blocks[0].take_picture(rows, top)
        self._head(self._limit(self._fed, REACH))
        parts = [self._advance()]
        while self._fed == self._height and self._tail.done < self._height:
            parts.append(self._advance())  # what was held back, as the border was not in sight
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _advance(self) -> Array:
        """Let each block and the tail go on, by a step at most."""
        for index, block in enumerate(self._blocks):
            done = block.run(index, partial(self._limit, reach=REACH), self._step)
            fresh = block.fresh(done)
            if index + 1 < len(self._blocks):
                self._blocks[index + 1].take_features(fresh, done)
        tail, count = self._tail, fresh.shape[1]
        tail.take(fresh, self._waiting[:, :count])
        self._waiting = self._waiting[:, count:]
        return tail.run(self._limit(tail.known, TAIL_REACH))

    def _limit(self, done: int, reach: int) -> int:
        """Return how far the next stage may go."""
        return done if done == self._height else max(0, (done - reach) // TILE * TILE)

    def _head(self, bottom: int) -> None:
        block, network = self._blocks[0], self._network
        if bottom <= block.known:
            return
        areas = block.areas(block.known, bottom)
        network.on_each(areas, network.head_work(block.picture, block.x))
        block.known = bottom


class _BlockRows:
    """Rows of one block: its input, the outputs of its units, and its output."""

    def __init__(self, network: CompiledNetwork, capacity: int, width: int, height: int) -> None:
        self._network = network
        count = network.maps * capacity * width * network.width
        maps = aligned(count).reshape(network.maps, capacity, width, network.width)
        self.picture = np.zeros((3, capacity, width), np.float32)
        self.x, self._y, self._inner = maps[:1], maps[1:2], maps[2:]
        self._rows = _Rows([maps, self.picture], 0, capacity, height)
        self._width = width
        self.known = 0
        self._done = [0] * (network.maps - 2 + 1)  # by each unit, and by the reduction
        self._given = 0

    def take_picture(self, rows: Array, top: int) -> None:
        self._take(self.picture, rows, top)

    def take_features(self, rows: Array, bottom: int) -> None:
        self._take(self.x, rows, self.known)
        self.known = bottom

    def _take(self, map_: Array, rows: Array, top: int) -> None:
        bottom = top + rows.shape[1]
        self._rows.reserve(max(0, self._done[-1] - TILE), bottom)
        map_[:, self._rows.local(top) : self._rows.local(bottom)] = rows

    def areas(self, top: int, bottom: int) -> list[Rectangle]:
        """Return rectangles that cover rows, counted as the compiled code counts them."""
        above = self._rows.local(top)
        return [
            (above + upper, left, above + lower, right)
            for upper, left, lower, right in self._network.areas(bottom - top, self._width)
        ]

    def run(self, index: int, limit: Callable[[int], int], step: int) -> int:
        """Let each stage go as far as it can, by `step` rows at most.

        Returns:
            How far the last one is.
        """
        network, before = self._network, self.known
        for stage, work in enumerate(network.block_work(index, self.x, self._inner, self._y)):
            bottom = min(limit(before), self._done[stage] + step)
            if bottom > self._done[stage]:
                network.on_each(self.areas(self._done[stage], bottom), work)
                self._done[stage] = bottom
            before = self._done[stage]
        return before

    def fresh(self, bottom: int) -> Array:
        """Return the latest rows of output, which the next stage has not read."""
        top, self._given = self._given, bottom
        return self._y[:, self._rows.local(top) : self._rows.local(bottom)]


class _TailRows:
    """Rows of the tail: the features and the picture that it reads, and its output."""

    def __init__(self, network: CompiledNetwork, capacity: int, width: int, height: int) -> None:
        s = network.scale
        self._network, self._height, self._width = network, height, width
        self._features = aligned(capacity * width * network.width).reshape(
            1, capacity, width, network.width
        )
        self._picture = np.zeros((3, capacity, width), np.float32)
        self._out = np.empty((3, capacity * s, width * s), np.float32)
        # What is given out is not moved: it is taken at once.
        self._rows = _Rows([self._features, self._picture], 0, capacity, height)
        self.known = self.done = 0

    def take(self, features: Array, picture: Array) -> None:
        """Take in the next rows of features and picture."""
        top, bottom = self.known, self.known + features.shape[1]
        self._rows.reserve(max(0, self.done - KEPT), bottom)
        place = slice(self._rows.local(top), self._rows.local(bottom))
        self._features[:, place], self._picture[:, place] = features, picture
        self.known = bottom

    def run(self, limit: int) -> Array:
        network, s = self._network, self._network.scale
        period, _ = network.tail_period
        top = self.done
        bottom = limit if limit == self._height else limit // period * period
        if bottom <= top:
            return self._out[:, :0]
        start = self._rows.start
        areas = network.tail_areas(top, bottom, self._width)
        local = [
            (a - start * network.area_scale, left, b - start * network.area_scale, right)
            for a, left, b, right in areas
        ]
        work = network.tail_work(self._features, self._picture, self._out)
        network.on_each(local, work)
        self.done = bottom
        return self._out[:, (top - start) * s : (bottom - start) * s].copy()


def _rounded(rows: int) -> int:
    return max(TILE, -(-rows // TILE) * TILE)
