"""Read and write the records of a journal: one JSON object a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from srcli.errors import OutputError
from srcli.system.files import NO_LINKS, NOT_REGULAR, open_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record of an output: what it was made from."""

    input_sha256: str
    recipe: str
    """Checksum of everything else that the output depends on: weights, size, options, version."""

    output_sha256: str | None = None
    """None while the output is announced but not finished."""

    size: int | None = None
    """Bytes of an output in an object store; None for files."""

    error: str | None = None
    """Reason why the output was not made; None if it was."""

    def fits(self, input_sha256: str, recipe: str) -> bool:
        """Tell whether the same input and recipe would make the same output again."""
        return (self.input_sha256, self.recipe) == (input_sha256, recipe)


@dataclass(slots=True)
class Followed:
    """A file of a journal that another process may be writing to."""

    file: Path
    records: dict[str, Record] = field(default_factory=dict)
    """Last record of each output."""

    _inode: int = -1
    _known: int = 0
    """Number of bytes read so far: whole lines only."""

    def refresh(self) -> None:
        """Read what was appended; read all if the file was written anew.

        Raises:
            OutputError: It is no regular file, or cannot be read.
        """
        with suppress(FileNotFoundError), _readable(self.file) as opened:
            found = os.fstat(opened.fileno())
            if found.st_ino != self._inode or found.st_size < self._known:
                self._inode, self._known, self.records = found.st_ino, 0, {}
            if found.st_size == self._known:
                return
            opened.seek(self._known)
            lines = opened.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._known += len(whole)
            self.records.update(_parsed(whole))


def open_to_append(file: Path) -> int:
    """Open a journal's file to append to it; end a line that a crash cut short."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | NO_LINKS
    descriptor = os.open(file, flags, 0o666)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                write_all(descriptor, b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def line_of(name: str, record: Record) -> bytes:
    facts = {key: value for key, value in asdict(record).items() if value is not None}
    return json.dumps({"output": name, **facts}).encode() + b"\n"  # ASCII: names can be anything


def read_records(file: Path) -> dict[str, Record]:
    """Read all records, the last one of each output; leave out a line that a crash cut short.

    Raises:
        OutputError: It is no regular file, or cannot be read.
    """
    with suppress(FileNotFoundError), _readable(file) as opened:
        return dict(_parsed(opened.read()))
    return {}


def _readable(file: Path) -> BinaryIO:
    """Open a journal's file to read it, without following a link or waiting for a pipe."""
    try:
        return open_regular(file, follow=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == NOT_REGULAR:
            raise OutputError(f"{file}: is no journal", "Move it away and try again.") from error
        raise OutputError(
            f"{file}: cannot be read ({error.strerror})", "Move it away and try again."
        ) from error


def _parsed(content: bytes) -> Iterator[tuple[str, Record]]:
    for line in content.split(b"\n"):
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            row = json.loads(line)
            row["recipe"] = sys.intern(row["recipe"])  # one for a million records
            yield str(row.pop("output")), Record(**row)
