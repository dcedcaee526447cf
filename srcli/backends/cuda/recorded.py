"""A network on a CUDA device: the fastest form that computes the same, recorded for each shape.

The launches of a network of this size take longer than its kernels, so the run on a shape is
recorded as a CUDA graph and replayed. Recording pays from the second batch of a shape on: one
picture alone is run as it is, without looking for fast algorithms.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srcli.backends.base import Images, Integers, not_finite, recent
from srcli.backends.filters.fused import sum_in_float32, use_kernel
from srcli.errors import OutputError, first_line
from srcli.system import cache

MAX_RECORDED = 4  # shapes that keep their buffers and graphs: the tile, and some room
WARM_UP = 3  # runs before a recording: whatever is initialised on first use must not be recorded
TURNS = 5  # of each form, of which the fastest counts
SAMPLE = (2, 3, 21, 37)  # of more than one program, and a multiple of nothing
CUDNN, TRITON = "cuDNN", "Triton"

Form = Callable[[Tensor], Tensor]
"""A function from n x 3 x h x w to n x 3 x H x W, both float32, dense, on the device."""


@dataclass(slots=True)
class Recording:
    """A network's run on one shape; all addresses stay."""

    input: Tensor
    output: Tensor
    graph: torch.cuda.CUDAGraph


class CudaNetwork:
    """One network on the current CUDA device.

    Args:
        network: On the CPU, in float32: n x 3 x h x w in [0, 1] -> n x 3 x H x W.
        dtype: Number type that the network computes in.
        tolerance: Largest difference allowed to another form of it.
        record: True to record and replay. A network that cannot be recorded (because the CPU
            has to look at a result in between) is run kernel by kernel.
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, *, tolerance: float, record: bool
    ) -> None:
        # TF32 keeps ten bits of the mantissa, and fp32 was asked for.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._device, self._dtype, self._tolerance = torch.device("cuda"), dtype, tolerance
        self._exact = network.eval()
        self.plain = _placed(copy.deepcopy(network), self._device, dtype)
        if dtype != torch.float32:
            sum_in_float32(self.plain)
        self._float32 = self.plain if dtype == torch.float32 else None
        self._chosen: Form | None = None
        self.recording = record
        self._seen: set[tuple[int, ...]] = set()
        self._recorded: OrderedDict[tuple[int, ...], Recording] = OrderedDict()
        self._pool: Any = None
        self.facts: dict[str, object] = {
            "device": torch.cuda.get_device_name(),
            "precision": str(dtype).removeprefix("torch."),
            "cuda_graph": record,
        }

    def __call__(self, batch: Images) -> Images:
        """Restore a batch."""
        result = _fetched(self._restored(_pinned(batch)))
        torch.cuda.current_stream().synchronize()
        return np.asarray(result.numpy())

    def pixels(self, pixels: Integers, cut: tuple[slice, slice], bits: int) -> Integers:
        """Restore integers; see `PixelSession.restore_pixels`."""
        restored = self._restored(as_floats(pixels, self._device))[:, :, cut[0], cut[1]]
        finite = restored.isfinite().all()
        result = _fetched(as_integers(restored, bits))
        if not finite:  # waits for the device, and so for the result
            raise not_finite()
        return np.asarray(result.numpy()).view(np.uint8 if bits == 8 else np.uint16)

    def stage(self, batch: Images) -> Callable[[], object]:
        """Put a batch on the device.

        Returns:
            A function that runs the network on it, and returns before the work is done.
        """
        source = _pinned(batch)
        ready = self._ready(source) if self.recording else None
        if ready is not None:
            ready.input.copy_(source)
            return ready.graph.replay
        x = self._given(source)
        form = self._choose(x)

        def run() -> Tensor:
            with torch.inference_mode():
                return form(x)

        return run

    @property
    def device_memory(self) -> int:
        """Free memory of the device, in bytes."""
        return int(torch.cuda.mem_get_info(self._device)[0])

    def moved(self, batch: Images) -> Tensor:
        """Put a batch on the device, as the plain form takes it."""
        x = torch.from_numpy(batch)
        return x.to(self._device, self._dtype, memory_format=torch.channels_last)

    def free(self) -> None:
        """Free the memory of recorded shapes."""
        self._recorded.clear()
        self._pool = None
        torch.cuda.empty_cache()

    def _restored(self, source: Tensor) -> Tensor:
        """Restore what lies in pinned memory or on the device."""
        shape = tuple(source.shape)
        if shape not in self._seen:
            self._seen.add(shape)
            return self._once(source)
        ready = self._ready(source) if self.recording else None
        if ready is None:
            x = self._given(source)
            return self._choose(x)(x)
        ready.input.copy_(source, non_blocking=True)
        ready.graph.replay()
        return ready.output

    def _given(self, source: Tensor) -> Tensor:
        return source.to(self._device, non_blocking=True)

    def _once(self, source: Tensor) -> Tensor:
        """Run a batch without recording, as its shape may not come again."""
        torch.backends.cudnn.benchmark = False
        if self._chosen is None and hasattr(self._exact, "assemble"):
            # Rounded to half precision, a filter near one loses more than all else does. Kernels
            # that avoid it are compiled for a shape that comes again; one picture is made exactly.
            exact: Tensor = self._in_float32()(self._given(source))
            return exact
        return (self._chosen or self._run_plain)(self._given(source))

    def _in_float32(self) -> nn.Module:
        """Return the network in float32 on the device; one copy serves until a form is chosen."""
        if self._float32 is None:
            self._float32 = _placed(copy.deepcopy(self._exact), self._device, torch.float32)
        return self._float32

    def _run_plain(self, x: Tensor) -> Tensor:
        given = x.to(self._dtype, memory_format=torch.channels_last)
        restored: Tensor = self.plain(given)
        return restored.float().contiguous()

    def _ready(self, source: Tensor) -> Recording | None:
        """Return the recording of a shape; None if the network cannot be recorded."""
        shape = tuple(source.shape)
        self._seen.add(shape)

        def record() -> Recording:
            x = self._given(source)
            return self._record(self._choose(x), x)

        try:
            return recent(self._recorded, shape, MAX_RECORDED, record)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.recording = False
            self.facts["cuda_graph"] = first_line(error)
            torch.cuda.synchronize()
            return None

    def _record(self, form: Form, x: Tensor) -> Recording:
        """Record the run of a form on a batch in float32, conversions included."""
        torch.backends.cudnn.benchmark = True
        # Not on the default stream, which cannot be recorded.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                form(x)
        torch.cuda.current_stream().wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that pin memory, may call CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = form(x)
        return Recording(x, output, graph)

    def _choose(self, x: Tensor) -> Form:
        """Return the form that is fastest here; measured once, at the first shape that repeats."""
        if self._chosen is None:
            torch.backends.cudnn.benchmark = True
            self._chosen = self._fastest(x)
            self._float32 = None
        return self._chosen

    def _fastest(self, x: Tensor) -> Form:
        remembered = self._remembered()
        form, reason = (None, "slower here") if remembered == CUDNN else self._other_form()
        if form is None or remembered != TRITON:
            self.facts["filters"] = use_kernel(self.plain, self._device, self._dtype)
        if form is not None and remembered != TRITON:
            faster = self._is_faster(form, x)
            self._remember(TRITON if faster else CUDNN)
            form, reason = (form, "") if faster else (None, "slower here")
        if form is None:
            self.facts["convolutions"] = f"{CUDNN} ({reason})" if reason else CUDNN
            return self._run_plain
        self.facts |= {"convolutions": TRITON, "filters": TRITON}
        return form

    def _other_form(self) -> tuple[Form | None, str]:
        """Make the form of kernels of our own, if it computes the same here; else say why not."""
        try:
            from srcli.backends.cuda.networks import for_gpu

            form = for_gpu(copy.deepcopy(self._exact).to(self._device), self._dtype)
            if form is None:
                return None, ""
            error = self._difference(form)
        except Exception as problem:  # Triton's compilers and drivers have many ways to fail
            return None, first_line(problem)
        if not error <= self._tolerance:
            return None, f"the kernels differ by {error:.1g}"
        return form, ""

    def _difference(self, form: Form) -> float:
        generator = torch.Generator(self._device).manual_seed(0)
        picture = torch.rand(SAMPLE, generator=generator, device=self._device)
        return float((form(picture) - self._in_float32()(picture)).abs().max())

    def _is_faster(self, form: Form, x: Tensor) -> bool:
        times = [self._time(each, x) for each in (self._run_plain, form)]
        self.facts["ms"] = dict(zip((CUDNN, TRITON), times, strict=True))
        return times[1] < times[0]

    def _time(self, form: Form, x: Tensor) -> float:
        """Return milliseconds of the fastest of some replays; what cannot be recorded has none."""
        try:
            graph = self._record(form, x.clone()).graph
        except torch.OutOfMemoryError:  # says nothing of the form, and is not to be remembered
            raise
        except RuntimeError:
            return math.inf
        return min(_elapsed(graph.replay) for _ in range(TURNS))

    def _place(self) -> Path:
        """Return the cache entry that holds the faster form of this network on such a device."""
        shapes = [(name, *value.shape) for name, value in self._exact.named_parameters()]
        kind = type(self._exact).__name__
        facts = (self.facts["device"], str(self._dtype), torch.__version__, self._tolerance)
        digest = hashlib.sha256(repr((*facts, kind, shapes)).encode()).hexdigest()
        return cache.cache_folder() / "cuda" / f"{digest[:32]}.txt"

    def _remembered(self) -> str | None:
        return cache.kept(self._place())

    def _remember(self, name: str) -> None:
        with suppress(OutputError):  # then it is measured again the next time
            cache.keep(self._place(), name)


def _placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    placed = network.eval().to(device, dtype)
    return placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # PyTorch's types lack this argument


def _pinned(batch: NDArray[np.generic]) -> Tensor:
    """Copy an array to pinned memory, which the device reads directly."""
    given = torch.from_numpy(batch)
    pinned = torch.empty(given.shape, dtype=given.dtype, pin_memory=True)
    return pinned.copy_(given)


def _fetched(result: Tensor) -> Tensor:
    """Begin to copy a result to pages that the device writes to; freed ones are used again."""
    fetched = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    return fetched.copy_(result, non_blocking=True)


def as_floats(pixels: Integers, device: torch.device) -> Tensor:
    """Convert n x h x w x 3, uint8 or uint16, to n x 3 x h x w in [0, 1] on a device.

    The digits are those of `srcli.images.to_float`: a division by a constant on the host would be
    a multiplication by its reciprocal.
    """
    levels = torch.full((), np.iinfo(pixels.dtype).max, dtype=torch.float32, device=device)
    stored = pixels if pixels.dtype == np.uint8 else pixels.view(np.int16)
    there = _pinned(stored).to(device, non_blocking=True)
    if pixels.dtype != np.uint8:
        there = there.to(torch.int32) & 0xFFFF  # few operations know uint16
    return (there.permute(0, 3, 1, 2).to(torch.float32) / levels).contiguous()


def as_integers(restored: Tensor, bits: int) -> Tensor:
    """Round n x 3 x h x w to n x h x w x 3 as `srcli.images.from_float` does.

    Returns:
        uint8, or int16 of the same bits as uint16.
    """
    values = restored.permute(0, 2, 3, 1).clamp(0, 1).mul_(2**bits - 1).round_()
    if bits == 8:
        return values.to(torch.uint8).contiguous()
    return values.to(torch.int32).to(torch.int16).contiguous()


def _elapsed(run: Callable[[], object]) -> float:
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
