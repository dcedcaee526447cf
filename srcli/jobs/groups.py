"""Group pictures of a batch that go through the network together, and add up their progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from srcli.backends.base import StoppedError
from srcli.images import Picture
from srcli.jobs.job import Job, Outcome
from srcli.pipeline.work import Progress

IN_MEMORY = 256 << 20  # bytes of output above which a picture is done strip by strip


def grouped(jobs: Iterable[Job], size: int, in_memory: int = IN_MEMORY) -> Iterator[list[Job]]:
    """Yield groups of neighbouring jobs that can be one batch, at most `size` in each."""
    group: list[Job] = []
    for job in jobs:
        if group and (len(group) == size or not _fit_together(group[-1], job, in_memory)):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _fit_together(first: Job, second: Job, in_memory: int) -> bool:
    """Tell whether two pictures agree in size, channels and bits, by their headers."""
    kinds = [
        job.header and (job.header.width, job.header.height, job.header.channels, job.header.bits)
        for job in (first, second)
    ]
    return (
        first.header is not None
        and second.header is not None
        and kinds[0] == kinds[1]
        and first.header.has_alpha == second.header.has_alpha
        and first.size == second.size
        and first.steps == second.steps
        and not is_large(first, in_memory)
    )


def pixels_of(job: Job) -> int:
    """Return the pixels of a picture as its header says."""
    return job.header.pixels if job.header is not None else 0


def is_large(job: Job, in_memory: int) -> bool:
    """Tell whether a picture is done strip by strip."""
    if job.size is None or job.header is None or job.to_stdout:
        return False
    channels = job.header.channels + job.header.has_alpha
    return job.size.width * job.size.height * channels * (job.header.bits // 8) > in_memory


class BatchProgress:
    """Progress of a batch, added up from what threads report of their pictures.

    Args:
        tell: Called with a picture's name, what is done, and all.
        total: Sum of all sizes.
        size_of: Function from a picture to its share of the total.
    """

    def __init__(
        self,
        tell: Callable[[str, int, int], None],
        total: int,
        size_of: Callable[[Job], int] = pixels_of,
    ) -> None:
        self._tell, self._total, self._size_of = tell, max(1, total), size_of
        self._under_way: dict[Path, int] = {}
        self._done = 0
        self._guard = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Stop each thread at its next report of a tile."""
        self._stopped = True

    def of(self, *jobs: Job) -> Progress:
        """Return the progress function for pictures that go through the network together."""

        def advance(done: int, total: int) -> None:
            for job in jobs:
                self.advance(job, done, total)

        return advance

    def advance(self, job: Job, done: int, total: int) -> None:
        if self._stopped:
            raise StoppedError
        with self._guard:
            before = self._under_way.get(job.source, 0)
            self._under_way[job.source] = now = round(self._size_of(job) * done / total)
            self._done += now - before
            self._tell(job.name, self._done, self._total)

    def finish(self, job: Job) -> None:
        """Count a picture as done, whatever became of it."""
        if self._stopped:
            return
        self.advance(job, 1, 1)
        with self._guard:
            self._under_way.pop(job.source, None)


class Patient(ThreadPoolExecutor):
    """An executor that waits for its work at the end of the block, but not after an exception."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=kind is None, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job on its way to the network."""

    job: Job
    picture: Picture | None
    """None if it is too large to be held whole."""

    digest: str
    recipe: str
    replace: bool
    """True if a file of the output's name may be replaced."""

    @property
    def decoded(self) -> Picture:
        assert self.picture is not None, "large pictures go another way"
        return self.picture


def without_content(outcome: Outcome) -> Outcome:
    """Return a result without the bytes of its input: all results may be kept."""
    if outcome.job.held is None:
        return outcome
    return replace(outcome, job=replace(outcome.job, held=None))
