"""Memory of this process, which only Linux states."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"  # see proc(5)


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
