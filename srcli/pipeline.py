"""Pictures in, pictures out, whatever runs the network.

A picture is restored strip by strip, a strip tile by tile. The same code serves a picture in memory
and one that is read, restored and written a few rows at a time; nothing but the rounding of last
digits depends on how the picture was cut.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Batch, OutOfMemory, Session, as_blind, limits_of, memory_share_of
from srcli.errors import MemoryExhaustedError, SrcliError, UsageError
from srcli.images import Picture, Pixels, bleed, from_float, to_float
from srcli.machine import free_memory, usable_cores
from srcli.resample import RowResampler
from srcli.spec import Geometry, Scale
from srcli.tiling import Span, Tile, choose_window, enlarged, halved, plan, spans

Part = tuple[Pixels, Pixels | None]
"""Some rows of a picture: colour (rows x width x C) and alpha (rows x width)."""

Rows = Callable[[int, int], Part]
"""Gives rows [top, bottom) of a picture; asked from top to bottom, without overlap."""

Plane = NDArray[np.floating]
"""H x W x C in [0, 1], not clamped."""

Progress = Callable[[int, int], None]
"""Called with the number of input pixels done and their total."""

SMALLEST_BUDGET, LARGEST_BUDGET = 128 << 20, 512 << 20  # bytes, of the automatic choice, a lane
MOST_LANES = 4
APPROXIMATE_BUDGET = 8 << 30  # where a larger tile is a better one

# Rows are turned into pixels so many numbers at a time: each step of that makes a copy.
BLOCK = 1 << 22

# How far colour is drawn into transparent regions before enlarging, in input pixels. Beyond that
# nothing visible depends on it.
BLEED = 8

# Alpha is held within the range of its neighbours at most this far away, in input pixels: the
# reach of the filter that makes an output pixel.
ALPHA_REACH = 2


def automatic_budget(geometry: Geometry | None = None, lanes: int = 1) -> int:
    """Bytes that tiles may take when the user does not say: a quarter of what is free.

    At most 512 MiB for each lane, because larger tiles are hardly faster. Where tiles only
    approximate the whole picture they are better, though: then at most 8 GiB.
    """
    approximate = geometry is not None and geometry.tiling == "approximate"
    largest = APPROXIMATE_BUDGET if approximate else LARGEST_BUDGET * lanes
    free = free_memory()
    if free is None:
        return min(largest, LARGEST_BUDGET * lanes)
    return min(max(free // 4, SMALLEST_BUDGET), largest)


def sensible_lanes(
    pictures: int,
    geometry: Geometry,
    *,
    threads: int | None = None,
    memory: int | None = None,
    tile: int | None = None,
) -> int:
    """How many pictures should go through the network side by side.

    Each then has its share of the cores, and none of them waits for the others at the end of every
    layer. But each needs memory too: with less than the largest automatic budget, tiles would be so
    small that their halos cost more than is gained. Where tiles only approximate the picture, one
    picture has all memory, so that its result does not depend on how many there are.

    Args:
        pictures: To be restored.
        geometry: Of the network.
        threads: That may be used; None for one on each core.
        memory: Bytes for the tiles of all lanes; None for the automatic budget.
        tile: Side of a tile that the user chose, and with it the memory.
    """
    if geometry.tiling == "approximate" or tile is not None:
        return 1
    budget = memory or automatic_budget(lanes=MOST_LANES)
    lanes = min(pictures, threads or usable_cores(), budget // LARGEST_BUDGET, MOST_LANES)
    return max(1, lanes)


def ignore_progress(done: int, total: int) -> None:
    """For callers that do not care."""


@dataclass(slots=True, kw_only=True)
class Restorer:
    """Restores pictures of any size through one session, in tiles that fit in memory."""

    session: Session
    geometry: Geometry
    scale: Scale
    """What the session's output is enlarged by."""

    tile: int | None = None
    """Side of a tile in input pixels, without its halo; None chooses by `memory`."""

    memory: int | None = None
    """Bytes that one tile may take; None chooses by what is free."""

    lanes: int = 1
    """How many calls of the session may be under way at once, from here or from other threads. The
    tiles of a picture share them, and so does the memory."""

    note: Callable[[str], None] = lambda message: None
    """Told when a tile had to be made smaller, and once where tiles only approximate."""

    kernel: Batch | None = field(default=None, init=False)
    """Of blind networks: the blur kernels, n x 1 x K x K, of what was restored last."""

    _fitting: tuple[int, int] | None = field(default=None, init=False)
    """Height and width of a window that should fit, once a larger one did not."""

    _said_approximate: bool = field(default=False, init=False)

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    _pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"a tile of {self.tile} pixels is not possible. Give at least 1.")
        self.memory = (self.memory or automatic_budget(self.geometry, self.lanes)) // self.lanes
        self._pool = ThreadPoolExecutor(self.lanes, "tile")

    def __call__(
        self,
        picture: Picture,
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> Picture:
        """Restore a picture: colour and alpha, in the bits per channel that it has.

        Args:
            picture: In any size.
            progress: Told how far it is.
            size: Height and width to resample the result to; None for the network's own.
        """
        return self.restore_all([picture], progress, size)[0]

    def restore_all(
        self,
        pictures: Sequence[Picture],
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        """Restore pictures of one size, channels and bits together, as one batch."""
        first = pictures[0]
        sources = [_Sliding(_rows_of(picture)) for picture in pictures]
        strips = self._strips(
            sources, first.height, first.width, first.alpha is not None, progress, size
        )
        return [
            _with_pixels(picture, parts)
            for picture, parts in zip(pictures, zip(*strips, strict=True), strict=True)
        ]

    def restore_strips(
        self,
        rows: Rows,
        height: int,
        width: int,
        *,
        has_alpha: bool,
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Part]:
        """Restore one picture of any height in bounded memory.

        Args:
            rows: Gives the picture's rows.
            height: Of the picture, in input pixels.
            width: Of the picture, in input pixels.
            has_alpha: Whether `rows` will give alpha.
            progress: Told how far it is.
            size: Height and width to resample the result to; None for the network's own.

        Yields:
            The output from top to bottom.
        """
        source = _Sliding(rows)
        for parts in self._strips([source], height, width, has_alpha, progress, size):
            yield parts[0]

    def _strips(
        self,
        sources: Sequence[_Sliding],
        height: int,
        width: int,
        has_alpha: bool,
        progress: Progress,
        size: tuple[int, int] | None,
    ) -> Iterator[list[Part]]:
        """For each strip from top to bottom, the output of every source."""
        s = self.scale
        own_size = (enlarged(height, s), enlarged(width, s))
        finishers = [_Finisher(own_size, size or own_size) for _ in sources]
        halo = self.margin + (BLEED if has_alpha else 0)
        window = self._window(height, width, len(sources) * (2 if has_alpha else 1))
        rows = max(min(window[0], self._strip_rows(width, len(sources))), 2 * halo + 1)
        self._tell_approximate(height, width, (min(rows, window[0]), window[1]))
        kernel: Batch | None = None
        for span in spans(height, rows, halo, self.geometry.multiple_of):
            stored = [source(span.start, span.stop) for source in sources]
            batch = _planes([layer for part in stored for layer in _layers(part)])
            if kernel is None or len(kernel) != len(batch):
                kernel = self.estimate_kernel(batch)
            restored = self.restore(batch, _shifted(progress, span, height, width), kernel)
            inner = span.inner(s)
            parts = _unlayered(restored[:, :, inner], stored, inner, s)
            yield [finish(*part) for finish, part in zip(finishers, parts, strict=True)]

    def estimate_kernel(self, batch: Batch) -> Batch | None:
        """The blur kernels of n pictures, n x 1 x K x K; None if the network is not blind.

        Where a picture takes more memory than there is for a tile, its middle stands for it.

        Raises:
            MemoryExhaustedError: Not even the smallest tile fits.
        """
        session = as_blind(self.session)
        if session is None:
            return None
        padded = self._padded(batch)
        while True:
            window = self._window(padded.shape[2], padded.shape[3], len(batch))
            middle = np.ascontiguousarray(_middle(padded, window))
            try:
                self.kernel = self._pool.submit(session.estimate_kernel, middle).result()
                return self.kernel
            except OutOfMemory:
                self._shrink(window)

    def restore(
        self,
        batch: Batch,
        progress: Progress = ignore_progress,
        kernel: Batch | None = None,
    ) -> Batch:
        """Restore n x 3 x h x w in [0, 1] to n x 3 x s*h x s*w, not clamped, tile by tile.

        Args:
            batch: In any size.
            progress: Told how far it is.
            kernel: Blur kernels for blind networks, n x 1 x K x K; None estimates them.

        Raises:
            MemoryExhaustedError: Not even the smallest tile fits.
            SrcliError: The network gave values that are not finite.
        """
        height, width = batch.shape[2:]
        padded = self._padded(batch)
        if kernel is None:
            kernel = self.estimate_kernel(batch)
        while True:
            window = self._window(padded.shape[2], padded.shape[3], len(batch))
            try:
                restored = self._run_tiles(padded, window, progress, kernel)
                break
            except OutOfMemory:
                self._shrink(window)
        return restored[:, :, : enlarged(height, self.scale), : enlarged(width, self.scale)]

    def _run_tiles(
        self, batch: Batch, window: tuple[int, int], progress: Progress, kernel: Batch | None
    ) -> Batch:
        count, _, height, width = batch.shape
        s = self.scale
        tiles = plan(height, width, window, self.margin, self.geometry.multiple_of)
        self._tell_approximate(height, width, window)
        if len(tiles) == 1:
            restored: Batch = self._pool.submit(self._run, batch, kernel).result()
            progress(1, 1)
            return restored
        out = np.empty((count, 3, enlarged(height, s), enlarged(width, s)), np.float32)

        def restore(tile: Tile) -> None:
            rows, columns = tile.rows, tile.columns
            cut = batch[:, :, rows.start : rows.stop, columns.start : columns.stop]
            result = self._run(cut, kernel)[:, :, rows.inner(s), columns.inner(s)]
            out[:, :, rows.outer(s), columns.outer(s)] = result

        # In the pool even for one lane: all calls of the session share its threads.
        futures = [self._pool.submit(restore, tile) for tile in tiles]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                progress(done, len(tiles))
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        return out

    def _run(self, batch: Batch, kernel: Batch | None) -> Batch:
        limits = limits_of(self.session)
        most = limits[1][0] if limits else len(batch)
        parts = [slice(first, first + most) for first in range(0, len(batch), most)]
        restored = np.concatenate([self._call(batch, kernel, part) for part in parts])
        if not np.isfinite(restored).all():
            raise SrcliError(
                "the network gave values that are not finite. Try --precision fp32, or another "
                "backend; if the weights are your own, check them."
            )
        return restored

    def _call(self, batch: Batch, kernel: Batch | None, part: slice) -> Batch:
        session = as_blind(self.session)
        pictures = np.ascontiguousarray(batch[part])
        if session is None or kernel is None:
            return self.session(pictures)
        return session.restore(pictures, kernel[part])

    def _padded(self, batch: Batch) -> Batch:
        """Enlarge to what the network accepts, by repeating the border below and to the right."""
        limits = limits_of(self.session)
        smallest = limits[0][2:] if limits else (1, 1)
        missing = [
            max(least, self.geometry.accepted(side)) - side
            for side, least in zip(batch.shape[2:], smallest, strict=True)
        ]
        if not any(missing):
            return batch
        return np.pad(batch, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")

    def _window(self, height: int, width: int, count: int) -> tuple[int, int]:
        """The largest (height, width) to be given to the network at once."""
        wanted = self._affordable(height, width, count)
        limits = limits_of(self.session)
        if limits is None:
            return wanted
        (_, _, *least), (_, _, *most) = limits
        rows, columns = (
            min(max(side, low), high) for side, low, high in zip(wanted, least, most, strict=True)
        )
        return rows, columns

    def _affordable(self, height: int, width: int, count: int) -> tuple[int, int]:
        """The same, as far as memory and the user decide."""
        if self._fitting is not None:
            return self._fitting
        if self.tile is not None:
            side = max(self.tile + 2 * self.margin, self.geometry.minimum)
            return side, side
        floats = self.geometry.floats_per_pixel * memory_share_of(self.session)
        bytes_per_pixel = 4 * floats * self.scale**2 * count
        pixels = int((self.memory or LARGEST_BUDGET) // bytes_per_pixel)
        return choose_window(height, width, margin=self.margin, pixels=pixels)

    def _strip_rows(self, width: int, count: int) -> int:
        """How many input rows may be in work at once: their float output takes half the budget."""
        bytes_per_row = 4 * 3 * width * self.scale**2 * count
        return int((self.memory or LARGEST_BUDGET) // (2 * bytes_per_row))

    def _tell_approximate(self, height: int, width: int, window: tuple[int, int]) -> None:
        """Say once that tiles change the result, for networks that look at the whole picture."""
        whole = height <= window[0] and width <= window[1]
        if whole or self.geometry.tiling == "exact" or self._said_approximate:
            return
        self._said_approximate = True
        self.note(
            f"this model looks at the whole picture; {width} x {height} goes in tiles of "
            f"{min(width, window[1])} x {min(height, window[0])}, so the result is approximate. "
            "More --memory makes larger tiles."
        )

    def _shrink(self, window: tuple[int, int]) -> None:
        smaller = halved(window, self.margin)
        if smaller is None:
            raise MemoryExhaustedError(
                "out of memory even with the smallest tile. Close other programs, or choose "
                "another backend or a smaller model."
            )
        with self._guard:
            known = self._fitting
            if known is not None and math.prod(known) <= math.prod(smaller):
                return  # another lane has met a smaller limit
            self._fitting = smaller
        self.note(f"out of memory: going on with tiles of {smaller[1]} x {smaller[0]}")

    @property
    def margin(self) -> int:
        """Receptive field in input pixels."""
        return self.geometry.margin


def _middle(batch: Batch, window: tuple[int, int]) -> Batch:
    """The part of at most `window` in the middle of n x 3 x h x w."""
    top, left = (
        max(0, (side - most) // 2) for side, most in zip(batch.shape[2:], window, strict=True)
    )
    return batch[:, :, top : top + window[0], left : left + window[1]]


class _Sliding:
    """Rows of a picture that may be asked for twice where strips overlap."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._start = self._stop = 0
        self._part: Part | None = None

    def __call__(self, start: int, stop: int) -> Part:
        color, alpha = self._rows(self._stop, stop)
        if self._part is not None and start < self._stop:
            kept_color, kept_alpha = self._part
            cut = start - self._start
            color = np.concatenate([kept_color[cut:], color])
            if alpha is not None and kept_alpha is not None:
                alpha = np.concatenate([kept_alpha[cut:], alpha])
        self._part = color, alpha
        self._start, self._stop = start, stop
        return color, alpha


def _rows_of(picture: Picture) -> Rows:
    color, alpha = picture.color, picture.alpha
    return lambda top, bottom: (color[top:bottom], None if alpha is None else alpha[top:bottom])


def _layers(part: Part) -> list[Plane]:
    """What goes through the network: the colour, and alpha as a grey picture where it varies.

    What lies under transparent pixels is arbitrary; it is replaced by the colour around them, so
    that it does not bleed a fringe into visible pixels.
    """
    color, alpha = part
    if alpha is None:
        return [to_float(color)]
    layers = [to_float(bleed(color, alpha, BLEED))]
    if alpha.min() != alpha.max():
        layers.append(to_float(alpha)[:, :, None])
    return layers


def _planes(layers: Sequence[Plane]) -> Batch:
    """H x W x C arrays, C = 1 or 3, as one batch n x 3 x H x W; grey ones with equal planes."""
    height, width = layers[0].shape[:2]
    return np.stack(
        [np.broadcast_to(layer, (height, width, 3)).transpose(2, 0, 1) for layer in layers]
    )


def _unlayered(
    restored: Batch, stored: Sequence[Part], rows: slice, scale: Scale
) -> list[tuple[Plane, Plane | None, int]]:
    """The reverse of `_layers` and `_planes`, on the output; `rows` of it have been cut out.

    Returns:
        Colour (H x W x C) and alpha (H x W x 1) in [0, 1], and bits per channel.
    """
    outputs = iter(restored)
    parts: list[tuple[Plane, Plane | None, int]] = []
    for color, alpha in stored:
        out = _picture(next(outputs), grey=color.shape[2] == 1)
        held = None
        if alpha is not None:
            varies = alpha.min() != alpha.max()
            plane = _picture(next(outputs), grey=True) if varies else None
            held = _held(plane, alpha, rows, scale)
        parts.append((out, held, 8 * color.itemsize))
    return parts


def _picture(planes: Plane, *, grey: bool) -> Plane:
    # A grey picture went in as three equal planes. Networks treat them differently (the mean of
    # the training pictures is not grey), so take what the planes agree on.
    return (planes.mean(axis=0, keepdims=True) if grey else planes).transpose(1, 2, 0)


def _held(plane: Plane | None, alpha: Pixels, rows: slice, scale: Scale) -> Plane:
    """Enlarged alpha, held between the least and the greatest alpha nearby.

    So what is opaque stays opaque and what is transparent stays transparent, whatever the network
    makes of the edge between them.
    """
    least = _repeated(_extreme(alpha, np.minimum), scale)[rows]
    if plane is None:
        return least
    return np.clip(plane, least, _repeated(_extreme(alpha, np.maximum), scale)[rows])


def _extreme(plane: Pixels, choose: np.ufunc) -> Pixels:
    """Least or greatest value within ALPHA_REACH of each pixel."""
    for axis in (0, 1):
        width = [(ALPHA_REACH, ALPHA_REACH) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(plane, width, mode="edge")
        size = plane.shape[axis]
        shifts = [padded.take(range(k, k + size), axis) for k in range(2 * ALPHA_REACH + 1)]
        plane = choose.reduce(shifts)
    return plane


def _repeated(plane: Pixels, scale: Scale) -> Plane:
    """Every output pixel as the input pixel that its centre lies in."""
    rows, columns = (
        np.minimum(
            (2 * np.arange(enlarged(side, scale)) + 1) * scale.denominator // (2 * scale.numerator),
            side - 1,
        )
        for side in plane.shape
    )
    repeated: Plane = to_float(plane)[rows][:, columns, None]
    return repeated


class _Finisher:
    """Takes the float rows of one output, resamples them if need be, and quantises them once."""

    def __init__(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        self._color = RowResampler(*size, *wanted) if wanted != size else None
        self._alpha = RowResampler(*size, *wanted) if wanted != size else None

    def __call__(self, color: Plane, alpha: Plane | None, bits: int) -> Part:
        if self._color is not None:
            color = self._color.feed(color)
        if self._alpha is not None and alpha is not None:
            alpha = self._alpha.feed(alpha)
        return _quantised(color, bits), None if alpha is None else _quantised(alpha, bits)[:, :, 0]


def _quantised(plane: Plane, bits: int) -> Pixels:
    """Float in [0, 1] to 8 or 16 bits, a few rows at a time."""
    height, width, channels = plane.shape
    out: Pixels = np.empty(plane.shape, np.uint8 if bits == 8 else np.uint16)
    rows = max(1, BLOCK // max(1, width * channels))
    for top in range(0, height, rows):
        out[top : top + rows] = from_float(plane[top : top + rows], bits)
    return out


def _with_pixels(picture: Picture, parts: Sequence[Part]) -> Picture:
    """The picture with other pixels, given from top to bottom."""
    alphas = [alpha for _, alpha in parts if alpha is not None]
    return replace(
        picture,
        color=np.concatenate([color for color, _ in parts]),
        alpha=np.concatenate(alphas) if alphas else None,
    )


def _shifted(progress: Progress, span: Span, height: int, width: int) -> Progress:
    """Progress within a strip as progress within the picture."""

    def advance(done: int, total: int) -> None:
        rows = span.first + (span.last - span.first) * done / total
        progress(round(rows * width), height * width)

    return advance
