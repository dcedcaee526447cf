"""Run many jobs: decoding, network and encoding overlap, and a bad file fails alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from srcli import images
from srcli.errors import MemoryExhaustedError, OutputExistsError, SrcliError
from srcli.images import Picture, StripReader, StripWriter, encode
from srcli.jobs.delivery import (
    check_whole,
    content_of,
    naming,
    preserve_facts,
    write_copy,
    write_stdout,
)
from srcli.jobs.groups import (
    IN_MEMORY,
    BatchProgress,
    Patient,
    Prepared,
    grouped,
    is_large,
    pixels_of,
    without_content,
)
from srcli.jobs.identity import identity
from srcli.jobs.job import Job, Outcome, Wishes
from srcli.jobs.journal import Journal
from srcli.jobs.looking import decided, is_whole, looked_at
from srcli.jobs.steps import Step
from srcli.jobs.stored import check_not_there, delivered, journal_for
from srcli.jobs.tally import tally_for
from srcli.pipeline.passes import Passes
from srcli.pipeline.restorer import Restorer
from srcli.system.files import sweep

IN_FLIGHT = 2  # groups of pictures beyond those in the network: being decoded or encoded
PATIENCE = 1.5  # seconds that an interrupted run waits for what is under way


@dataclass(slots=True, kw_only=True)
class Batch:
    """Jobs, and how they are to be done."""

    restorer: Callable[[Step], Restorer]
    """Function that opens the restorer for a step."""

    progress: Callable[[str, int, int], None] = lambda name, done, total: None
    """Function that is called with a picture's name, the pixels done, and all pixels."""

    concurrency: int = 1
    """Number of pictures that may be in the network at once."""

    size: int = 1
    """Number of pictures of one size that go through the network together."""

    resume: bool = False
    """Keep outputs that an earlier batch has made from the same input in the same way."""

    skip_existing: bool = False
    overwrite: bool = False
    """Replace files that no batch has made."""

    retry_failed: bool = False
    """With `resume`: do only what is on record as failed."""

    preserve: bool = False
    """Give outputs the time and the permissions of their inputs."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """Facts that outputs depend on besides input and options: model, weights, version."""

    max_pixels: int | None = images.MAX_PIXELS
    in_memory: int = IN_MEMORY
    """Bytes of output above which a picture is done strip by strip."""

    wishes: Wishes | None = None
    """Set if the headers of the jobs have not been read: each is then read in its turn."""

    root: Path | None = None
    """The folder of all outputs, if the jobs are not all known at the beginning."""

    root_url: str | None = None
    """The folder of all outputs in an object store; `root` is then where they are made."""

    journal: str = "main"
    """Name of the journal."""

    opened: Journal | None = None
    """The journal for `root`, if it is open and stays so."""

    load: Callable[[Step], object] = lambda step: None
    """Function that loads the weights of a step, for the checksums in `facts`."""

    note: Callable[[str], None] = lambda message: None
    """Function that is called with each message about the whole batch."""

    event: Callable[[str, Job], None] = lambda kind, job: None
    """Function that is called when the work on a picture starts."""

    _journals: dict[Path, Journal] = field(default_factory=dict, init=False)
    _network: threading.Semaphore = field(init=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False)
    _progress: BatchProgress = field(init=False)
    _open: dict[Step, Restorer] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._network = threading.Semaphore(self.concurrency)

    def run(self, jobs: Iterable[Job], total: int | None = None) -> Iterator[Outcome]:
        """Do the jobs, and yield the result of each, in order.

        Args:
            jobs: They are all planned before the first is done, unless `root` is set.
            total: Number of jobs, if `root` is set.

        Each group of pictures is decoded, restored and encoded by one of a few threads, so that
        these overlap; at most `concurrency` are in the network at once. Errors of single files
        become outcomes; all others end the run. However the run ends, also by Ctrl-C, finished
        files are whole and no half-written file stays.
        """
        with ExitStack() as stack:
            if self.root is None:
                jobs = tuple(jobs)
                total = len(jobs)
                self._progress = BatchProgress(self.progress, sum(map(pixels_of, jobs)))
                self._open_journals(jobs, stack)
            else:
                self._progress = BatchProgress(self.progress, total or 0, lambda job: 1)
                self._open_journal(self.root, stack, private=False)
            tally = tally_for(
                self._journals.values(), total or 0, listed=bool(self.root and not self.opened)
            )
            workers = stack.enter_context(Patient(self.concurrency + IN_FLIGHT, "picture"))
            pending: deque[Future[list[Outcome]]] = deque()
            try:
                for group in grouped(jobs, self.size, self.in_memory):
                    pending.append(workers.submit(self._do, group))
                    while len(pending) > self.concurrency + IN_FLIGHT or (
                        pending and pending[0].done()
                    ):
                        yield from tally.counted(pending.popleft().result())
                for future in pending:
                    yield from tally.counted(future.result())
            except BaseException:
                self._stop()
                wait(pending, timeout=PATIENCE)
                raise
            tally.end()

    def _open_journals(self, jobs: Sequence[Job], stack: ExitStack) -> None:
        """Open the journal of each folder of outputs, and clear what killed runs have left."""
        written = [job for job in jobs if not job.to_stdout and job.error is None]
        sweep(job.target.parent for job in written)
        for root in sorted({job.root for job in written}):
            self._open_journal(root, stack, private=len(jobs) == 1)

    def _open_journal(self, root: Path, stack: ExitStack, *, private: bool) -> None:
        if self.opened is not None:
            self._journals[root] = self.opened
            return
        journal = journal_for(
            root,
            self.root_url,
            lambda file: is_whole(file, self.max_pixels),
            name=self.journal,
            private=private,
            needed=self.resume,
            note=self.note,
        )
        self._journals[root] = stack.enter_context(journal)

    def _stop(self) -> None:
        """Let the pictures under way end soon."""
        self._progress.stop()
        for restorer in list(self._open.values()):
            restorer.stop()

    def _passes(self, job: Job) -> Passes:
        """Return the restorers for the steps of a job, one after the other."""
        with self._opening:
            self._open |= {step: self.restorer(step) for step in job.steps}
        return Passes([self._open[step] for step in job.steps])

    def _do(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Decode, restore and encode pictures of one size."""
        prepared = [self._prepare(job) for job in jobs]
        ready = [entry for entry in prepared if isinstance(entry, Prepared)]
        groups = groupby(ready, attrgetter("job.steps"))
        done = iter([outcome for _, same in groups for outcome in self._restore([*same])])
        outcomes = [entry if isinstance(entry, Outcome) else next(done) for entry in prepared]
        for outcome in outcomes:
            self._progress.finish(outcome.job)
        return [without_content(outcome) for outcome in outcomes]

    def _prepare(self, job: Job) -> Prepared | Outcome:
        """Decide whether a job is to be done, and decode its picture if it fits in memory."""
        digest = recipe = ""
        picture = None
        try:
            if job.error is not None:
                raise job.error
            if self._is_left(job):
                return Outcome(job=job, status="skipped")
            if job.target_url is not None and not (self.resume or self.overwrite):
                check_not_there(job)
            exists = self.resume and job.exists
            if self.wishes is not None:
                job, picture = looked_at(
                    job,
                    self.wishes,
                    lambda job: not exists and not is_large(job, self.in_memory),
                )
                self._load(job)
            digest, recipe = identity(job, self.facts)
            replace = self.overwrite or job.target_url is not None
            if exists:
                if self._is_done(job, digest, recipe):
                    return Outcome(job=job, status="skipped")
                replace = True
            self.event("started", job)
            if picture is None and not is_large(job, self.in_memory):
                picture = images.read(
                    job.data, max_pixels=self.max_pixels, name=job.name, page=job.page
                )
            job = decided(job, picture, self.max_pixels)
            return Prepared(job, picture, digest, recipe, replace)
        except (SrcliError, MemoryError) as error:
            return self._failure(job, error, digest, recipe)

    def _is_left(self, job: Job) -> bool:
        if self.retry_failed:
            journal = self._journals.get(job.root)
            return journal is None or not journal.has_failed(job.target)
        return self.skip_existing and job.exists

    def _load(self, job: Job) -> None:
        """Load the weights of a job whose networks were not known before."""
        with self._opening:
            for step in (*job.steps, *job.steps_if_jpeg):
                self.load(step)

    def _is_done(self, job: Job, digest: str, recipe: str) -> bool:
        journal = self._journals.get(job.root)
        try:
            return journal is not None and journal.is_done(job.target, digest, recipe)
        except OutputExistsError:
            if self.overwrite:
                return False
            raise

    def _restore(self, group: Sequence[Prepared]) -> list[Outcome]:
        first = group[0]
        if first.picture is None:
            return [self._restore_large(prepared) for prepared in group]
        assert first.job.size is not None
        size = first.job.size
        try:
            with self._network:
                started = time.monotonic()
                restored = self._passes(first.job).restore_all(
                    [prepared.decoded for prepared in group],
                    self._progress.of(*(prepared.job for prepared in group)),
                    (size.height, size.width),
                )
                seconds = (time.monotonic() - started) / len(group)
        except (SrcliError, MemoryError) as error:
            return [self._failed(prepared, error) for prepared in group]
        return [
            self._encode(prepared, picture, seconds)
            for prepared, picture in zip(group, restored, strict=True)
        ]

    def _encode(self, prepared: Prepared, picture: Picture, seconds: float) -> Outcome:
        job = prepared.job
        try:
            if job.to_stdout:
                write_stdout(content_of(job) if job.copied else encode(picture, job.options))
            else:
                self._announce(prepared)
                if job.copied:
                    write_copy(job, replace=prepared.replace)
                else:
                    images.write(picture, job.target, job.options, replace=prepared.replace)
                self._finish(prepared)
        except (SrcliError, MemoryError) as error:
            return self._failed(prepared, error)
        notes = job.notes_on(prepared.decoded.notes)
        return Outcome(job=job, status="done", seconds=seconds, notes=notes)

    def _restore_large(self, prepared: Prepared) -> Outcome:
        """Read, restore and write a few rows at a time."""
        job = prepared.job
        try:
            with self._network:
                started = time.monotonic()
                self._announce(prepared)
                with StripReader(
                    job.data,
                    max_pixels=self.max_pixels,
                    name=job.name,
                    folder=job.root,
                    page=job.page,
                ) as reader:
                    if job.copied:
                        check_whole(reader)
                        write_copy(job, replace=prepared.replace)
                    else:
                        self._restore_strips(prepared, reader)
                    notes = job.notes_on(reader.notes)
                self._finish(prepared)
        except (SrcliError, MemoryError) as error:
            return self._failed(prepared, error)
        seconds = time.monotonic() - started
        return Outcome(job=job, status="done", seconds=seconds, notes=notes)

    def _restore_strips(self, prepared: Prepared, reader: StripReader) -> None:
        job = prepared.job
        assert job.size is not None
        header, size = reader.header, job.size
        passes = self._passes(job)
        with StripWriter(
            job.target,
            width=size.width,
            height=size.height,
            channels=header.channels,
            has_alpha=header.has_alpha,
            bits=header.bits,
            metadata=reader.metadata,
            options=job.options,
            replace=prepared.replace,
        ) as writer:
            for color, alpha in passes.restore_strips(
                reader.rows,
                header.height,
                header.width,
                has_alpha=header.has_alpha,
                bits=header.bits,
                progress=self._progress.of(job),
                size=(size.height, size.width),
            ):
                writer.write(color, alpha)

    def _announce(self, prepared: Prepared) -> None:
        job = prepared.job
        if job.root in self._journals:
            self._journals[job.root].announce(job.target, prepared.digest, prepared.recipe)

    def _finish(self, prepared: Prepared) -> None:
        job = prepared.job
        if self.preserve and job.is_file_to_file:
            preserve_facts(job)
        with delivered(job):
            if job.root in self._journals:
                self._journals[job.root].finish(job.target, prepared.digest, prepared.recipe)

    def _failed(self, prepared: Prepared, error: SrcliError | MemoryError) -> Outcome:
        """Return the result of a picture whose work began and failed."""
        job = prepared.job
        if self.resume and isinstance(error, OutputExistsError) and self._is_made(prepared):
            return Outcome(job=job, status="skipped")
        return self._failure(job, error, prepared.digest, prepared.recipe)

    def _is_made(self, prepared: Prepared) -> bool:
        """Tell whether another process has made the output meanwhile; if so, record it here too."""
        target, digest, recipe = prepared.job.target, prepared.digest, prepared.recipe
        journal = self._journals.get(prepared.job.root)
        try:
            if journal is None or not journal.is_made_meanwhile(target, digest, recipe):
                return False
            journal.finish(target, digest, recipe)
        except (SrcliError, OSError):  # it has gone again
            return False
        return True

    def _failure(
        self, job: Job, error: SrcliError | MemoryError, digest: str, recipe: str
    ) -> Outcome:
        if isinstance(error, MemoryError):
            error = MemoryExhaustedError(
                f"{job.name}: out of memory", "Close other programs, or give a smaller --memory."
            )
        if job.name not in str(error):  # that of a network knows nothing of files
            error = naming(job, error)
        if job.root in self._journals:
            self._journals[job.root].fail(job.target, digest, recipe, str(error))
        return Outcome(job=job, status="failed", error=error)
