"""Report the results of a batch: lines for people, JSON and events for programs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from srcli import console
from srcli.errors import FAILED, SrcliError
from srcli.models.spec import number

if TYPE_CHECKING:
    from srcli.commands.request import RestoreRequest
    from srcli.jobs.finding import LeftOut
    from srcli.jobs.job import Job, Outcome
    from srcli.jobs.planning import Plan
    from srcli.jobs.shards import Shard

MAX_ALIKE = 3  # notes that say the same of different files; more are counted
LONGEST_COMMAND = 2000  # letters


class Teller:
    """A reporter of one batch, as it goes on.

    Args:
        as_events: Print a JSON object a line.
        quiet: Print no lines about files: their JSON follows.
    """

    def __init__(self, *, as_events: bool, quiet: bool) -> None:
        self._as_events, self._quiet = as_events, quiet
        self._alike: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._first_error: SrcliError | None = None

    def listed(self, total: int, shard: Shard | None) -> None:
        """Tell how many pictures of a list are to be done."""
        part = f" in shard {shard}" if shard is not None else ""
        console.note(f"{total} picture{'' if total == 1 else 's'}{part}")
        if self._as_events:
            named = None if shard is None else str(shard)
            console.print_event({"event": "listed", "total": total, "shard": named})

    def planned(self, plan: Plan) -> None:
        """Tell what is to be done, and what was left out."""
        from srcli.jobs.finding import told

        for line in told(plan.left_out):
            console.note(f"note: {line}")
        if self._as_events:
            for job in plan:
                console.print_event({"event": "planned", **described(job)})
            for entry in plan.left_out:
                console.print_event({"event": "left_out", **_left_out(entry)})

    def event(self, kind: str, job: Job) -> None:
        """Tell that the work on a picture starts."""
        if self._as_events:
            console.print_event({"event": kind, "input": job.name, "output": _output(job)})

    def finished(self, outcome: Outcome) -> None:
        """Report the result of a picture."""
        job = outcome.job
        self._counts[outcome.status] += 1
        self._notes(outcome.notes)
        if outcome.error is not None:
            self._first_error = self._first_error or outcome.error
            console.error(str(outcome.error))
        if self._as_events:
            console.print_event({"event": outcome.status, **as_dict(outcome)})
        elif outcome.error is not None or self._quiet or job.to_stdout:
            return
        elif outcome.status == "skipped":
            console.report(f"{job.output}  skipped")
        else:
            console.report(f"{job.output}  {sizes(job)}  {outcome.seconds:.2f} s")

    def _notes(self, notes: Iterable[str]) -> None:
        """Write notes; those that many files share are counted after the first few."""
        for note in notes:
            kind = note.partition(": ")[2] or note
            self._alike[kind] += 1
            if self._alike[kind] <= MAX_ALIKE:
                console.note(f"note: {note}")

    @property
    def finished_count(self) -> int:
        """Number of pictures that were reported."""
        return sum(self._counts.values())

    def summary(self, left_out: int = 0) -> int:
        """Report the number of pictures by result; return the exit code.

        Args:
            left_out: Number of files that were left out.
        """
        for kind, count in self._alike.items():
            if count > MAX_ALIKE:
                console.note(f"note: {kind} ({count - MAX_ALIKE} more files)")
        counts = {status: self._counts[status] for status in ("done", "skipped", "failed")}
        if self._as_events:
            console.print_event({"event": "summary", **counts, "left_out": left_out})
        if self.finished_count != 1:
            said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            console.note(said or "nothing to do")
        if not counts["failed"]:
            return FAILED if console.lost_output() else 0
        alone = self._first_error if self.finished_count == 1 else None
        return FAILED if alone is None else alone.exit_code


def show_plan(plan: Plan, request: RestoreRequest) -> int:
    """Print what would be done; returns the exit code."""
    from srcli.jobs.finding import told

    failed = FAILED if any(job.error for job in plan) else 0
    if request.as_json:
        console.print_json(
            {
                "files": [described(job) for job in plan],
                "left_out": [_left_out(entry) for entry in plan.left_out],
            }
        )
        return failed
    if request.events is not None:
        Teller(as_events=True, quiet=True).planned(plan)
        return failed
    for line in told(plan.left_out):
        console.note(f"note: {line}")
    for job in plan:
        if job.error is not None:
            console.error(str(job.error))
        else:
            line = f"{job.name} -> {job.target}  {sizes(job)}{_kept(job, request)}"
            console.result(console.for_terminal(line))
            for note in job.notes:
                console.note(f"note: {note}")
    return failed


def result(
    facts: Mapping[str, object], outcomes: Sequence[Outcome], plan: Plan
) -> dict[str, object]:
    """Return a whole batch for JSON."""
    return {
        **facts,
        "files": [as_dict(outcome) for outcome in outcomes],
        "left_out": [_left_out(entry) for entry in plan.left_out],
    }


def tell_how_to_go_on(done: int) -> None:
    """Print the command that goes on with an interrupted batch."""
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    command = ["srcli", *arguments, "--resume"]
    line = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    if len(line) > LONGEST_COMMAND:
        line = "the same command with --resume"
    console.note(f"interrupted after {done} files. To go on: {line}")


def sizes(job: Job) -> str:
    """Return the sizes of input and output for people."""
    if job.header is None or job.size is None:
        return ""
    header, size = job.header, job.size
    return f"{header.width}x{header.height} -> {size.width}x{size.height}"


def described(job: Job) -> dict[str, object]:
    """Return a job for JSON."""
    header, size = job.header, job.size
    return {
        "input": job.name,
        "output": _output(job),
        "input_size": None if header is None else [header.width, header.height],
        "output_size": None if size is None else [size.width, size.height],
        "scale": None if size is None else number(size.network_scale),
        "steps": [step.label for step in job.steps],
        "exists": job.exists,
        "error": None if job.error is None else str(job.error),
        "notes": list(job.notes),
    }


def as_dict(outcome: Outcome) -> dict[str, object]:
    """Return the result of a job for JSON."""
    return {
        **described(outcome.job),
        "status": outcome.status,
        "error": None if outcome.error is None else str(outcome.error),
        "seconds": round(outcome.seconds, 4),
        "notes": list(outcome.notes),
    }


def _output(job: Job) -> str | None:
    return None if job.error is not None and job.target == job.source else job.output


def _left_out(entry: LeftOut) -> dict[str, str]:
    return {"path": str(entry.path), "reason": entry.reason}


def _kept(job: Job, request: RestoreRequest) -> str:
    """Say what will become of an output that is there already."""
    if request.check or not job.exists:
        return ""
    if request.resume:
        return "  (exists: kept, unless it was made otherwise)"
    return "  (exists: kept)" if request.skip_existing else "  (exists: replaced)"
