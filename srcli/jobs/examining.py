"""Find out from a picture's header what is to be done, or why it cannot be."""

from __future__ import annotations

from dataclasses import replace

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.images import (
    FORMATS,
    Header,
    SaveOptions,
    check_output,
    format_of,
    is_opaque,
    probe_all,
    writes_as,
)
from srcli.images.picture import Metadata
from srcli.jobs.job import Job, Wishes
from srcli.jobs.rewriting import can_be_copied, options_for_jpeg, steps_for_jpeg
from srcli.jobs.sizes import Size
from srcli.system.files import check_place


def examined(job: Job, wishes: Wishes, *, alone: bool) -> Job:
    """Add what the input's header tells, or the reason why the job cannot be done."""
    if job.error is not None:
        return job
    try:
        header, metadata = probe_all(
            job.data, max_pixels=wishes.max_pixels, name=job.name, page=job.page
        )
        return described(job, header, metadata, wishes, alone=alone)
    except SrcliError as error:
        return replace(job, error=error)
    except OSError as error:
        return replace(job, error=unreadable(job, error))


def unreadable(job: Job, error: OSError) -> InputError:
    """Return the error for a link to itself, or a drive that has gone."""
    problem = f"{job.name}: cannot be read ({error.strerror or error})"
    return InputError(problem, "Check the path.")


def described(job: Job, header: Header, metadata: Metadata, wishes: Wishes, *, alone: bool) -> Job:
    """Return a job with its size, its networks and its options.

    Args:
        job: Source and target.
        header: Of the source.
        metadata: Of the source.
        wishes: For all outputs.
        alone: True if it is the only picture.

    Raises:
        SrcliError: The output cannot be made.
    """
    size = wishes.size.resolve(header.width, header.height, wishes.scales, wishes.grid)
    options = job.options
    if job.to_stdout:
        options = replace(options, format=options.format or writes_as(header.format))
    elif not (wishes.own_outputs and job.exists):  # that may well stay as it is
        _check_place(job)
    chosen = options.format or format_of(job.target).name
    if header.has_alpha and not FORMATS[chosen].alpha and options.background is None:
        opaque = is_opaque(job.data, max_pixels=wishes.max_pixels, name=job.name, page=job.page)
        options = replace(options, opaque=opaque)
    options, notes = _fitting(job, options, chosen, alone=alone)
    _check_pixels(job, size, wishes.max_pixels)
    notes += check_output(
        size.width,
        size.height,
        header.has_alpha,
        header.bits,
        chosen,
        options,
        str(job.target),
        channels=header.channels,
        metadata=metadata,
    )
    notes += size.notes(str(job.target), header.width, header.height)
    steps = wishes.rules.steps(size.passes, metadata)
    copied = False
    if wishes.rules.task == "deblock" and chosen == "jpeg":
        steps = steps_for_jpeg(steps, metadata)
        copied = not steps and job.page is None and can_be_copied(options, metadata)
        options = options_for_jpeg(options, metadata)
    notes += wishes.rules.notes(job.name, size.passes, metadata, steps)
    return replace(
        job,
        header=header,
        size=size,
        steps=steps,
        steps_if_jpeg=wishes.rules.steps_if_jpeg(
            size.passes, metadata, has_alpha=header.has_alpha, bits=header.bits
        ),
        options=options,
        copied=copied,
        notes=tuple(notes),
    )


def _check_place(job: Job) -> None:
    """Raise `OutputError` if the output's place cannot take a file: found out before work."""
    try:
        check_place(job.target)
    except OSError as error:
        raise OutputError(
            f"{job.target}: cannot be written: {error.strerror}", "Choose another place with -o."
        ) from None


def _fitting(
    job: Job, options: SaveOptions, chosen: str, *, alone: bool
) -> tuple[SaveOptions, list[str]]:
    """Leave out a quality that is meant for other pictures of a mixed batch."""
    meant_for_others = options.format is None and not alone and not job.to_stdout
    if options.quality is None or FORMATS[chosen].lossy or not meant_for_others:
        return options, []
    note = f"{job.target}: {chosen} has no quality to set; --quality is for the others"
    return replace(options, quality=None), [note]


def _check_pixels(job: Job, size: Size, max_pixels: int) -> None:
    # The output is larger than the input by the square of the scale, and no bomb; but a factor of
    # a thousand is a mistake.
    limit = 64 * max_pixels
    if size.width * size.height > limit:
        raise UsageError(
            f"{job.name}: would become {size.width} x {size.height}",
            "Choose a smaller size, or raise --max-pixels.",
        )
