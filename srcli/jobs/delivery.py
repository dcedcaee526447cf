"""What is done with an output beyond its pixels."""

from __future__ import annotations

import shutil
import sys

from srcli.errors import OutputError
from srcli.jobs.planning import Job


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
