"""Versions of Python and of packages, looked up without importing any of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata

from srcli import __version__
from srcli.health.finding import Finding, count, megabytes
from srcli.system.machine import free_memory, usable_cores

# Those whose version decides what works, and those that only have to be there.
PACKAGES = ("numpy", "pillow", "pyvips", "onnx", "safetensors", "torch")
LIGHT_PACKAGES = ("click", "filelock", "onnxscript", "platformdirs", "rich")

# Those of the extra `codecs`.
CODECS = ("imagecodecs", "pillow-heif", "tifffile")

# All of these install a module `onnxruntime`, one over the other.
RUNTIMES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino",
    "onnxruntime-migraphx", "onnxruntime-rocm", "onnxruntime-qnn", "onnxruntime-training",
)  # fmt: skip


def python() -> Iterator[Finding]:
    """Name the versions of srcli and of Python."""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding(subject="srcli", status="ok", found=__version__)
    yield Finding(subject="python", status="ok", found=f"{platform.python_version()} on {system}")


def machine() -> Iterator[Finding]:
    """Name the cores and the memory that srcli may use."""
    cores, all_cores, free = usable_cores(), os.cpu_count() or 1, free_memory()
    found = count(cores, "core") if cores == all_cores else f"{cores} of {all_cores} cores"
    memory = "" if free is None else f", {megabytes(free)} of memory free"
    yield Finding(subject="machine", status="ok", found=found + memory)


def packages() -> Iterator[Finding]:
    """Check every package that srcli requires, except ONNX Runtime."""
    for name in (*PACKAGES, *LIGHT_PACKAGES):
        version = version_of(name)
        if version is None:
            yield Finding(
                subject=name,
                status="problem",
                found="not installed",
                remedy=f"Run `pip install {name}`.",
            )
        elif name in PACKAGES:
            yield Finding(subject=name, status="ok", found=version)


def runtimes() -> Iterator[Finding]:
    """Check that exactly one package brings ONNX Runtime."""
    installed = installed_runtimes()
    found = " and ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) == 1:
        yield Finding(subject="onnxruntime", status="ok", found=found)
        return
    if installed:
        found += " are installed together, and each has overwritten files of the other"
    yield Finding(
        subject="onnxruntime",
        status="problem",
        found=found or "not installed",
        remedy=runtime_repair(installed),
    )


def codecs() -> Iterator[Finding]:
    """Name the optional packages that read pictures which libvips does not read."""
    versions = {name: version_of(name) for name in CODECS}
    missing = [name for name, version in versions.items() if version is None]
    if not missing:
        found = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield Finding(subject="codecs", status="ok", found=found)
        return
    are = "are" if len(missing) > 1 else "is"
    yield Finding(
        subject="codecs",
        status="note",
        found=f"{', '.join(missing)} {are} not installed: HEIC and rare TIFF and JPEG files are "
        "not read",
        remedy="Run `pip install 'srcli[codecs]'`.",
    )


def version_of(package: str) -> str | None:
    """Return the installed version of a distribution, without importing it; None without one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed_runtimes() -> dict[str, str]:
    """Return the installed packages that bring a module `onnxruntime`, with their versions."""
    versions = {name: version_of(name) for name in RUNTIMES}
    return {name: version for name, version in versions.items() if version is not None}


def wanted_runtime() -> str:
    """Return the onnxruntime package that srcli asks for on this machine."""
    gpu = (platform.system(), platform.machine()) in (("Linux", "x86_64"), ("Windows", "AMD64"))
    return "onnxruntime-gpu" if gpu else "onnxruntime"


def runtime_repair(installed: Mapping[str, str]) -> str:
    """Return the command that replaces these packages by the one that is wanted."""
    install = f"pip install {wanted_runtime()}"
    # Uninstalling only one of two takes away files that the other needs.
    removal = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
    return f"Run `{removal}{install}`."
