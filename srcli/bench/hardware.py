"""Facts about the machine that a latency was measured on, and its state."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from srcli.system.cuda import driver
from srcli.system.machine import usable_cores

PACKAGES = (
    "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13-bindings",
    "numpy", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "triton",
)  # fmt: skip

# Of every GPU: what decides its speed, and what holds it back.
_QUERY = (
    "name", "driver_version", "power.limit", "power.draw", "clocks.sm", "clocks.max.sm",
    "clocks.mem", "temperature.gpu", "clocks_event_reasons.active", "memory.total",
)  # fmt: skip


class Hardware(TypedDict):
    """Facts about a machine that stay the same while a benchmark runs."""

    date: str
    cpu: str
    cores: int
    memory_gb: float | None
    governor: str
    system: str
    python: str
    cuda_driver: str | None
    gpus: list[str]
    packages: dict[str, str]


class State(TypedDict):
    """Facts about a machine that change."""

    load_average: float | None
    gpus: list[dict[str, str]]
    """For each GPU what `nvidia-smi` says, by the names of its query."""


class Conditions(Hardware):
    """The machine, its state before and after a benchmark, and the settings of this."""

    allocator: str
    threads: int | None
    before: State
    after: State
    ceilings: Mapping[str, float]


def hardware() -> Hardware:
    """Return the facts that stay the same while a benchmark runs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gb": _memory(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cuda_driver": _version(driver().version),
        "gpus": [gpu["name"] for gpu in gpus()],
        "packages": {name: version for name in PACKAGES if (version := _package(name))},
    }


def state() -> State:
    """Return the facts that change; they are taken before and after."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"load_average": load, "gpus": gpus()}


def gpus() -> list[dict[str, str]]:
    """Return what `nvidia-smi` says of each GPU; empty without a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not driver().devices:
        return []
    command = [tool, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if answer.returncode:
        return []
    lines = [line.split(", ") for line in answer.stdout.splitlines() if line.strip()]
    return [dict(zip(_QUERY, fields, strict=False)) for fields in lines]


def _cpu_name() -> str:
    for line in _text("/proc/cpuinfo", "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return round(pages * size / (1 << 30), 1)


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(path: str, default: str = "unknown") -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return default


def _version(version: tuple[int, int] | None) -> str | None:
    return None if version is None else "{}.{}".format(*version)
