"""Take pictures through a network row by row: whole rows, or windows that overlap.

No row is computed twice within a stream, and memory grows with the width only. A picture that is
too wide for the memory goes in windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from srcli.backends.base import Images, RowStream, StreamingSession
from srcli.errors import MemoryExhaustedError
from srcli.images import Pixels
from srcli.models.spec import Scale
from srcli.pipeline.budget import FIXED
from srcli.pipeline.planes import ALPHA_REACH, Part, layers, planes, unlayered
from srcli.pipeline.tiling import Span, enlarged, spans
from srcli.pipeline.work import NETWORK_SHARE, ROWS_SHARE, RawPart, Work, check_finite
from srcli.system.machine import free_memory

AlphaRows = tuple[Pixels | None, slice]
"""Rows of alpha with neighbours that `unlayered` needs, and where the rows begin and end there."""

SMALL = 1.1  # how much more than the limit is not worth a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """A feeder of pictures to a session that takes them a few rows at a time."""

    session: StreamingSession
    scale: Scale
    tile: int | None
    concurrency: int
    share: Callable[[float], int]
    """Function from a fraction to the bytes of that part of one call's memory."""

    submit: Callable[[Callable[[Images], Images], Images], Future[Images]]
    """Function that calls another in the pool whose threads all calls share."""

    note: Callable[[str], None]
    _told: set[str] = field(default_factory=set)

    def fits(self, work: Work) -> bool:
        """Tell whether whole rows of the pictures fit into the memory."""
        share = self.share(NETWORK_SHARE) // work.layers
        needs = self.session.stream_needs(work.height, work.width, memory=share, tile=self.tile)
        return self.tile is not None or needs <= share * SMALL

    def streamed(self, work: Work) -> Iterator[list[RawPart]]:
        """Feed the pictures to the network from top to bottom; no row is computed twice."""
        height, width, context = work.height, work.width, work.context
        streams = self._streams(height, width, work.layers, self.tile)
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

    def _streams(self, height: int, width: int, count: int, tile: int | None) -> list[RowStream]:
        """Begin a stream for each layer; they share the memory."""
        memory = self.share(NETWORK_SHARE) // count
        return [self.session.stream(height, width, memory=memory, tile=tile) for _ in range(count)]

    def in_windows(self, work: Work) -> Iterator[list[RawPart]]:
        """Cut pictures that are too wide into windows, and stream each from top to bottom.

        Windows overlap so far, and begin at such places, that the digits are those of the whole.
        """
        margin, period = self.session.exact_margin, self.session.period
        height, width = work.height, work.width
        rows, columns = self._window_sides(work)
        across = spans(width, columns, margin, period)
        for down in spans(height, rows, margin, period):
            stored = [source(down.start, down.stop) for source in work.sources]
            made = [_Canvas(part, down, width, self.scale) for part in stored]
            for span in across:
                cut = [_columns(part, span.start, span.stop) for part in stored]
                for top, parts in self._window_rows(cut, down, span, work):
                    for canvas, part in zip(made, parts, strict=True):
                        canvas.put(part, top, span.outer(self.scale))
                done = down.first * width + (down.last - down.first) * span.last
                work.progress(done, height * width)
            result = [canvas.part for canvas in made]
            del made, canvas, part, parts
            yield result
            del result

    def _window_sides(self, work: Work) -> tuple[int, int]:
        """Choose rows and columns of windows, with their halos, by the memory."""
        margin, period = self.session.exact_margin, self.session.period
        height, width, count = work.height, work.width, work.layers
        bytes_of_row = sum(_bytes_of_row(source(0, 1), self.scale) for source in work.sources)
        minimum = 4 * margin + period  # smaller windows take several times as long
        share = self.share(NETWORK_SHARE) // count
        each = self.session.stream_needs(minimum, 1024, memory=0, tile=None) / 1024
        columns = min(width, max(minimum, int(share / each)))
        rows = max(minimum, self.share(ROWS_SHARE) // bytes_of_row + 2 * margin)
        needs = int(columns * each) * count + (rows - 2 * margin) * bytes_of_row
        limit = self.share(NETWORK_SHARE + ROWS_SHARE)
        free = free_memory()
        if needs > limit and free is not None and needs + FIXED > free:
            raise MemoryExhaustedError(
                f"{width} x {height} pixels need about {needs + FIXED >> 20} MB, and "
                f"{free >> 20} MB are free",
                "Close other programs, or choose a smaller model.",
            )
        if needs > limit * SMALL and "small" not in self._told:
            self._told.add("small")
            self.note(
                f"{width} x {height} pixels need about {needs * self.concurrency >> 20} MB, more "
                "than --memory allows"
            )
        return min(height, rows), columns

    def _window_rows(
        self,
        cut: Sequence[Part],
        down: Span,
        span: Span,
        work: Work,
    ) -> Iterator[tuple[int, list[RawPart]]]:
        """Restore one window of each picture; yields rows without the halo, and where they begin.

        They are counted in output pixels from where the tile begins.
        """
        s = self.scale
        rows, columns = cut[0][0].shape[:2]
        streams = self._streams(rows, columns, work.layers, None)
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

    def _fed(self, streams: Sequence[RowStream], rows: Images) -> Images:
        """Feed each layer to its stream, in the pool whose threads all calls share."""
        futures = [
            self.submit(stream.feed, layer) for stream, layer in zip(streams, rows, strict=True)
        ]
        wait(futures)
        restored = np.stack([future.result() for future in futures])
        check_finite(restored)
        return restored


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
        """Return rows [top, bottom) with those around them, and drop those above."""
        alpha, place = _alpha_rows(self._rows, top - self._top, bottom - self._top)
        if self._rows is not None:
            gone = max(0, top - self._top - ALPHA_REACH)
            self._rows, self._top = self._rows[gone:], self._top + gone
        return alpha, place


def _from_stream(
    restored: Images,
    stored: Sequence[Part],
    around: Sequence[AlphaRows],
    scale: Scale,
    columns: slice = slice(None),
) -> list[RawPart]:
    """Join colour and alpha of each picture again; `columns` of the output were cut out."""
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
    """Return rows of alpha with the neighbours that `unlayered` needs, and where they are."""
    if alpha is None:
        return None, slice(0, bottom - top)
    first = max(0, top - ALPHA_REACH)
    return alpha[first : bottom + ALPHA_REACH], slice(top - first, bottom - first)


def _bytes_of_row(part: Part, scale: Scale) -> int:
    """Return the bytes of a row of a picture: as it is, and of its output as floats."""
    color, alpha = part
    values = color[0].size + (0 if alpha is None else alpha[0].size)
    return int(values * (color.itemsize + 4 * scale**2))


class _Canvas:
    """A canvas of output rows that windows are put into."""

    def __init__(self, part: Part, down: Span, width: int, scale: Scale) -> None:
        color, alpha = part
        rows = down.outer(scale)
        shape = rows.stop - rows.start, enlarged(width, scale)
        self._color = np.empty((*shape, color.shape[2]), np.float32)
        self._alpha = None if alpha is None else np.empty((*shape, 1), np.float32)
        self._bits = 8 * color.itemsize

    def put(self, part: RawPart, top: int, columns: slice) -> None:
        """Write rows to their place in the canvas."""
        color, alpha, _ = part
        place = slice(top, top + color.shape[0]), columns
        self._color[place] = color
        if self._alpha is not None:
            self._alpha[place] = alpha

    @property
    def part(self) -> RawPart:
        """The rows that were put together: colour, alpha and bits."""
        return self._color, self._alpha, self._bits
