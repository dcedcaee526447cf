"""Memory of this process, which only Linux states, and settings of malloc."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"  # see proc(5)
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # numbers of options in glibc's malloc.h


def forget_peak() -> None:
    """Reset the peak that `peak_bytes` returns."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)


def peak_bytes() -> int | None:
    """Return the peak of resident bytes since `forget_peak`; None if the system does not tell."""
    return _status("VmHWM")


def resident_bytes() -> int | None:
    """Return the bytes that are resident now; None if the system does not tell."""
    return _status("VmRSS")


def _status(entry: str) -> int | None:
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith(f"{entry}:"):
                return int(line.split()[1]) << 10
    return None


def keep_freed_memory() -> bool:
    """Let malloc keep freed memory in place of giving it back to the system; glibc only.

    A network that is run operation by operation frees gigabytes in every run. What is given back
    must be provided and zeroed again page by page, which takes as long as the network or several
    times as long; on a virtual machine it depends on the host.

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
