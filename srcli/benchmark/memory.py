"""How much memory this process takes; only Linux tells."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"  # see proc(5)


def forget_peak() -> None:
    """Let `peak_bytes` count from here on."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)


def peak_bytes() -> int | None:
    """The most that was resident since `forget_peak`; None where the system does not tell."""
    return _status("VmHWM")


def resident_bytes() -> int | None:
    """What is resident now; None where the system does not tell."""
    return _status("VmRSS")


def _status(entry: str) -> int | None:
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith(f"{entry}:"):
                return int(line.split()[1]) << 10
    return None
