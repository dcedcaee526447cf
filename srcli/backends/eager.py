"""PyTorch, on a CUDA device where there is one and on the CPU otherwise."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from srcli.backends.base import (
    Batch,
    Model,
    OutOfMemory,
    RunsEveryModel,
    SessionOptions,
    closed,
    recent,
)
from srcli.backends.fused_filters import use_compiled, use_kernel
from srcli.errors import BackendError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Share of its memory that a published network may need: LAPAR's has 72 filtered pictures.
PUBLISHED = 6.0
MAX_CAPTURED = 4  # shapes that keep their buffers and CUDA graphs: the tile, and some room


class TorchBackend(RunsEveryModel):
    """Runs the fused network in PyTorch."""

    name = "torch"

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed. Run `pip install torch`."
        return None

    def open(self, model: Model, options: SessionOptions) -> TorchSession:
        return TorchSession(model.network(), options)

    def open_published(self, model: Model, options: SessionOptions) -> TorchSession:
        """As the paper writes it: slower, and right whatever the fused form is."""
        session = TorchSession(model.published(), options)
        session.memory_share = PUBLISHED
        return session


@dataclass(slots=True)
class _Captured:
    """A network's run on one shape, recorded; all addresses stay."""

    input: Tensor
    output: Tensor
    graph: torch.cuda.CUDAGraph


class TorchSession:
    """One network on its device.

    On CUDA the launches of a network of this size take longer than its kernels, so the run on each
    shape is recorded once as a CUDA graph and replayed. Networks that cannot be recorded (because
    the CPU has to look at a result in between) are run kernel by kernel.
    """

    memory_share = 1.0

    def __init__(self, network: nn.Module, options: SessionOptions) -> None:
        import torch

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        elif (limit := options.thread_limit) is not None:  # never more than OMP_NUM_THREADS says
            torch.set_num_threads(min(limit, torch.get_num_threads()))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        on_cpu = self._device.type == "cpu"
        if options.precision != "fp32" and on_cpu:
            raise BackendError(
                f"torch computes in fp32 on the CPU, not {options.precision}. "
                "Leave out --precision, or choose --backend openvino."
            )
        if not on_cpu:
            # TF32 keeps ten bits of the mantissa, and fp32 was asked for. Shapes are few here, so
            # looking for the fastest algorithm of each pays.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.benchmark = True
        self._dtype: torch.dtype = {
            "fp32": torch.float32,
            "fp16": torch.float16,
            "bf16": torch.bfloat16,
        }[options.precision]
        network = network.eval().to(self._device, self._dtype)
        # The stubs of `Module.to` do not know this argument.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: nn.Module | None = network
        self._filters = (
            use_compiled(network, torch.get_num_threads())
            if on_cpu
            else use_kernel(network, self._device, self._dtype)
        )
        self._capturing = options.cuda_graph and not on_cpu
        self._captured: OrderedDict[tuple[int, ...], _Captured] = OrderedDict()

    @property
    def facts(self) -> dict[str, Any]:
        """Where and in what precision this session really computes."""
        import torch

        cuda = self._device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "precision": str(self._dtype).removeprefix("torch."),
            "cuda_graph": self._capturing,
            "filters": self._filters,
            "threads": None if cuda else torch.get_num_threads(),
        }

    def __call__(self, batch: Batch) -> Batch:
        import torch

        with _memory_errors(self), torch.inference_mode():
            x = torch.from_numpy(batch)
            y = self._replayed(x) if self._capturing else self._run(self._moved(x))
            return np.asarray(y.float().cpu().contiguous().numpy())

    @property
    def is_blind(self) -> bool:
        """Whether the network estimates a kernel first."""
        return hasattr(self._network, "estimate_kernel")

    def estimate_kernel(self, batch: Batch) -> Batch:
        """Blur kernels, n x 1 x K x K, of n pictures; of blind networks only."""
        return self._ask("estimate_kernel", batch)

    def restore(self, batch: Batch, kernel: Batch) -> Batch:
        """Restore with known blur kernels; of blind networks only."""
        return self._ask("restore", batch, kernel)

    def _ask(self, method: str, *batches: Batch) -> Batch:
        import torch

        with _memory_errors(self), torch.inference_mode():
            tensors = [self._moved(torch.from_numpy(batch)) for batch in batches]
            if (network := self._network) is None:
                raise closed()
            answer: Tensor = getattr(network, method)(*tensors)
            return np.asarray(answer.float().cpu().contiguous().numpy())

    def stage(self, batch: Batch) -> Callable[[], object]:
        """Put a batch where the network computes.

        Returns:
            A function that runs the network on it; on CUDA it returns before the work is done.
        """
        import torch

        with _memory_errors(self), torch.inference_mode():
            x = torch.from_numpy(batch)
            if self._capturing:
                self._replayed(x)
            if self._capturing:  # still, after the first attempt
                return self._captured[tuple(x.shape)].graph.replay
            moved = self._moved(x)

        def run() -> object:
            with torch.inference_mode():
                return self._run(moved)

        return run

    def close(self) -> None:
        self._captured.clear()
        self._network = None

    def free(self) -> None:
        """Give back the memory of recorded shapes."""
        import torch

        self._captured.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(self, x: Tensor) -> Tensor:
        network = self._network
        if network is None:
            raise closed()
        restored: Tensor = network(x)
        return restored

    def _moved(self, x: Tensor) -> Tensor:
        import torch

        return x.to(self._device, self._dtype, memory_format=torch.channels_last)

    def _replayed(self, x: Tensor) -> Tensor:
        import torch

        try:
            ready = recent(
                self._captured,
                tuple(x.shape),
                MAX_CAPTURED,
                lambda: self._capture(self._moved(x)),
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self._capturing = False
            torch.cuda.synchronize()
            return self._run(self._moved(x))
        ready.input.copy_(x)
        ready.graph.replay()
        return ready.output

    def _capture(self, x: Tensor) -> _Captured:
        import torch

        # Whatever is initialised on first use must not be recorded, nor run on the default stream.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._run(x)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._run(x)
        return _Captured(x, output, graph)


class _memory_errors:  # noqa: N801  reads as a statement: `with _memory_errors(...)`
    """Turns PyTorch's ways of saying "out of memory" into `OutOfMemory`."""

    def __init__(self, session: TorchSession) -> None:
        self._session = session

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import torch

        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
            isinstance(error, RuntimeError)
            and ("not enough memory" in str(error) or "can't allocate" in str(error))
        ):
            self._session.free()
            raise OutOfMemory(str(error)) from error
