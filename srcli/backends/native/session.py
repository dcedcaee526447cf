"""LAPAR and AWSRN on a CPU by our own compiled code: Winograd convolutions, rectangle by rectangle.

General runtimes sum over all taps of a convolution, and write each convolution's result to memory
before the next begins. These networks have few channels, so that a quarter of the multiplications
will do (`_network_kernels.h`), and what lies between two convolutions stays in the cache.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.backends.base import (
    Images,
    Model,
    OutOfMemory,
    Precision,
    Session,
    SessionOptions,
    StreamingSession,
    closed,
)
from srcli.backends.native.compiled import obstacle, vectors
from srcli.backends.native.network import TILE, CompiledNetwork, compiled_network
from srcli.backends.native.stream import RowStream, bytes_needed, exact_margin
from srcli.backends.native.weights import read_weights
from srcli.errors import DeclinedError, Obstacle, VerificationError, first_line
from srcli.system.machine import usable_cores

if TYPE_CHECKING:
    from srcli.models.spec import Geometry, ModelSpec


OTHER_BACKEND = "Choose another --backend."


class NativeBackend:
    """Runs LAPAR and AWSRN in code that was compiled when srcli was installed; needs neither torch
    nor ONNX Runtime once the weights are prepared."""

    name = "native"

    def unavailable(self) -> Obstacle | None:
        return obstacle()

    def declines(self, spec: ModelSpec, precision: Precision) -> Obstacle | None:
        if not spec.compiled:
            return Obstacle(f"runs only LAPAR and AWSRN, not {spec.name}", OTHER_BACKEND)
        if precision != "fp32":
            return Obstacle(f"computes in fp32, not {precision}", OTHER_BACKEND)
        return None

    def open(self, model: Model, options: SessionOptions) -> Session:
        try:
            weights = model.native_weights()
        except VerificationError as error:
            raise DeclinedError(f"native: {error.problem}", error.remedy) from error
        if weights is None:
            raise DeclinedError(
                "native: these weights have filters that are not symmetric",
                "Choose another --backend.",
            )
        return NativeSession(weights, options, model.geometry)


class NativeSession(StreamingSession):
    """A compiled network. Concurrent calls share its threads."""

    def __init__(self, weights: Path, options: SessionOptions, geometry: Geometry) -> None:
        self.concurrency = options.concurrency
        self._network: CompiledNetwork | None = compiled_network(
            *read_weights(weights),
            threads=options.threads or usable_cores(),
            concurrency=self.concurrency,
        )
        self.memory_share = self._network.floats_per_pixel / geometry.floats_per_pixel

    @property
    def facts(self) -> dict[str, object]:
        """Return the device and the width of the vectors."""
        return {"device": "cpu", "vectors": f"{vectors()} bits"}

    def __call__(self, batch: Images) -> Images:
        network = self._network
        if network is None:
            raise closed()
        try:
            return network(batch)
        except MemoryError as error:
            raise OutOfMemory(first_line(error)) from error

    def stream(self, height: int, width: int, *, memory: int, tile: int | None) -> RowStream:
        """Begin a picture that is restored a few rows at a time; see `CompiledNetwork.stream`."""
        if self._network is None:
            raise closed()
        try:
            return RowStream(self._network, height, width, memory=memory, tile=tile)
        except MemoryError as error:
            raise OutOfMemory(first_line(error)) from error

    def stream_needs(self, height: int, width: int, *, memory: int, tile: int | None) -> int:
        """Return the bytes that `stream` would take."""
        if self._network is None:
            raise closed()
        return bytes_needed(self._network, height, width, memory, tile)

    @property
    def exact_margin(self) -> int:
        """Distance from a cut, in input pixels, within which the last digits may differ."""
        if self._network is None:
            raise closed()
        return exact_margin(self._network)

    @property
    def period(self) -> int:
        """Step, in input pixels, at which windows may begin without a change of any digit."""
        if self._network is None:
            raise closed()
        return math.lcm(TILE, *self._network.tail_period)

    def close(self) -> None:
        """Wait for calls under way, then free what the session holds."""
        network, self._network = self._network, None
        if network is not None:
            network.close()
