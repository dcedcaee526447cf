"""Let reading, the network and writing overlap, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from srcli.video.layout import Planes

Tag = TypeVar("Tag")
Restore = Callable[[Sequence[Planes]], Sequence[Planes]]

AHEAD = 4  # frames that are read before they are needed
BEHIND = 3  # groups that may wait for the writer: encoders take frames in bursts


@dataclass(frozen=True, slots=True)
class Numbered(Generic[Tag]):
    """Planes of a frame, with what travels beside them: its time, its header."""

    planes: Planes
    tag: Tag


@dataclass(slots=True)
class Clock:
    """Seconds that each stage was busy, and frames that it did."""

    seconds: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def stage(self, name: str, frames: int = 1) -> Iterator[None]:
        """Count the time of a block as work of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            with self._guard:
                self.seconds[name] = self.seconds.get(name, 0.0) + took
                self.frames[name] = self.frames.get(name, 0) + frames

    def count(self, name: str) -> None:
        """Count a frame that took no time."""
        with self._guard:
            self.frames[name] = self.frames.get(name, 0) + 1

    def summary(self, done: int) -> str:
        """Return a line of frames a second, in all and of each stage's own work."""
        wall = max(time.monotonic() - self.began, 1e-9)
        rates = ", ".join(
            f"{name} {self.frames[name] / seconds:.1f}"
            for name, seconds in self.seconds.items()
            if seconds > 0
        )
        repeated = self.frames.get("repeated", 0)
        more = f"; {repeated} frames repeat the one before" if repeated else ""
        return f"{done} frames in {wall:.1f} s, {done / wall:.1f} a second ({rates}{more})"


class _Group:
    """Frames that go through the network together, and the future of their results."""

    def __init__(self) -> None:
        self.frames: list[Planes] = []
        self.future: Future[Sequence[Planes]] | None = None


@dataclass(slots=True)
class Overlap(Generic[Tag]):
    """A runner of frames through reading and the network, side by side and in order."""

    restore: Restore
    """Function from the planes of some frames to those of their results."""

    workers: int = 1
    """Groups of frames in the network at once."""

    batch: int = 1
    """Frames in a group."""

    clock: Clock = field(default_factory=Clock)

    def __call__(self, frames: Iterator[Numbered[Tag]]) -> Generator[Numbered[Tag], None, None]:
        """Yield restored frames in order; a frame equal to the one before it is computed once.

        Memory is bounded: `AHEAD` frames wait before the network, and as many groups as workers
        and `BEHIND` are in it or behind it.
        """
        pool = ThreadPoolExecutor(self.workers, "frame")
        reader = _Reader(frames, self.clock)
        waiting: deque[tuple[_Group, int, Tag]] = deque()
        group, last = _Group(), (_Group(), 0)
        try:
            while isinstance(frame := reader.next(), Numbered):
                if _is_repeated(frame.planes, last):
                    self.clock.count("repeated")
                else:
                    group.frames.append(frame.planes)
                    last = (group, len(group.frames) - 1)
                waiting.append((*last, frame.tag))
                if len(group.frames) == self.batch:
                    self._submit(group, pool)
                    group = _Group()
                yield from self._finished(waiting, (self.workers + BEHIND) * self.batch)
            if group.frames:
                self._submit(group, pool)
            yield from self._finished(waiting, 0)
            if frame is not None:  # what was read before the error is whole
                raise frame
        finally:
            reader.stop()
            # Not waiting: after an interruption the process ends, else closing the network waits.
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, group: _Group, pool: ThreadPoolExecutor) -> None:
        group.future = pool.submit(self.restore, list(group.frames))

    def _finished(
        self, waiting: deque[tuple[_Group, int, Tag]], allowed: int
    ) -> Iterator[Numbered[Tag]]:
        """Yield results until at most so many frames are waiting."""
        while len(waiting) > allowed:
            group, place, tag = waiting[0]
            if group.future is None:
                return
            made = group.future.result()
            waiting.popleft()
            yield Numbered(made[place], tag)


def _is_repeated(planes: Planes, last: tuple[_Group, int]) -> bool:
    group, place = last
    if not group.frames:
        return False
    before = group.frames[place]
    return all(np.array_equal(one, other) for one, other in zip(planes, before, strict=True))


class _Reader(Generic[Tag]):
    """A thread that reads frames ahead, and gives on the error that ends it."""

    def __init__(self, frames: Iterator[Numbered[Tag]], clock: Clock) -> None:
        self._frames, self._clock = frames, clock
        self._queue: queue.Queue[Numbered[Tag] | BaseException | None] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        # A daemon: it may be waiting for a pipe when the work ends.
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._stopped.is_set():
                with self._clock.stage("reading"):
                    frame = next(self._frames, None)
                if not self._put(frame) or frame is None:
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, what: Numbered[Tag] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(what, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def next(self) -> Numbered[Tag] | BaseException | None:
        """Return the next frame, or the error that ended the reading, or None at the end."""
        return self._queue.get()

    def stop(self) -> None:
        """End the thread soon, without waiting for a read that is under way."""
        self._stopped.set()
