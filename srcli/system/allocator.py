"""Settings of the C library's malloc, where that is glibc's."""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # numbers of options in malloc.h


def keep_freed_memory() -> bool:
    """Let malloc keep freed memory in place of giving it back to the system; glibc only.

    A network that is run operation by operation frees gigabytes in every run, and frames of video
    are made and freed by the hundred. What is given back must be provided and zeroed again page by
    page, which takes as long as the network or several times as long; on a virtual machine it
    depends on the host.

    Returns:
        True if malloc keeps it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc; TypeError on Windows
        return False
    # No block of memory is mapped for itself, and the end of the heap is never cut off.
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1))


def trim() -> None:
    """Let malloc give free memory back to the system; glibc only."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
