"""Many files: which becomes which, in what order, and what became of each.

Everything that can be known before work is checked before work. A bad file is reported and the
others go on. Decoding, the network and encoding overlap.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from srcli.errors import InputError, OutputExistsError, SrcliError, UsageError
from srcli.images import FORMATS, Picture, SaveOptions, format_of, has_picture_suffix, read, write
from srcli.pipeline import Progress, Restorer

AHEAD = 2  # pictures decoded before, and encoded after, the one in the network
Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to restore."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job."""

    job: Job
    status: Status
    error: SrcliError | None = None
    size: tuple[int, int] | None = None
    """Width and height of the output."""

    source_size: tuple[int, int] | None = None
    """Width and height of the input."""

    seconds: float = 0.0
    """In the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How an output is called: `{stem}{suffix}{extension}`."""

    suffix: str
    """For example `_x4`."""

    format: str | None = None
    """Name of a format; None keeps the input's."""

    def target(self, source: Path, folder: Path) -> Path:
        """The output's path for an input, in a folder."""
        extension = source.suffix
        if self.format is not None:
            extension = FORMATS[self.format].suffixes[0]
        elif not has_picture_suffix(source):
            extension += ".png"
        return folder / f"{source.stem}{self.suffix}{extension}"


def plan_jobs(
    inputs: Sequence[Path], output: Path | None, naming: Naming, *, into_folder: bool
) -> list[Job]:
    """Pair each input with its output.

    Args:
        inputs: Files, in the order of work.
        output: A file (for one input), a folder, or None for beside the input.
        naming: How outputs are called.
        into_folder: Whether `output` is a folder even for one input.

    Raises:
        UsageError: Two outputs would be the same file, or an output would be its own input.
    """
    if output is not None and len(inputs) == 1 and not into_folder:
        format_of(output)  # before any work: can this be written at all?
        jobs = [Job(inputs[0], output)]
    else:
        jobs = [Job(path, naming.target(path, output or path.parent)) for path in inputs]
    _check_names(jobs)
    return jobs


def check_existing(jobs: Iterable[Job]) -> None:
    """Raise `OutputExistsError` if an output is there already."""
    present = [job.target for job in jobs if job.target.exists()]
    if present:
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise OutputExistsError(
            f"{present[0]}: exists already{more}. Replace it with --overwrite, or choose another "
            "place with -o."
        )


def run_jobs(
    jobs: Sequence[Job],
    restorer: Restorer,
    options: SaveOptions,
    progress: Callable[[Job], Progress],
) -> Iterator[Outcome]:
    """Do the jobs in order, decoding ahead and encoding behind; yields each as it is finished.

    Only errors of single files are contained; anything else ends the run.
    """
    decoders, encoders = ThreadPoolExecutor(1, "decode"), ThreadPoolExecutor(1, "encode")
    decoding: deque[Future[Picture]] = deque()
    encoding: deque[Future[Outcome]] = deque()
    waiting = iter(jobs)
    try:
        for job in jobs:
            while len(decoding) <= AHEAD and (following := next(waiting, None)) is not None:
                decoding.append(decoders.submit(read, following.source))
            encoding.append(
                _restore(job, decoding.popleft(), restorer, options, progress, encoders)
            )
            while len(encoding) > AHEAD or (encoding and encoding[0].done()):
                yield encoding.popleft().result()
        while encoding:
            yield encoding.popleft().result()
    finally:
        decoders.shutdown(cancel_futures=True)
        encoders.shutdown(cancel_futures=True)


def _restore(
    job: Job,
    decoding: Future[Picture],
    restorer: Restorer,
    options: SaveOptions,
    progress: Callable[[Job], Progress],
    encoders: ThreadPoolExecutor,
) -> Future[Outcome]:
    """Run the network on one picture and hand the result to the encoder."""
    try:
        picture = decoding.result()
        started = time.monotonic()
        restored = restorer(picture, progress(job))
    except SrcliError as error:
        failed: Future[Outcome] = Future()
        failed.set_result(Outcome(job=job, status="failed", error=error))
        return failed
    return encoders.submit(_encode, job, picture, restored, options, time.monotonic() - started)


def _encode(
    job: Job, source: Picture, restored: Picture, options: SaveOptions, seconds: float
) -> Outcome:
    try:
        write(restored, job.target, options)
    except SrcliError as error:
        return Outcome(job=job, status="failed", error=error)
    return Outcome(
        job=job,
        status="done",
        size=(restored.width, restored.height),
        source_size=(source.width, source.height),
        seconds=seconds,
    )


def _check_names(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target == job.source.resolve():
            raise UsageError(f"{job.source}: would be replaced by its own result. Choose -o.")
        other = seen.setdefault(target, job.source)
        if other is not job.source:
            raise UsageError(
                f"{other} and {job.source} would both become {job.target}. "
                "Give them different names or folders."
            )


def missing_inputs(inputs: Iterable[Path]) -> list[InputError]:
    """An error for each input that is not there."""
    return [
        InputError(f"{path}: there is no such file. Check the path.")
        for path in inputs
        if not path.exists()
    ]
