"""What a backend is: something that opens a model and runs batches of pictures through it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from srcli.errors import BackendError, Obstacle
from srcli.machine import usable_cores
from srcli.spec import GraphPrecision

if TYPE_CHECKING:
    from torch import nn

    from srcli.spec import Geometry, ModelSpec

Batch = NDArray[np.float32]
Shape = tuple[int, ...]
"""NCHW."""

Key = TypeVar("Key")
Value = TypeVar("Value")
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Session:
    """An open model. Close it when done.

    A session says here what it is; what holds for most is the default.
    """

    lanes: int = 1
    """How many calls may be under way at once, from several threads."""

    memory_share: float = 1.0
    """How much of a geometry's `floats_per_pixel` it needs: those are of the backend that needs
    most."""

    min_shape: Shape | None = None
    """Smallest batch, NCHW, of a session that was built for a range of shapes."""

    max_shape: Shape | None = None
    """Largest batch, NCHW, of a session that was built for a range of shapes."""

    is_blind: bool = False
    """Whether the network estimates the picture's blur; then it is a `BlindSession`."""

    waits: bool = False
    """Whether a staged run waits until a GPU is done."""

    cuda_stream: Any = None
    """PyTorch's CUDA stream that it computes on, where that is one of its own."""

    def __call__(self, batch: Batch) -> Batch:
        """Restore n x 3 x h x w RGB in [0, 1] to n x 3 x s*h x s*w, not clamped.

        Raises:
            OutOfMemory: The batch did not fit; the session can be used with a smaller one.
        """
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        """Where and how it computes, for people and results: `device`, `precision` and others."""
        return {}

    @property
    def device_memory(self) -> int | None:
        """Bytes that are free on the GPU; None where it computes in the host's memory."""
        return None

    def stage(self, batch: Batch) -> Callable[[], object] | None:
        """Put a batch where the network computes.

        Returns:
            A function that runs the network on it; None if the session cannot do these apart.
        """
        return None

    def cancel(self) -> None:
        """End the calls that are under way in other threads, where that can be done.

        They raise `BackendError`. A network of somebody else's may compute for ever.
        """

    def stop(self) -> None:
        """Let a call of several passes end before its next one, by `StoppedError`."""

    def close(self) -> None:
        """Free what the session holds."""

    @property
    def limits(self) -> tuple[Shape, Shape] | None:
        """Smallest and largest batch, NCHW; None if it takes any."""
        low, high = self.min_shape, self.max_shape
        return None if low is None or high is None else (low, high)


class BlindSession(Session):
    """A session of a network that estimates a picture's blur, and restores with that.

    Called as any session it does both.
    """

    def estimate_kernel(self, batch: Batch) -> Batch:
        """Return the blur kernels of n pictures, n x 1 x K x K, each of sum 1."""
        raise NotImplementedError

    def restore(self, batch: Batch, kernel: Batch) -> Batch:
        """Restore with known kernels."""
        raise NotImplementedError


class RowStream(Protocol):
    """A picture on its way through a network, from top to bottom."""

    step: int
    """The most rows that `feed` takes at a time."""

    def feed(self, rows: Batch) -> Batch:
        """Take in the next rows, 3 x n x w in [0, 1], and give out what is finished.

        Returns:
            3 x m x s*w, not clamped; m may be 0. All that is left comes with the last row.
        """
        ...


class StreamingSession(Session):
    """A session that takes a picture a few rows at a time, and gives the same digits."""

    @property
    def exact_margin(self) -> int:
        """How far from a cut pixels may differ in their last digits, in input pixels."""
        raise NotImplementedError

    @property
    def period(self) -> int:
        """What windows begin at multiples of for their digits to be those of the whole picture."""
        raise NotImplementedError

    def stream(self, height: int, width: int, *, memory: int, tile: int | None) -> RowStream:
        """Begin a picture.

        Args:
            height: In input pixels.
            width: In input pixels.
            memory: Bytes that may be taken.
            tile: Rows and columns at a time; None chooses by `memory`.
        """
        raise NotImplementedError

    def stream_needs(self, height: int, width: int, *, memory: int, tile: int | None) -> int:
        """Return the bytes that `stream` would take with the same arguments."""
        raise NotImplementedError


def as_blind(session: Session) -> BlindSession | None:
    """Return the session, if it gives out its kernel."""
    return session if isinstance(session, BlindSession) and session.is_blind else None


def closed() -> BackendError:
    """For a call of a session that was closed."""
    return BackendError("this model has been closed. Open it again.")


def recent(kept: OrderedDict[Key, Value], key: Key, most: int, make: Callable[[], Value]) -> Value:
    """What is kept under a key, or made now; what was not asked for longest makes room for it."""
    if key not in kept:
        while len(kept) >= most:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]


class Model(Protocol):
    """A model with its weights, in whichever form a backend asks for."""

    @property
    def spec(self) -> ModelSpec:
        """Its entry in the registry, or one like it."""
        ...

    @property
    def geometry(self) -> Geometry:
        """What sizes it takes, and how much memory."""
        ...

    @property
    def note(self) -> Callable[[str], None]:
        """Told what the user should know."""
        ...

    def published(self) -> nn.Module:
        """The network in its paper's form, on the CPU, in float32."""
        ...

    def network(self) -> nn.Module:
        """The fused network on the CPU, in float32."""
        ...

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        """The verified ONNX file that computes in this precision; made on first use."""
        ...

    def cpu_graph(self, precision: GraphPrecision = "fp32") -> Path:
        """The same as CPUs compute it best."""
        ...

    def tap_graph(self, precision: GraphPrecision = "fp32") -> Path | None:
        """The same up to the taps of LAPAR's filters, for backends that apply them themselves.

        None where there is none. Its outputs are named in `srcli.backends.cpu_filters`.
        """
        ...

    def native_weights(self) -> Path | None:
        """The verified file that `srcli.backends.native` reads; None for what it does not run."""
        ...

    def engine(
        self, precision: GraphPrecision = "fp32", shape: tuple[int, ...] | None = None
    ) -> Path:
        """The TensorRT engine of the graph, fastest at this shape, NCHW; built on first use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How to run a model."""

    threads: int | None = None
    """CPU threads, of all lanes together; None for one on each core that may be used."""

    lanes: int = 1
    """How many calls are to be under way at once; see `Session.lanes`."""

    precision: Precision = "fp32"

    shape: tuple[int, int, int, int] | None = None
    """Of the batches to come, NCHW, where it is known: an engine is built to be fastest there."""

    cuda_graph: bool = True
    """On CUDA: replay a network's launches as one graph. Off only to measure what that gains."""

    @property
    def thread_limit(self) -> int | None:
        """Threads that a runtime must be told of; None if its own choice is right.

        Left alone they start one for each core of the machine, also where the process may use only
        some of them.
        """
        if self.threads is not None:
            return self.threads
        cores = usable_cores()
        return cores if cores < (os.cpu_count() or 1) else None


class Backend(Protocol):
    """A way to run models."""

    name: str

    def unavailable(self) -> Obstacle | None:
        """Why this backend cannot be used here, and the remedy; None if it can."""
        ...

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        """Why this model cannot be run in this precision, as far as is known without opening it."""
        ...

    def open(self, model: Model, options: SessionOptions) -> Session:
        """Open a model.

        Raises:
            BackendError: The backend is not available or refuses the model.
        """
        ...


class RunsEveryModel:
    """For backends that know nothing of models beforehand."""

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        """See `Backend`."""
        return None


def says_out_of_memory(error: Exception, *signs: str) -> bool:
    """Whether a runtime's error means that memory ran out: by its type, or by words in its text."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


class StoppedError(Exception):
    """The run has ended; nobody waits for this picture."""


class OutOfMemory(Exception):
    """A batch did not fit in memory. The pipeline halves the tile and goes on."""
