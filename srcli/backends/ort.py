"""ONNX Runtime: on CUDA where the package and the machine have it, on the CPU otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.backends.base import (
    Images,
    Model,
    OutOfMemory,
    RunsEveryModel,
    Session,
    SessionOptions,
    closed,
    says_out_of_memory,
)
from srcli.backends.filters.cpu import BY_PARTS, PICTURE, TAPS, CpuFilters, shortest_graph
from srcli.errors import BackendError, Obstacle, first_line
from srcli.system import runtimes
from srcli.system.cuda import driver
from srcli.system.machine import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

Shape = tuple[int, ...]
MANY = 64  # pictures in a batch, where the graph does not limit them
_FATAL_ONLY = 4  # severity; anything lower lets ONNX Runtime write warnings into our stderr
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntimeBackend(RunsEveryModel):
    """Runs the exported graph; needs no torch once the graph is in the cache."""

    name = "ort"

    def unavailable(self) -> Obstacle | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return Obstacle("ONNX Runtime is not installed", "Run `pip install onnxruntime`.")
        return None

    def open(self, model: Model, options: SessionOptions) -> OnnxRuntimeSession:
        cuda = _has_cuda()
        if options.precision == "bf16" or (options.precision == "fp16" and not cuda):
            where = "on CUDA in fp32 or fp16" if cuda else "in fp32 on the CPU"
            raise BackendError(
                f"ort computes {where}, not {options.precision}", "Choose another --precision."
            )
        if options.precision == "int8" and cuda:
            raise BackendError("int8 is for CPUs", "Choose --precision fp16.")
        make = model.graph if cuda else partial(shortest_graph, model)
        session = OnnxRuntimeSession(make(options.precision), options, cuda=cuda)
        if model.spec.dense and not cuda:
            session.memory_share = BY_PARTS
        return session


class OnnxRuntimeSession(Session):
    """One graph, open.

    Args:
        graph: An ONNX file, or its content. It has one picture-like input and output, or ends at
            the taps of filters (see `cpu_filters`), which are then applied here.
        options: Options for running it.
        cuda: On the GPU; that it really runs there is checked, because ONNX Runtime goes on
            silently on the CPU when a library of CUDA's is missing.
    """

    memory_share = 1.0

    waits = True
    """A staged run returns only when it is done, on CUDA too."""

    def __init__(self, graph: Path | bytes, options: SessionOptions, *, cuda: bool = False) -> None:
        ort = runtimes.onnxruntime()
        ort.set_default_logger_severity(_FATAL_ONLY)
        settings = ort.SessionOptions()
        settings.log_severity_level = _FATAL_ONLY
        self.concurrency = 1 if cuda else options.concurrency
        threads = options.thread_limit
        if threads is None and self.concurrency > 1:
            threads = usable_cores()
        if threads is not None:
            # The session's own and each caller's: all concurrent calls share the former.
            settings.intra_op_num_threads = max(1, threads - self.concurrency + 1)
        content = graph if isinstance(graph, bytes) else graph.read_bytes()
        try:
            if cuda:
                runtimes.preload_cuda(ort)
            self._session: Any = ort.InferenceSession(content, settings, providers=_providers(cuda))
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BackendError(
                f"ONNX Runtime cannot load this graph ({first_line(error)})",
                "Choose another --backend.",
            ) from error
        self._provider: str = self._session.get_providers()[0]
        if cuda and self._provider != _CUDA:
            raise BackendError(
                "ONNX Runtime finds the GPU but cannot use it",
                "Run `srcli doctor` to see what is missing, or use --backend torch.",
            )
        self._under_way: list[Any] = []
        self._input: str = self._session.get_inputs()[0].name
        limits = _limits(self._session.get_inputs()[0].shape)
        self.min_shape: Shape | None = limits[0]
        self.max_shape: Shape | None = limits[1]
        self._outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self._filters = CpuFilters.on_all_cores(options) if TAPS in self._outputs else None

    @property
    def facts(self) -> dict[str, object]:
        """Return the device, ONNX Runtime's provider, and what applies LAPAR's filters."""
        device = "cuda" if self._provider == _CUDA else "cpu"
        filters = None if self._filters is None else "compiled"
        return {"device": device, "provider": self._provider, "filters": filters}

    def __call__(self, batch: Images) -> Images:
        session = self._session
        if session is None:
            raise closed()
        options = runtimes.onnxruntime().RunOptions()
        self._under_way.append(options)
        try:
            outputs = session.run(None, {self._input: batch}, options)
            if self._filters is not None:
                found = dict(zip(self._outputs, outputs, strict=True))
                return self._filters(found.get(PICTURE, batch), found[TAPS])
        except Exception as error:
            if says_out_of_memory(error, "allocate", "bad_alloc"):
                raise OutOfMemory(first_line(error)) from error
            if options.terminate:
                raise BackendError(
                    "this run was stopped before it was done", "Start it again."
                ) from error
            raise
        finally:
            self._under_way.remove(options)
        return np.asarray(outputs[0])

    def cancel(self) -> None:
        """End calls under way in other threads, at the next operation of the network."""
        for options in list(self._under_way):
            options.terminate = True

    def stage(self, batch: Images) -> Callable[[], object]:
        """Put a batch where the graph computes; the result runs it there and waits."""
        if self._provider != _CUDA:
            return lambda: self(batch)
        ort = runtimes.onnxruntime()
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, ort.OrtValue.ortvalue_from_numpy(batch, "cuda", 0))
        binding.bind_output(self._outputs[0], "cuda", 0)
        return lambda: self._session.run_with_iobinding(binding)

    def close(self) -> None:
        self._session = None
        if self._filters is not None:
            self._filters.close()


def _limits(shape: Sequence[Any]) -> tuple[Shape, Shape] | tuple[None, None]:
    """Return the smallest and largest batch of a graph of fixed size; None if it takes any."""
    batch, planes, *sides = shape
    if not all(isinstance(side, int) for side in sides):
        return None, None
    maximum = batch if isinstance(batch, int) else MANY
    return (1, planes, *sides), (maximum, planes, *sides)


def _has_cuda() -> bool:
    if not driver().devices:
        return False
    return _CUDA in runtimes.onnxruntime().get_available_providers()


def _providers(cuda: bool) -> list[object]:
    # TF32 keeps ten bits of the mantissa, and fp32 was asked for.
    return [(_CUDA, {"use_tf32": 0}), _CPU] if cuda else [_CPU]
