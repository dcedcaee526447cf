"""LAPAR's filters in PyTorch: by one kernel if that works, else by PyTorch's operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from srcli.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Filters = Callable[[Tensor, Tensor, int], Tensor]

# What sums of numbers up to 3 may differ by in another order, in units of the type's precision.
ROUNDINGS = 64
SAMPLE = (2, 3, 5, 270)  # more than one of the kernel's blocks, and no multiple of one


def use_kernel(network: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Let a LAPAR on a GPU apply its filters in one kernel, if that computes the same here.

    If anything fails (no Triton, no compiler, an unknown GPU, another result), the network stays
    as it was.

    Args:
        network: If it is a LAPAR, its `assemble` is replaced.
        device: Device that the network is on.
        dtype: Number type that the network computes in.

    Returns:
        What applies the filters, and why if it is not the kernel; None for other networks.
    """

    def triton() -> Filters:
        from srcli.backends.cuda.filters import apply_filters

        return apply_filters

    return _use("Triton", triton, network, device, dtype)


def sum_in_float32(network: nn.Module) -> None:
    """Let a LAPAR in half precision sum what its filters make in float32.

    Thirteen roundings of a result near the picture itself are more than all else that half
    precision costs. Networks without filters stay as they are.
    """
    from srcli.models.lapar.network import FusedLapar

    if isinstance(network, FusedLapar):
        plain = network.assemble
        network.assemble = lambda picture, taps, count: plain(picture.float(), taps.float(), count)


def use_compiled(network: nn.Module, threads: int) -> str | None:
    """Let a LAPAR on the CPU, in float32, apply its filters by the compiled code of srcli."""
    import torch

    def compiled() -> Filters:
        from srcli.backends.filters.tensor import for_tensors

        return for_tensors(threads)

    return _use("compiled", compiled, network, torch.device("cpu"), torch.float32)


def _use(
    name: str,
    make: Callable[[], Filters],
    network: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    from srcli.models.lapar.network import FusedLapar

    if not isinstance(network, FusedLapar):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Triton says of its own defaults
            kernel = make()
            count = network.taps.out_channels
            error = _difference(kernel, network.assemble, count, device, dtype)
    except Exception as problem:  # Triton's compilers and drivers have many ways to fail
        return f"PyTorch ({first_line(problem)})"
    if not error <= ROUNDINGS:
        return f"PyTorch (the kernel differs by {error:.0f} roundings)"
    network.assemble = kernel
    return name


def _difference(
    kernel: Filters, plain: Filters, count: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Return the largest difference, in units of the type's precision, on a network's layouts."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    n, _, height, width = SAMPLE
    picture = torch.rand(SAMPLE, generator=generator, device=device).to(dtype)
    taps = torch.rand((n, count, height, width), generator=generator, device=device) - 0.5
    taps = taps.to(dtype).to(memory_format=torch.channels_last)
    expected = plain(picture.float(), taps.float(), count)
    worst = 0.0
    for layout in (torch.contiguous_format, torch.channels_last):
        found = kernel(picture.to(memory_format=layout), taps, count)
        worst = max(worst, float((found - expected).abs().max()))
    return worst / torch.finfo(dtype).eps
