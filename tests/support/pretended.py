"""A TensorRT and a CUDA that run on the CPU, as far as a session can tell.

The engine enlarges by pixel repetition. It reads and writes the addresses that it is given, as
the real one does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

LOW, HIGH = (1, 3, 8, 8), (4, 3, 64, 96)
SCALE = 2


class Context:
    """An execution context. It refuses to run unless everything was set in TensorRT's order."""

    def __init__(self, journal: list[str]) -> None:
        self.journal, self.shape, self.scratch = journal, None, 0
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile = profile_index
        return stream_handle != 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "input" and self.profile == 0 and self.shape is None
        self.shape = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        n, c, h, w = self.shape
        return n, c, h * SCALE, w * SCALE

    def update_device_memory_size_for_shapes(self) -> int:
        return int(np.prod(self.shape))

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory and size >= self.update_device_memory_size_for_shapes()
        self.scratch = memory

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.scratch and stream_handle
        self.journal.append("capture" if Graph.recording else "run")
        if Graph.recording:
            Graph.recording.recorded = self._compute
        else:
            self._compute()
        return True

    def _compute(self) -> None:
        source = _floats(self.addresses["input"], self.shape)
        target = _floats(self.addresses["output"], self.get_tensor_shape("output"))
        target[:] = source.repeat(SCALE, axis=2).repeat(SCALE, axis=3)


def _floats(address: int, shape: tuple[int, ...]) -> np.ndarray:
    buffer = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.frombuffer(buffer, np.float32).reshape(shape)


class RuntimeConfig:
    """What TensorRT-RTX is told of a context."""

    strategy = cache = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> object:
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self.cache = cache
        return True


class Engine:
    num_io_tensors = 2

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.configured: list[RuntimeConfig] = []

    def get_tensor_name(self, index: int) -> str:
        return ("input", "output")[index]

    def get_tensor_mode(self, name: str) -> str:
        return name

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, -1, -1)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [LOW, (1, 3, 16, 16), HIGH]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, strategy: str | RuntimeConfig) -> Context:
        if isinstance(strategy, RuntimeConfig):
            self.configured.append(strategy)
            strategy = strategy.strategy
        assert strategy == "user managed"
        self.journal.append("context")
        return Context(self.journal)


class Graph:
    """A CUDA graph: remembers what is enqueued, and does it on replay."""

    recording: Graph | None = None

    def replay(self) -> None:
        self.recorded()


@contextmanager
def record(graph: Graph, stream: object, capture_error_mode: str) -> Iterator[None]:
    assert capture_error_mode == "thread_local"  # others may pin memory meanwhile
    Graph.recording = graph
    yield
    Graph.recording = None


@contextmanager
def use(stream: object) -> Iterator[None]:
    yield


class Logger:
    INTERNAL_ERROR = ERROR = WARNING = 0
