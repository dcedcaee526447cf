"""What applies LAPAR's filters on a GPU: one kernel where it works, plain PyTorch elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

    from srcli.models.lapar.network import Filters

# Of what a kernel of float32 sums may differ by from PyTorch, in another order of operations.
TOLERANCE = 1e-5
SAMPLE = (2, 3, 5, 270)  # more than one of the kernel's blocks, and no multiple of one


def use_kernel(network: nn.Module, device: torch.device) -> str | None:
    """Let a LAPAR apply its filters in one kernel, if there is one that computes the same here.

    Whatever goes wrong (no Triton, no compiler, a GPU that it does not know, another result)
    leaves the network as it was.

    Returns:
        What applies the filters, and why if it is not the kernel; None for other networks.
    """
    from srcli.models.lapar.network import FusedLapar

    if not isinstance(network, FusedLapar):
        return None
    try:
        from srcli.backends.triton_filters import apply_filters

        error = _difference(apply_filters, network.taps.out_channels, device)
    except Exception as problem:  # Triton's compilers and drivers have many ways to fail
        return f"PyTorch ({first_line(problem)})"
    if not error <= TOLERANCE:
        return f"PyTorch (the kernel differs by {error:.1e})"
    network.assemble = apply_filters
    return "Triton"


def _difference(kernel: Filters, count: int, device: torch.device) -> float:
    """Largest difference between a kernel and PyTorch, on a sample as networks lay it out."""
    import torch

    from srcli.models.lapar.network import apply_filters

    generator = torch.Generator(device).manual_seed(0)
    n, _, height, width = SAMPLE
    picture = torch.rand(SAMPLE, generator=generator, device=device)
    taps = torch.rand((n, count, height, width), generator=generator, device=device) - 0.5
    taps = taps.to(memory_format=torch.channels_last)
    return float((kernel(picture, taps, count) - apply_filters(picture, taps, count)).abs().max())
