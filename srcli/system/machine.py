"""Cores and memory that this process may use, also in a container that limits them.

Runtimes and `os` count the whole machine's cores and memory: in a container of two cores on a
machine of 64 they start 64 threads, and beyond its memory a process is killed without an error.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
NO_LIMIT = 1 << 60  # what version 1 of control groups says instead of "none", and more


def usable_cores() -> int:
    """Return the number of cores that this process may keep busy."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def machine_key() -> str:
    """Return a short key that distinguishes this machine from others that share the cache."""
    facts = (platform.machine(), _processor(), str(usable_cores()))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "replace")).hexdigest()[:12]


def _processor() -> str:
    lines = _text(PROC / "cpuinfo").splitlines()
    names = (line for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor()


def free_memory() -> int | None:
    """Return the bytes of memory that are available; None if this is not known."""
    return min([*_available(), *_left()], default=None)


def _available() -> Iterator[int]:
    """Return the available bytes of the whole machine."""
    for line in _text(PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable"):
            yield int(line.split()[1]) << 10


def _quotas() -> Iterator[float]:
    """Yield the limits of cores of the control groups around this process."""
    for group in _groups(""):
        quota, _, period = _text(group / "cpu.max").strip().partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
    for group in _groups("cpu"):
        quota = _text(group / "cpu.cfs_quota_us").strip()
        period = _text(group / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal():  # "-1" means no limit
            yield int(quota) / int(period)


def _left() -> Iterator[int]:
    """Yield the bytes up to the limit of each control group around this process, if limited.

    Pages of files that were read count as used, but give way.
    """
    for controller, limit, used, gives_way in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _groups(controller):
            maximum, now = (_text(group / name).strip() for name in (limit, used))
            if maximum.isdecimal() and now.isdecimal() and int(maximum) < NO_LIMIT:
                statistics = dict(
                    line.split() for line in _text(group / "memory.stat").splitlines()
                )
                yield max(0, int(maximum) - int(now) + int(statistics.get(gives_way, 0)))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups around this process, the innermost first.

    Args:
        controller: Of version 1; "" for version 2, which has all in one tree.
    """
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            place = Path(path.lstrip("/"))
            for group in (place, *place.parents):
                yield CGROUPS / controller / group


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
