"""Checks of NVIDIA's driver and of PyTorch on the GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from srcli.errors import first_line
from srcli.health.finding import Finding, count, megabytes
from srcli.health.installed import version_of
from srcli.system.cuda import Driver, driver

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def gpu() -> Iterator[Finding]:
    """Check the driver and, if it has a GPU, whether PyTorch computes on it."""
    found = driver()
    yield driver_finding(found)
    if not found.devices and found.error in (0, _NO_DEVICE):
        yield cuda_finding()
    if found.devices and importlib.util.find_spec("torch") is not None:
        yield torch_finding(found)


def driver_finding(found: Driver) -> Finding:
    """Check whether the driver is there, starts and sees a GPU."""
    if found.version is None:
        return Finding(
            subject="NVIDIA driver",
            status="note",
            found="none; everything runs on the CPU",
        )
    version = "CUDA {}.{}".format(*found.version)
    if found.error and found.error != _NO_DEVICE:
        return Finding(
            subject="NVIDIA driver",
            status="problem",
            found=f"for {version}, does not start (CUDA error {found.error})",
            remedy="Restart the machine; if that does not help, reinstall the driver.",
        )
    if not found.devices:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") is not None
        return Finding(
            subject="NVIDIA driver",
            status="note",
            found=f"for {version}, but it sees no GPU; everything runs on the CPU",
            remedy="Change or unset CUDA_VISIBLE_DEVICES." if hidden else "",
        )
    return Finding(
        subject="NVIDIA driver", status="ok", found=f"{version}, {count(found.devices, 'GPU')}"
    )


def cuda_finding() -> Finding:
    """Name what is missing for CUDA on a machine without a GPU, and how to get it."""
    built = _cuda_of_torch()
    missing = "an NVIDIA GPU with its driver"
    remedy = "On a machine with one, install its driver"
    if built is None:
        version = version_of("torch")
        missing += f", and PyTorch for CUDA ({version or 'none'} is installed)"
        remedy += ", then PyTorch for CUDA as https://pytorch.org/get-started says"
    return Finding(subject="CUDA", status="note", found=f"missing: {missing}", remedy=f"{remedy}.")


def _cuda_of_torch() -> str | None:
    """Return the version of CUDA that PyTorch was built for, without importing it; or None."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*= *['\"]([^'\"]+)", text, re.MULTILINE)
    return None if found is None else found[1]


def torch_finding(found: Driver) -> Finding:
    """Check whether PyTorch computes on the first GPU of this driver."""
    import torch

    built = torch.version.cuda
    if built is None:
        return Finding(
            subject="torch CUDA",
            status="note",
            found=f"PyTorch {torch.__version__} was built for the CPU only",
            remedy="Install PyTorch for CUDA as https://pytorch.org/get-started says.",
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reason = _cuda_refusal(torch)
    if reason is None:
        first = torch.cuda.get_device_properties(0)
        capability = f"{first.major}.{first.minor}"
        return Finding(
            subject="torch CUDA",
            status="ok",
            found=f"{first.name}, compute capability {capability}, {megabytes(first.total_memory)}",
        )
    why = "; ".join(first_line(warning.message) for warning in caught[:1]) or reason
    newer = _numbers(built) > (found.version or (0, 0))
    return Finding(
        subject="torch CUDA",
        status="problem",
        found=f"PyTorch for CUDA {built} cannot use the GPU ({why})",
        remedy=f"Update the NVIDIA driver to one for CUDA {built}."
        if newer
        else "Install PyTorch for this GPU as https://pytorch.org/get-started says.",
    )


def _cuda_refusal(torch: ModuleType) -> str | None:
    """Return why PyTorch does not compute on the GPU; None if it does."""
    if not torch.cuda.is_available():
        return "it finds none"
    try:
        picture = torch.ones(1, 1, 4, 4, device="cuda")
        total = float(torch.nn.functional.conv2d(picture, picture[:, :, :1, :1]).sum())
    except RuntimeError as error:
        return first_line(error)
    return None if total == 16 else "it computes wrong results"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
