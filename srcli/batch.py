"""Do many jobs: decoding, the network and encoding overlap, and a bad file stops only itself."""

from __future__ import annotations

import hashlib
import sys
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
from srcli.store import sha256_of

AHEAD = 2  # groups decoded before, and pictures encoded after, those in the network
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

    restorer: Callable[[int], Restorer]
    """For a network scale."""

    progress: Callable[[str], Progress]
    """Begins to show a piece of work, by its name."""

    size: int = 1
    """How many pictures of one size go through the network together."""

    resume: bool = False
    skip_existing: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What outputs depend on besides input and options: model, weights, version."""

    max_pixels: int | None = images.MAX_PIXELS
    _journals: dict[Path, Journal] = field(default_factory=dict, init=False)

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Do the jobs; yields what became of each, in order.

        Only the errors of single files are contained. Whatever ends the run early, also Ctrl-C,
        leaves every finished file whole and nothing half written.
        """
        with ExitStack() as stack:
            decoders = stack.enter_context(_executor("decode"))
            encoders = stack.enter_context(_executor("encode"))
            if self.resume:
                roots = {job.root for job in jobs if str(job.target) != STDIO}
                self._journals = {r: stack.enter_context(Journal(r)) for r in sorted(roots)}
            decoding = _ahead(decoders, self._prepare, jobs)
            yield from _behind(self._restored(decoding, encoders), AHEAD)

    def _restored(
        self, decoding: Iterator[Future[_Prepared]], encoders: ThreadPoolExecutor
    ) -> Iterator[Future[Outcome]]:
        """Each job's outcome to be, as soon as its picture has been through the network."""
        for group in _grouped((future.result() for future in decoding), self.size):
            first = group[0]
            if first.outcome is not None:
                yield _known(first.outcome)
            elif first.picture is None:
                yield _known(self._restore_large(first))
            else:
                yield from self._restore_group(group, encoders)

    def _prepare(self, job: Job) -> _Prepared:
        """Decide whether a job is to be done, and decode its picture if it fits in memory."""
        try:
            if job.error is not None:
                raise job.error
            if self.skip_existing and str(job.target) != STDIO and job.target.exists():
                return _Prepared(job, outcome=Outcome(job=job, status="skipped"))
            digest, recipe = self._identity(job)
            journal = self._journals.get(job.root)
            if journal is not None and journal.is_done(job.target, digest, recipe):
                return _Prepared(job, outcome=Outcome(job=job, status="skipped"))
            if _is_large(job):
                return _Prepared(job, digest=digest, recipe=recipe)
            picture = images.read(_source(job), max_pixels=self.max_pixels, name=job.name)
            return _Prepared(job, picture=picture, digest=digest, recipe=recipe)
        except (SrcliError, MemoryError) as error:
            return _Prepared(job, outcome=_failure(job, error))

    def _identity(self, job: Job) -> tuple[str, str]:
        """Checksums of the input, and of everything else that the output depends on."""
        if not self.resume:
            return "", ""
        try:
            content = job.content
            digest = sha256_of(job.source) if content is None else _sha256(content)
        except OSError as error:
            raise InputError(f"{job.name}: cannot be read ({error.strerror}).") from error
        size = None if job.size is None else asdict(job.size)
        return digest, recipe_of({**self.facts, "size": size, "options": asdict(job.options)})

    def _restore_group(
        self, group: Sequence[_Prepared], encoders: ThreadPoolExecutor
    ) -> Iterator[Future[Outcome]]:
        first = group[0].job
        assert first.size is not None
        label = first.name if len(group) == 1 else f"{first.name} and {len(group) - 1} more"
        started = time.monotonic()
        try:
            restored = self.restorer(first.size.network_scale).restore_all(
                [prepared.decoded for prepared in group],
                self.progress(label),
                (first.size.height, first.size.width),
            )
        except (SrcliError, MemoryError) as error:
            for prepared in group:
                yield _known(_failure(prepared.job, error))
            return
        seconds = (time.monotonic() - started) / len(group)
        for prepared, picture in zip(group, restored, strict=True):
            yield encoders.submit(self._encode, prepared, picture, seconds)

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
        started = time.monotonic()
        try:
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
                progress=self.progress(job.name),
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
    picture: Picture | None = None
    """None if the job is over, or its picture too large to be held whole."""

    outcome: Outcome | None = None
    digest: str = ""
    recipe: str = ""

    @property
    def decoded(self) -> Picture:
        assert self.picture is not None, "only small pictures are decoded ahead"
        return self.picture

    def goes_with(self, other: _Prepared) -> bool:
        """Whether both pictures can be one batch."""
        if self.picture is None or other.picture is None:
            return False
        kinds = [
            (p.color.shape, p.color.dtype, p.alpha is None) for p in (self.picture, other.picture)
        ]
        return kinds[0] == kinds[1] and self.job.size == other.job.size


def _executor(name: str) -> _Patient:
    return _Patient(1, name)


class _Patient(ThreadPoolExecutor):
    """Lets the piece at hand finish, and drops those that wait, when the block is left."""

    def __exit__(self, *details: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _ahead(
    executor: ThreadPoolExecutor, prepare: Callable[[Job], _Prepared], jobs: Iterable[Job]
) -> Iterator[Future[_Prepared]]:
    """Futures in order, a bounded number of which are being worked on."""
    pending: deque[Future[_Prepared]] = deque()
    for job in jobs:
        pending.append(executor.submit(prepare, job))
        if len(pending) > AHEAD:
            yield pending.popleft()
    yield from pending


def _behind(futures: Iterator[Future[Outcome]], bound: int) -> Iterator[Outcome]:
    """Results in order, while a bounded number of them is still being worked on."""
    pending: deque[Future[Outcome]] = deque()
    for future in futures:
        pending.append(future)
        while len(pending) > bound or (pending and pending[0].done()):
            yield pending.popleft().result()
    for future in pending:
        yield future.result()


def _grouped(prepared: Iterator[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    """Neighbours that fit together, at most `size` of them."""
    group: list[_Prepared] = []
    for entry in prepared:
        if group and (len(group) == size or not group[-1].goes_with(entry)):
            yield group
            group = []
        group.append(entry)
        if size == 1:  # nothing to wait for
            yield group
            group = []
    if group:
        yield group


def _known(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


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
