"""PyTorch, on a CUDA device where there is one and on the CPU otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from srcli.backends.base import (
    BlindSession,
    BlurKernels,
    Images,
    Integers,
    Model,
    OutOfMemory,
    PixelSession,
    RunsEveryModel,
    SessionOptions,
    closed,
)
from srcli.backends.filters.fused import use_compiled
from srcli.errors import BackendError, Obstacle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from srcli.backends.cuda.recorded import CudaNetwork

# Share of its memory that a published network may need: LAPAR's has 72 filtered pictures.
PUBLISHED = 6.0
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
TOLERANCE = 1e-5  # of networks in float32, unless told otherwise


class TorchBackend(RunsEveryModel):
    """Runs the fused network in PyTorch."""

    name = "torch"

    def unavailable(self) -> Obstacle | None:
        if importlib.util.find_spec("torch") is None:
            return Obstacle("PyTorch is not installed", "Run `pip install torch`.")
        return None

    def open(self, model: Model, options: SessionOptions) -> TorchSession:
        tolerance = model.spec.tolerance_for(options.precision)
        return TorchSession(model.network(), options, tolerance)

    def open_published(self, model: Model, options: SessionOptions) -> TorchSession:
        """Open the network in its paper's form: slower, and independent of the fused form."""
        session = TorchSession(model.published_network(), options)
        session.memory_share = PUBLISHED
        return session


class TorchSession(BlindSession, PixelSession):
    """One network on its device: the current CUDA device, or the CPU without one.

    Args:
        network: On the CPU, in float32.
        options: Options for running it.
        tolerance: Largest difference allowed to a faster form of it.
    """

    def __init__(
        self, network: nn.Module, options: SessionOptions, tolerance: float = TOLERANCE
    ) -> None:
        import torch

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        elif (limit := options.thread_limit) is not None:  # never more than OMP_NUM_THREADS says
            torch.set_num_threads(min(limit, torch.get_num_threads()))
        self._run: CudaNetwork | _OnProcessor | None
        if torch.cuda.is_available():
            from srcli.backends.cuda.recorded import CudaNetwork

            dtype = getattr(torch, PRECISIONS[options.precision])
            self._run = CudaNetwork(network, dtype, tolerance=tolerance, record=options.cuda_graph)
        elif options.precision != "fp32":
            raise BackendError(
                f"torch computes in fp32 on the CPU, not {options.precision}",
                "Leave out --precision, or choose --backend openvino.",
            )
        else:
            self._run = _OnProcessor(network)
        self._facts = self._run.facts
        self.is_blind = hasattr(self._run.plain, "estimate_kernel")
        self.takes_pixels = not isinstance(self._run, _OnProcessor) and not self.is_blind

    @property
    def facts(self) -> dict[str, object]:
        """Return the device and precision that this session really uses, and further facts."""
        return dict(self._facts)

    def __call__(self, batch: Images) -> Images:
        import torch

        with _memory_errors(self), torch.inference_mode():
            return self._opened()(batch)

    def restore_pixels(self, pixels: Integers, cut: tuple[slice, slice], bits: int) -> Integers:
        """Restore from integers to integers, on a GPU; see `PixelSession.restore_pixels`."""
        import torch

        with _memory_errors(self), torch.inference_mode():
            opened = self._opened()
            assert not isinstance(opened, _OnProcessor), "takes_pixels is False"
            return opened.pixels(pixels, cut, bits)

    @property
    def device_memory(self) -> int | None:
        """Free memory of the GPU, in bytes; None on the CPU."""
        return self._opened().device_memory

    def estimate_kernel(self, batch: Images) -> BlurKernels:
        """Return the blur kernels of n pictures, n x 1 x K x K; for blind networks only."""
        return self._ask("estimate_kernel", batch)

    def restore(self, batch: Images, kernel: BlurKernels) -> Images:
        """Restore with known blur kernels; for blind networks only."""
        return self._ask("restore", batch, kernel)

    def _ask(self, method: str, *batches: Images) -> Images:
        import torch

        with _memory_errors(self), torch.inference_mode():
            opened = self._opened()
            tensors = [opened.moved(batch) for batch in batches]
            answer: Tensor = getattr(opened.plain, method)(*tensors)
            return np.asarray(answer.float().cpu().contiguous().numpy())

    def stage(self, batch: Images) -> Callable[[], object]:
        """Put a batch where the network computes.

        Returns:
            A function that runs the network on it; on CUDA it returns before the work is done.
        """
        import torch

        with _memory_errors(self), torch.inference_mode():
            return self._opened().stage(batch)

    def close(self) -> None:
        """Free what the session holds."""
        self._run = None

    def free(self) -> None:
        """Free memory that is only kept for speed."""
        self._opened().free()

    def _opened(self) -> CudaNetwork | _OnProcessor:
        if self._run is None:
            raise closed()
        return self._run


class _OnProcessor:
    """A network on the CPU, in float32."""

    device_memory = None

    def __init__(self, network: nn.Module) -> None:
        import torch

        layout = torch.channels_last
        self.plain: nn.Module = network.eval().to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's types lack this argument
        threads = torch.get_num_threads()
        self.facts: dict[str, object] = {
            "device": "cpu",
            "precision": "float32",
            "filters": use_compiled(self.plain, threads),
            "threads": threads,
        }

    def __call__(self, batch: Images) -> Images:
        restored: Tensor = self.plain(self.moved(batch))
        return np.asarray(restored.float().contiguous().numpy())

    def stage(self, batch: Images) -> Callable[[], object]:
        import torch

        moved = self.moved(batch)

        def run() -> object:
            with torch.inference_mode():
                return self.plain(moved)

        return run

    def moved(self, batch: Images) -> Tensor:
        import torch

        return torch.from_numpy(batch).to(memory_format=torch.channels_last)

    def free(self) -> None:
        """Do nothing: on the CPU nothing is kept between batches."""


class _memory_errors:  # noqa: N801  # reads as a statement: `with _memory_errors(...)`
    """A context that turns PyTorch's errors about memory into `OutOfMemory`."""

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
