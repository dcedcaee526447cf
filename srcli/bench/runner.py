"""Measure rows in turn, each backend in a process of its own.

A turn is short, and the rows of one round follow each other within seconds: what disturbs the
machine for longer disturbs all of them, and the ratios within a round stay true.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.bench.messages import Habits, Opened, Taken, Truth
from srcli.bench.processes import WorkerFailed, WorkerProcess, WorkerProcesses
from srcli.bench.rows import Result, Row, Subject
from srcli.errors import SrcliError
from srcli.system.cuda import driver
from srcli.system.machine import free_memory

if TYPE_CHECKING:
    from srcli.bench.counting import Work

MIN_ROUNDS = 3
MAX_ROUNDS = 200
TURN = 0.25  # seconds that a row may take in one turn, at least one run

QUIET = 0.2  # CPU cores that others may keep busy in a turn that counts towards a ratio
RESERVE = 1 << 30  # bytes of memory that are left to everybody else

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Results of all rows, and the measured ceilings of the device."""

    results: list[Result]
    ceilings: dict[str, float]
    stopped: BaseException | None = None
    """What ended it early, after some rows had been timed; to be raised when they are shown."""


def measure(
    rows: Sequence[Row],
    *,
    seconds: float,
    threads: int | None = None,
    apart: bool = False,
    longest: float | None = None,
    habits: Habits | None = None,
    tell: Tell = lambda text, done, total: None,
    finished: Callable[[Result], None] = lambda result: None,
) -> Measurement:
    """Check the results of rows, and time them.

    Args:
        rows: In the order of the table; they are measured in turn, round by round.
        seconds: To spend on rounds, a last one for warming up included; at least three are timed
            however long they take.
        threads: CPU threads of every backend; None for each one's own choice.
        apart: Only rows that compute the same take turns; they are closed before the next ones,
            and `seconds` is divided among them. For sweeps: so no size holds another's memory.
        longest: Leave out rows of which one run takes more seconds than this, or would at the
            pace of the largest one before.
        habits: Of the workers.
        tell: Called with a text on the work, the parts done and their total.
        finished: Called with each result when it is known.

    Returns:
        A result for every row; rows that could not be run say why. If it is interrupted, with what
        was measured until then.

    Raises:
        KeyboardInterrupt: It is interrupted before anything was measured; or another that the
            signal raises.
    """
    habits = habits or Habits()
    results = [Result(row=row) for row in rows]
    groups = _by_subject(results) if apart else [results]
    with tempfile.TemporaryDirectory(prefix="srcli-bench-") as name:
        with WorkerProcess(habits) as reference:
            truths = _truths(rows, reference, Path(name), tell)
            ceilings: dict[str, float] = reference.ask("ceilings")
        stopped: BaseException | None = None
        with WorkerProcesses(habits) as workers:
            for group in groups:
                try:
                    for result in group:
                        _foresee(result, truths, results, longest)
                    _open_all(group, workers, truths, threads, tell)
                    _take_turns(group, workers, seconds / len(groups), longest, tell)
                    workers.clear()
                except (KeyboardInterrupt, SystemExit) as signal:
                    if not any(result.rounds for result in results):
                        raise
                    workers.kill()
                    stopped = signal
                _compare(group)
                _roof(group, truths, ceilings)
                for result in group:
                    finished(result)
                if stopped is not None:
                    break
    for result in results:
        if not (result.rounds or result.failure):
            result.failure = "was not measured: the run was interrupted"
    return Measurement(results=results, ceilings=ceilings, stopped=stopped)


def describe(row: Row) -> str:
    """Describe a row for people."""
    width, height = row.output
    what = f"{row.model} x{row.scale} {row.graph}"
    extra = f", {row.batch} at once" if row.batch > 1 else ""
    return f"{what} {row.backend} {row.precision} {width}x{height}{extra}"


def _by_subject(results: Sequence[Result]) -> list[list[Result]]:
    groups: dict[Subject, list[Result]] = {}
    for result in results:
        groups.setdefault(result.row.subject, []).append(result)
    return list(groups.values())


Truths = Mapping[Subject, "tuple[Truth, dict[str, Work]] | str"]
"""The reference results, by subject; a text in their place says why there is none."""


def _foresee(
    result: Result, truths: Truths, results: Sequence[Result], longest: float | None
) -> None:
    """Leave out a row that would need more memory than there is, or too much time."""
    truth, row = truths[result.row.subject], result.row
    if isinstance(truth, str) or driver().devices:  # a GPU has memory of its own, and says so
        return
    free, work = free_memory(), truth[1].get(row.graph)
    if free is not None and work is not None and work.peak > free - RESERVE:
        result.failure = (
            f"would take {work.peak / 1e9:.0f} GB of memory; {free / 1e9:.0f} GB are free"
        )
        return
    alike = [r for r in results if _alike(r.row, row) and r.summary]
    if longest is None or not alike:
        return
    last = max(alike, key=lambda r: r.row.megapixels)
    summary = last.summary
    assert summary is not None
    expected = summary.minimum / 1e3 * row.megapixels / last.row.megapixels
    if expected > longest:
        result.failure = f"one run would take about {expected:.0f} s, more than {longest:.0f} s"


def _alike(first: Row, second: Row) -> bool:
    """Tell whether two rows differ in nothing but size and batch."""
    return replace(first, height=0, width=0, batch=0) == replace(second, height=0, width=0, batch=0)


def _truths(rows: Sequence[Row], reference: WorkerProcess, folder: Path, tell: Tell) -> Truths:
    subjects = {row.subject: row for row in rows}
    truths: dict[Subject, tuple[Truth, dict[str, Work]] | str] = {}
    for done, (subject, row) in enumerate(subjects.items()):
        tell(f"reference for {row.model} x{row.scale}", done, len(subjects))
        try:
            truths[subject] = reference.ask("prepare", row, folder)
        except WorkerFailed as error:
            truths[subject] = str(error)
    return truths


def _open_all(
    results: Sequence[Result],
    workers: WorkerProcesses,
    truths: Truths,
    threads: int | None,
    tell: Tell,
) -> None:
    for done, result in enumerate(results):
        if result.failure:
            continue
        tell(f"opening {describe(result.row)}", done, len(results))
        _open(result, workers.of(result.row), truths, threads)


def _open(result: Result, worker: WorkerProcess, truths: Truths, threads: int | None) -> None:
    truth = truths[result.row.subject]
    if isinstance(truth, str):
        result.failure = truth
        return
    try:
        opened: Opened = worker.ask("open", result.row, truth[0], threads)
    except WorkerFailed as error:
        result.failure = str(error)
        return
    result.error, result.tolerance = opened.error, opened.tolerance
    result.facts = opened.facts


def _take_turns(
    results: Sequence[Result],
    workers: WorkerProcesses,
    seconds: float,
    longest: float | None,
    tell: Tell,
) -> None:
    started = time.monotonic()
    # Opening one session disturbs the memory and caches of those before it, so each row runs once
    # more before any is timed.
    for result in results:
        if not result.failure:
            tell(f"warming up {describe(result.row)}", 0, int(seconds))
            _sample(result, workers, 0)
    for number in range(MAX_ROUNDS):
        spent = time.monotonic() - started
        if number >= MIN_ROUNDS and spent > seconds:
            return
        for result in results:
            if result.failure:
                continue
            tell(
                f"round {number + 1}: {describe(result.row)}",
                min(int(spent), int(seconds)),
                int(seconds),
            )
            taken = _sample(result, workers, TURN)
            if taken is None:
                continue
            if longest is not None and min(taken.samples) > 1e3 * longest:
                result.failure = f"one run takes {min(taken.samples) / 1e3:.0f} s"
            result.rounds.append(taken.samples)
            result.others.append(taken.others)
            result.host += taken.host
            if taken.burst is not None:
                result.bursts.append(taken.burst)
            if taken.faults is not None:
                result.faults.append(taken.faults)


def _sample(result: Result, workers: WorkerProcesses, seconds: float) -> Taken | None:
    """Let a worker measure a row for one turn; if it fails, note that and return None."""
    try:
        taken: Taken = workers.of(result.row).ask("sample", result.row, seconds)
    except WorkerFailed as error:
        result.failure = str(error)
        return None
    return taken


def _compare(results: Sequence[Result]) -> None:
    """Compare the speed with the published network in float32 PyTorch, round by round."""
    for result in results:
        base = next((r for r in results if _is_base(r.row) and _same(r.row, result.row)), None)
        if base is None or not base.rounds or not result.rounds:
            continue
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for theirs, ours in zip(base.rounds, result.rounds, strict=False)
        ]
        # Other work slows a network that waits for the slowest of its threads more than one that
        # deals out small pieces, so it changes even the ratio of two turns that both suffer.
        quiet = [
            ratio
            for ratio, *busy in zip(ratios, base.others, result.others, strict=False)
            if all(cores is None or cores <= QUIET for cores in busy)
        ]
        result.disturbed = len(quiet) < MIN_ROUNDS and len(base.others) > 0
        result.speedups = ratios if len(quiet) < MIN_ROUNDS else quiet


def _is_base(row: Row) -> bool:
    return (row.graph, row.backend, row.precision, row.cold) == (
        "published",
        "torch",
        "fp32",
        False,
    )


def _same(first: Row, second: Row) -> bool:
    return first.subject == second.subject and first.scope == second.scope


def _roof(results: Sequence[Result], truths: Truths, ceilings: Mapping[str, float]) -> None:
    """Compute the latency that the device's ceilings allow each row, and which of them binds.

    Memory: each layer's input read and output written once. What a network moves that is run
    operation by operation is told besides.
    """
    for result in results:
        truth = truths[result.row.subject]
        if isinstance(truth, str) or result.row.graph not in truth[1]:
            continue
        work = truth[1][result.row.graph]
        result.multiply_adds = work.multiply_adds
        rate = ceilings.get(f"{result.row.precision}_multiply_adds_per_second")
        rate = rate or ceilings["fp32_multiply_adds_per_second"]
        half = 2 if result.row.precision != "fp32" else 1
        computing = 1e3 * (work.multiply_adds + work.elementwise / 2) / rate
        moving = 1e3 * work.layers / half / ceilings["copy_bytes_per_second"]
        passing = 1e3 * work.moved / half / ceilings["copy_bytes_per_second"]
        attainable = max(computing, moving)
        summary = result.summary
        result.roofline = {
            "bytes_of_layers": work.layers // half,
            "bytes_moved": work.moved // half,
            "bytes_at_once": work.peak // half,
            "compute_ms": computing,
            "memory_ms": moving,
            "every_pass_ms": passing,
            "bound": "compute" if computing >= moving else "memory",
            "reached": attainable / summary.median if summary else None,
        }


def check(results: Sequence[Result]) -> None:
    """Raise if nothing at all could be measured.

    Raises:
        SrcliError: With the first reason.
    """
    if results and all(result.failure for result in results):
        raise SrcliError(
            f"nothing could be measured: {results[0].failure}",
            "Run `srcli doctor` to see what works here.",
        )
