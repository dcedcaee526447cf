"""What training makes small. Each takes restored minus original, n x 3 x h x w, in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

CHARBONNIER = 1e-3  # quadratic below this difference, linear above
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # what PSNR-Y weighs the planes by


def charbonnier(difference: Tensor) -> Tensor:
    """A smooth absolute error: learns fast and does not dwell on outliers."""
    return torch.sqrt(difference**2 + CHARBONNIER**2).mean()


def squared(difference: Tensor) -> Tensor:
    """Squared error of the luma, and a little of each plane; about as large as `charbonnier`."""
    luma_error = (_luma(difference) ** 2).mean()
    return 20 * (luma_error + 0.3 * (difference**2).mean())


def decibels(difference: Tensor) -> Tensor:
    """Logarithm of each patch's squared error: its PSNR, in which smooth patches weigh as much as
    rough ones, as in the mean over a test set. Scaled to gradients like those of `squared`.
    """
    return 0.015 * torch.log(_patch_errors(difference)).mean()


def decibels_rgb(difference: Tensor) -> Tensor:
    """As `decibels`, all planes alike: for noise, which is scored on them."""
    return 0.015 * torch.log((difference**2).mean(dim=(1, 2, 3)) + 1e-7).mean()


def taught_decibels(difference: Tensor, taught: Tensor) -> Tensor:
    """`decibels` with another target: its gradient, were the restored patch compared with that.

    Args:
        difference: Restored minus original, which says how much each patch weighs.
        taught: Restored minus target.
    """
    return 0.015 * (_patch_errors(taught) / _patch_errors(difference).detach()).mean()


def _patch_errors(difference: Tensor) -> Tensor:
    luma_error = (_luma(difference) ** 2).mean(dim=(1, 2))
    return luma_error + 0.1 * (difference**2).mean(dim=(1, 2, 3)) + 1e-7


def _luma(difference: Tensor) -> Tensor:
    red, green, blue = difference.unbind(dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # no tensor made of them: CUDA graphs


LOSSES = {
    "charbonnier": charbonnier,
    "mse": squared,
    "psnr": decibels,
    "psnr-rgb": decibels_rgb,
}
