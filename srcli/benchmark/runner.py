"""Measure rows in turn, each backend in a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.benchmark.rows import Result, Row
from srcli.benchmark.worker import Truth, serve
from srcli.errors import SrcliError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LEAST_ROUNDS = 3
MOST_ROUNDS = 200
TURN = 0.25  # seconds that a row may take in one turn, at least one run
REFERENCE = "reference"  # the process that runs the published network

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All rows, and what the device can do at best."""

    results: list[Result]
    ceilings: dict[str, float]


class WorkerFailed(Exception):  # noqa: N818  told to the user as a row that failed
    """What a worker said, or that it died."""


def measure(
    rows: Sequence[Row],
    *,
    seconds: float,
    threads: int | None = None,
    longest: float | None = None,
    tell: Tell = lambda text, done, total: None,
) -> Measurement:
    """Judge and time rows.

    Args:
        rows: In the order of the table; they are measured in turn, round by round.
        seconds: To spend on timing; at least three rounds are done however long they take.
        threads: CPU threads of every backend; None for each one's own choice.
        longest: Leave out rows of which one run takes more seconds than this.
        tell: Told what goes on, and how much of it is done.

    Returns:
        A result for every row; rows that could not be run say why.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="srcli-bench-")))
        processes: dict[str, Worker] = {}

        def worker(name: str) -> Worker:
            if name not in processes:
                processes[name] = stack.enter_context(Worker())
            return processes[name]

        results = [Result(row=row) for row in rows]
        truths = _truths(rows, worker(REFERENCE), folder, tell)
        ceilings: dict[str, float] = worker(REFERENCE).ask("ceilings")
        worker(REFERENCE).close()
        for done, result in enumerate(results):
            row = result.row
            tell(f"opening {describe(row)}", done, len(results))
            _open(result, worker(row.backend), truths, threads)
        running = [result for result in results if not result.failure]
        _take_turns(running, worker, seconds, longest, tell)
    _compare(results)
    _roof(results, truths, ceilings)
    return Measurement(results=results, ceilings=ceilings)


def describe(row: Row) -> str:
    """For people."""
    width, height = row.output
    what = f"{row.model} x{row.scale} {row.graph}"
    extra = f", {row.batch} at once" if row.batch > 1 else ""
    return f"{what} {row.backend} {row.precision} {width}x{height}{extra}"


Truths = Mapping[tuple[Any, ...], tuple[Truth, dict[str, Any]] | str]
"""By subject; a text says why there is none."""


def _truths(rows: Sequence[Row], reference: Worker, folder: Path, tell: Tell) -> Truths:
    subjects = {row.subject: row for row in rows}
    truths: dict[tuple[Any, ...], tuple[Truth, dict[str, Any]] | str] = {}
    for done, (subject, row) in enumerate(subjects.items()):
        tell(f"reference for {row.model} x{row.scale}", done, len(subjects))
        try:
            truths[subject] = reference.ask("prepare", row, folder)
        except WorkerFailed as error:
            truths[subject] = str(error)
    return truths


def _open(result: Result, worker: Worker, truths: Truths, threads: int | None) -> None:
    truth = truths[result.row.subject]
    if isinstance(truth, str):
        result.failure = truth
        return
    try:
        opened = worker.ask("open", result.row, truth[0], threads)
    except WorkerFailed as error:
        result.failure = str(error)
        return
    result.error, result.tolerance = opened["error"], opened["tolerance"]
    result.facts = {**opened["facts"], "weights": opened["weights"]}


def _take_turns(
    results: Sequence[Result],
    worker: Callable[[str], Worker],
    seconds: float,
    longest: float | None,
    tell: Tell,
) -> None:
    started = time.monotonic()
    for number in range(MOST_ROUNDS):
        spent = time.monotonic() - started
        if number >= LEAST_ROUNDS and spent > seconds:
            return
        for result in results:
            if result.failure:
                continue
            tell(
                f"round {number + 1}: {describe(result.row)}",
                min(int(spent), int(seconds)),
                int(seconds),
            )
            try:
                samples, host = worker(result.row.backend).ask("sample", result.row, TURN)
            except WorkerFailed as error:
                result.failure = str(error)
                continue
            if longest is not None and min(samples) > 1e3 * longest:
                result.failure = f"one run takes {min(samples) / 1e3:.0f} s"
            result.rounds.append(samples)
            result.host += host


def _compare(results: Sequence[Result]) -> None:
    """Speed against the published network in float32 PyTorch, round by round."""
    for result in results:
        base = next((r for r in results if _is_base(r.row) and _same(r.row, result.row)), None)
        if base is None or not base.rounds or not result.rounds:
            continue
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for theirs, ours in zip(base.rounds, result.rounds, strict=False)
        ]
        result.speedup = statistics.median(ratios)


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
    """What the device's measured ceilings allow each row, and which of them binds."""
    for result in results:
        truth = truths[result.row.subject]
        if isinstance(truth, str) or result.row.graph not in truth[1]:
            continue
        products, elementwise, moved = truth[1][result.row.graph]
        result.multiply_adds = products
        rate = ceilings.get(f"{result.row.precision}_multiply_adds_per_second")
        rate = rate or ceilings["fp32_multiply_adds_per_second"]
        half = 2 if result.row.precision != "fp32" else 1
        computing = 1e3 * (products + elementwise / 2) / rate
        moving = 1e3 * moved / half / ceilings["copy_bytes_per_second"]
        attainable = max(computing, moving)
        summary = result.summary
        result.roofline = {
            "bytes_moved": moved // half,
            "compute_ms": computing,
            "memory_ms": moving,
            "bound": "compute" if computing >= moving else "memory",
            "reached": attainable / summary.median if summary else None,
        }


class Worker:
    """A process that serves requests. Closed, it is gone."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker.

        Raises:
            WorkerFailed: It raised, or the process has died.
        """
        try:
            self._connection.send((method, arguments))
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            raise WorkerFailed(f"the process died (exit code {code})") from None
        if not succeeded:
            raise WorkerFailed(answer)
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None:  # it may be in the middle of something long
            self._process.kill()
        self.close()


def check(results: Sequence[Result]) -> None:
    """Raise if nothing at all could be measured.

    Raises:
        SrcliError: With the first reason.
    """
    if results and all(result.failure for result in results):
        raise SrcliError(f"nothing could be measured: {results[0].failure}")
