"""OpenVINO on the CPU: compiles the graph for each shape of input, which pays from the second on.

Named like its package, which Python does not confuse: imports are absolute.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.backends.base import (
    Batch,
    Model,
    OutOfMemory,
    SessionOptions,
    recent,
    says_out_of_memory,
)
from srcli.errors import BackendError, first_line

if TYPE_CHECKING:
    from pathlib import Path

MAX_COMPILED = 4  # shapes kept: the tile and what is left at the picture's borders
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenVinoBackend:
    """Runs the exported graph; needs no torch once the graph is in the cache."""

    name = "openvino"

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed. Run `pip install srcli[openvino]`."
        return None

    def open(self, model: Model, options: SessionOptions) -> OpenVinoSession:
        graph = model.graph("int8" if options.precision == "int8" else "fp32")
        return OpenVinoSession(graph, options)


class OpenVinoSession:
    """One graph, compiled for the shapes that were met last.

    A graph of fixed shape is laid out and fused better than one of any shape: nearly twice as fast
    on LAPAR. Compiling takes tenths of a second, and a picture's tiles have few shapes.
    """

    memory_share = 0.6  # measured: 0.45 (LAPAR), 0.55 (AWSRN), 0.4 (ASDN), 0.2 (HPINet)

    def __init__(self, graph: Path, options: SessionOptions) -> None:
        import openvino

        self._precision = options.precision
        self._core: Any = openvino.Core()
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _TYPES[options.precision],
        }
        if options.threads:
            self._settings["INFERENCE_NUM_THREADS"] = options.threads
        try:
            self._model: Any = self._core.read_model(str(graph))
        except RuntimeError as error:
            raise BackendError(
                f"{graph}: OpenVINO cannot load this graph ({first_line(error)}). "
                "Delete the file and try again, or choose another --backend."
            ) from error
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    @property
    def facts(self) -> dict[str, Any]:
        """What really computes."""
        return {"device": "cpu", "precision": self._precision}

    def __call__(self, batch: Batch) -> Batch:
        try:
            request = self._request(batch.shape)
            result = request.infer({0: batch}, share_inputs=True)
        except (MemoryError, RuntimeError) as error:
            if says_out_of_memory(error, "allocat", "bad_alloc"):
                self._compiled.clear()
                raise OutOfMemory(first_line(error)) from error
            raise BackendError(
                f"OpenVINO cannot run this model ({first_line(error)}). Choose another --backend."
            ) from error
        return np.asarray(result[0])

    def close(self) -> None:
        self._compiled.clear()
        self._model = self._core = None

    def _request(self, shape: tuple[int, ...]) -> Any:
        """What runs batches of this shape."""

        def compile_for_shape() -> Any:
            model = self._model.clone()
            model.reshape(list(shape))
            return self._core.compile_model(model, "CPU", self._settings).create_infer_request()

        return recent(self._compiled, shape, MAX_COMPILED, compile_for_shape)
