"""Group pictures of a batch that go through the network together, and add up their progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from srcli.backends.base import StoppedError
from srcli.jobs.planning import Job
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
    """Progress of a batch, added up from what threads report of their pictures."""

    def __init__(self, tell: Callable[[str, int, int], None], total: int) -> None:
        self._tell, self._total = tell, max(1, total)
        self._done: dict[Path, int] = {}
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
            self._done[job.source] = round(pixels_of(job) * done / total)
            self._tell(job.name, sum(self._done.values()), self._total)


class Patient(ThreadPoolExecutor):
    """An executor that waits for its work at the end of the block, but not after an exception."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=kind is None, cancel_futures=True)
