"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.backends.base import Batch, Model, OutOfMemory, SessionOptions
from srcli.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

_FATAL_ONLY = 4  # severity; anything lower lets ONNX Runtime write warnings into our stderr


class OnnxRuntimeBackend:
    """Runs the exported graph; needs no torch once the graph is in the cache."""

    name = "ort"

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return "ONNX Runtime is not installed. Run `pip install onnxruntime`."
        return None

    def open(self, model: Model, options: SessionOptions) -> OnnxRuntimeSession:
        if options.precision != "fp32":
            raise BackendError(
                f"ort computes in fp32 on the CPU, not {options.precision}. Leave out --precision."
            )
        return OnnxRuntimeSession(model.graph(), options)


class OnnxRuntimeSession:
    """One graph, open."""

    def __init__(self, graph: Path, options: SessionOptions) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(_FATAL_ONLY)
        settings = ort.SessionOptions()
        settings.log_severity_level = _FATAL_ONLY
        if options.threads:
            settings.intra_op_num_threads = options.threads
        try:
            self._session: Any = ort.InferenceSession(
                graph.read_bytes(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BackendError(
                f"{graph}: ONNX Runtime cannot load this graph ({_first_line(error)}). "
                "Delete the file and try again; it will be made anew."
            ) from error
        self._input: str = self._session.get_inputs()[0].name

    @property
    def facts(self) -> dict[str, Any]:
        """What really computes."""
        return {"device": "cpu", "provider": self._session.get_providers()[0]}

    def __call__(self, batch: Batch) -> Batch:
        try:
            (output,) = self._session.run(None, {self._input: batch})
        except Exception as error:
            if _is_memory(error):
                raise OutOfMemory(_first_line(error)) from error
            raise
        return np.asarray(output)

    def close(self) -> None:
        self._session = None


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate" in text or "bad_alloc" in text


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
