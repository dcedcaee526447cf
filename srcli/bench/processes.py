"""Processes that measure: one for each backend, so that none disturbs another's memory."""

from __future__ import annotations

import multiprocessing
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from srcli.bench.messages import Habits
from srcli.bench.rows import Row
from srcli.bench.worker import serve


class WorkerFailed(Exception):
    """A worker reported an error, or its process ended."""


class WorkerProcess:
    """A process that serves requests until it is closed."""

    def __init__(self, habits: Habits) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=serve, args=(theirs, habits), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object) -> Any:
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

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None:  # it may be in the middle of something long
            self._process.kill()
        self.close()


class WorkerProcesses:
    """The processes of all backends, each started when it is first needed."""

    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        self._stack = ExitStack()
        self._processes: dict[str, WorkerProcess] = {}

    def of(self, row: Row) -> WorkerProcess:
        if row.backend not in self._processes:
            self._processes[row.backend] = self._stack.enter_context(WorkerProcess(self._habits))
        return self._processes[row.backend]

    def clear(self) -> None:
        """Close all rows; a process that fails to is replaced when it is next needed."""
        for backend, worker in list(self._processes.items()):
            try:
                worker.ask("clear")
            except WorkerFailed:
                del self._processes[backend]

    def kill(self) -> None:
        """End all processes at once."""
        for worker in self._processes.values():
            worker.kill()
        self._processes.clear()

    def __enter__(self) -> WorkerProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
