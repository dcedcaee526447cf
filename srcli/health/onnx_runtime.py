"""Checks of ONNX Runtime and of the providers that it really computes with."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from srcli.errors import first_line
from srcli.health.finding import Finding
from srcli.system import runtimes
from srcli.system.cuda import driver

# An ONNX file of one convolution, float32 n x 1 x h x w, kernel 1. A mere addition would work
# without the libraries that convolutions need on a GPU.
GRAPH = bytes.fromhex(
    "08083a690a0f0a01780a01771201792204436f6e761201672a13080108010801080110014201774a040000803f5a"
    "1e0a017812190a17080112130a0312016e0a0208010a031201680a03120177621e0a017912190a17080112130a03"
    "12016e0a0208010a031201680a0312017742040a00100d"
)

_REMOTE = "AzureExecutionProvider"  # runs models elsewhere
_FATAL_ONLY = 4  # ONNX Runtime's severity


def providers() -> Iterator[Finding]:
    """Check every provider that this ONNX Runtime was built with."""
    try:
        ort = runtimes.onnxruntime()
    except Exception as error:  # a damaged package may raise anything
        from srcli.health.installed import installed_runtimes

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
            yield provider_finding(ort, name, device)


def _broken_runtime(why: str) -> Finding:
    return Finding(
        subject="onnxruntime",
        status="problem",
        found=f"installed, but broken ({why})",
        remedy=_repair(),
    )


def _repair() -> str:
    """Return the command that installs the right package; computed only if something is wrong."""
    from srcli.health.installed import installed_runtimes, runtime_repair

    return runtime_repair(installed_runtimes())


def _preload(ort: ModuleType) -> None:
    """Load libraries of other packages that the providers need: CUDA, TensorRT."""
    # Whatever goes wrong here, the provider itself will say what it misses.
    runtimes.preload_cuda(ort)
    with suppress(Exception):
        importlib.import_module("tensorrt")


def provider_finding(ort: ModuleType, name: str, device: bool) -> Finding:
    """Check whether a provider computes, on a machine with a GPU (`device`) or without."""
    reason = provider_refusal(ort, name)
    short = name.removesuffix("ExecutionProvider")
    subject = f"onnxruntime {short}"
    if reason is None:
        return Finding(subject=subject, status="ok", found="loads and computes")
    if name == "CPUExecutionProvider":
        return Finding(subject=subject, status="problem", found=reason, remedy=_repair())
    if name == "CUDAExecutionProvider" and device:
        remedy = "Run `pip install 'onnxruntime-gpu[cuda,cudnn]'`."
        return Finding(subject=subject, status="problem", found=reason, remedy=remedy)
    return Finding(subject=subject, status="note", found=f"not usable here ({reason})")


def provider_refusal(ort: ModuleType, name: str) -> str | None:
    """Return why this provider of ONNX Runtime does not run a graph by itself; None if it does.

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


def _settings(ort: ModuleType, provider: str) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    if provider != "CPUExecutionProvider":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings


def _compute(session: Any) -> None:
    import numpy as np

    picture = np.full((1, 1, 2, 2), 0.5, np.float32)
    (result,) = session.run(None, {"x": picture})
    if not np.array_equal(result, picture):
        raise ArithmeticError("it computes wrong results")


def _missing_library(ort: ModuleType, provider: str) -> str | None:
    """Name the library that a provider lacks on Linux; ONNX Runtime only says it falls back."""
    short = provider.removesuffix("ExecutionProvider").lower()
    library = Path(str(ort.__file__)).with_name("capi") / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(os.fspath(library))
    except OSError as error:
        return first_line(error) if library.exists() and "cannot open" in str(error) else None
    return None
