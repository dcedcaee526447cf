"""Checks of srcli's own backends: TensorRT, the compiled part, and the choice of `auto`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from srcli.errors import BackendError
from srcli.health.finding import Finding, Status, told
from srcli.system.cuda import driver
from srcli.system.installation import pip_install


def tensorrt() -> Iterator[Finding]:
    """Check whether TensorRT loads; without a GPU it may be missing."""
    from srcli.backends.trt.engine import load_tensorrt, open_runtime

    names = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    present = any(importlib.util.find_spec(name) for name in names)
    serious: Status = "problem" if present and driver().devices else "note"
    try:
        trt = load_tensorrt()
        label = f"{trt.__name__.removesuffix('_bindings')} {trt.__version__}"
        if driver().devices:
            open_runtime(trt, host_code=False)
    except BackendError as error:
        if present or driver().devices:
            yield told("TensorRT", serious, error)
        else:
            remedy = f"On a machine with one, run `{pip_install('tensorrt')}`."
            yield _missing("missing: TensorRT, and an NVIDIA GPU with its driver", remedy)
        return
    if driver().devices:
        yield Finding(subject="TensorRT", status="ok", found=label)
    else:
        found = f"{label}, which builds engines here; missing to run them: an NVIDIA GPU with its "
        yield _missing(f"{found}driver", "Run `srcli export --trt` on a machine with one.")


def _missing(found: str, remedy: str) -> Finding:
    return Finding(subject="TensorRT", status="note", found=found, remedy=remedy)


def compiled_part() -> Iterator[Finding]:
    """Check the compiled part of srcli; without it LAPAR and AWSRN work, but more slowly."""
    from srcli.backends.filters import cpu as cpu_filters
    from srcli.backends.native.compiled import is_narrow, vectors
    from srcli.backends.native.session import NativeBackend

    parts = (
        (
            NativeBackend().unavailable(),
            "its networks: LAPAR and AWSRN take 2 to 4 times as long",
        ),
        (cpu_filters.unavailable(), "its filters: LAPAR is slower with ort, openvino and torch"),
    )
    for obstacle, consequence in parts:
        if obstacle is not None:
            yield Finding(
                subject="compiled part",
                status="note",
                found=f"{consequence} ({obstacle.problem})",
                remedy=obstacle.remedy,
            )
            return
    found = f"LAPAR and AWSRN on CPUs, in vectors of {vectors()} bits"
    if is_narrow():
        yield Finding(
            subject="compiled part",
            status="note",
            found=f"{found}; this processor has wider ones",
            remedy="Build srcli with clang, or install its wheel.",
        )
        return
    yield Finding(subject="compiled part", status="ok", found=found)


def backend() -> Iterator[Finding]:
    """Name the backend that `auto` takes, and the others that work."""
    from srcli.backends import by_preference, get_backend
    from srcli.backends.preference import measured_orders

    try:
        first = get_backend("auto").name
    except BackendError as error:
        yield told("backend", "problem", error)
        return
    usable = [candidate.name for candidate in by_preference() if candidate.unavailable() is None]
    choice, rest = first, usable[1:]
    if first == "native" and rest:  # it runs LAPAR and AWSRN only
        choice, rest = f"native for LAPAR and AWSRN, {rest[0]} for other models", rest[1:]
    measured = ", ".join(
        f"{order[0]} for {family}" for family, order in measured_orders().items() if order
    )
    if measured:
        yield Finding(subject="backend", status="ok", found=f"measured here by --tune: {measured}")
    others = ", ".join(rest) or "nothing else"
    yield Finding(
        subject="backend", status="ok", found=f"auto chooses {choice}; {others} would work too"
    )
