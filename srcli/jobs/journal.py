"""Record the outputs of a folder, so that an interrupted batch can go on.

The journal of a folder is a hidden folder in it, with one file for each process that works there at
the same time. A file has one JSON object a line: an output is announced before it gets its name,
and recorded after. So after a crash every file under a final name is recorded, or announced by a
batch, or not ours; a file that is not ours is never replaced. Names in the journal are only looked
up, never opened.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from srcli.checkpoints.shipped import sha256_of
from srcli.errors import OutputError, OutputExistsError
from srcli.jobs.records import Followed, Record, line_of, open_to_append, read_records, write_all
from srcli.system.cache import cache_folder
from srcli.system.files import atomic_path, sweep

NAME = ".srcli-journal"
_MAX_PROCESSES = 10_000
_SHARD = re.compile(r"shard-(\d+)-of-(\d+)(-\d+)?$")
_PATIENCE = 5.0  # seconds that another process may take from naming an output to recording it


class Journal:
    """The journal of one output folder, as a context manager.

    Several processes may have it open at once; each writes a file of its own and reads all.

    Args:
        root: The output folder, absolute.
        is_whole: Tells whether an output that is not as it was made can still be used: then
            somebody has worked on it, and it is not made again.
        name: Name of the files to write, without suffix: `main`, or that of a shard. The files of
            other shards of as many are not read: they hold none of its pictures.
        private: Keep the journal in srcli's cache. A single picture leaves no trace beside it.
        needed: Refuse what is no journal; else the batch goes on without one.
        note: Called once if the journal cannot be written; the batch then goes on without it.
    """

    def __init__(
        self,
        root: Path,
        is_whole: Callable[[Path], bool],
        *,
        name: str = "main",
        private: bool = False,
        needed: bool = False,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.root = root
        self._name = name
        self._is_whole, self._note = is_whole, note
        self._private, self._needed = private, needed
        self._folders = (private_folder(root), root / NAME)[:: 1 if private else -1]
        self._own: dict[str, Record] = {}
        self._others: dict[Path, Followed] = {}
        self._guard = threading.Lock()
        self._file: Path | None = None
        self._descriptor: int | None = None
        self._lock: FileLock | None = None
        self._is_new = False

    @property
    def file(self) -> Path | None:
        """The file that this process writes; None before it is open."""
        return self._file

    @property
    def folder(self) -> Path:
        """Folder of this journal's files."""
        return self._folders[0]

    def __enter__(self) -> Self:
        self._is_new = not os.path.lexists(self.root)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep([self.folder])
            self._file = self._claim()
            self._own = read_records(self._file)
            self._descriptor = open_to_append(self._file)
            self._read_others()
        except OSError as error:
            self._give_up(error)
        except OutputError as error:
            if self._needed:
                self._release()
                raise
            self._give_up(error)
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
        """Release the file for other processes, and remove the folder if nothing was made."""
        if self._lock is not None:
            with suppress(OSError):  # first: whoever locks it after the release must find it gone
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
        with suppress(OSError):
            self.folder.rmdir()
            if self._is_new:
                self.root.rmdir()

    def is_done(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Tell whether the output is there, whole, and made from the same input and recipe.

        Raises:
            OutputExistsError: There is a file that no journal knows, or that was changed since.
        """
        if not os.path.lexists(target):
            return False
        records = self._records(target)
        if not any(
            record.output_sha256 and record.fits(input_sha256, recipe) for record in records
        ):
            self._read_others()  # another process may have made it meanwhile
            records = self._records(target)
        made = [record for record in records if record.output_sha256 is not None]
        if not made or not target.exists():  # or it has become a link that leads nowhere
            return self._is_ours(target, records)
        digest = sha256_of(target)
        same = [record for record in made if record.output_sha256 == digest]
        if same or any(record.output_sha256 is None and not record.error for record in records):
            return any(record.fits(input_sha256, recipe) for record in same)
        if not self._is_whole(target):
            return False
        raise OutputExistsError(
            f"{target}: was changed after the batch had made it",
            "Replace it with --overwrite, or move it away.",
        )

    def is_made_meanwhile(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Tell whether another process of the batch has just given the output its name.

        It records that a moment later; waits for it.
        """
        key, end = self._key(target), time.monotonic() + _PATIENCE
        while True:
            self._read_others()
            found = [o.records[key] for o in self._others.values() if key in o.records]
            fitting = [r for r in found if r.fits(input_sha256, recipe) and r.error is None]
            digests = {record.output_sha256 for record in fitting}
            if digests - {None}:
                return sha256_of(target) in digests
            if not fitting or time.monotonic() > end:  # it has failed, or was killed
                return bool(fitting) and self._is_whole(target)
            time.sleep(0.05)

    def _is_ours(self, target: Path, records: list[Record]) -> bool:
        """Return False if the file was announced, and so may be replaced."""
        if target.exists() and any(record.error is None for record in records):
            return False  # it may have got its name, or not
        raise OutputExistsError(
            f"{target}: exists, but was not made by the batch to be resumed",
            "Replace it with --overwrite, or choose another place with -o.",
        )

    def has_failed(self, target: Path) -> bool:
        """Tell whether the last that is known of an output is that it could not be made."""
        records = self._records(target)
        failed = any(record.error is not None for record in records)
        return failed and not any(record.output_sha256 is not None for record in records)

    def knows(self, file: Path) -> bool:
        """Tell whether a file in or below the root was made by a batch."""
        return any(record.output_sha256 is not None for record in self._records(file))

    def announce(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Record that an output is about to get its name."""
        self._append(target, Record(input_sha256=input_sha256, recipe=recipe))

    def finish(self, target: Path, input_sha256: str, recipe: str) -> None:
        """Record an output that has its name."""
        digest = sha256_of(target)
        record = Record(input_sha256=input_sha256, recipe=recipe, output_sha256=digest)
        self._append(target, replace(record, size=self._size(target)))

    def _size(self, target: Path) -> int | None:
        """Return the size that is kept on record of an output that is made."""
        return None

    def fail(self, target: Path, input_sha256: str, recipe: str, error: str) -> None:
        """Record why an output was not made."""
        if not self.knows(target):  # what is there stays on record
            self._append(target, Record(input_sha256=input_sha256, recipe=recipe, error=error))

    def _records(self, target: Path) -> list[Record]:
        key = self._key(target)
        own = self._own.get(key)
        others = [other.records[key] for other in self._others.values() if key in other.records]
        return [*([own] if own else []), *others]

    def _append(self, target: Path, record: Record) -> None:
        with self._guard:
            key = self._key(target)
            self._own[key] = record
            if self._descriptor is None:
                return
            try:
                write_all(self._descriptor, line_of(key, record))
            except OSError as error:
                os.close(self._descriptor)
                self._descriptor = None
                self._give_up(error)

    def _give_up(self, error: OSError | OutputError) -> None:
        """Go on without a journal; the note says what that means."""
        if self._private and not self._needed:
            return  # nobody goes on with a single picture
        reason = f"{error}"
        if isinstance(error, OSError):
            reason = f"{self.folder}: the journal cannot be written ({error.strerror or error})."
        self._note(
            f"{reason} The batch goes on, but --resume will not know the pictures that it makes "
            "from here on."
        )

    def _claim(self) -> Path:
        """Take the first file of the journal that no other process has."""
        for number in range(1, _MAX_PROCESSES):
            name = self._name if number == 1 else f"{self._name}-{number}"
            lock = FileLock(self.folder / f"{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            except NotImplementedError:
                raise OSError(errno.ENOLCK, "the file system has no locks") from None
            self._lock = lock
            return self.folder / f"{name}.jsonl"
        raise OutputError(
            f"{self.folder}: {_MAX_PROCESSES} other processes are writing there",
            "Wait for them, or choose another folder with -o.",
        )

    def _read_others(self) -> None:
        """Read what is new in the files of all other processes."""
        with self._guard:
            files = [file for folder in self._folders for file in _listed(folder)]
            others = [file for file in files if file != self._file and not self._is_apart(file)]
            followed = {file: self._others.get(file) or Followed(file) for file in others}
            for other in followed.values():
                other.refresh()
            self._others = followed

    def _is_apart(self, file: Path) -> bool:
        """Tell whether a file is of another shard of as many."""
        own, other = shard_of(self._name), shard_of(file.stem)
        if own is None or other is None:
            return False
        return own != other and own[1] == other[1]

    def _compact(self) -> None:
        """Write one line for each output, in order: the same however often it was interrupted."""
        assert self._file is not None, "the journal is open"
        try:
            if not self._own:
                self._file.unlink(missing_ok=True)
                return
            with atomic_path(self._file) as partial:
                lines = [line_of(name, self._own[name]) for name in sorted(self._own)]
                partial.write_bytes(b"".join(lines))
        except (OSError, OutputError):
            pass  # what was appended says the same

    def _key(self, target: Path) -> str:
        path = Path(os.path.abspath(target))
        return Path(os.path.relpath(path, self.root)).as_posix()


def shard_of(name: str) -> tuple[int, int] | None:
    """Return number and count of the shard that a journal is named for; None if it is for none."""
    found = _SHARD.match(name)
    return (int(found[1]), int(found[2])) if found else None


def private_folder(root: Path) -> Path:
    """Return where the journal of single pictures of an output folder lies."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
    return cache_folder() / "journals" / name


def recipe_of(facts: Mapping[str, object]) -> str:
    """Return the checksum of what an output depends on besides its input."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return sys.intern(hashlib.sha256(text.encode()).hexdigest())


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("[!.]*.jsonl"))  # not one that is being written
    except OSError:
        return []
