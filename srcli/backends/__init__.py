"""The ways to run a model, fastest exact one first on a machine without a GPU.

Each backend is one small file behind the protocol in `base.py`.
"""

from __future__ import annotations

from srcli.backends.base import Backend
from srcli.backends.eager import TorchBackend
from srcli.backends.ort import OnnxRuntimeBackend
from srcli.errors import BackendError

BACKENDS: tuple[Backend, ...] = (OnnxRuntimeBackend(), TorchBackend())


def backend_names() -> tuple[str, ...]:
    """The names of all backends, in order of preference."""
    return tuple(backend.name for backend in BACKENDS)


def get_backend(name: str) -> Backend:
    """The backend of this name; `auto` is the first that works here.

    Raises:
        BackendError: It does not exist or cannot be used on this machine.
    """
    reasons = []
    for backend in BACKENDS:
        if name in ("auto", backend.name):
            reason = backend.unavailable()
            if reason is None:
                return backend
            reasons.append(f"{backend.name}: {reason}")
    if reasons:
        raise BackendError("; ".join(reasons))
    raise BackendError(f"no backend is called {name!r}. Choose from {', '.join(backend_names())}.")
