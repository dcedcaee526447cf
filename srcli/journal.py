"""Record what has been done in an output folder, so that an interrupted batch can go on.

The journal of a folder is a hidden folder in it, with one file for each process that works there at
the same time. A file has one JSON object a line: an output is announced before it gets its name,
and recorded after. So after a crash every file under a final name is either recorded, announced by
a batch, or somebody else's; the last kind is never replaced. Names in the journal are only looked
up, never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from srcli.errors import OutputError, OutputExistsError
from srcli.files import atomic_path
from srcli.store import cache_folder, sha256_of

NAME = ".srcli-journal"
_MOST_PROCESSES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an output was made from."""

    input_sha256: str
    recipe: str
    """Checksum of everything else that the output depends on: weights, size, options, version."""

    output_sha256: str | None = None
    """None while the output is announced but not finished."""

    error: str | None = None
    """Why the output was not made."""

    def fits(self, input_sha256: str, recipe: str) -> bool:
        """Tell whether the same input and recipe would make the same output again."""
        return (self.input_sha256, self.recipe) == (input_sha256, recipe)


class Journal:
    """The journal of one output folder, as a context manager.

    Several processes may have it open at once; each writes a file of its own and reads all.

    Args:
        root: The output folder, absolute.
        is_whole: Whether an output that is not as it was made can still be used: then somebody has
            worked on it, and it is not made again.
        private: Keep the journal in srcli's cache. A single picture leaves no trace beside it.
        note: Told once if the journal cannot be written; the batch then goes on without it.
    """

    def __init__(
        self,
        root: Path,
        is_whole: Callable[[Path], bool],
        *,
        private: bool = False,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.root = root
        self._is_whole, self._note = is_whole, note
        self._folders = (private_folder(root), root / NAME)[:: 1 if private else -1]
        self._own: dict[str, Record] = {}
        self._others: dict[str, list[Record]] = {}
        self._seen: tuple[object, ...] = ()
        self._guard = threading.Lock()
        self._file: Path | None = None
        self._descriptor: int | None = None
        self._lock: FileLock | None = None
        self._is_new = False

    @property
    def folder(self) -> Path:
        """Where this journal's files lie."""
        return self._folders[0]

    def __enter__(self) -> Self:
        self._is_new = not self.root.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._claim()
            self._own = _read(self._file)
            self._descriptor = _opened(self._file)
            self._read_others()
        except OSError as error:
            self._give_up(error)
        except OutputError:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                self._compact()
            self._release()

    def _release(self) -> None:
        """Let others have the file, and remove the folder if nothing was made."""
        if self._lock is not None:
            self._lock.release()
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
            if self._is_new:
                self.root.rmdir()

    def is_done(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Tell whether the output is there, whole, and what would be made again.

        Raises:
            OutputExistsError: There is a file that no journal knows, or that somebody has changed
                since.
        """
        if not target.exists():
            return False
        records = self._records(target)
        if not records:
            self._read_others()  # another process may have made it meanwhile
            records = self._records(target)
        made = [record for record in records if record.output_sha256 is not None]
        if not made:
            return self._is_ours(target, records)
        digest = sha256_of(target)
        same = [record for record in made if record.output_sha256 == digest]
        if same or any(record.output_sha256 is None and not record.error for record in records):
            return any(record.fits(input_sha256, recipe) for record in same)
        if not self._is_whole(target):
            return False
        raise OutputExistsError(
            f"{target}: was changed after the batch had made it. Replace it with --overwrite, "
            "or move it away."
        )

    def _is_ours(self, target: Path, records: list[Record]) -> bool:
        """Return False if the file was announced, and so may be replaced."""
        if any(record.error is None for record in records):
            return False  # it may have got its name, or not
        raise OutputExistsError(
            f"{target}: exists, but was not made by the batch to be resumed. Replace it with "
            "--overwrite, or choose another place with -o."
        )

    def knows(self, file: Path) -> bool:
        """Tell whether a file in or below the root was made by a batch."""
        return any(record.output_sha256 is not None for record in self._records(file))

    def announce(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Say that an output is about to get its name."""
        self._append(target, Record(input_sha256=input_sha256, recipe=recipe))

    def finish(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Record an output that has its name."""
        digest = sha256_of(target)
        self._append(target, Record(input_sha256=input_sha256, recipe=recipe, output_sha256=digest))

    def fail(self, target: Path, input_sha256: str, recipe: str, error: str) -> None:
        """Record why an output was not made."""
        if not self.knows(target):  # what is there stays on record
            self._append(target, Record(input_sha256=input_sha256, recipe=recipe, error=error))

    def _records(self, target: Path) -> list[Record]:
        key = self._key(target)
        own = self._own.get(key)
        return [*([own] if own else []), *self._others.get(key, [])]

    def _append(self, target: Path, record: Record) -> None:
        with self._guard:
            key = self._key(target)
            self._own[key] = record
            if self._descriptor is None:
                return
            try:
                _write_all(self._descriptor, _line(key, record))
            except OSError as error:
                os.close(self._descriptor)
                self._descriptor = None
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Go on without a journal; the note says what that means."""
        self._note(
            f"{self.folder}: the journal cannot be written ({error.strerror or error}). The batch "
            "goes on, but --resume will not know the pictures that it makes from here on."
        )

    def _claim(self) -> Path:
        """Take the first file of the journal that no other process has."""
        for number in range(1, _MOST_PROCESSES):
            name = "main" if number == 1 else f"main-{number}"
            lock = FileLock(self.folder / f"{name}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                self._lock = lock
                return self.folder / f"{name}.jsonl"
        raise OutputError(f"{self.folder}: {_MOST_PROCESSES} other processes are at work there.")

    def _read_others(self) -> None:
        """Read the files of all other processes, if any has changed."""
        files = [file for folder in self._folders for file in _listed(folder)]
        others = [file for file in files if file != self._file]
        seen = tuple((file, *_stamp(file)) for file in others)
        if seen == self._seen:
            return
        found: dict[str, list[Record]] = {}
        for file in others:
            for name, record in _read(file).items():
                found.setdefault(name, []).append(record)
        self._others, self._seen = found, seen

    def _compact(self) -> None:
        """Write one line for each output, in order: the same however often it was interrupted."""
        assert self._file is not None, "the journal is open"
        try:
            if not self._own:
                self._file.unlink(missing_ok=True)
                return
            with atomic_path(self._file) as partial:
                lines = [_line(name, self._own[name]) for name in sorted(self._own)]
                partial.write_bytes(b"".join(lines))
        except (OSError, OutputError):
            pass  # what was appended says the same

    def _key(self, target: Path) -> str:
        path = Path(os.path.abspath(target))
        return Path(os.path.relpath(path, self.root)).as_posix()


def private_folder(root: Path) -> Path:
    """Return where the journal of single pictures of an output folder lies."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
    return cache_folder() / "journals" / name


def recipe_of(facts: Mapping[str, Any]) -> str:
    """Return the checksum of what an output depends on besides its input."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.jsonl"))
    except OSError:
        return []


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _opened(file: Path) -> int:
    """Open a journal's file to append to it; what a crash cut short gets an end of line."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags, 0o666)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                _write_all(descriptor, b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def _line(name: str, record: Record) -> bytes:
    facts = {key: value for key, value in asdict(record).items() if value is not None}
    return json.dumps({"output": name, **facts}).encode() + b"\n"  # ASCII: names can be anything


def _read(file: Path) -> dict[str, Record]:
    """Read all records; the last one of an output counts. Leaves out what a crash cut short.

    Raises:
        OutputError: It is no regular file, or cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise OutputError(f"{file}: is no journal. Move it away and try again.")
        content = file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be read ({error.strerror}). Move it away and try again."
        ) from error
    return dict(_parsed(content))


def _parsed(content: str) -> Iterator[tuple[str, Record]]:
    for line in content.split("\n"):
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            row = json.loads(line)
            yield str(row.pop("output")), Record(**row)
