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
from dataclasses import dataclass, field

import numpy as np

from srcli.backends.base import (
    Batch,
    OutOfMemory,
    RowStream,
    Session,
    StoppedError,
    StreamingSession,
    as_blind,
)
from srcli.budget import LARGEST_BUDGET, automatic_budget, device_budget
from srcli.closing import Closing
from srcli.errors import MemoryExhaustedError, SrcliError, UsageError
from srcli.images import Picture, Pixels
from srcli.machine import free_memory
from srcli.planes import (
    ALPHA_REACH,
    BLEED,
    Finisher,
    Part,
    Plane,
    layers,
    planes,
    unlayered,
    with_pixels,
)
from srcli.rows import Framed, Rows, Sliding, rows_of
from srcli.spec import Geometry, Scale
from srcli.tiling import Span, Tile, choose_window, enlarged, halved, plan, spans

RawPart = tuple[Plane, Plane | None, int]
"""Rows of output before they are rounded: colour, alpha, and bits per channel of the input."""

AlphaRows = tuple[Pixels | None, slice]
"""Rows of alpha with those around them that `unlayered` looks at, and where they are among them."""

SMALL = 1.1  # how much more than the limit is not worth a note
NETWORK_SHARE, ROWS_SHARE = 0.45, 0.15  # of --memory; the rest is for what reads and writes
FIXED = 40 << 20  # bytes that decoding, rounding and encoding take, measured

Progress = Callable[[int, int], None]
"""Called with the number of input pixels done and their total."""


def ignore_progress(done: int, total: int) -> None:
    """For callers that do not care."""


@dataclass(slots=True, kw_only=True)
class Restorer(Closing):
    """Restores pictures of any size through one session, in tiles that fit in memory."""

    session: Session
    geometry: Geometry
    scale: Scale
    """What the session's output is enlarged by."""

    backend: str = ""
    """What runs it, for people."""

    tile: int | None = None
    """Side of a tile in input pixels, without its halo; None chooses by `memory`."""

    memory: int | None = None
    """Bytes that one tile may take; None chooses by what is free, on a GPU of its memory."""

    lanes: int = 1
    """How many calls of the session may be under way at once, from here or from other threads. The
    tiles of a picture share them, and so does the memory."""

    note: Callable[[str], None] = lambda message: None
    """Told when a tile had to be made smaller, and once where tiles only approximate."""

    kernel: Batch | None = field(default=None, init=False)
    """Of blind networks: the blur kernels, n x 1 x K x K, of what was restored last."""

    _on_device: int | None = field(default=None, init=False)
    """Bytes that one tile may take on a device with memory of its own; None where that is the
    host's, or the user has chosen."""

    _fitting: tuple[int, int] | None = field(default=None, init=False)
    """Height and width of a window that should fit, once a larger one did not."""

    _said_approximate: bool = field(default=False, init=False)

    _said_small: bool = field(default=False, init=False)

    _stopped: bool = field(default=False, init=False)

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    _pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"a tile of {self.tile} pixels is not possible. Give at least 1.")
        free = self.session.device_memory
        if self.memory is None and free is not None:
            self._on_device = device_budget(free, self.geometry) // self.lanes
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
        bits: int | None = None,
    ) -> list[Picture]:
        """Restore pictures of one size, channels and bits together, as one batch.

        Args:
            pictures: In any size.
            progress: Told how far it is.
            size: Height and width to resample the results to; None for the network's own.
            bits: Per channel of the results; None keeps the pictures'.
        """
        first = pictures[0]
        strips = self._strips(
            [rows_of(picture) for picture in pictures],
            first.height,
            first.width,
            first.alpha is not None,
            progress,
            size,
            bits,
        )
        return [
            with_pixels(picture, parts)
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
        bits: int | None = None,
    ) -> Iterator[Part]:
        """Restore one picture of any height in bounded memory.

        Args:
            rows: Gives the picture's rows.
            height: Of the picture, in input pixels.
            width: Of the picture, in input pixels.
            has_alpha: Whether `rows` will give alpha.
            progress: Told how far it is.
            size: Height and width to resample the result to; None for the network's own.
            bits: Per channel of the result; None keeps those of the rows.

        Yields:
            The output from top to bottom.
        """
        for parts in self._strips([rows], height, width, has_alpha, progress, size, bits):
            yield parts[0]

    def _strips(
        self,
        sources: Sequence[Rows],
        height: int,
        width: int,
        has_alpha: bool,
        progress: Progress,
        size: tuple[int, int] | None,
        bits: int | None,
    ) -> Iterator[list[Part]]:
        """For each strip from top to bottom, the output of every source."""
        s = self.scale
        own_size = (enlarged(height, s), enlarged(width, s))
        finishers = [Finisher(own_size, size or own_size, bits) for _ in sources]
        frame = self._frame(height, width)
        inside = _Inside(enlarged(frame, s), *own_size)
        work = _Work(
            sources=[Sliding(Framed(rows, height, width, frame)) for rows in sources],
            height=height + 2 * frame,
            width=width + 2 * frame,
            has_alpha=has_alpha,
            progress=progress,
        )
        top = 0
        for parts in self._raw_strips(work):
            rows = parts[0][0].shape[0]
            cut = [inside(part, top) for part in parts]
            top += rows
            if cut[0][0].shape[0]:
                finished = [finish(*part) for finish, part in zip(finishers, cut, strict=True)]
                del parts, cut  # before the next ones are made: they may be large
                yield finished
                del finished

    def _frame(self, height: int, width: int) -> int:
        """Return how wide a frame the network is given; less where it takes no larger picture."""
        frame = self.geometry.frame
        multiple = self.geometry.multiple_of
        limits = self.session.limits
        if limits is not None:
            spare = [most - side for side, most in zip((height, width), limits[1][2:], strict=True)]
            if min(spare) >= 0:
                frame = min(frame, min(spare) // 2)
                return frame // multiple * multiple
        return -(-frame // multiple) * multiple

    def _raw_strips(self, work: _Work) -> Iterator[list[RawPart]]:
        """Choose how pictures go through the network: whole, streaming, or in tiles."""
        session, count = self.session, work.layers
        if not isinstance(session, StreamingSession) or self._goes_whole(
            work.height, work.width, count
        ):
            return self._in_spans(work)
        share = self._share(NETWORK_SHARE) // count
        needs = session.stream_needs(work.height, work.width, memory=share, tile=self.tile)
        if self.tile is not None or needs <= share * SMALL:
            return self._streamed(session, work)
        return self._in_windows(session, work)

    def _goes_whole(self, height: int, width: int, count: int) -> bool:
        window = self._window(height, width, count)
        rows = min(window[0], self._strip_rows(width, count))
        return self.tile is None and height <= rows and width <= window[1]

    def _in_spans(self, work: _Work) -> Iterator[list[RawPart]]:
        """Cut the pictures into strips that overlap, and these into tiles."""
        s, sources, height, width = self.scale, work.sources, work.height, work.width
        halo = self.margin + work.context
        window = self._window(height, width, work.layers)
        rows = max(min(window[0], self._strip_rows(width, len(sources))), 3 * halo + 1)
        self._tell_approximate(height, width, (min(rows, window[0]), window[1]))
        kernel: Batch | None = None
        for span in spans(height, rows, halo, self.geometry.multiple_of):
            stored = [source(span.start, span.stop) for source in sources]
            batch = planes([layer for part in stored for layer in layers(part)])
            if kernel is None or len(kernel) != len(batch):
                kernel = self.estimate_kernel(batch)
            restored = self.restore(batch, _shifted(work.progress, span, height, width), kernel)
            inner = span.inner(s)
            yield unlayered(restored[:, :, inner], stored, inner, s)

    def _streamed(self, session: StreamingSession, work: _Work) -> Iterator[list[RawPart]]:
        """Feed the pictures to the network from top to bottom; no row is computed twice."""
        height, width, context = work.height, work.width, work.context
        streams = self._streams(session, height, width, work.layers, self.tile)
        alphas = [_Above() for _ in work.sources]
        given = 0
        for top in range(0, height, streams[0].step):
            bottom = min(top + streams[0].step, height)
            first, last = max(0, top - context), min(height, bottom + context)
            stored = [source(first, last) for source in work.sources]
            batch = planes([layer for part in stored for layer in layers(part, always=True)])
            restored = self._fed(streams, batch[:, :, top - first : bottom - first])
            for above, (_, alpha) in zip(alphas, stored, strict=True):
                above.add(None if alpha is None else alpha[top - first : bottom - first])
            rows = restored.shape[2] // int(self.scale)
            work.progress(bottom * width, height * width)
            if rows:
                around = [above.around(given, given + rows) for above in alphas]
                given += rows
                yield _from_stream(restored, stored, around, self.scale)

    def _streams(
        self, session: StreamingSession, height: int, width: int, count: int, tile: int | None
    ) -> list[RowStream]:
        """Begin a stream for each layer; they share the memory."""
        memory = self._share(NETWORK_SHARE) // count
        return [session.stream(height, width, memory=memory, tile=tile) for _ in range(count)]

    def _in_windows(self, session: StreamingSession, work: _Work) -> Iterator[list[RawPart]]:
        """Cut pictures that are too wide into windows, and stream each from top to bottom.

        Windows overlap so far, and begin at such places, that the digits are those of the whole.
        """
        margin, period = session.exact_margin, session.period
        height, width = work.height, work.width
        rows, columns = self._window_sides(session, work)
        across = spans(width, columns, margin, period)
        for down in spans(height, rows, margin, period):
            stored = [source(down.start, down.stop) for source in work.sources]
            made = [_Canvas(part, down, width, self.scale) for part in stored]
            for span in across:
                cut = [_columns(part, span.start, span.stop) for part in stored]
                for top, parts in self._window_rows(session, cut, down, span, work):
                    for canvas, part in zip(made, parts, strict=True):
                        canvas.put(part, top, span.outer(self.scale))
                done = down.first * width + (down.last - down.first) * span.last
                work.progress(done, height * width)
            result = [canvas.part for canvas in made]
            del made, canvas, part, parts
            yield result
            del result

    def _window_sides(self, session: StreamingSession, work: _Work) -> tuple[int, int]:
        """Choose rows and columns of windows, with their halos, by what memory there is."""
        margin, period = session.exact_margin, session.period
        height, width, count = work.height, work.width, work.layers
        bytes_of_row = sum(_bytes_of_row(source(0, 1), self.scale) for source in work.sources)
        least = 4 * margin + period  # smaller windows take several times as long
        share = self._share(NETWORK_SHARE) // count
        each = session.stream_needs(least, 1024, memory=0, tile=None) / 1024
        columns = min(width, max(least, int(share / each)))
        rows = max(least, self._share(ROWS_SHARE) // bytes_of_row + 2 * margin)
        needs = int(columns * each) * count + (rows - 2 * margin) * bytes_of_row
        limit = self._share(NETWORK_SHARE + ROWS_SHARE)
        free = free_memory()
        if needs > limit and free is not None and needs + FIXED > free:
            raise MemoryExhaustedError(
                f"{width} x {height} pixels need about {needs + FIXED >> 20} MB, and "
                f"{free >> 20} MB are free. Close other programs, or choose a smaller model."
            )
        if needs > limit * SMALL and not self._said_small:
            self._said_small = True
            self.note(
                f"{width} x {height} pixels need about {needs * self.lanes >> 20} MB, more than "
                "--memory allows"
            )
        return min(height, rows), columns

    def _window_rows(
        self,
        session: StreamingSession,
        cut: Sequence[Part],
        down: Span,
        span: Span,
        work: _Work,
    ) -> Iterator[tuple[int, list[RawPart]]]:
        """Restore one window of each picture; yields rows without the halo, and where they begin.

        They are counted in output pixels from where the tile begins.
        """
        s = self.scale
        rows, columns = cut[0][0].shape[:2]
        streams = self._streams(session, rows, columns, work.layers, None)
        step = streams[0].step
        # Colour under transparent pixels is drawn from farther than one step.
        every = (
            planes([p for part in cut for p in layers(part, always=True)])
            if work.has_alpha
            else None
        )
        inner, beside, top = down.inner(s), span.inner(s), 0
        for first in range(0, rows, step):
            if every is None:
                batch = planes([p for c, _ in cut for p in layers((c[first : first + step], None))])
            else:
                batch = every[:, :, first : first + step]
            fresh = self._fed(streams, batch)
            bottom = top + fresh.shape[2]
            begin, end = max(inner.start, top), min(inner.stop, bottom)
            if begin < end:
                kept = fresh[:, :, begin - top : end - top, beside]
                around = [_alpha_rows(alpha, begin // int(s), end // int(s)) for _, alpha in cut]
                parts = _from_stream(kept, cut, around, s, beside)
                yield begin - inner.start, parts
            top = bottom

    def _share(self, part: float) -> int:
        """Return bytes of what one lane may take, less what decoding and rounding do."""
        memory = self.memory or LARGEST_BUDGET
        return int(max(memory - FIXED // self.lanes, memory // 3) * part)

    def _fed(self, streams: Sequence[RowStream], rows: Batch) -> Batch:
        """Feed each layer to its stream, in the pool whose threads all calls share."""
        self._check_stopped()
        futures = [
            self._pool.submit(stream.feed, layer)
            for stream, layer in zip(streams, rows, strict=True)
        ]
        wait(futures)
        restored = np.stack([future.result() for future in futures])
        _check_finite(restored)
        return restored

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
        limits = self.session.limits
        most = limits[1][0] if limits else len(batch)
        parts = [slice(first, first + most) for first in range(0, len(batch), most)]
        restored = np.concatenate([self._call(batch, kernel, part) for part in parts])
        self._check_shape(batch, restored)
        _check_finite(restored)
        return restored

    def _check_shape(self, batch: Batch, restored: Batch) -> None:
        """Compare what came with what was asked for: a network may be x2 for one size only.

        Raises:
            SrcliError: They differ.
        """
        count, _, height, width = batch.shape
        wanted = (count, 3, enlarged(height, self.scale), enlarged(width, self.scale))
        if restored.shape != wanted:
            raise SrcliError(
                f"the network made {restored.shape[3]} x {restored.shape[2]} of {width} x {height} "
                f"pixels, and {wanted[3]} x {wanted[2]} were asked for. Check the network, or "
                "choose another."
            )

    @property
    def memory_of_all(self) -> int:
        """Bytes that all lanes together may take."""
        return (self.memory or 0) * self.lanes

    def close(self) -> None:
        """Free the session, and end the threads."""
        self._pool.shutdown()
        self.session.close()

    def stop(self) -> None:
        """Let whatever is being restored end soon, by `StoppedError`."""
        self._stopped = True
        self.session.cancel()
        self.session.stop()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise StoppedError

    def _call(self, batch: Batch, kernel: Batch | None, part: slice) -> Batch:
        self._check_stopped()
        session = as_blind(self.session)
        pictures = np.ascontiguousarray(batch[part])
        if session is None or kernel is None:
            return self.session(pictures)
        return session.restore(pictures, kernel[part])

    def _padded(self, batch: Batch) -> Batch:
        """Enlarge to what the network accepts, by repeating the border below and to the right."""
        limits = self.session.limits
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
        limits = self.session.limits
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
        floats = self.geometry.floats_per_pixel * self.session.memory_share
        bytes_per_pixel = 4 * floats * self.scale**2 * count
        share = self._on_device or self._share(NETWORK_SHARE)
        pixels = int(share // bytes_per_pixel)
        return choose_window(height, width, margin=self.margin, pixels=pixels)

    def _strip_rows(self, width: int, count: int) -> int:
        """How many input rows may be in work at once: their float output is held three times."""
        bytes_per_row = 4 * 3 * width * self.scale**2 * count
        on_host = ROWS_SHARE if self._on_device is None else NETWORK_SHARE + ROWS_SHARE
        return self._share(on_host) // (3 * bytes_per_row)

    def _tell_approximate(self, height: int, width: int, window: tuple[int, int]) -> None:
        """Say once that tiles change the result, for networks that look at the whole picture."""
        whole = height <= window[0] and width <= window[1]
        if whole or self.geometry.tiling == "exact" or self._said_approximate:
            return
        self._said_approximate = True
        if not self.geometry.dynamic:
            self.note(
                f"this network takes pictures of one size; {width} x {height} goes in tiles of "
                f"{window[1]} x {window[0]}, so the result is approximate."
            )
            return
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Pictures of one size on their way through the network, with their frames."""

    sources: Sequence[Sliding]
    height: int
    width: int
    has_alpha: bool
    progress: Progress

    @property
    def layers(self) -> int:
        """Pictures that the network gets, alpha counted as one of its own."""
        return len(self.sources) * (2 if self.has_alpha else 1)

    @property
    def context(self) -> int:
        """Rows around others that colour is drawn from, where it is transparent."""
        return BLEED if self.has_alpha else 0


def _check_finite(restored: Batch) -> None:
    """Raise `SrcliError` if there is anything that is no number."""
    if not np.isfinite(restored).all():
        raise SrcliError(
            "the network gave values that are not finite. Try --precision fp32, or another "
            "backend; if the weights are your own, check them."
        )


class _Inside:
    """Takes the frame away from rows of output.

    Args:
        frame: Its width, in output pixels.
        height, width: What lies inside it, in output pixels.
    """

    def __init__(self, frame: int, height: int, width: int) -> None:
        self._frame, self._height, self._width = frame, height, width

    def __call__(self, part: RawPart, top: int) -> RawPart:
        """Cut rows that begin at `top`, counted from the top of the frame."""
        color, alpha, bits = part
        first = min(max(0, self._frame - top), color.shape[0])
        last = min(max(first, self._frame + self._height - top), color.shape[0])
        columns = slice(self._frame, self._frame + self._width)
        cut = (slice(first, last), columns)
        return color[cut], None if alpha is None else alpha[cut], bits


class _Above:
    """The alpha of input rows whose output has not come yet."""

    def __init__(self) -> None:
        self._rows: Pixels | None = None
        self._top = 0

    def add(self, alpha: Pixels | None) -> None:
        """Take in the next rows."""
        if alpha is not None:
            known = self._rows
            self._rows = alpha if known is None else np.concatenate([known, alpha])

    def around(self, top: int, bottom: int) -> AlphaRows:
        """Give rows [top, bottom) with those around them; those above are let go of."""
        alpha, place = _alpha_rows(self._rows, top - self._top, bottom - self._top)
        if self._rows is not None:
            gone = max(0, top - self._top - ALPHA_REACH)
            self._rows, self._top = self._rows[gone:], self._top + gone
        return alpha, place


def _from_stream(
    restored: Batch,
    stored: Sequence[Part],
    around: Sequence[AlphaRows],
    scale: Scale,
    columns: slice = slice(None),
) -> list[RawPart]:
    """Put colour and alpha of each picture together again; `columns` of the output were cut out."""
    parts = []
    outputs = iter(restored)
    for (color, _), (alpha, place) in zip(stored, around, strict=True):
        own = [next(outputs)] + ([next(outputs)] if alpha is not None else [])
        rows = slice(enlarged(place.start, scale), enlarged(place.stop, scale))
        held = [(color, alpha)]
        parts += unlayered(np.stack(own), held, rows, scale, columns=columns, always=True)
    return parts


def _columns(part: Part, left: int, right: int) -> Part:
    color, alpha = part
    return color[:, left:right], None if alpha is None else alpha[:, left:right]


def _alpha_rows(alpha: Pixels | None, top: int, bottom: int) -> AlphaRows:
    """Return rows of alpha with what `unlayered` looks at around them, and where they are."""
    if alpha is None:
        return None, slice(0, bottom - top)
    first = max(0, top - ALPHA_REACH)
    return alpha[first : bottom + ALPHA_REACH], slice(top - first, bottom - first)


def _bytes_of_row(part: Part, scale: Scale) -> int:
    """Return what a row of a picture takes: as it is, and its output as floats."""
    color, alpha = part
    values = color[0].size + (0 if alpha is None else alpha[0].size)
    return int(values * (color.itemsize + 4 * scale**2))


class _Canvas:
    """Rows of output that windows are put into."""

    def __init__(self, part: Part, down: Span, width: int, scale: Scale) -> None:
        color, alpha = part
        rows = down.outer(scale)
        shape = rows.stop - rows.start, enlarged(width, scale)
        self._color = np.empty((*shape, color.shape[2]), np.float32)
        self._alpha = None if alpha is None else np.empty((*shape, 1), np.float32)
        self._bits = 8 * color.itemsize

    def put(self, part: RawPart, top: int, columns: slice) -> None:
        """Put rows in their place."""
        color, alpha, _ = part
        place = slice(top, top + color.shape[0]), columns
        self._color[place] = color
        if self._alpha is not None:
            self._alpha[place] = alpha

    @property
    def part(self) -> RawPart:
        """What was put together."""
        return self._color, self._alpha, self._bits


def _middle(batch: Batch, window: tuple[int, int]) -> Batch:
    """The part of at most `window` in the middle of n x 3 x h x w."""
    top, left = (
        max(0, (side - most) // 2) for side, most in zip(batch.shape[2:], window, strict=True)
    )
    return batch[:, :, top : top + window[0], left : left + window[1]]


def _shifted(progress: Progress, span: Span, height: int, width: int) -> Progress:
    """Progress within a strip as progress within the picture."""

    def advance(done: int, total: int) -> None:
        rows = span.first + (span.last - span.first) * done / total
        progress(round(rows * width), height * width)

    return advance
