"""LAPAR and AWSRN by compiled code, rectangle by rectangle, on several threads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import numpy as np

from srcli.backends.base import Images, closed
from srcli.backends.native.compiled import compiled
from srcli.backends.native.weights import (
    Array,
    Kernel,
    Scratch,
    aligned,
    along_one_side,
    filled,
    kernel_of,
    packed,
    rounded,
)

Rectangle = tuple[int, int, int, int]
"""Top, left, bottom, right; the last two lie outside."""

Work = Callable[[Rectangle, Array], object]
"""Does a rectangle, given scratch memory."""

# Rectangles of features, in pixels. All begin at multiples of TILE, where Winograd's tiles begin:
# so digits do not depend on how a picture is cut into rectangles.
TILE = 4
MAX_ROWS, COLUMNS = 28, 124
# Narrower where a unit is as wide as AWSRN's, whose features would fill the cache.
WIDE, NARROW_COLUMNS = 64, 28
PORTIONS = 24  # of a stage, at least, for all threads to have work till its end
# Columns of the tail's rectangles by scale, in output pixels: with their borders they fill tiles
# before and after enlarging. All are multiples of TILE times the scale, where rectangles begin.
OUTPUT_COLUMNS = {1: 112, 2: 112, 3: 84, 4: 224}
MAX_OUTPUT_ROWS = 720  # of these rectangles


def compiled_network(
    weights: Mapping[str, Array],
    scale: int,
    skips: Sequence[Sequence[float]],
    *,
    threads: int,
    concurrency: int = 1,
) -> CompiledNetwork:
    """Return the compiled form of the network with these weights, a LAPAR or an AWSRN."""
    kind = CompiledLapar if "taps.weight" in weights else CompiledAwsrn
    return kind(weights, scale, skips, threads=threads, concurrency=concurrency)


class CompiledNetwork(ABC):
    """A fused network that `_network.c` runs: a head, local fusion blocks, and a tail.

    All threads share the rectangles of a stage; a stage begins when the one before it is done
    everywhere.

    Args:
        weights: The state of the fused network, by its names.
        scale: Of the network.
        skips: For each block, the factors on its skip connections, the block's own last.
        threads: Of all concurrent calls together.
        concurrency: Number of calls that are to be under way at once.
    """

    _head_is_rectified: bool

    def __init__(
        self,
        weights: Mapping[str, Array],
        scale: int,
        skips: Sequence[Sequence[float]],
        *,
        threads: int,
        concurrency: int = 1,
    ) -> None:
        self._compiled = compiled()
        group = self._compiled.GROUP
        kernel = partial(kernel_of, weights)
        self.scale = scale
        self._channels = len(weights["head.bias"])
        self._wide = len(weights["body.0.b0.first.bias"])  # channels within a unit
        self._width = rounded(self._channels, group)
        self._wide_width = rounded(self._wide, group)
        self._columns = NARROW_COLUMNS if self._wide >= WIDE else COLUMNS
        self._mean = filled(weights["mean"])
        self._head = kernel("head")
        self._blocks = [
            _Block(
                units=[
                    (kernel(f"body.{index}.b{unit}.first"), kernel(f"body.{index}.b{unit}.second"))
                    for unit in range(len(inner))
                ],
                skips=inner,
                reduction=kernel(f"body.{index}.reduction", sources=len(inner)),
                skip=own,
            )
            for index, (*inner, own) in enumerate(skips)
        ]
        self._end = self._ending(weights)

        self._helpers = max(0, threads - concurrency)  # besides the threads that call
        self._pool = ThreadPoolExecutor(self._helpers, "native") if self._helpers else None
        self._thread = threading.local()
        self._concurrency, self._is_closed = concurrency, False
        self._memory: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(concurrency):
            self._memory.put(Scratch())

    @property
    def maps(self) -> int:
        """Number of maps alive at once: a block's input and output, and its units' outputs."""
        return max(len(block.units) for block in self._blocks) + 2

    @property
    def width(self) -> int:
        """Channels of a map, padding included."""
        return self._width

    @property
    def blocks(self) -> int:
        """Number of local fusion blocks."""
        return len(self._blocks)

    @property
    def convolutions(self) -> int:
        """Number of convolutions, one after the other, up to the end of the body."""
        return 1 + sum(2 * len(block.units) + 1 for block in self._blocks)

    @property
    def floats_per_pixel(self) -> float:
        """Floats for each pixel of the output: maps, the picture and the output itself."""
        return (self.maps * self._width + 3) / self.scale**2 + 3

    def __call__(self, batch: Images) -> Images:
        """Restore n x 3 x h x w in [0, 1] to n x 3 x s*h x s*w, float32, not clamped.

        Sides of LAPAR's result must be at least 3. May be called from several threads: at most
        `concurrency` calls run at once, others wait.
        """
        count, _, height, width = batch.shape
        restored = np.empty((count, 3, height * self.scale, width * self.scale), np.float32)
        memory = self._memory.get()
        try:
            if self._is_closed:
                raise closed()
            maps = memory.of(self.maps, height, width, self._width)
            for picture, out in zip(batch, restored, strict=True):
                self._restore(np.ascontiguousarray(picture, np.float32), maps, out)
        finally:
            self._memory.put(memory)
        return restored

    def close(self) -> None:
        """End its threads, when the calls under way are done."""
        concurrency = [self._memory.get() for _ in range(self._concurrency)]
        self._is_closed = True
        for memory in concurrency:
            self._memory.put(memory)
        if self._pool is not None:
            self._pool.shutdown()

    def _restore(self, picture: Array, maps: Array, out: Array) -> None:
        _, height, width = picture.shape
        areas = self.areas(height, width)
        x, y, inner = maps[:1], maps[1:2], maps[2:]  # each 1 x h x w x C
        self.on_each(areas, self.head_work(picture, x))
        for index in range(self.blocks):
            for work in self.block_work(index, x, inner, y):
                self.on_each(areas, work)
            x, y = y, x
        self.on_each(self.tail_areas(0, height, width), self.tail_work(x, picture, out))

    def areas(self, height: int, width: int) -> list[Rectangle]:
        """Return the rectangles of features that are done at a time."""
        rows = rows_for(height, width, self._columns)
        return list(rectangles(height, width, rows, self._columns))

    def head_work(self, picture: Array, x: Array) -> Work:
        """Return the work from a picture, 3 x h x w, to the first features `x`, 1 x h x w x C."""
        entry = (self._mean, self._head, self._channels, self._head_is_rectified)
        return partial(self._compiled.head, picture, *entry, x)

    def block_work(self, index: int, x: Array, inner: Array, y: Array) -> Iterator[Work]:
        """Yield the work of each unit of a block, from `x`, and of its reduction, to `y`.

        `x` and `y` are 1 x h x w x C; `inner` has a map for the output of each unit.
        """
        block, module, channels = self._blocks[index], self._compiled, self._channels
        source = x
        for number, (unit, skip) in enumerate(zip(block.units, block.skips, strict=True)):
            target = inner[number : number + 1]
            yield partial(module.unit, source, *unit, channels, self._wide, skip, target)
            source = target
        outputs, kernel = inner[: len(block.units)], block.reduction
        yield partial(module.reduction, outputs, kernel, channels, x, block.skip, y)

    @property
    @abstractmethod
    def tail_period(self) -> tuple[int, int]:
        """Rows and columns, in input pixels: the tail's rectangles begin at multiples of these."""

    @property
    @abstractmethod
    def area_scale(self) -> int:
        """Scale of the tail's rectangles: 1 if they are of the input, else that of the output."""

    @abstractmethod
    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        """Return the tail's rectangles for rows of the input; `top` is a multiple of its period."""

    @abstractmethod
    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        """Return the work after the body: 1 x h x w x C and 3 x h x w to 3 x H x W."""

    @abstractmethod
    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        """Return the arguments of the tail's compiled function that come from the weights."""

    @abstractmethod
    def _finish_floats(self) -> int:
        """Return the floats of scratch that the tail takes, besides those of a convolution."""

    def on_each(self, areas: Sequence[Rectangle], work: Work) -> None:
        """Do all rectangles of a stage, each thread taking the next one when it is free."""
        left = deque(areas)

        def do_some() -> None:
            scratch = self._scratch()
            while True:
                try:
                    area = left.popleft()
                except IndexError:
                    return
                work(area, scratch)

        futures: list[Future[None]] = []
        try:
            for _ in range(min(self._helpers, len(areas) - 1)):
                assert self._pool is not None, "there are helpers"
                futures.append(self._pool.submit(do_some))
            do_some()
        finally:
            # Whatever happened: nobody may go on in memory that the next call gets. Those that
            # have not begun would find nothing to do.
            left.clear()
            wait([future for future in futures if not future.cancel()])
        for future in futures:
            if not future.cancelled():
                future.result()

    def _scratch(self) -> Array:
        """Return the current thread's memory for results between two convolutions."""
        scratch: Array | None = getattr(self._thread, "scratch", None)
        if scratch is None:
            scratch = self._thread.scratch = aligned(self._scratch_floats())
        return scratch

    def _scratch_floats(self) -> int:
        """Return the floats of scratch that the largest of the calls takes."""
        units = max(len(block.units) for block in self._blocks)
        deepest = max(units * self._width, self._wide_width, self._deepest())
        floats = self._compiled.convolution_floats
        points = max(floats(3, deepest), floats(5, self._width))
        pixels = (MAX_ROWS + 2) * (self._columns + 2)
        features = pixels * max(self._width, self._wide_width)
        return points + max(features, self._finish_floats()) + 1024

    def _deepest(self) -> int:
        """Return the most input channels of a convolution after the body."""
        return self._width


class CompiledLapar(CompiledNetwork):
    """The network of a `FusedLapar` with 13 taps, at a scale of 1 to 4."""

    _head_is_rectified = True

    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        kernel, scale = partial(kernel_of, weights), self.scale
        phases = along_one_side(weights["phases"], scale) if scale > 1 else np.ones((1, 5))
        up = kernel("up", scale=scale) if scale > 1 else None
        kernels = (up, *(kernel(name) for name in ("mix", "merge", "taps")))
        return (*kernels, self._channels, scale, filled(phases))

    @property
    def tail_period(self) -> tuple[int, int]:
        return TILE, OUTPUT_COLUMNS[self.scale] // self.scale

    @property
    def area_scale(self) -> int:
        return self.scale

    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        s = self.scale
        above, height, columns = top * s, (bottom - top) * s, OUTPUT_COLUMNS[s]
        rows = rows_for(height, width * s, columns, MAX_OUTPUT_ROWS, self._strip)
        return [
            (above + upper, left, above + lower, right)
            for upper, left, lower, right in rectangles(height, width * s, rows, columns)
        ]

    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        return partial(self._compiled.tail, features, *self._end, picture, out)

    @property
    def _strip(self) -> int:
        """Rows of the output that the tail does at a time."""
        return rounded(self._compiled.STRIP, TILE * self.scale)

    def _finish_floats(self) -> int:
        s, columns = self.scale, OUTPUT_COLUMNS[self.scale]
        rows = self._strip
        enlarged = (rows + 8 * s + 16) * (columns + 8 + 2 * s) * self._width
        mixed, merged = ((rows + more) * (columns + 4) * self._width for more in (12, 8))
        taps = rows * columns * self._compiled.GROUP
        return enlarged + mixed + merged + taps + 20 * (columns + 64)


class CompiledAwsrn(CompiledNetwork):
    """The network of a `FusedAwsrn`, whatever branches it has.

    Its reconstruction is one convolution of 9 x 9, a size for which Winograd's filtering would lose
    too many digits. But it is also the sum of nine of 3 x 3 of features that are moved by three
    pixels, and of the one of the picture: one convolution with ten sources.
    """

    _head_is_rectified = False

    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        border = (9 - weights["tail.weight"].shape[-1]) // 2
        wide = np.pad(weights["tail.weight"], [(0, 0), (0, 0), (border, border), (border, border)])
        parts = [wide[..., y : y + 3, x : x + 3] for y in (0, 3, 6) for x in (0, 3, 6)]
        of_picture = np.zeros_like(parts[0])
        of_picture[:, :3] = weights["skip.weight"]
        joined = np.concatenate([*parts, of_picture], axis=1)
        kernel = packed(joined, weights["tail.bias"], sources=self._compiled.MAX_SOURCES)
        return (kernel, self._channels, self.scale, self._mean)

    @property
    def tail_period(self) -> tuple[int, int]:
        return TILE, TILE

    @property
    def area_scale(self) -> int:
        return 1

    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        return [
            (top + upper, left, top + lower, right)
            for upper, left, lower, right in self.areas(bottom - top, width)
        ]

    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        return partial(self._compiled.reconstruction, features, *self._end, picture, out)

    def _deepest(self) -> int:
        return self._compiled.MAX_SOURCES * self._width

    def _finish_floats(self) -> int:
        phases = rounded(3 * self.scale**2, self._compiled.GROUP)
        return (MAX_ROWS + 2) * (self._columns + 2) * (self._width + phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    units: list[tuple[Kernel, Kernel]]
    skips: Sequence[float]
    reduction: Kernel
    skip: float


def rectangles(height: int, width: int, rows: int, columns: int) -> Iterator[Rectangle]:
    """Yield rectangles that cover height x width."""
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield top, left, min(top + rows, height), min(left + columns, width)


def rows_for(
    height: int, width: int, columns: int = COLUMNS, most: int = MAX_ROWS, step: int = TILE
) -> int:
    """Choose the rows of a rectangle: as many as leave work for all threads.

    Borders are computed twice, so many rows are faster. All choices, multiples of `step` and at
    least two of it, lead to the same digits.
    """
    parts = -(-PORTIONS // -(-width // columns))
    return max(2 * step, min(most // step * step, rounded(-(-height // parts), step)))
