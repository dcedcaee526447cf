"""What is installed here and what of it works, for `srcli doctor`.

Whatever loads a compiled library is tried in a process of its own: a broken one can end that
process, hang it or write to its stdout, and the rest has to be looked at all the same.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from srcli import __version__
from srcli.cuda import Driver, driver
from srcli.errors import BackendError, MissingPartError, first_line

Status = Literal["ok", "note", "problem"]

SECONDS = 8.0  # for each of the probes, which run at the same time
REINSTALL = "Reinstall srcli: `pip install --force-reinstall srcli`."

# Looked up, not imported: those whose version decides what works, and those that only have to be
# there.
PACKAGES = ("numpy", "pillow", "pyvips", "onnx", "safetensors", "torch")
LIGHT_PACKAGES = ("click", "filelock", "onnxscript", "platformdirs", "rich")

# All of these install a module `onnxruntime`, one over the other.
RUNTIMES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino",
    "onnxruntime-migraphx", "onnxruntime-rocm", "onnxruntime-qnn", "onnxruntime-training",
)  # fmt: skip

# An ONNX file of one convolution, float32 n x 1 x h x w, kernel 1. A mere addition would work
# without the libraries that convolutions need on a GPU.
GRAPH = bytes.fromhex(
    "08083a690a0f0a01780a01771201792204436f6e761201672a13080108010801080110014201774a040000803f5a"
    "1e0a017812190a17080112130a0312016e0a0208010a031201680a03120177621e0a017912190a17080112130a03"
    "12016e0a0208010a031201680a0312017742040a00100d"
)

_REMOTE = "AzureExecutionProvider"  # runs models elsewhere
_FATAL_ONLY = 4  # ONNX Runtime's severity
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_LITTLE_SPACE = 1 << 30  # bytes; a TensorRT engine and its timing cache take a part of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: Status
    """A `note` is worth knowing; a `problem` keeps something from working that should."""

    found: str
    remedy: str = ""
    """The one thing to do about it, if there is any."""


Check = Callable[[], Iterator[Finding]]


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds and changes nothing.

    Never raises because of what is missing or broken: that is what it reports.
    """
    with ThreadPoolExecutor(len(PROBES)) as pool:
        probed = pool.map(probe, PROBES)
        here = [finding for check in _LOOKED_UP for finding in guarded(check)]
        return here + [finding for findings in probed for finding in findings]


def guarded(check: Check) -> Iterator[Finding]:
    """A check that ends with a problem instead of an exception."""
    try:
        yield from check()
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        name = check.__name__.strip("_")
        yield Finding(
            subject=name, status="problem", found=f"cannot be checked ({what})", remedy=REINSTALL
        )


# What can be looked up without loading anything.


def _python() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}"
    yield Finding(subject="srcli", status="ok", found=__version__)
    yield Finding(subject="python", status="ok", found=f"{platform.python_version()} on {system}")


def _packages() -> Iterator[Finding]:
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


def _runtimes() -> Iterator[Finding]:
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


def _cache() -> Iterator[Finding]:
    from srcli.store import cache_folder

    folder = cache_folder()
    files, size = _content(folder)
    found = f"{folder}, {_count(files, 'file')}, {_megabytes(size)}"
    refused = _refusal(folder)
    free = 0 if refused else shutil.disk_usage(_nearest(folder)).free
    if refused:
        yield Finding(
            subject="cache",
            status="problem",
            found=f"{folder} cannot be written ({refused})",
            remedy="Make it writable, or name another folder in SRCLI_CACHE.",
        )
    elif free < _LITTLE_SPACE:
        yield Finding(
            subject="cache",
            status="note",
            found=f"{found}; only {_megabytes(free)} are free",
            remedy="Free some space, or name another folder in SRCLI_CACHE.",
        )
    else:
        yield Finding(subject="cache", status="ok", found=found)


def _weights() -> Iterator[Finding]:
    from srcli.store import sha256_of, shipped_weights

    shipped = shipped_weights()
    wrong = []
    for weights in shipped:
        try:
            damaged = sha256_of(weights.path) != weights.sha256
        except OSError as error:
            wrong.append(f"{weights.path.name} cannot be read ({error.strerror})")
            continue
        if damaged:
            wrong.append(f"{weights.path.name} is not the file that the manifest describes")
    if wrong:
        yield Finding(subject="weights", status="problem", found="; ".join(wrong), remedy=REINSTALL)
    else:
        found = f"{_count(len(shipped), 'file')}, all with the checksum of the manifest"
        yield Finding(subject="weights", status="ok", found=found)


_LOOKED_UP: tuple[Check, ...] = (_python, _packages, _runtimes, _cache, _weights)


def version_of(package: str) -> str | None:
    """The installed version of a distribution, without importing it; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed_runtimes() -> dict[str, str]:
    """The packages installed that bring a module `onnxruntime`, with their versions."""
    versions = {name: version_of(name) for name in RUNTIMES}
    return {name: version for name, version in versions.items() if version is not None}


def wanted_runtime() -> str:
    """The onnxruntime package that srcli asks for on this machine."""
    gpu = (platform.system(), platform.machine()) in (("Linux", "x86_64"), ("Windows", "AMD64"))
    return "onnxruntime-gpu" if gpu else "onnxruntime"


def runtime_repair(installed: Mapping[str, str]) -> str:
    """How to get from these packages to the one that is wanted, whole."""
    install = f"pip install {wanted_runtime()}"
    # Uninstalling only one of two takes away files that the other needs.
    removal = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
    return f"Run `{removal}{install}`."


def _content(folder: Path) -> tuple[int, int]:
    """Number of files below a folder, and their bytes."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except OSError:  # gone in the meantime
                continue
    return len(sizes), sum(sizes)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _refusal(folder: Path) -> str | None:
    """Why nothing can be written in a folder, made if need be; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


# What has to be loaded, and therefore runs in a process of its own.


def _pictures() -> Iterator[Finding]:
    import numpy as np

    from srcli.images import FORMATS, Picture, SaveOptions, encode, read, vips

    try:
        library = vips.library()
    except MissingPartError as error:
        yield told("libvips", "problem", error)
        return
    picture = Picture(color=np.full((16, 16, 3), 128, np.uint8))
    failed = []
    for name in FORMATS:
        try:
            read(encode(picture, SaveOptions(format=name)))
        except Exception as error:
            failed.append(f"{name} ({first_line(error)})")
    version = ".".join(str(library.version(part)) for part in range(3))
    if failed:
        yield Finding(
            subject="libvips",
            status="problem",
            found=f"{version} cannot write and read {', '.join(failed)}",
            remedy="Run `pip install 'pyvips[binary]'`, which brings all formats.",
        )
    else:
        found = f"{version}, writes and reads {', '.join(FORMATS)}"
        yield Finding(subject="libvips", status="ok", found=found)


def _providers() -> Iterator[Finding]:
    try:
        import onnxruntime as ort
    except Exception as error:  # a damaged package may raise anything
        if installed_runtimes():
            yield _broken_runtime(first_line(error))
        return
    if not all(hasattr(ort, name) for name in ("__version__", "InferenceSession")):
        yield _broken_runtime("the module is an empty shell")
        return
    ort.set_default_logger_severity(_FATAL_ONLY)
    _preload(ort)
    device = driver().devices > 0
    for name in ort.get_available_providers():
        if name != _REMOTE:
            yield _provider(ort, name, device)


def _broken_runtime(why: str) -> Finding:
    return Finding(
        subject="onnxruntime",
        status="problem",
        found=f"installed, but broken ({why})",
        remedy=runtime_repair(installed_runtimes()),
    )


def _preload(ort: Any) -> None:
    """Load what other packages bring for the providers: CUDA's libraries, TensorRT."""
    # Whatever goes wrong here, the provider itself will say what it misses.
    with suppress(Exception):
        ort.preload_dlls()
    with suppress(Exception):
        importlib.import_module("tensorrt")


def _provider(ort: Any, name: str, device: bool) -> Finding:
    reason = provider_refusal(ort, name)
    short = name.removesuffix("ExecutionProvider")
    subject = f"onnxruntime {short}"
    if reason is None:
        return Finding(subject=subject, status="ok", found="loads and computes")
    if name == "CPUExecutionProvider":
        remedy = runtime_repair(installed_runtimes())
        return Finding(subject=subject, status="problem", found=reason, remedy=remedy)
    if name == "CUDAExecutionProvider" and device:
        remedy = "Run `pip install 'onnxruntime-gpu[cuda,cudnn]'`."
        return Finding(subject=subject, status="problem", found=reason, remedy=remedy)
    return Finding(subject=subject, status="note", found=f"not usable here ({reason})")


def provider_refusal(ort: Any, name: str) -> str | None:
    """Why this provider of ONNX Runtime does not run a graph by itself; None if it does.

    That ONNX Runtime lists a provider only means that it was built with it, and a session that
    asks for one may quietly be given the CPU's.
    """
    try:
        session = ort.InferenceSession(
            GRAPH, _settings(ort, name), providers=[name], enable_fallback=0
        )
        if session.get_providers()[0] != name:
            return f"{session.get_providers()[0]} is used in its place"
        if name != "TensorrtExecutionProvider":  # which would build an engine first
            _compute(session)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        return _missing_library(ort, name) or first_line(error)
    return None


def _settings(ort: Any, provider: str) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    if provider != "CPUExecutionProvider":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings


def _missing_library(ort: Any, provider: str) -> str | None:
    """Which shared library a provider on Linux lacks: ONNX Runtime only says that it falls back."""
    short = provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort.__file__).with_name("capi") / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(os.fspath(library))
    except OSError as error:
        return first_line(error) if library.exists() and "cannot open" in str(error) else None
    return None


def _compute(session: Any) -> None:
    import numpy as np

    picture = np.full((1, 1, 2, 2), 0.5, np.float32)
    (result,) = session.run(None, {"x": picture})
    if not np.array_equal(result, picture):
        raise ArithmeticError("it computes wrong results")


def _gpu() -> Iterator[Finding]:
    found = driver()
    yield _driver(found)
    if found.devices and importlib.util.find_spec("torch") is not None:
        yield _torch_cuda(found)


def _driver(found: Driver) -> Finding:
    if found.version is None:
        return Finding(
            subject="NVIDIA driver",
            status="note",
            found="none; everything runs on the CPU",
            remedy="If there is an NVIDIA GPU, install its driver.",
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
        subject="NVIDIA driver", status="ok", found=f"{version}, {_count(found.devices, 'GPU')}"
    )


def _torch_cuda(found: Driver) -> Finding:
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
        gpu = torch.cuda.get_device_properties(0)
        capability = f"{gpu.major}.{gpu.minor}"
        return Finding(
            subject="torch CUDA",
            status="ok",
            found=f"{gpu.name}, compute capability {capability}, {_megabytes(gpu.total_memory)}",
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


def _cuda_refusal(torch: Any) -> str | None:
    """Why PyTorch does not compute on the GPU; None if it does."""
    if not torch.cuda.is_available():
        return "it finds none"
    try:
        picture = torch.ones(1, 1, 4, 4, device="cuda")
        total = float(torch.nn.functional.conv2d(picture, picture[:, :, :1, :1]).sum())
    except RuntimeError as error:
        return first_line(error)
    return None if total == 16 else "it computes wrong results"


def _tensorrt() -> Iterator[Finding]:
    from srcli.backends.trt_engine import load_tensorrt, open_runtime

    names = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    present = any(importlib.util.find_spec(name) for name in names)
    serious: Status = "problem" if present and driver().devices else "note"
    try:
        trt = load_tensorrt()
        label = f"{trt.__name__.removesuffix('_bindings')} {trt.__version__}"  # type: ignore[attr-defined]
        if driver().devices:
            open_runtime(trt, host_code=False)
    except BackendError as error:
        yield told("TensorRT", serious, error)
        return
    if driver().devices:
        yield Finding(subject="TensorRT", status="ok", found=label)
    else:
        found = f"{label}, which needs an NVIDIA GPU to run"
        yield Finding(subject="TensorRT", status="note", found=found)


def _backend() -> Iterator[Finding]:
    from srcli.backends import BACKENDS, get_backend

    try:
        chosen = get_backend("auto").name
    except BackendError as error:
        yield told("backend", "problem", error)
        return
    usable = [backend.name for backend in BACKENDS if backend.unavailable() is None]
    others = ", ".join(name for name in usable if name != chosen) or "nothing else"
    yield Finding(
        subject="backend", status="ok", found=f"auto chooses {chosen}; {others} would work too"
    )


PROBES: Mapping[str, tuple[Check, ...]] = {
    "pictures": (_pictures,),
    "onnxruntime": (_providers,),
    "GPU": (_gpu, _tensorrt, _backend),
}


def probe(name: str) -> list[Finding]:
    """Run the checks of a probe in a process of their own, for a limited time."""
    # -P: a file `torch.py` in the working folder is none of our business.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "srcli.health", name]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        end = _end(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        end = f"takes longer than {SECONDS:.0f} seconds"
    whole = output[: output.rfind(b"\n") + 1]  # it may have ended in the middle of a line
    findings = [Finding(**json.loads(line)) for line in whole.splitlines()]
    return findings if end is None else [*findings, _unfinished(name, end)]


def _unfinished(name: str, end: str) -> Finding:
    return Finding(
        subject=name,
        status="problem",
        found=f"looking at it {end}",
        remedy="Run `srcli doctor` again; if that does not help, reinstall it.",
    )


def _end(code: int) -> str | None:
    """How a process failed, in words; None if it did not."""
    if code == 0:
        return None
    if code < 0:
        return f"ends in a crash ({signal.strsignal(-code) or f'signal {-code}'})"
    return f"ends with exit code {code}"


def _answer(name: str) -> None:
    """In the probe's process: write each finding as a line of JSON, as soon as it is there."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # libraries write to stdout as they like
        for check in PROBES[name]:
            for finding in guarded(check):
                answers.write(json.dumps(asdict(finding)) + "\n")
                answers.flush()


def told(subject: str, status: Status, error: Exception) -> Finding:
    """A finding from an error of our own, whose message ends with what to do."""
    found, _, remedy = str(error).rpartition(". ")
    if not found:
        found, _, remedy = str(error).rpartition("; ")
    return Finding(subject=subject, status=status, found=found, remedy=remedy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 1 << 30 else f"{size / 2**30:,.1f} GiB"


if __name__ == "__main__":
    _answer(sys.argv[1])
