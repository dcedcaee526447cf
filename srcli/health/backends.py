"""What srcli's own backends can do here: TensorRT, and what `auto` chooses."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from srcli.cuda import driver
from srcli.errors import BackendError
from srcli.health.finding import Finding, Status, told


def tensorrt() -> Iterator[Finding]:
    """Whether TensorRT loads; without a GPU it is nothing that is missed."""
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


def compiled_part() -> Iterator[Finding]:
    """What was compiled when srcli was built; all works without it, LAPAR more slowly."""
    from srcli.backends.cpu_filters import unavailable
    from srcli.backends.native import missing, vectors

    problem = missing() or unavailable()
    if problem is None:
        found = f"LAPAR for processors, in vectors of {vectors()} bits"
        yield Finding(subject="compiled part", status="ok", found=found)
    else:
        _, _, remedy = problem.partition(". ")
        found = "missing: LAPAR takes two to four times as long on processors"
        yield Finding(subject="compiled part", status="note", found=found, remedy=remedy)


def backend() -> Iterator[Finding]:
    """The backend that `auto` takes, and those that would work too."""
    from srcli.backends import BACKENDS, get_backend

    try:
        chosen = get_backend("auto").name
    except BackendError as error:
        yield told("backend", "problem", error)
        return
    usable = [candidate.name for candidate in BACKENDS if candidate.unavailable() is None]
    others = ", ".join(name for name in usable if name != chosen) or "nothing else"
    yield Finding(
        subject="backend", status="ok", found=f"auto chooses {chosen}; {others} would work too"
    )
