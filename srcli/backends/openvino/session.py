"""OpenVINO on the CPU: compiles the graph for each shape of input; small ones go to ONNX Runtime.

Named like its package, which Python does not confuse: imports are absolute.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from srcli.backends.base import (
    Images,
    Model,
    OutOfMemory,
    Precision,
    Session,
    SessionOptions,
    closed,
    recent,
    says_out_of_memory,
)
from srcli.backends.filters.cpu import BY_PARTS, TAPS, CpuFilters, shortest_graph
from srcli.backends.openvino.graph import gather_pixels, last_channels
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import BackendError, DeclinedError, Obstacle, first_line
from srcli.system import runtimes
from srcli.system.installation import pip_install

if TYPE_CHECKING:
    from pathlib import Path

    from openvino import Core, InferRequest
    from openvino import Model as Graph

    from srcli.models.spec import ModelSpec

Shape = tuple[int, ...]
SMALL = 1 << 15  # pixels of input
MAX_COMPILED = 4  # shapes kept: the tile and what is left at the picture's borders
_CAPABILITIES = {"fp16": "FP16", "bf16": "BF16"}  # others are computed everywhere
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenVinoBackend:
    """Runs the exported graph; needs no torch once the graph is in the cache."""

    name = "openvino"

    def unavailable(self) -> Obstacle | None:
        if importlib.util.find_spec("openvino") is None:
            return Obstacle("OpenVINO is not installed", f"Run `{pip_install('openvino')}`.")
        return None

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        """Return why this processor cannot compute in this precision; None if it can."""
        if precision not in _CAPABILITIES or _CAPABILITIES[precision] in _capabilities():
            return None
        return Obstacle(f"this processor does not compute in {precision}", "Leave out --precision.")

    def open(self, model: Model, options: SessionOptions) -> OpenVinoSession:
        graph = shortest_graph(model, "int8" if options.precision == "int8" else "fp32")
        session = OpenVinoSession(graph, options)
        if model.spec.dense:
            session.memory_share = BY_PARTS
        return session


@cache
def _capabilities() -> frozenset[str]:
    """Return the capabilities of this processor, by OpenVINO's names."""
    return frozenset(runtimes.openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class OpenVinoSession(Session):
    """One graph, compiled for the large shapes that were met last.

    A graph of fixed shape is laid out and fused better than one of any shape: 1.5 times as fast on
    LAPAR. But compiling takes a quarter of a second, several times as long as a small picture, and
    in a folder every picture may have another shape. So small ones go through ONNX Runtime, which
    is faster than OpenVINO with a graph of any shape. The size alone decides: the two differ in the
    last digits, and a picture's result must not depend on what came before it.

    Calls may be concurrent; each has its share of the threads.
    """

    memory_share = 0.6  # measured: 0.58 (LAPAR), 0.59 (AWSRN), 0.2 (HPINet)

    def __init__(self, graph: Path, options: SessionOptions) -> None:
        self._precision = options.precision
        core: Core = runtimes.openvino().Core()
        self._core: Core | None = core
        self.concurrency = options.concurrency
        self._capacity = max(
            2, MAX_COMPILED // options.concurrency
        )  # each call has memory for each shape
        self._settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": options.concurrency,
            "INFERENCE_PRECISION_HINT": _TYPES[options.precision],
            # Threads tied to cores all take the same ones: those of two sessions of one thread
            # share the first core while the second is idle, and encoders wait for it too.
            "ENABLE_CPU_PINNING": False,
        }
        if (threads := options.thread_limit) is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model: Graph = core.read_model(str(graph))
        except RuntimeError as error:
            raise BackendError(
                f"{graph}: OpenVINO cannot load this graph ({first_line(error)})",
                "Delete the file and try again, or choose another --backend.",
            ) from error
        if any(side.is_static for side in list(model.input(0).partial_shape)[2:]):
            raise DeclinedError(
                f"openvino: {graph.name} takes pictures of one size only", "Choose --backend ort."
            )
        gather_pixels(model)
        self._filters: CpuFilters | None = None
        if TAPS in model.output(0).names:
            model = last_channels(model)
            self._filters = CpuFilters.on_all_cores(options)
        self._model: Graph | None = model
        self._compiled: OrderedDict[Shape, SimpleQueue[InferRequest]] = OrderedDict()
        self._graph, self._options = graph, options
        self._small: OnnxRuntimeSession | None = None
        self._guard = threading.Lock()

    @property
    def facts(self) -> dict[str, object]:
        """Return the device, the precision, and what runs small pictures and filters."""
        return {
            "device": "cpu",
            "precision": self._precision,
            "small_pictures": f"ONNX Runtime, up to {SMALL} pixels of input",
            "filters": None if self._filters is None else "compiled",
        }

    def __call__(self, batch: Images) -> Images:
        if self._model is None:
            raise closed()
        if batch.size <= 3 * SMALL and self._precision in ("fp32", "int8"):
            return self._for_small()(batch)
        try:
            with self._request(batch.shape) as request:
                if self._filters is None:
                    return np.asarray(request.infer({0: batch}, share_inputs=True)[0])
                outputs = request.infer({0: batch}, share_inputs=True, share_outputs=True)
                taps = outputs[0].transpose(0, 3, 1, 2)
                return self._filters(outputs[1] if len(outputs) > 1 else batch, taps)
        except (MemoryError, RuntimeError) as error:
            if says_out_of_memory(error, "allocat", "bad_alloc"):
                self._forget()
                raise OutOfMemory(first_line(error)) from error
            raise BackendError(
                f"OpenVINO cannot run this model ({first_line(error)})", "Choose another --backend."
            ) from error

    def close(self) -> None:
        self._forget()
        if self._filters is not None:
            self._filters.close()
        self._model = self._core = None

    def _forget(self) -> None:
        """Free the memory of all compiled models."""
        with self._guard:
            self._compiled.clear()
            self._small = None

    def _for_small(self) -> OnnxRuntimeSession:
        with self._guard:
            if self._small is None:
                self._small = OnnxRuntimeSession(self._graph, self._options)
            return self._small

    @contextmanager
    def _request(self, shape: Shape) -> Iterator[InferRequest]:
        """Lend an inference request for batches of this shape; one call has it at a time."""

        core, whole = self._core, self._model
        if core is None or whole is None:
            raise closed()

        def compile_for_shape() -> SimpleQueue[InferRequest]:
            model = whole.clone()
            model.reshape(list(shape))
            compiled = core.compile_model(model, "CPU", self._settings)
            requests: SimpleQueue[InferRequest] = SimpleQueue()
            for _ in range(self.concurrency):
                requests.put(compiled.create_infer_request())
            return requests

        with self._guard:
            free = recent(self._compiled, shape, self._capacity, compile_for_shape)
        request = free.get()
        try:
            yield request
        finally:
            free.put(request)
