"""PyTorch, on a CUDA device where there is one and on the CPU otherwise."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from srcli.backends.base import Batch, Model, OutOfMemory, SessionOptions
from srcli.errors import BackendError

if TYPE_CHECKING:
    import torch
    from torch import nn


class TorchBackend:
    """Runs the fused network in PyTorch."""

    name = "torch"

    def unavailable(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed. Run `pip install torch`."
        return None

    def open(self, model: Model, options: SessionOptions) -> TorchSession:
        return TorchSession(model.network(), options)


class TorchSession:
    """One network on its device."""

    def __init__(self, network: nn.Module, options: SessionOptions) -> None:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if options.precision != "fp32" and self._device.type == "cpu":
            raise BackendError(
                f"torch computes in fp32 on the CPU, not {options.precision}. "
                "Leave out --precision."
            )
        self._dtype: torch.dtype = {
            "fp32": torch.float32,
            "fp16": torch.float16,
            "bf16": torch.bfloat16,
        }[options.precision]
        network = network.eval().to(self._device, self._dtype)
        # The stubs of `Module.to` do not know this argument.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: nn.Module | None = network

    def __call__(self, batch: Batch) -> Batch:
        import torch

        assert self._network is not None, "the session is closed"
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(
                    self._device, self._dtype, memory_format=torch.channels_last
                )
                y = self._network(x).float().cpu().contiguous()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(str(error)) from error
        except RuntimeError as error:
            if "not enough memory" in str(error) or "can't allocate" in str(error):
                raise OutOfMemory(str(error)) from error
            raise
        return np.asarray(y.numpy())

    def close(self) -> None:
        self._network = None
