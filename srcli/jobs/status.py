"""Merge the journals of an output folder: what is done, what failed, what is left."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from srcli.checkpoints.shipped import sha256_of
from srcli.errors import InputError
from srcli.jobs.journal import NAME, shard_of
from srcli.jobs.records import Record, read_records
from srcli.jobs.stored import fetch_journals, workshop
from srcli.jobs.tally import State, read_state
from srcli.system import stores
from srcli.system.cache import remove

ALIVE = 60.0  # seconds since a process has written its state, beyond which it counts as dead


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """The state of a batch, merged from all its processes."""

    done: int
    """Outputs that are there."""

    failed: dict[str, str]
    """Reason by output, relative to the folder."""

    lost: tuple[str, ...]
    """Outputs that were made and are there no longer."""

    unfinished: int
    """Outputs that were begun and not finished."""

    total: int | None
    """Pictures of all; None if no process came from a list or a shard."""

    shards: tuple[int, int] | None
    """Number of shards that have begun, and of all; None for a batch that is not cut."""

    running: int
    """Number of processes that are at work."""

    per_second: float | None
    """Pictures a second: of the processes at work, or of the whole if there are none."""

    @property
    def missing(self) -> int | None:
        """Number of pictures that are not done and have not failed; None without a total."""
        return None if self.total is None else max(0, self.total - self.done - len(self.failed))

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest will take; None if nothing is at work."""
        if self.missing is None or not self.running or not self.per_second:
            return None
        return self.missing / self.per_second


class Outputs:
    """A folder of outputs, on a disk or in an object store.

    Args:
        place: The folder.

    Raises:
        InputError: The store does not answer.
        MissingPartError: The store's client is not installed.
    """

    def __init__(self, place: str) -> None:
        self.url = f"{place.rstrip('/')}/" if stores.is_url(place) else None
        self.folder = Path(place)
        """Folder with the journals."""

        self.name = place.rstrip("/")
        if self.url is not None:
            # Not where a batch on this machine may be writing them.
            self.folder = workshop(self.url, purpose="status")
            remove(self.folder)
            fetch_journals(self.url, self.folder / NAME)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of some outputs that are not there."""
        if self.url is None:
            return tuple(name for name in names if not os.path.lexists(self.folder / name))
        there = {name.removeprefix(self.url) for name in stores.find(self.url, recursive=True)}
        return tuple(name for name in names if name not in there)

    def flaw(self, name: str, sha256: str) -> str | None:
        """Read an output back; return what is wrong with it, or None."""
        try:
            if self.url is None:
                found = sha256_of(self.folder / name)
            elif stores.size(self.url + name) is None:
                return "is not there"
            else:
                found = hashlib.sha256(stores.read(self.url + name)).hexdigest()
        except FileNotFoundError:
            return "is not there"
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        except InputError as error:
            return f"cannot be read: {error}"
        return None if found == sha256 else "is not what the batch had made"


def read_status(outputs: Outputs) -> BatchStatus:
    """Merge all journals of a folder of outputs.

    Raises:
        InputError: There is no journal.
        OutputError: A journal cannot be read.
    """
    folder = outputs.folder
    records = merged(outputs)
    made = [name for name, record in records.items() if record.output_sha256 is not None]
    lost = outputs.missing(made)
    failed = {name: record.error for name, record in records.items() if record.error is not None}
    states = _states(folder)
    running = [state for _, state in states if _is_running(state)]
    return BatchStatus(
        done=len(made) - len(lost),
        failed=dict(sorted(failed.items())),
        lost=lost,
        unfinished=len(records) - len(made) - len(failed),
        total=_total(states),
        shards=_shards(states),
        running=len(running),
        per_second=_rate(running) if running else _rate_of_all([state for _, state in states]),
    )


def merged(outputs: Outputs) -> dict[str, Record]:
    """Return one record for each output, in order: of several the one that says most.

    Raises:
        InputError: There is no journal.
        OutputError: A journal cannot be read.
    """
    files = sorted((outputs.folder / NAME).glob("[!.]*.jsonl"))
    if not files:
        raise InputError(
            f"{outputs.name}: no batch has written there, or a single picture",
            "Name the folder that was given with -o.",
        )
    found: dict[str, Record] = {}
    for file in files:
        for name, record in read_records(file).items():
            if name not in found or _weight(record) > _weight(found[name]):
                found[name] = record
    return dict(sorted(found.items()))


def _weight(record: Record) -> int:
    return 2 if record.output_sha256 is not None else int(record.error is not None)


def _states(folder: Path) -> list[tuple[str, State]]:
    """Return the states of all processes, with the names of their journals."""
    found = ((file.stem, read_state(file)) for file in sorted((folder / NAME).glob("[!.]*.json")))
    return [(name, state) for name, state in found if state is not None]


def _is_running(state: State) -> bool:
    return not state.ended and time.time() - state.updated < ALIVE


def _rate(states: list[State]) -> float:
    return sum(_made(state) / max(state.updated - state.started, 1e-3) for state in states)


def _rate_of_all(states: list[State]) -> float | None:
    if not states:
        return None
    seconds = max(s.updated for s in states) - min(s.started for s in states)
    return sum(map(_made, states)) / max(seconds, 1e-3)


def _made(state: State) -> int:
    return state.counts.get("done", 0) + state.counts.get("failed", 0)


def _total(states: list[tuple[str, State]]) -> int | None:
    """Return the pictures of all: of the shards together, or of the list as a whole."""
    wholes = [state.total for name, state in states if shard_of(name) is None]
    by_shard = {shard: state.total for name, state in states if (shard := shard_of(name))}
    parts = sum(by_shard.values())
    return max([*wholes, parts], default=None) if states else None


def _shards(states: list[tuple[str, State]]) -> tuple[int, int] | None:
    begun = {shard for name, _ in states if (shard := shard_of(name))}
    if not begun:
        return None
    of = max(count for _, count in begun)
    return len({number for number, count in begun if count == of}), of
