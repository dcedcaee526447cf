"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srcli.errors import OutputError

_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\.srcli-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{16}(\.\w+)?")
_STARTED = time.time()
_FORGOTTEN = 24 * 3600  # seconds; of another machine's we know no more than their age


def temporary_name(suffix: str) -> str:
    """A hidden name that nothing else has, and that says which process is writing it."""
    return f".srcli-{_MACHINE}-{os.getpid()}-{secrets.token_hex(8)}{suffix}"


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of ours in or below a folder, of processes that were killed."""
    return [path for path in folder.rglob(".srcli-*") if _is_leftover(path)]


def _is_leftover(file: Path) -> bool:
    name = _TEMPORARY.fullmatch(file.name)
    if name is None or file.is_symlink() or not file.is_file():
        return False
    written, process = file.stat().st_mtime, int(name["process"])
    if name["machine"] != _MACHINE or sys.platform == "win32":  # where asking could kill it
        return time.time() - written > _FORGOTTEN
    if process == os.getpid():  # in a container it has the same number each time
        return written < _STARTED
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A new, empty file beside `target` that becomes `target` if the block succeeds.

    Whatever happens inside, nothing half written is left under either name. The temporary name
    ends as the target's does: libraries choose the format by it.

    Raises:
        OutputError: The folder or the file cannot be written.
    """
    partial = target.with_name(temporary_name(target.suffix))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusively, and with the permissions that any new file of this user gets.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror}). Choose another place with -o."
        ) from error
    try:
        yield partial
        _flush(partial)
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}). "
            "Free some space or choose another place with -o."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Force the content to the disk before the name points to it: a crash leaves old or new."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
