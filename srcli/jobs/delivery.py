"""What is done with an output beyond its pixels."""

from __future__ import annotations

import shutil
import sys

from srcli.errors import InputError, OutputError, SrcliError
from srcli.images import StripReader
from srcli.jobs.job import Job
from srcli.system.files import atomic_path

ROWS_AT_ONCE = 256


def preserve_facts(job: Job) -> None:
    """Give the output the input's time and permissions.

    Raises:
        OutputError: The system does not allow it.
    """
    try:
        shutil.copystat(job.source, job.target)
    except OSError as error:
        raise OutputError(
            f"{job.target}: cannot have the input's time and permissions ({error.strerror})",
            "Leave out --preserve.",
        ) from error


def content_of(job: Job) -> bytes:
    """Return the bytes of a job's input.

    Raises:
        InputError: It cannot be read.
    """
    if job.content is not None:
        return job.content
    try:
        return job.source.read_bytes()
    except OSError as error:
        raise InputError(
            f"{job.name}: cannot be read ({error.strerror})", "Check the file."
        ) from error


def check_whole(reader: StripReader) -> None:
    """Decode a picture to see that it is not damaged.

    Raises:
        InputError: It is.
    """
    for _ in reader.strips(ROWS_AT_ONCE):
        pass


def write_copy(job: Job, *, replace: bool) -> None:
    """Write the input's bytes under the output's name, whole or not at all.

    Raises:
        InputError: The input cannot be read.
        OutputError: The output cannot be written, or is there already and may not be replaced.
    """
    content = content_of(job)
    with atomic_path(job.target, replace=replace) as partial:
        partial.write_bytes(content)


def write_stdout(content: bytes) -> None:
    """Write a whole picture to standard output.

    Raises:
        OutputError: It cannot be written.
        BrokenPipeError: Its reader is gone.
    """
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output: cannot be written ({error.strerror})", "Write to a file with -o."
        ) from error


def naming(job: Job, error: SrcliError) -> SrcliError:
    """Return an error that names the picture it is about."""
    if str(job.target) in str(error):
        return error
    return error.about(job.name)
