"""Ask NVIDIA's driver for its version and GPUs, without loading any framework."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Facts about NVIDIA's driver."""

    version: tuple[int, int] | None
    """Newest version of CUDA that the driver runs; None without a driver."""

    devices: int = 0
    error: int = 0
    """CUDA's error code if the driver does not start; else 0."""


@functools.cache
def driver() -> Driver:
    """Return facts about NVIDIA's driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(name)
    except OSError:
        return Driver(version=None)
    number, devices = ctypes.c_int(), ctypes.c_int()
    error = cuda.cuInit(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    if not error:
        error = cuda.cuDeviceGetCount(ctypes.byref(devices))
    version = (number.value // 1000, number.value % 1000 // 10)
    return Driver(version=version, devices=devices.value, error=error)
