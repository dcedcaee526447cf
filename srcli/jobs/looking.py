"""Look at a picture's pixels where its file does not tell which weights suit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from srcli.images import Picture, StripReader
from srcli.images.traces import quality_in_strips, quality_seen
from srcli.jobs.planning import Job
from srcli.jobs.steps import Rules, Step
from srcli.models.spec import Scale


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
