"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srcli.errors import OutputError

TEMPORARY_PREFIX = ".srcli-"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A new, empty file beside `target` that becomes `target` if the block succeeds.

    Whatever happens inside, nothing half written is left under either name. The temporary name
    ends as the target's does: libraries choose the format by it.

    Raises:
        OutputError: The folder or the file cannot be written.
    """
    partial = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{target.suffix}")
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
