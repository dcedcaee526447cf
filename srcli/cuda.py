"""What NVIDIA's driver says of itself, asked without loading any framework."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVIDIA's driver, as asked without any other library."""

    version: tuple[int, int] | None
    """The newest CUDA that it runs; None without a driver."""

    devices: int = 0
    error: int = 0
    """CUDA's error code if it does not start."""


@functools.cache
def driver() -> Driver:
    """What the driver says of itself."""
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
