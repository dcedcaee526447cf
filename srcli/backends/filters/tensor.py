"""The compiled filters of `cpu_filters` for tensors, with gradients: inference and training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from srcli.backends.filters.cpu import CpuFilters, unavailable
from srcli.errors import BackendError


def for_tensors(threads: int) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return a compiled `srcli.models.lapar.network.apply_filters`: float32, CPU, symmetric.

    Gradients go to the taps; the picture must not need any. Shorter types are made longer first.

    Raises:
        BackendError: It was not built.
    """
    obstacle = unavailable()
    if obstacle is not None:
        raise BackendError(obstacle.problem, obstacle.remedy)
    filters = CpuFilters(threads)

    def apply_filters(picture: Tensor, taps: Tensor, count: int) -> Tensor:
        whole = (picture.float(), taps.float())
        filtered: Tensor = _Filtering.apply(*whole, filters)  # type: ignore[no-untyped-call]  # not annotated
        return filtered

    return apply_filters


class _Context(Protocol):
    """The context that PyTorch passes from forward to backward."""

    filters: CpuFilters
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Filtering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, picture: Tensor, taps: Tensor, filters: CpuFilters) -> Tensor:
        if picture.requires_grad:
            raise NotImplementedError("the compiled filters have no gradient by the picture")
        ctx.save_for_backward(picture, taps)
        ctx.filters = filters
        return torch.from_numpy(filters(picture.numpy(), taps.detach().numpy()))

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[None, Tensor, None]:
        picture, taps = ctx.saved_tensors
        wanted = torch.empty_like(taps, requires_grad=False)
        ctx.filters.gradient(picture.numpy(), gradients[0].contiguous().numpy(), wanted.numpy())
        return None, wanted, None
