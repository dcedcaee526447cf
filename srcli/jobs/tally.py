"""Keep the state of a batch from a list beside its journal, for `srcli batch status`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import SrcliError
from srcli.jobs.journal import Journal, shard_of
from srcli.system.files import atomic_path, open_regular

if TYPE_CHECKING:
    from srcli.jobs.job import Outcome

SECONDS = 5.0  # between two writings


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """State of one process's part of a batch."""

    total: int
    """Pictures that it has to do."""

    started: float
    """Seconds since 1970."""

    updated: float
    """The same, when this was written."""

    counts: dict[str, int]
    """Pictures by result: `done`, `failed`, `skipped`."""

    ended: bool
    """True if it came to its end."""


class Tally:
    """Counts results, and writes them into a file now and then.

    Args:
        file: The file; None writes nothing.
        total: Pictures to do.
    """

    def __init__(self, file: Path | None, total: int) -> None:
        self._file, self._total = file, total
        self._counts: Counter[str] = Counter()
        self._started = time.time()
        self._written = 0.0
        if total:
            self._write(ended=False)

    def counted(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Count results, and return them."""
        self._counts.update(outcome.status for outcome in outcomes)
        if time.monotonic() - self._written > SECONDS:
            self._write(ended=False)
        return outcomes

    def end(self) -> None:
        """Write that all is done."""
        self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        self._written = time.monotonic()
        if self._file is None:
            return
        state = State(
            total=self._total,
            started=self._started,
            updated=time.time(),
            counts=dict(self._counts),
            ended=ended,
        )
        try:
            with atomic_path(self._file) as partial:
                partial.write_text(json.dumps(asdict(state)), "utf-8")
        except (OSError, SrcliError):  # the journal says what was done; this only tells how fast
            self._file = None


def tally_for(journals: Iterable[Journal], total: int, *, listed: bool) -> Tally:
    """Begin to count: in a file beside the journal, if it is that of a list or of a shard."""
    files = [journal.file for journal in journals]
    file = files[0] if len(files) == 1 else None
    if file is None or not (listed or shard_of(file.stem)):
        return Tally(None, total)
    return Tally(file.with_suffix(".json"), total)


def read_state(file: Path) -> State | None:
    """Return the state that a process has written; None if there is none, or it is damaged."""
    try:
        with open_regular(file, follow=False) as stream:
            return State(**json.loads(stream.read()))
    except (OSError, ValueError, TypeError):
        return None
