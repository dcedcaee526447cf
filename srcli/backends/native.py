"""LAPAR and AWSRN on a CPU by our own compiled code: Winograd convolutions, rectangle by rectangle.

General runtimes sum over all taps of a convolution, and write each convolution's result to memory
before the next begins. These networks have few channels, so that a quarter of the multiplications
will do (`_network_kernels.h`), and what lies between two convolutions stays in the cache.
"""

from __future__ import annotations

import importlib
import json
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import (
    Batch,
    Model,
    OutOfMemory,
    Precision,
    Session,
    SessionOptions,
    StreamingSession,
    closed,
)
from srcli.backends.cpu_filters import REBUILD
from srcli.backends.native_stream import RowStream, bytes_needed, exact_margin
from srcli.errors import BackendError, DeclinedError, Obstacle, VerificationError, first_line
from srcli.machine import usable_cores

if TYPE_CHECKING:
    from srcli.spec import Geometry, ModelSpec

Array = NDArray[np.float32]
Rectangle = tuple[int, int, int, int]
"""Top, left, bottom, right; the last two lie outside."""

Work = Callable[[Rectangle, Array], object]
"""Does a rectangle, given scratch memory."""

Kernel = tuple[Array, Array]
"""A convolution's weights at the points of Winograd's filtering, and its bias, flat."""

COMPILED = "srcli.backends._network"
LAYOUT = 4  # of the compiled module: another number means that it is of another version
ALIGNMENT = 64  # bytes
LEAST_BITS = 256  # measured on x86-64: in vectors of 128 bits other backends are faster

# Rectangles of features, in pixels. All begin at multiples of TILE, where Winograd's tiles begin:
# so digits do not depend on how a picture is cut into rectangles.
TILE = 4
MOST_ROWS, COLUMNS = 28, 124
# Narrower where a unit is as wide as AWSRN's, whose features would fill the cache.
WIDE, NARROW_COLUMNS = 64, 28
PORTIONS = 24  # of a stage, at least, for all threads to have work till its end
# Rectangles of the output by scale: with their borders they are about as many tiles as are done at
# once, or a multiple of that, before and after enlarging. They begin at multiples of TILE times the
# scale; between these, digits depend on them.
OUTPUT_SIDES = {1: (72, 72), 2: (72, 72), 3: (60, 84), 4: (48, 112)}


class Compiled(Protocol):
    """The module that `_network.c` becomes, which describes what its functions take."""

    LAYOUT: int

    GROUP: int
    """Channels that are computed together; those of a map are a multiple of it."""

    STEP: int
    """Input channels in a kernel are a multiple of this."""

    MOST_SOURCES: int
    """Maps that one convolution reads at most: as many as AWSRN's last one, the features in nine
    places and the picture."""

    head: Callable[..., None]
    unit: Callable[..., None]
    reduction: Callable[..., None]
    tail: Callable[..., None]
    reconstruction: Callable[..., None]
    convolution: Callable[..., None]
    weight_gradient: Callable[..., None]

    def convolution_floats(self, side: int, channels: int, /) -> int:
        """Return the scratch that a convolution takes for its tiles."""
        ...

    def gradient_floats(self, side: int, channels: int, /) -> int:
        """Return the scratch that `weight_gradient` takes."""
        ...

    def vectors(self) -> int:
        """Return the bits of the vectors that it computes in."""
        ...


def compiled() -> Compiled:
    """Import the compiled module.

    Raises:
        ImportError: It was not built.
    """
    return cast("Compiled", importlib.import_module(COMPILED))


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
    """One network; its lanes may call it at the same time, and share the threads."""

    def __init__(self, weights: Path, options: SessionOptions, geometry: Geometry) -> None:
        self.lanes = options.lanes
        self._network: CompiledNetwork | None = compiled_network(
            *read_weights(weights), threads=options.threads or usable_cores(), lanes=self.lanes
        )
        self.memory_share = self._network.floats_per_pixel / geometry.floats_per_pixel

    @property
    def facts(self) -> dict[str, object]:
        """What really computes."""
        return {"device": "cpu", "vectors": f"{vectors()} bits"}

    def __call__(self, batch: Batch) -> Batch:
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
            return self._network.stream(height, width, memory=memory, tile=tile)
        except MemoryError as error:
            raise OutOfMemory(first_line(error)) from error

    def stream_needs(self, height: int, width: int, *, memory: int, tile: int | None) -> int:
        """Return the bytes that `stream` would take."""
        if self._network is None:
            raise closed()
        return bytes_needed(self._network, height, width, memory, tile)

    @property
    def exact_margin(self) -> int:
        """How far from a cut pixels may differ in their last digits, in input pixels."""
        if self._network is None:
            raise closed()
        return exact_margin(self._network)

    @property
    def period(self) -> int:
        """What windows begin at multiples of for their digits to be those of the whole picture."""
        if self._network is None:
            raise closed()
        return math.lcm(TILE, *self._network.tail_period)

    def close(self) -> None:
        """Wait for calls under way, then free what the session holds."""
        network, self._network = self._network, None
        if network is not None:
            network.close()


def obstacle() -> Obstacle | None:
    """Why the compiled network is not to be used here, and the remedy; None if it is."""
    try:
        module = compiled()
    except ImportError:
        return Obstacle("srcli was installed without its compiled network", REBUILD)
    if getattr(module, "LAYOUT", 0) != LAYOUT:
        return Obstacle(
            "the compiled network is of another version of srcli", "Install srcli again."
        )
    if vectors() < LEAST_BITS:
        reason = f"this build has no vectors of {LEAST_BITS} bits for this processor"
        return Obstacle(reason, "Choose --backend ort.")
    return None


def vectors() -> int:
    """Bits of the vectors that the compiled network computes in on this processor."""
    return compiled().vectors()


def compiled_network(
    weights: Mapping[str, Array],
    scale: int,
    skips: Sequence[Sequence[float]],
    *,
    threads: int,
    lanes: int = 1,
) -> CompiledNetwork:
    """The network that these weights are of, a `FusedLapar` or a `FusedAwsrn`."""
    kind = CompiledLapar if "taps.weight" in weights else CompiledAwsrn
    return kind(weights, scale, skips, threads=threads, lanes=lanes)


class CompiledNetwork(ABC):
    """Local fusion blocks, and what comes before and after them, run by `_network.c`.

    Calls are rectangles of work, which all threads share; a stage begins when the one before it is
    done everywhere.

    Args:
        weights: The state of the fused network, by its names.
        scale: Of the network.
        skips: For each block, the factors on its skip connections, the block's own last.
        threads: Of all lanes together.
        lanes: How many calls are to be under way at once.
    """

    _head_is_rectified: bool

    def __init__(
        self,
        weights: Mapping[str, Array],
        scale: int,
        skips: Sequence[Sequence[float]],
        *,
        threads: int,
        lanes: int = 1,
    ) -> None:
        self._compiled = compiled()
        group = self._compiled.GROUP
        kernel = partial(_kernel, weights)
        self.scale = scale
        self._channels = len(weights["head.bias"])
        self._wide = len(weights["body.0.b0.first.bias"])  # channels within a unit
        self._width = _rounded(self._channels, group)
        self._wide_width = _rounded(self._wide, group)
        self._columns = NARROW_COLUMNS if self._wide >= WIDE else COLUMNS
        self._mean = filled(weights["mean"])
        self._head = kernel("head")
        self._blocks = [
            _Block(
                units=[
                    (kernel(f"body.{index}.b{unit}.first"), kernel(f"body.{index}.b{unit}.second"))
                    for unit in range(len(inner))
                ],
                skips=inner,
                reduction=kernel(f"body.{index}.reduction", sources=len(inner)),
                skip=own,
            )
            for index, (*inner, own) in enumerate(skips)
        ]
        self._end = self._ending(weights)

        self._helpers = max(0, threads - lanes)  # besides the threads that call
        self._pool = ThreadPoolExecutor(self._helpers, "native") if self._helpers else None
        self._thread = threading.local()
        self._lanes, self._is_closed = lanes, False
        self._memory: SimpleQueue[_Memory] = SimpleQueue()
        for _ in range(lanes):
            self._memory.put(_Memory())

    @property
    def maps(self) -> int:
        """Maps of features that are alive at once: what each unit of a block gives, in and out."""
        return max(len(block.units) for block in self._blocks) + 2

    @property
    def width(self) -> int:
        """Channels of a map, with those that fill up its groups."""
        return self._width

    @property
    def blocks(self) -> int:
        """Local fusion blocks."""
        return len(self._blocks)

    @property
    def convolutions(self) -> int:
        """Convolutions up to the end of the body, one after the other."""
        return 1 + sum(2 * len(block.units) + 1 for block in self._blocks)

    @property
    def floats_per_pixel(self) -> float:
        """Memory for each pixel of the output: maps, the picture and the output itself."""
        return (self.maps * self._width + 3) / self.scale**2 + 3

    def __call__(self, batch: Batch) -> Batch:
        """n x 3 x h x w in [0, 1] to n x 3 x s*h x s*w, float32, not clamped.

        Sides of LAPAR's result must be at least 3. May be called from several threads: as many
        calls as there are lanes run at once, others wait.
        """
        count, _, height, width = batch.shape
        restored = np.empty((count, 3, height * self.scale, width * self.scale), np.float32)
        memory = self._memory.get()
        try:
            if self._is_closed:
                raise closed()
            maps = memory.of(self.maps, height, width, self._width)
            for picture, out in zip(batch, restored, strict=True):
                self._restore(np.ascontiguousarray(picture, np.float32), maps, out)
        finally:
            self._memory.put(memory)
        return restored

    def stream(self, height: int, width: int, *, memory: int, tile: int | None = None) -> RowStream:
        """Begin a picture that is restored a few rows at a time, to the same digits.

        Args:
            height: Of the picture, in input pixels.
            width: Of the picture, in input pixels.
            memory: Bytes that may be taken.
            tile: Rows and columns at a time; None chooses by `memory`.
        """
        return RowStream(self, height, width, memory=memory, tile=tile)

    def close(self) -> None:
        """End its threads, when the calls under way are done."""
        lanes = [self._memory.get() for _ in range(self._lanes)]
        self._is_closed = True
        for memory in lanes:
            self._memory.put(memory)
        if self._pool is not None:
            self._pool.shutdown()

    def _restore(self, picture: Array, maps: Array, out: Array) -> None:
        _, height, width = picture.shape
        areas = self.areas(height, width)
        x, y, inner = maps[:1], maps[1:2], maps[2:]  # each 1 x h x w x C
        self.on_each(areas, self.head_work(picture, x))
        for index in range(self.blocks):
            for work in self.block_work(index, x, inner, y):
                self.on_each(areas, work)
            x, y = y, x
        self.on_each(self.tail_areas(0, height, width), self.tail_work(x, picture, out))

    def areas(self, height: int, width: int) -> list[Rectangle]:
        """Return the rectangles of features that are done at a time."""
        rows = rows_for(height, width, self._columns)
        return list(rectangles(height, width, rows, self._columns))

    def head_work(self, picture: Array, x: Array) -> Work:
        """Return what computes the first features `x`, 1 x h x w x C, of a picture, 3 x h x w."""
        entry = (self._mean, self._head, self._channels, self._head_is_rectified)
        return partial(self._compiled.head, picture, *entry, x)

    def block_work(self, index: int, x: Array, inner: Array, y: Array) -> Iterator[Work]:
        """Yield what computes each unit of a block from `x`, and at last `y`, 1 x h x w x C.

        `inner` has a map for what each unit gives.
        """
        block, module, channels = self._blocks[index], self._compiled, self._channels
        source = x
        for number, (unit, skip) in enumerate(zip(block.units, block.skips, strict=True)):
            target = inner[number : number + 1]
            yield partial(module.unit, source, *unit, channels, self._wide, skip, target)
            source = target
        outputs, kernel = inner[: len(block.units)], block.reduction
        yield partial(module.reduction, outputs, kernel, channels, x, block.skip, y)

    @property
    @abstractmethod
    def tail_period(self) -> tuple[int, int]:
        """Rows and columns of the input that rectangles of the tail begin at multiples of."""

    @property
    @abstractmethod
    def area_scale(self) -> int:
        """What the tail's rectangles are counted in, for each pixel of the input."""

    @abstractmethod
    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        """Return the tail's rectangles for rows of the input; `top` is a multiple of its period."""

    @abstractmethod
    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        """Return what follows the body: 1 x h x w x C and 3 x h x w to 3 x H x W."""

    @abstractmethod
    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        """Return what `tail_work` needs of the weights and hands to the compiled code."""

    @abstractmethod
    def _finish_floats(self) -> int:
        """Scratch memory that this takes, besides that of a convolution."""

    def on_each(self, areas: Sequence[Rectangle], work: Work) -> None:
        """Do all rectangles of a stage, each thread taking the next one when it is free."""
        left = deque(areas)

        def do_some() -> None:
            scratch = self._scratch()
            while True:
                try:
                    area = left.popleft()
                except IndexError:
                    return
                work(area, scratch)

        futures: list[Future[None]] = []
        try:
            for _ in range(min(self._helpers, len(areas) - 1)):
                assert self._pool is not None, "there are helpers"
                futures.append(self._pool.submit(do_some))
            do_some()
        finally:
            # Whatever happened: nobody may go on in memory that the next call gets. Those that
            # have not begun would find nothing to do.
            left.clear()
            wait([future for future in futures if not future.cancel()])
        for future in futures:
            if not future.cancelled():
                future.result()

    def _scratch(self) -> Array:
        """Memory of the current thread for what lies between two convolutions."""
        scratch: Array | None = getattr(self._thread, "scratch", None)
        if scratch is None:
            scratch = self._thread.scratch = aligned(self._scratch_floats())
        return scratch

    def _scratch_floats(self) -> int:
        """What the largest of the calls takes."""
        units = max(len(block.units) for block in self._blocks)
        deepest = max(units * self._width, self._wide_width, self._deepest())
        floats = self._compiled.convolution_floats
        points = max(floats(3, deepest), floats(5, self._width))
        pixels = (MOST_ROWS + 2) * (self._columns + 2)
        features = pixels * max(self._width, self._wide_width)
        return points + max(features, self._finish_floats()) + 1024

    def _deepest(self) -> int:
        """Channels that a convolution after the body sums over."""
        return self._width


class CompiledLapar(CompiledNetwork):
    """The network of a `FusedLapar` with 13 taps, at a scale of 1 to 4."""

    _head_is_rectified = True

    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        kernel, scale = partial(_kernel, weights), self.scale
        phases = _along_one_side(weights["phases"], scale) if scale > 1 else np.ones((1, 5))
        up = kernel("up", scale=scale) if scale > 1 else None
        kernels = (up, *(kernel(name) for name in ("mix", "merge", "taps")))
        return (*kernels, self._channels, scale, filled(phases))

    @property
    def tail_period(self) -> tuple[int, int]:
        rows, columns = OUTPUT_SIDES[self.scale]
        return rows // self.scale, columns // self.scale

    @property
    def area_scale(self) -> int:
        return self.scale

    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        s = self.scale
        above, height = top * s, (bottom - top) * s
        return [
            (above + upper, left, above + lower, right)
            for upper, left, lower, right in rectangles(height, width * s, *OUTPUT_SIDES[s])
        ]

    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        return partial(self._compiled.tail, features, *self._end, picture, out)

    def _finish_floats(self) -> int:
        rows, columns = OUTPUT_SIDES[self.scale]
        mixed = (rows + 4) * (columns + 4) * self._width
        enlarged = (rows + 8 + 2 * self.scale) * (columns + 8 + 2 * self.scale) * self._width
        return mixed + enlarged + 20 * (columns + 32)


class CompiledAwsrn(CompiledNetwork):
    """The network of a `FusedAwsrn`, whatever branches it has.

    Its reconstruction is one convolution of 9 x 9, a size for which Winograd's filtering would lose
    too many digits. But it is also the sum of nine of 3 x 3 of features that are moved by three
    pixels, and of the one of the picture: one convolution with ten sources.
    """

    _head_is_rectified = False

    def _ending(self, weights: Mapping[str, Array]) -> tuple[object, ...]:
        border = (9 - weights["tail.weight"].shape[-1]) // 2
        wide = np.pad(weights["tail.weight"], [(0, 0), (0, 0), (border, border), (border, border)])
        parts = [wide[..., y : y + 3, x : x + 3] for y in (0, 3, 6) for x in (0, 3, 6)]
        of_picture = np.zeros_like(parts[0])
        of_picture[:, :3] = weights["skip.weight"]
        joined = np.concatenate([*parts, of_picture], axis=1)
        kernel = packed(joined, weights["tail.bias"], sources=self._compiled.MOST_SOURCES)
        return (kernel, self._channels, self.scale, self._mean)

    @property
    def tail_period(self) -> tuple[int, int]:
        return TILE, TILE

    @property
    def area_scale(self) -> int:
        return 1

    def tail_areas(self, top: int, bottom: int, width: int) -> list[Rectangle]:
        return [
            (top + upper, left, top + lower, right)
            for upper, left, lower, right in self.areas(bottom - top, width)
        ]

    def tail_work(self, features: Array, picture: Array, out: Array) -> Work:
        return partial(self._compiled.reconstruction, features, *self._end, picture, out)

    def _deepest(self) -> int:
        return self._compiled.MOST_SOURCES * self._width

    def _finish_floats(self) -> int:
        phases = _rounded(3 * self.scale**2, self._compiled.GROUP)
        return (MOST_ROWS + 2) * (self._columns + 2) * (self._width + phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    units: list[tuple[Kernel, Kernel]]
    skips: Sequence[float]
    reduction: Kernel
    skip: float


class _Memory:
    """Kept from one picture to the next: the first touch of fresh pages takes long."""

    def __init__(self) -> None:
        self._floats = aligned(0)

    def of(self, *shape: int) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        if self._floats.size < count:
            self._floats = aligned(0)  # first give back what is too small
            self._floats = aligned(count)
        return self._floats[:count].reshape(shape)


def _kernel(weights: Mapping[str, Array], name: str, **layout: int) -> Kernel:
    return packed(weights[f"{name}.weight"], weights[f"{name}.bias"], **layout)


def packed(weight: Array, bias: Array, *, sources: int = 1, scale: int = 1) -> Kernel:
    """A convolution as `_network.c` reads it.

    Args:
        weight: out x in x 3 x 3, or 5 x 5.
        bias: out.
        sources: Maps that the input channels come from, one after the other.
        scale: Of the pixel shuffle that follows; channels are put into the order of its pixels.
    """
    group, step = compiled().GROUP, compiled().STEP
    outputs, _, side, _ = weight.shape
    along = evaluation(side)
    kernels = weight.astype(np.float64).reshape(-1, side**2)
    points = (kernels @ np.kron(along, along).T).reshape(outputs, -1, (side + 3) ** 2)
    # What is a channel of which of the scale * scale pixels; where its input comes from.
    channels, inputs = outputs // scale**2, weight.shape[1] // sources
    points = points.swapaxes(1, 2).reshape(channels, scale**2, -1, sources, inputs)
    wide = np.zeros(
        (
            scale**2,
            _rounded(channels, group),
            (side + 3) ** 2,
            sources,
            _rounded(inputs, step),
        )
    )
    wide[:, :channels, :, :, :inputs] = points.swapaxes(0, 1)
    groups = wide.reshape(-1, group, *wide.shape[2:])
    offsets = np.zeros(wide.shape[:2])
    offsets[:, :channels] = bias.reshape(channels, scale**2).T
    return filled(groups.transpose(0, 2, 3, 4, 1)), filled(offsets)


def evaluation(side: int) -> NDArray[np.float64]:
    """What evaluates a kernel's side at the points of `_network_kernels.h`: side + 3 x side.

    Divided by what the polynomials of the tile's side are there, so that these need no division.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
    """
    pairs = {3: (0.5**0.5, 2**0.5), 5: (1.0, 2.0, 0.5)}[side]
    points = np.array([0.0, *(sign * point for point in pairs for sign in (1, -1))])
    powers = points[:, None] ** np.arange(side)
    others = [np.prod(point - points[points != point]) for point in points]
    at_infinity = np.eye(side)[-1:]
    return np.concatenate([powers / np.array(others)[:, None], at_infinity])


def rectangles(height: int, width: int, rows: int, columns: int) -> Iterator[Rectangle]:
    """A cover of height x width."""
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield top, left, min(top + rows, height), min(left + columns, width)


def rows_for(height: int, width: int, columns: int = COLUMNS) -> int:
    """Rows of a rectangle: many, because borders are computed twice, but enough work for all.

    All are multiples of TILE, so they change no digit.
    """
    across = -(-width // columns)
    choices = range(MOST_ROWS, TILE, -TILE)
    return next((rows for rows in choices if across * -(-height // rows) >= PORTIONS), choices[-1])


def aligned(count: int) -> Array:
    """Numbers that begin at a multiple of 64 bytes, uninitialised."""
    memory = np.empty(count + ALIGNMENT // 4, np.float32)
    start = -memory.ctypes.data % ALIGNMENT // 4
    return memory[start : start + count]


def filled(values: NDArray[np.generic]) -> Array:
    """As float32 from a multiple of 64 bytes on, flat."""
    made = aligned(values.size)
    made[:] = values.ravel()
    return made


def write_weights(
    path: Path, weights: Mapping[str, Array], scale: int, skips: Sequence[Sequence[float]]
) -> None:
    """Write what `read_weights` reads."""
    from safetensors.numpy import save

    # One entry: safetensors writes several in random order.
    facts = {"srcli": json.dumps({"scale": scale, "skips": skips})}
    path.write_bytes(save(dict(weights), facts))


def read_weights(path: Path) -> tuple[dict[str, Array], int, list[list[float]]]:
    """The state of a fused network, its scale, and the factors on its skip connections.

    Raises:
        BackendError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["srcli"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return weights, int(facts["scale"]), facts["skips"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BackendError(
            f"{path}: the prepared weights are damaged ({first_line(error)})",
            "Delete the file and try again; it will be made anew.",
        ) from error


def _along_one_side(phases: Array, scale: int) -> NDArray[np.float64]:
    """The taps of bicubic enlargement along one side, scale x 5, from the filters of all phases."""
    filters = phases[: scale**2].astype(np.float64).reshape(scale, scale, 5, 5)
    # The other side's taps of each phase add up to 1.
    taps: NDArray[np.float64] = filters.sum(axis=(1, 3)) / scale
    return taps


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step
