"""The work of one actor on a Ray cluster, which keeps its networks and its journal open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from srcli import console
from srcli.errors import SrcliError
from srcli.jobs.stored import journal_for

if TYPE_CHECKING:
    from srcli.commands.request import RestoreRequest
    from srcli.jobs.job import Job, Outcome
    from srcli.jobs.journal import Journal
    from srcli.jobs.listed import Places
    from srcli.jobs.sizes import SizeRequest
    from srcli.models.spec import Task

NAME = "name"
"""The column with names of inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order to actors; it travels to them, pictures do not."""

    request: RestoreRequest
    task: Task
    size: SizeRequest
    base: str | None
    """Folder below which the names of outputs begin."""

    def places(self) -> Places:
        """Return the rules for the names of outputs."""
        from srcli.jobs.listed import Places

        output = self.request.output
        assert output is not None, "checked by the driver"
        return Places(output, self.request.save_options().format, self.base)

    def journal(self) -> Journal:
        """Return the next free journal for actors."""
        places = self.places()
        return journal_for(
            places.root,
            places.url,
            lambda file: True,
            name="ray",  # each takes the first file that is free
            private=False,
            needed=False,
            note=console.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result of one picture, as it travels."""

    name: str
    status: str
    error: str
    seconds: float


class Worker:
    """Restores blocks of pictures, as an actor; each picture gets a row, whatever becomes of it."""

    def __init__(self, order: Order) -> None:
        from srcli.commands.outcome import Teller
        from srcli.commands.restoring import Runner, batch_of, wishes_of

        console.set_level(console.Level.QUIET)
        self._order, self._places = order, order.places()
        # What an actor before this one has done of the same pictures is not done again.
        request = replace(order.request, resume=not order.request.overwrite)
        self._wishes = wishes_of(request, order.task, order.size)
        runner = Runner(request, order.task)
        self._batch = replace(
            batch_of(request, runner, Teller(as_events=False, quiet=True), lambda *told: None),
            load=runner.load,
            wishes=self._wishes,
            root=self._places.root,
            root_url=self._places.url,
            opened=order.journal().__enter__(),  # for as long as the actor lives; it may be killed
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Do the pictures of a block of names; return a block of rows."""
        rows = [*self.rows([str(name) for name in batch[NAME]])]
        return {field: [getattr(row, field) for row in rows] for field in Row.__dataclass_fields__}

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Do pictures, and yield the result of each."""
        left = dict.fromkeys(names)
        try:
            jobs = [self._places.job(name, self._wishes) for name in names]
            for name, outcome in self._outcomes(names, jobs):
                left.pop(name, None)
                yield _row(name, outcome)
        except (SrcliError, OSError, RuntimeError, ValueError) as error:
            for name in left:
                yield Row(name=name, status="failed", error=str(error), seconds=0.0)

    def _outcomes(self, names: Iterable[str], jobs: Sequence[Job]) -> Iterator[tuple[str, Outcome]]:
        return zip(names, self._batch.run(jobs, len(jobs)), strict=True)


def alone(order: Order, name: str) -> Row:
    """Do one picture in a process of its own."""
    (row,) = Worker(order).rows([name])
    return row


def _row(name: str, outcome: Outcome) -> Row:
    error = "" if outcome.error is None else str(outcome.error)
    return Row(name=name, status=outcome.status, error=error, seconds=outcome.seconds)
