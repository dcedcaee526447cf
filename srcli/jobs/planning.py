"""Plan a batch before any work: its pictures, and the output of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.errors import OutputExistsError, UsageError
from srcli.images import SaveOptions
from srcli.jobs.examining import examined
from srcli.jobs.finding import (
    STDIO,
    Found,
    LeftOut,
    as_file,
    find,
    read_standard_input,
)
from srcli.jobs.job import Job, Wishes
from srcli.jobs.naming import Naming, check_forgotten_option

__all__ = ["STDIO", "Job", "Plan", "Wishes", "check_existing", "plan_jobs"]


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
    if wishes.shard is not None:
        named = {entry.source: _relative(entry) for entry in found.inputs}
        jobs = [job for job in jobs if wishes.shard.takes(named[job.source])]
    looked_at = [examined(job, wishes, alone=len(jobs) == 1) for job in jobs]
    return Plan(jobs=tuple(looked_at), left_out=tuple(left_out))


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


def _relative(found: Found) -> str:
    """Return an input's name in the folder that the user named, with slashes."""
    name = found.source if found.folder is None else found.source.relative_to(found.folder)
    return name.as_posix()


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
