"""Restore pictures of any size through a session of any backend.

A picture is restored strip by strip, a strip tile by tile. The same code serves a picture in memory
and one that is read, restored and written a few rows at a time; nothing but the rounding of last
digits depends on how the picture was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from srcli.backends.base import (
    BlurKernels,
    Images,
    Session,
    StoppedError,
    StreamingSession,
    as_pixels,
)
from srcli.errors import UsageError
from srcli.images import Picture
from srcli.models.spec import Geometry, Scale
from srcli.pipeline.budget import FIXED, LARGEST_BUDGET, automatic_budget, device_budget
from srcli.pipeline.planes import Finisher, Part, layers, planes, unlayered, with_pixels
from srcli.pipeline.rows import Framed, Rows, Sliding, rows_of
from srcli.pipeline.streaming import Streaming
from srcli.pipeline.tiles import Tiles
from srcli.pipeline.tiling import Span, enlarged, spans
from srcli.pipeline.whole import Whole
from srcli.pipeline.work import Progress, RawPart, Work, ignore_progress
from srcli.system.closing import Closing


@dataclass(slots=True, kw_only=True)
class Restorer(Closing):
    """A restorer of pictures of any size through one session, in tiles that fit in memory."""

    session: Session
    geometry: Geometry
    scale: Scale
    """Factor by which the session enlarges."""

    backend: str = ""
    """Name of the backend, for people."""

    tile: int | None = None
    """Side of a tile in input pixels, without its halo; None chooses by `memory`."""

    memory: int | None = None
    """Bytes that one tile may take; None chooses by the free memory, of the GPU or of the host."""

    concurrency: int = 1
    """Number of calls of the session that may be under way at once, from any thread. The
    tiles of a picture share them, and so does the memory."""

    alongside: Restorer | None = None
    """Another restorer of the same concurrency, with which threads are shared: of several networks
    open at a time no more tiles are computed at once than of one. It is closed last."""

    note: Callable[[str], None] = lambda message: None
    """Function that is called if a tile had to be made smaller, and once if tiles approximate."""

    _stopped: bool = field(default=False, init=False)
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _owns_pool: bool = field(init=False, repr=False)
    _tiles: Tiles = field(init=False, repr=False)
    _streaming: Streaming | None = field(default=None, init=False, repr=False)
    _whole: Whole | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"a tile of {self.tile} pixels is not possible", "Give at least 1.")
        free, on_device = self.session.device_memory, None
        if self.memory is None and free is not None:
            on_device = device_budget(free, self.geometry) // self.concurrency
        self.memory = (
            self.memory or automatic_budget(self.geometry, self.concurrency)
        ) // self.concurrency
        other = self.alongside
        self._owns_pool = other is None or other.concurrency != self.concurrency
        if other is not None and not self._owns_pool:
            self._pool = other._pool
        else:
            self._pool = ThreadPoolExecutor(self.concurrency, "tile")
        self._tiles = Tiles(
            session=self.session,
            geometry=self.geometry,
            scale=self.scale,
            tile=self.tile,
            on_device=on_device,
            share=self._share,
            check=self._check_stopped,
            pool=self._pool,
            note=self.note,
        )
        if (session := as_pixels(self.session)) is not None:
            self._whole = Whole(
                session=session,
                geometry=self.geometry,
                scale=self.scale,
                frame=self._frame,
                fits=self._goes_whole,
                submit=lambda call: self._pool.submit(call).result(),
            )
        if isinstance(self.session, StreamingSession):
            self._streaming = Streaming(
                session=self.session,
                scale=self.scale,
                tile=self.tile,
                concurrency=self.concurrency,
                share=self._share,
                submit=self._submit,
                note=self.note,
            )

    def __call__(
        self,
        picture: Picture,
        progress: Progress = ignore_progress,
        size: tuple[int, int] | None = None,
    ) -> Picture:
        """Restore a picture: colour and alpha, in the bits per channel that it has.

        Args:
            picture: In any size.
            progress: Called with the input pixels done and their total.
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
            progress: Called with the input pixels done and their total.
            size: Height and width to resample the results to; None for the network's own.
            bits: Per channel of the results; None keeps the pictures'.
        """
        first = pictures[0]
        self._check_stopped()
        if self._whole is not None and (made := self._whole(pictures, size, bits)) is not None:
            progress(first.height * first.width, first.height * first.width)
            return made
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
            has_alpha: True if `rows` gives alpha.
            progress: Called with the input pixels done and their total.
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
        """Yield, for each strip from top to bottom, the output of every source."""
        s = self.scale
        own_size = (enlarged(height, s), enlarged(width, s))
        finishers = [Finisher(own_size, size or own_size, bits) for _ in sources]
        frame = self._frame(height, width)
        inside = _Inside(enlarged(frame, s), *own_size)
        work = Work(
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
        """Return the width of the frame for the network; less if it takes no larger picture."""
        frame = self.geometry.frame
        multiple = self.geometry.multiple_of
        limits = self.session.limits
        if limits is not None:
            spare = [
                maximum - side for side, maximum in zip((height, width), limits[1][2:], strict=True)
            ]
            if min(spare) >= 0:
                frame = min(frame, min(spare) // 2)
                return frame // multiple * multiple
        return -(-frame // multiple) * multiple

    def _raw_strips(self, work: Work) -> Iterator[list[RawPart]]:
        """Choose how pictures go through the network: whole, streaming, or in tiles."""
        streaming = self._streaming
        if streaming is None or self._goes_whole(work.height, work.width, work.layers):
            return self._in_spans(work)
        return streaming.streamed(work) if streaming.fits(work) else streaming.in_windows(work)

    def _goes_whole(self, height: int, width: int, count: int) -> bool:
        window = self._tiles.window(height, width, count)
        rows = min(window[0], self._tiles.strip_rows(width, count))
        return self.tile is None and height <= rows and width <= window[1]

    def _in_spans(self, work: Work) -> Iterator[list[RawPart]]:
        """Cut the pictures into strips that overlap, and these into tiles."""
        s, sources, height, width = self.scale, work.sources, work.height, work.width
        halo = self.margin + work.context
        window = self._tiles.window(height, width, work.layers)
        rows = max(min(window[0], self._tiles.strip_rows(width, len(sources))), 3 * halo + 1)
        self._tiles.tell_approximate(height, width, (min(rows, window[0]), window[1]))
        kernel: BlurKernels | None = None
        for span in spans(height, rows, halo, self.geometry.multiple_of):
            stored = [source(span.start, span.stop) for source in sources]
            batch = planes([layer for part in stored for layer in layers(part)])
            if kernel is None or len(kernel) != len(batch):
                kernel = self.estimate_kernel(batch)
            restored = self.restore(batch, _shifted(work.progress, span, height, width), kernel)
            inner = span.inner(s)
            yield unlayered(restored[:, :, inner], stored, inner, s)

    def _share(self, part: float) -> int:
        """Return a part of one call's bytes, after those for decoding and rounding."""
        memory = self.memory or LARGEST_BUDGET
        return int(max(memory - FIXED // self.concurrency, memory // 3) * part)

    def _submit(self, function: Callable[[Images], Images], batch: Images) -> Future[Images]:
        self._check_stopped()
        return self._pool.submit(function, batch)

    def estimate_kernel(self, batch: Images) -> BlurKernels | None:
        """Return the blur kernels of n pictures, n x 1 x K x K; None if the network is not blind.

        Where a picture takes more memory than there is for a tile, its middle stands for it.

        Raises:
            MemoryExhaustedError: Not even the smallest tile fits.
        """
        return self._tiles.estimate_kernel(batch)

    def restore(
        self,
        batch: Images,
        progress: Progress = ignore_progress,
        kernel: BlurKernels | None = None,
    ) -> Images:
        """Restore a batch, in tiles if need be; see `Tiles.restore`."""
        return self._tiles.restore(batch, progress, kernel)

    @property
    def kernel(self) -> BlurKernels | None:
        """Blur kernels, n x 1 x K x K, of the pictures restored last, by a blind network."""
        return self._tiles.kernel

    @property
    def memory_of_all(self) -> int:
        """Bytes that all concurrent calls together may take."""
        return (self.memory or 0) * self.concurrency

    def close(self) -> None:
        """Free the session, and end the threads."""
        if self._owns_pool:
            self._pool.shutdown()
        self.session.close()

    def stop(self) -> None:
        """End what is being restored soon, by `StoppedError`."""
        self._stopped = True
        self.session.cancel()
        self.session.stop()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise StoppedError

    @property
    def margin(self) -> int:
        """Receptive field in input pixels."""
        return self.geometry.margin


class _Inside:
    """A cutter that takes the frame away from rows of output.

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


def _shifted(progress: Progress, span: Span, height: int, width: int) -> Progress:
    """Turn progress within a strip into progress within the picture."""

    def advance(done: int, total: int) -> None:
        rows = span.first + (span.last - span.first) * done / total
        progress(round(rows * width), height * width)

    return advance
