"""Look at a picture's pixels where its file does not tell which weights suit it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from srcli.errors import InputError, SrcliError
from srcli.images import Picture, StripReader
from srcli.images.reading import Opening, read
from srcli.images.traces import quality_in_strips, quality_seen
from srcli.jobs.examining import described, examined, unreadable
from srcli.jobs.job import Job, Wishes
from srcli.jobs.steps import Rules, Step
from srcli.models.spec import Scale
from srcli.system import stores

HELD = 32 << 20  # bytes of a file that is read at once


def looked_at(
    job: Job, wishes: Wishes, decodes: Callable[[Job], bool]
) -> tuple[Job, Picture | None]:
    """Read the file of a job whose header has not been read: once, for all that is to follow.

    Args:
        job: Source and target.
        wishes: For all pictures.
        decodes: Tells from the job's size whether to decode the picture too, if its file is small.

    Raises:
        SrcliError: The picture cannot be read, or the output cannot be made.
    """
    job = _held(job)
    if job.held is None:
        job = examined(job, wishes, alone=False)
        if job.error is not None:
            raise job.error
        return job, None
    opening = Opening(job.held, max_pixels=wishes.max_pixels, name=job.name, page=job.page)
    job = described(job, opening.header, opening.metadata, wishes, alone=False)
    return job, opening.read() if decodes(job) else None


def _held(job: Job) -> Job:
    """Read the input of a job, unless it is a large file.

    Raises:
        InputError: It cannot be read.
    """
    if job.source_url is not None:
        return replace(job, held=stores.read(job.source_url))
    try:
        found = job.source.stat()
        small = stat.S_ISREG(found.st_mode) and found.st_size <= HELD
        return replace(job, held=job.source.read_bytes()) if small else job
    except OSError as error:
        raise unreadable(job, error) from error


def decided(job: Job, picture: Picture | None, max_pixels: int | None) -> Job:
    """Return a job with its final steps.

    Args:
        job: As planned.
        picture: Its pixels; None if they are too many to be held, and are read here in strips.
        max_pixels: As for `srcli.images.read`.

    Raises:
        InputError: The file is damaged.
    """
    if not job.steps_if_jpeg:
        return job
    quality = _in_strips(job, max_pixels) if picture is None else quality_seen(picture.color)
    if quality is None:
        return replace(job, steps_if_jpeg=())
    note = f"{job.name} (was in JPEG of quality {quality}): weights for photographs"
    return replace(job, steps=job.steps_if_jpeg, steps_if_jpeg=(), notes=(*job.notes, note))


def steps_of(rules: Rules, passes: Sequence[Scale], picture: Picture) -> tuple[Step, ...]:
    """Return the steps of a picture in memory, by its metadata and its pixels."""
    about = picture.metadata
    otherwise = rules.steps_if_jpeg(
        passes, about, has_alpha=picture.alpha is not None, bits=picture.bits
    )
    if otherwise and quality_seen(picture.color) is not None:
        return otherwise
    return rules.steps(passes, about)


def _in_strips(job: Job, max_pixels: int | None) -> int | None:
    with StripReader(
        job.data, max_pixels=max_pixels, name=job.name, folder=job.root, page=job.page
    ) as reader:
        return quality_in_strips(reader)


def is_whole(file: Path, max_pixels: int | None) -> bool:
    """Tell whether a file is a picture that can be read, or nobody knows."""
    try:
        read(file, max_pixels=max_pixels)
    except (SrcliError, MemoryError) as error:
        return not isinstance(error, InputError)
    return True
