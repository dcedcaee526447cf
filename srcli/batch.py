"""Do many jobs: decoding, the network and encoding overlap, and a bad file stops only itself."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from srcli import images
from srcli.errors import InputError, MemoryExhaustedError, OutputError, SrcliError
from srcli.images import Picture, StripReader, StripWriter
from srcli.jobs import STDIO, Job
from srcli.journal import Journal, recipe_of
from srcli.pipeline import Progress, Restorer
from srcli.spec import Scale
from srcli.store import sha256_of

IN_FLIGHT = 2  # groups of pictures beyond those in the network: being decoded or encoded
IN_MEMORY = 256 << 20  # bytes of output above which a picture is done strip by strip

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job."""

    job: Job
    status: Status
    error: SrcliError | None = None
    seconds: float = 0.0
    """In the network."""

    notes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Batch:
    """Jobs, and how they are to be done."""

    restorer: Callable[[Scale], Restorer]
    """For a network scale."""

    progress: Callable[[str, int, int], None] = lambda name, done, total: None
    """Told a picture's name and how many of all pixels are done."""

    lanes: int = 1
    """How many pictures may be in the network at once."""

    size: int = 1
    """How many pictures of one size go through the network together."""

    resume: bool = False
    skip_existing: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What outputs depend on besides input and options: model, weights, version."""

    max_pixels: int | None = images.MAX_PIXELS
    _journals: dict[Path, Journal] = field(default_factory=dict, init=False)
    _network: threading.Semaphore = field(init=False)
    _progress: _Progress = field(init=False)

    def __post_init__(self) -> None:
        self._network = threading.Semaphore(self.lanes)

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Do the jobs; yields what became of each, in order.

        Each group of pictures is decoded, restored and encoded by one of a few threads, so that
        these overlap; only so many are in the network at once. Only the errors of single files are
        contained. Whatever ends the run early, also Ctrl-C, leaves every finished file whole and
        nothing half written.
        """
        self._progress = _Progress(self.progress, sum(_pixels(job) for job in jobs))
        with ExitStack() as stack:
            workers = stack.enter_context(_Patient(self.lanes + IN_FLIGHT, "picture"))
            if self.resume:
                roots = {job.root for job in jobs if str(job.target) != STDIO}
                self._journals = {
                    r: stack.enter_context(Journal(r, self._is_whole)) for r in sorted(roots)
                }
            pending: deque[Future[list[Outcome]]] = deque()
            try:
                for group in grouped(jobs, self.size):
                    pending.append(workers.submit(self._do, group))
                    while len(pending) > self.lanes + IN_FLIGHT or (pending and pending[0].done()):
                        yield from pending.popleft().result()
                for future in pending:
                    yield from future.result()
            except BaseException:
                self._progress.stop()
                raise

    def _do(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Decode, restore and encode pictures of one size."""
        prepared = [self._prepare(job) for job in jobs]
        ready = [entry for entry in prepared if isinstance(entry, _Prepared)]
        done = iter(self._restore(ready)) if ready else iter(())
        outcomes = [entry if isinstance(entry, Outcome) else next(done) for entry in prepared]
        for outcome in outcomes:
            if outcome.status != "done":
                self._progress.advance(outcome.job, 1, 1)
        return outcomes

    def _prepare(self, job: Job) -> _Prepared | Outcome:
        """Decide whether a job is to be done, and decode its picture if it fits in memory."""
        try:
            if job.error is not None:
                raise job.error
            if self.skip_existing and job.exists:
                return Outcome(job=job, status="skipped")
            digest, recipe = self._identity(job)
            journal = self._journals.get(job.root)
            if journal is not None and journal.is_done(job.target, digest, recipe):
                return Outcome(job=job, status="skipped")
            picture = None
            if not _is_large(job):
                picture = images.read(_source(job), max_pixels=self.max_pixels, name=job.name)
            return _Prepared(job, picture, digest, recipe)
        except (SrcliError, MemoryError) as error:
            return _failure(job, error)

    def _is_whole(self, file: Path) -> bool:
        try:
            images.read(file, max_pixels=self.max_pixels)
        except (SrcliError, MemoryError) as error:
            return not isinstance(error, InputError)  # else nobody knows
        return True

    def _identity(self, job: Job) -> tuple[str, str]:
        """Checksums of the input, and of everything else that the output depends on."""
        if not self.resume:
            return "", ""
        try:
            content = job.content
            digest = sha256_of(job.source) if content is None else _sha256(content)
        except OSError as error:
            raise InputError(f"{job.name}: cannot be read ({error.strerror}).") from error
        facts = {**self.facts, "size": None, "options": asdict(job.options)}
        if job.size is not None:
            # Not of the other scales that this batch happens to need.
            own = f"x{float(job.size.network_scale):g}"
            weights = self.facts.get("weights_sha256", {}).get(own)
            facts |= {"size": asdict(job.size), "weights_sha256": {own: weights}}
        return digest, recipe_of(facts)

    def _restore(self, group: Sequence[_Prepared]) -> list[Outcome]:
        first = group[0]
        if first.picture is None:
            return [self._restore_large(prepared) for prepared in group]
        assert first.job.size is not None
        size = first.job.size
        try:
            with self._network:
                started = time.monotonic()
                restored = self.restorer(size.network_scale).restore_all(
                    [prepared.decoded for prepared in group],
                    self._progress.of(*(prepared.job for prepared in group)),
                    (size.height, size.width),
                )
                seconds = (time.monotonic() - started) / len(group)
        except (SrcliError, MemoryError) as error:
            return [_failure(prepared.job, error) for prepared in group]
        return [
            self._encode(prepared, picture, seconds)
            for prepared, picture in zip(group, restored, strict=True)
        ]

    def _encode(self, prepared: _Prepared, picture: Picture, seconds: float) -> Outcome:
        job = prepared.job
        try:
            if str(job.target) == STDIO:
                _write_stdout(images.encode(picture, job.options))
            else:
                self._announce(prepared)
                images.write(picture, job.target, job.options)
                self._finish(prepared)
        except (SrcliError, MemoryError) as error:
            return _failure(job, error)
        notes = (*job.notes, *prepared.decoded.notes)
        return Outcome(job=job, status="done", seconds=seconds, notes=notes)

    def _restore_large(self, prepared: _Prepared) -> Outcome:
        """Read, restore and write a few rows at a time."""
        job = prepared.job
        try:
            with self._network:
                started = time.monotonic()
                self._announce(prepared)
                with StripReader(
                    _source(job), max_pixels=self.max_pixels, name=job.name, folder=job.root
                ) as reader:
                    self._copy_strips(job, reader)
                self._finish(prepared)
        except (SrcliError, MemoryError) as error:
            return _failure(job, error)
        seconds = time.monotonic() - started
        return Outcome(job=job, status="done", seconds=seconds, notes=job.notes)

    def _copy_strips(self, job: Job, reader: StripReader) -> None:
        assert job.size is not None
        header, size = reader.header, job.size
        restorer = self.restorer(size.network_scale)
        with StripWriter(
            job.target,
            width=size.width,
            height=size.height,
            channels=header.channels,
            has_alpha=header.has_alpha,
            bits=header.bits,
            metadata=reader.metadata,
            options=job.options,
        ) as writer:
            for color, alpha in restorer.restore_strips(
                reader.rows,
                header.height,
                header.width,
                has_alpha=header.has_alpha,
                progress=self._progress.of(job),
                size=(size.height, size.width),
            ):
                writer.write(color, alpha)

    def _announce(self, prepared: _Prepared) -> None:
        job = prepared.job
        if job.root in self._journals:
            self._journals[job.root].announce(job.target, prepared.digest, prepared.recipe)

    def _finish(self, prepared: _Prepared) -> None:
        job = prepared.job
        if job.root in self._journals:
            self._journals[job.root].finish(job.target, prepared.digest, prepared.recipe)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job on its way to the network."""

    job: Job
    picture: Picture | None
    """None if it is too large to be held whole."""

    digest: str
    recipe: str

    @property
    def decoded(self) -> Picture:
        assert self.picture is not None, "large pictures go another way"
        return self.picture


class _Progress:
    """Adds up what threads report of their pictures."""

    def __init__(self, tell: Callable[[str, int, int], None], total: int) -> None:
        self._tell, self._total = tell, max(1, total)
        self._done: dict[int, int] = {}
        self._guard = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Let whoever reports next, of a tile, go no further."""
        self._stopped = True

    def of(self, *jobs: Job) -> Progress:
        """For pictures that go through the network together."""

        def advance(done: int, total: int) -> None:
            for job in jobs:
                self.advance(job, done, total)

        return advance

    def advance(self, job: Job, done: int, total: int) -> None:
        if self._stopped:
            raise _StoppedError
        with self._guard:
            self._done[id(job)] = round(_pixels(job) * done / total)
            self._tell(job.name, sum(self._done.values()), self._total)


class _StoppedError(Exception):
    """The run has ended; nobody waits for this picture."""


class _Patient(ThreadPoolExecutor):
    """Waits for what is being done, and drops what waits, when the block is left."""

    def __exit__(self, *details: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def grouped(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Neighbours that can be one batch of pictures, at most `size` of them."""
    group: list[Job] = []
    for job in jobs:
        if group and (len(group) == size or not _fit_together(group[-1], job)):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _fit_together(first: Job, second: Job) -> bool:
    """Whether two pictures agree in size, channels and bits; known from their headers."""
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
        and not _is_large(first)
    )


def _pixels(job: Job) -> int:
    return job.header.pixels if job.header is not None else 0


def _failure(job: Job, error: SrcliError | MemoryError) -> Outcome:
    if isinstance(error, MemoryError):
        error = MemoryExhaustedError(
            f"{job.name}: out of memory. Close other programs, or give a smaller --memory."
        )
    return Outcome(job=job, status="failed", error=error)


def _is_large(job: Job) -> bool:
    if job.size is None or job.header is None or str(job.target) == STDIO:
        return False
    channels = job.header.channels + job.header.has_alpha
    return job.size.width * job.size.height * channels * (job.header.bits // 8) > IN_MEMORY


def _source(job: Job) -> Path | bytes:
    return job.source if job.content is None else job.content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_stdout(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror}).") from error
