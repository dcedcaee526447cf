"""Versions of Python and of packages, looked up without importing any of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata

from srcli import __version__
from srcli.health.finding import Finding, Status, count, megabytes
from srcli.system.installation import SMALL, is_mixed, is_small, pip_install
from srcli.system.machine import free_memory, usable_cores

# Those whose version decides what works, and those that only have to be there.
PACKAGES = ("numpy", "pillow", "pyvips", "onnx", "safetensors", "torch")
LIGHT_PACKAGES = ("click", "filelock", "onnxscript", "platformdirs", "rich")

# What `srcli-lite` does without, and for what each is needed.
PURPOSES = {
    "onnx": "networks in ONNX files, and `srcli export`",
    "onnxruntime": "`--backend ort`, and networks in ONNX files",
    "onnxscript": "`srcli export`",
    "torch": "models other than LAPAR and AWSRN, and `srcli export`, `attribute` and `filters`",
}

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
    if is_mixed():
        yield Finding(
            subject="srcli",
            status="problem",
            found="a clone's srcli and srcli-lite are installed together, and each has overwritten "
            "files of the other",
            remedy="Run `pip uninstall -y srcli srcli-lite`, then install one of them.",
        )
    else:
        name = f" ({SMALL})" if is_small() else ""
        yield Finding(subject="srcli", status="ok", found=__version__ + name)
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
            yield _missing(name, f"pip install {name}")
        elif name in PACKAGES:
            yield Finding(subject=name, status="ok", found=version)


def runtimes() -> Iterator[Finding]:
    """Check that exactly one package brings ONNX Runtime."""
    installed = installed_runtimes()
    found = " and ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) == 1:
        yield Finding(subject="onnxruntime", status="ok", found=found)
        return
    if not installed:
        yield _missing(
            "onnxruntime", f"pip install {'onnxruntime' if is_small() else wanted_runtime()}"
        )
        return
    yield Finding(
        subject="onnxruntime",
        status="problem",
        found=f"{found} are installed together, and each has overwritten files of the other",
        remedy=runtime_repair(installed),
    )


def _missing(package: str, command: str) -> Finding:
    """Return the finding for a missing package: a note if this installation does without."""
    optional = package in PURPOSES and is_small()
    status: Status = "note" if optional else "problem"
    found = f"not installed; needed by {PURPOSES[package]}" if optional else "not installed"
    return Finding(subject=package, status=status, found=found, remedy=f"Run `{command}`.")


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
        remedy=f"Run `{pip_install('codecs')}`.",
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
