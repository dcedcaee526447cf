"""The protocols of backends, which open models, and of sessions, which run batches of pictures."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from srcli.errors import BackendError, Obstacle, SrcliError
from srcli.models.spec import GraphPrecision
from srcli.system.machine import usable_cores

if TYPE_CHECKING:
    import torch
    from torch import nn

    from srcli.models.spec import Geometry, ModelSpec

Integers = NDArray[np.uint8 | np.uint16]
"""N x H x W x 3."""

Images = NDArray[np.float32]
"""Pictures of one size, N x 3 x H x W float32, RGB in [0, 1]."""

BlurKernels = NDArray[np.float32]
"""Blur kernels of N pictures, N x 1 x K x K float32, each of sum 1."""

Shape = tuple[int, ...]
"""NCHW."""

Key = TypeVar("Key")
Value = TypeVar("Value")
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Session:
    """An open model. Close it when done.

    A session says here what it is; what holds for most is the default.
    """

    concurrency: int = 1
    """Number of calls that may be under way at once, from several threads."""

    memory_share: float = 1.0
    """Share of the geometry's `floats_per_pixel` that this session needs; those are stated for the
    backend that needs most."""

    min_shape: Shape | None = None
    """Smallest batch, NCHW, of a session that was built for a range of shapes."""

    max_shape: Shape | None = None
    """Largest batch, NCHW, of a session that was built for a range of shapes."""

    is_blind: bool = False
    """True if the network estimates the picture's blur; the session is then a `BlindSession`."""

    waits: bool = False
    """True if a staged run returns only when the GPU is done."""

    cuda_stream: torch.cuda.Stream | None = None
    """The `torch.cuda.Stream` that the session computes on, if it has one of its own."""

    def __call__(self, batch: Images) -> Images:
        """Restore n x 3 x h x w RGB in [0, 1] to n x 3 x s*h x s*w, not clamped.

        Raises:
            OutOfMemory: The batch did not fit; the session can be used with a smaller one.
        """
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, object]:
        """Return facts about the computation, for people and reports: `device`, `precision`..."""
        return {}

    @property
    def device_memory(self) -> int | None:
        """Free memory of the GPU, in bytes; None if the session computes in the host's memory."""
        return None

    def stage(self, batch: Images) -> Callable[[], object] | None:
        """Put a batch where the network computes.

        Returns:
            A function that runs the network on it; None if the session cannot do these apart.
        """
        return None

    def cancel(self) -> None:
        """End the calls that are under way in other threads, where that can be done.

        They raise `BackendError`. A foreign network may compute for ever.
        """

    def stop(self) -> None:
        """Let a call of several passes end before its next one, by `StoppedError`."""

    def close(self) -> None:
        """Free what the session holds."""

    @property
    def limits(self) -> tuple[Shape, Shape] | None:
        """Smallest and largest batch, NCHW; None if the session takes any shape."""
        low, high = self.min_shape, self.max_shape
        return None if low is None or high is None else (low, high)


class BlindSession(Session):
    """A session of a network that estimates a picture's blur kernel and restores with it.

    Called as any session it does both.
    """

    def estimate_kernel(self, batch: Images) -> BlurKernels:
        """Return the blur kernels of n pictures, n x 1 x K x K, each of sum 1."""
        raise NotImplementedError

    def restore(self, batch: Images, kernel: BlurKernels) -> Images:
        """Restore with known kernels."""
        raise NotImplementedError


class RowStream(Protocol):
    """A picture on its way through a network, from top to bottom."""

    step: int
    """Largest number of rows that `feed` takes at a time."""

    def feed(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take in the next rows, 3 x n x w in [0, 1], and return the output rows that are finished.

        Returns:
            3 x m x s*w, not clamped; m may be 0. All that is left comes with the last row.
        """
        ...


class StreamingSession(Session):
    """A session that takes a picture a few rows at a time and computes the same digits."""

    @property
    def exact_margin(self) -> int:
        """Distance from a cut, in input pixels, within which the last digits may differ."""
        raise NotImplementedError

    @property
    def period(self) -> int:
        """Step, in input pixels, at which windows may begin without a change of any digit."""
        raise NotImplementedError

    def stream(self, height: int, width: int, *, memory: int, tile: int | None) -> RowStream:
        """Open a stream for one picture.

        Args:
            height: In input pixels.
            width: In input pixels.
            memory: Bytes that may be taken.
            tile: Rows and columns at a time; None chooses by `memory`.
        """
        raise NotImplementedError

    def stream_needs(self, height: int, width: int, *, memory: int, tile: int | None) -> int:
        """Return the bytes of memory that `stream` would take with the same arguments."""
        raise NotImplementedError


class PixelSession(Session):
    """A session that may convert between integers and floats where the network computes.

    On a GPU that takes microseconds, and a quarter of the bytes travel.
    """

    takes_pixels: bool = False
    """True if `restore_pixels` can be called."""

    def restore_pixels(self, pixels: Integers, cut: tuple[slice, slice], bits: int) -> Integers:
        """Restore pictures as `__call__` does, from integers to integers.

        Args:
            pixels: n x h x w x 3 RGB, uint8 or uint16, as large as the network takes.
            cut: Rows and columns of the output that are wanted.
            bits: Of the result, 8 or 16.

        Returns:
            n x rows x columns x 3, clamped and rounded to nearest, ties to even.

        Raises:
            OutOfMemory: The batch did not fit; the session can be used with a smaller one.
            SrcliError: The network gave values that are not finite.
        """
        raise NotImplementedError


def as_pixels(session: Session) -> PixelSession | None:
    """Return the session if it takes integers; None otherwise."""
    return session if isinstance(session, PixelSession) and session.takes_pixels else None


def not_finite() -> SrcliError:
    """Return the error for a network that gave values that are infinite or no numbers."""
    return SrcliError(
        "the network gave values that are not finite",
        "Try --precision fp32, or another backend; if the weights are your own, check them.",
    )


def as_blind(session: Session) -> BlindSession | None:
    """Return the session if its network estimates the blur kernel; None otherwise."""
    return session if isinstance(session, BlindSession) and session.is_blind else None


def closed() -> BackendError:
    """Return the error for a call of a session that was closed."""
    return BackendError("this model has been closed", "Open it again.")


def recent(
    kept: OrderedDict[Key, Value], key: Key, capacity: int, make: Callable[[], Value]
) -> Value:
    """Return the cached value of a key; make it if absent, and evict the least recently used."""
    if key not in kept:
        while len(kept) >= capacity:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]


class Model(Protocol):
    """A model with its weights, in whichever form a backend asks for."""

    @property
    def spec(self) -> ModelSpec:
        """The model's entry in the registry, or for a foreign model a similar one."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Sizes that the network takes, its receptive field and its need of memory."""
        ...

    @property
    def note(self) -> Callable[[str], None]:
        """Function that is called with each message for the user."""
        ...

    def published_network(self) -> nn.Module:
        """Return the network in its paper's form, on the CPU, in float32."""
        ...

    def network(self) -> nn.Module:
        """Return the fused network on the CPU, in float32."""
        ...

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the verified ONNX file that computes in this precision; made on first use."""
        ...

    def cpu_graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the verified ONNX file in the form that is fastest on CPUs; made on first use."""
        ...

    def tap_graph(self, precision: GraphPrecision = "fp32") -> Path | None:
        """Return the ONNX file that ends at the taps of LAPAR's filters; None for other models.

        It is for backends that apply the filters themselves. Its outputs are named in
        `srcli.backends.filters.cpu`.
        """
        ...

    def native_weights(self) -> Path | None:
        """Return the verified weights for the backend `native`; None if it cannot run the model."""
        ...

    def engine(
        self, precision: GraphPrecision = "fp32", shape: tuple[int, ...] | None = None
    ) -> Path:
        """Return the TensorRT engine that is fastest at this shape, NCHW; built on first use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Options for running a model."""

    threads: int | None = None
    """CPU threads, for all calls together; None for one on each core that may be used."""

    concurrency: int = 1
    """Number of calls that are to be under way at once; see `Session.concurrency`."""

    precision: Precision = "fp32"

    shape: tuple[int, int, int, int] | None = None
    """Shape of the batches to come, NCHW, if known: an engine is built to be fastest at it."""

    cuda_graph: bool = True
    """On CUDA, replay a network's launches as one graph; False only to measure the gain."""

    @property
    def thread_limit(self) -> int | None:
        """Number of threads to set in a runtime; None if its own choice is right.

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
        """Return why this backend cannot be used here, and the remedy; None if it can."""
        ...

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        """Return why this model cannot run in this precision; None if opening it may be tried."""
        ...

    def open(self, model: Model, options: SessionOptions) -> Session:
        """Open a model.

        Raises:
            BackendError: The backend is not available or refuses the model.
        """
        ...


class RunsEveryModel:
    """A base class of backends that try every model: `declines` always returns None."""

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        """Return None: every model is tried."""
        return None


def says_out_of_memory(error: Exception, *signs: str) -> bool:
    """Tell whether a runtime's error means that memory ran out, by its type or by its text."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


class StoppedError(Exception):
    """The run was stopped; the result of this picture is no longer wanted."""


class OutOfMemory(Exception):
    """A batch did not fit in memory. The pipeline halves the tile and goes on."""
