"""What has been done in an output folder, so that an interrupted batch can go on.

One JSON object a line: an output is announced before it gets its name, and recorded after. So after
a crash every file under a final name is either recorded, announced by us, or somebody else's; the
last kind is never replaced. Names in the journal are only looked up, never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from srcli.errors import OutputError, OutputExistsError, UsageError
from srcli.files import atomic_path, leftovers
from srcli.store import sha256_of

NAME = ".srcli-journal.jsonl"
_LOCK = ".srcli-journal.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an output was made from."""

    input_sha256: str
    recipe: str
    """Checksum of everything else that the output depends on: weights, size, options, version."""

    output_sha256: str | None = None
    """None while the output is announced but not finished."""


class Journal:
    """The journal of one output folder; a context manager that keeps others out.

    Args:
        root: The folder, absolute.
        is_whole: Whether an output that is not as it was made can still be used: then somebody has
            worked on it, and it is not made again.
    """

    def __init__(self, root: Path, is_whole: Callable[[Path], bool]) -> None:
        self._is_whole = is_whole
        self.root = root
        self._file = root / NAME
        self._records: dict[str, Record] = {}
        self._guard = threading.Lock()
        self._lock = FileLock(root / _LOCK)

    def __enter__(self) -> Self:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.root}: another srcli is at work there. Wait for it, or choose another -o."
            ) from None
        except OSError as error:
            raise OutputError(f"{self.root}: cannot be written ({error.strerror}).") from error
        try:
            self._records = _read(self._file)
        except OSError as error:
            self._lock.release()
            raise OutputError(
                f"{self._file}: cannot be read ({error.strerror}). Move it away and try again."
            ) from error
        for path in leftovers(self.root):
            path.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._compact()
        finally:
            self._lock.release()
            (self.root / _LOCK).unlink(missing_ok=True)

    def is_done(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Whether the output is there, whole, and what would be made again.

        Raises:
            OutputExistsError: There is a file that this journal knows nothing of, or that somebody
                has changed since.
        """
        record = self._records.get(self._key(target))
        if not target.exists():
            return False
        if record is None:
            raise OutputExistsError(
                f"{target}: exists, but was not made by the batch to be resumed. Replace it with "
                "--overwrite, or choose another place with -o."
            )
        if record.output_sha256 is None:
            return False  # it may have got its name, or not
        if record.output_sha256 != sha256_of(target):
            if not self._is_whole(target):
                return False
            raise OutputExistsError(
                f"{target}: was changed after the batch had made it. Replace it with --overwrite, "
                "or move it away."
            )
        return (record.input_sha256, record.recipe) == (input_sha256, recipe)

    def announce(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Say that an output is about to get its name."""
        self._append(target, Record(input_sha256=input_sha256, recipe=recipe))

    def finish(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Record an output that has its name."""
        digest = sha256_of(target)
        self._append(target, Record(input_sha256=input_sha256, recipe=recipe, output_sha256=digest))

    def _append(self, target: Path, record: Record) -> None:
        with self._guard:
            self._records[self._key(target)] = record
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(_line(self._key(target), record))

    def _compact(self) -> None:
        """One line for each output, in order: the same however often the batch was interrupted."""
        if self._records:
            lines = [_line(name, self._records[name]) for name in sorted(self._records)]
            with atomic_path(self._file) as partial:
                partial.write_text("".join(lines), "utf-8")

    def _key(self, target: Path) -> str:
        path = Path(os.path.abspath(target))  # noqa: PTH100  resolve() would follow links
        return path.relative_to(self.root).as_posix()


def recipe_of(facts: Mapping[str, Any]) -> str:
    """Checksum of what an output depends on besides its input."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(name: str, record: Record) -> str:
    return json.dumps({"output": name, **asdict(record)}) + "\n"  # in ASCII: names can be anything


def _read(file: Path) -> dict[str, Record]:
    """All records; the last one of an output counts. A line cut short by a crash is left out."""
    records: dict[str, Record] = {}
    if not file.exists():
        return records
    for line in file.read_text("utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            name = str(row.pop("output"))
            records[name] = Record(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return records
