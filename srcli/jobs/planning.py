"""Plan a batch before any work: its pictures, and the output of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srcli.errors import InputError, OutputError, OutputExistsError, SrcliError, UsageError
from srcli.images import (
    FORMATS,
    MAX_PIXELS,
    Header,
    SaveOptions,
    check_output,
    format_of,
    is_opaque,
    probe_all,
    writes_as,
)
from srcli.jobs.finding import (
    STDIN_NAME,
    STDIO,
    Found,
    LeftOut,
    as_file,
    find,
    read_standard_input,
)
from srcli.jobs.naming import Naming, check_forgotten_option
from srcli.jobs.rewriting import can_be_copied, options_for_jpeg, steps_for_jpeg
from srcli.jobs.sizes import Grid, Size, SizeRequest
from srcli.jobs.steps import Rules, Step
from srcli.system.files import check_place

__all__ = ["STDIO", "Job", "Plan", "Wishes", "check_existing", "plan_jobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to restore."""

    source: Path
    """The input; `-` for standard input."""

    target: Path
    """The output; `-` for standard output."""

    root: Path
    """The folder that all outputs of this input's kind lie in or below, in full."""

    options: SaveOptions = field(default_factory=SaveOptions)
    content: bytes | None = None
    """Content of standard input, if that is the input."""

    page: int | None = None
    """The frame or page of a file that has several, counted from 1."""

    header: Header | None = None
    size: Size | None = None
    steps: tuple[Step, ...] = ()
    """The networks that the picture goes through, one after the other."""

    steps_if_jpeg: tuple[Step, ...] = ()
    """Those that it goes through instead if its pixels have traces of JPEG; empty if these are not
    looked for."""

    copied: bool = False
    """True if the output is the input's own bytes: nothing is to be done to it."""

    notes: tuple[str, ...] = ()
    error: SrcliError | None = None
    """Reason why the picture cannot be done, if that is known before work."""

    @property
    def exists(self) -> bool:
        """True if the output's name is taken already, even by a link that leads nowhere."""
        has_name = not self.to_stdout and self.target != self.source
        return has_name and os.path.lexists(self.target)

    @property
    def to_stdout(self) -> bool:
        """True if the output goes to standard output."""
        return str(self.target) == STDIO

    @property
    def data(self) -> Path | bytes:
        """The file to be read, or all bytes of standard input."""
        return self.source if self.content is None else self.content

    @property
    def name(self) -> str:
        """Name of the input, for people."""
        return STDIN_NAME if self.content is not None else str(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Jobs, and the files that were left out."""

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Job:
        return self.jobs[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The user's options for all outputs."""

    output: str | None
    """A file, a folder (it exists, or ends in a slash), `-`, a template, or None for beside the
    input."""

    suffix: str
    """End of output names, before the suffix of the format: `_x4`."""

    size: SizeRequest
    scales: tuple[int, ...]
    """Scales of the network; for a network of any scale, at least the largest."""

    grid: Grid | None = None
    """Grid of scales if the network takes any scale; else None."""

    rules: Rules = field(default_factory=Rules)
    """Rules for the networks that each picture goes through."""

    options: SaveOptions
    recursive: bool = False
    page: int | None = None
    max_pixels: int = MAX_PIXELS
    facts: Mapping[str, str] = field(default_factory=dict)
    """Values of `{model}`, `{scale}` and `{task}` in a template."""

    own_outputs: bool = False
    """Leave out inputs that are outputs of other inputs: `*.png` finds those of an earlier run."""


def plan_jobs(inputs: Sequence[str], wishes: Wishes) -> Plan:
    """Pair each input with its output, and read each input's header.

    Args:
        inputs: Files, folders, patterns, or `-`.
        wishes: For all of them.

    Raises:
        UsageError: Outputs collide with each other or with inputs, or the wishes contradict.
        InputError: There is nothing to do.
    """
    check_forgotten_option(inputs, wishes.output)
    found = find(inputs, recursive=wishes.recursive, output=wishes.output)
    naming = Naming(
        output=wishes.output,
        suffix=wishes.suffix,
        format=wishes.options.format,
        facts=wishes.facts,
        folders=len(inputs),
        alone=len(found.inputs) == 1,
    )
    jobs = [
        replace(_job(entry, naming, wishes.options), page=wishes.page) for entry in found.inputs
    ]
    left_out = list(found.left_out)
    if wishes.own_outputs:
        jobs, own = _without_own_outputs(jobs)
        left_out += own
    _check_names(jobs)
    examined = [_examined(job, wishes, alone=len(jobs) == 1) for job in jobs]
    return Plan(jobs=tuple(examined), left_out=tuple(left_out))


def plan_file(source: str, wishes: Wishes, *, overwrite: bool) -> Plan:
    """Plan the work on one file for a program, also if its name is that of standard input.

    Raises:
        UsageError: It is a folder.
        OutputExistsError: The output is there already and may not be replaced.
        SrcliError: It cannot be read, or no output can be named.
    """
    plan = plan_jobs([source and str(as_file(source))], wishes)
    if len(plan) > 1:
        raise UsageError(f"{source}: is a folder", "Give one file.")
    if plan[0].error is not None:
        raise plan[0].error
    if plan[0].exists and not overwrite:
        raise OutputExistsError(
            f"{plan[0].target}: exists already", "Give overwrite=True, or another target."
        )
    return plan


def check_existing(jobs: Iterable[Job]) -> None:
    """Raise `OutputExistsError` if an output is there already."""
    present = [job.target for job in jobs if job.exists and job.error is None]
    if present:
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise OutputExistsError(
            f"{present[0]}: exists already{more}",
            "Replace it with --overwrite, keep it with --skip-existing, go on with --resume, or "
            "choose another place with -o.",
        )


def _job(found: Found, naming: Naming, options: SaveOptions) -> Job:
    source = found.source
    if found.error is not None:
        return Job(source=source, target=source, root=_full(source), error=found.error)
    content = read_standard_input() if str(source) == STDIO else None
    root, target = naming.target(found)
    return Job(source=source, target=target, root=_full(root), options=options, content=content)


def _full(path: Path) -> Path:
    return Path(os.path.abspath(path))  # resolve() would follow links


def _without_own_outputs(jobs: Sequence[Job]) -> tuple[list[Job], list[LeftOut]]:
    """Leave out inputs that are outputs of other inputs."""
    becoming = {_real(job.target): job for job in jobs if not job.to_stdout and not job.error}
    kept, left_out = [], []
    for job in jobs:
        maker = None if job.content is not None else becoming.get(_real(job.source))
        if maker is None or maker is job or job.error is not None:
            kept.append(job)
        else:
            left_out.append(LeftOut(job.source, "the output of another input"))
    return kept, left_out


def _real(path: Path) -> str:
    """Resolve links in a path; a path that leads nowhere stays as it is."""
    return os.path.realpath(path)


def _check_names(jobs: Sequence[Job]) -> None:
    sources = {_real(job.source) for job in jobs if job.content is None and not job.error}
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.to_stdout or job.error is not None:
            continue
        target = _real(job.target)
        if target in sources:
            raise UsageError(
                f"{job.target}: is an input and would be replaced by its own result",
                "Choose another name with -o; or, if an earlier run made it, add --resume.",
            )
        # Some file systems do not tell A from a.
        other = taken.setdefault(target.casefold(), job)
        if other is not job:
            raise UsageError(
                f"{other.name} and {job.name} would both become {job.target}",
                "Give them different names or folders.",
            )


def _examined(job: Job, wishes: Wishes, *, alone: bool) -> Job:
    """Add what the input's header tells, or the reason why the job cannot be done."""
    if job.error is not None:
        return job
    try:
        return _described(job, wishes, alone=alone)
    except SrcliError as error:
        return replace(job, error=error)
    except OSError as error:  # a link to itself, a drive that has gone
        problem = f"{job.name}: cannot be read ({error.strerror or error})"
        return replace(job, error=InputError(problem, "Check the path."))


def _described(job: Job, wishes: Wishes, *, alone: bool) -> Job:
    header, metadata = probe_all(
        job.data, max_pixels=wishes.max_pixels, name=job.name, page=job.page
    )
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
