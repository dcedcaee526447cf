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
    luma_error = (_luma(difference) ** 2).mean(dim=(1, 2))
    colour_error = (difference**2).mean(dim=(1, 2, 3))
    return 0.015 * torch.log(luma_error + 0.1 * colour_error + 1e-7).mean()


def decibels_rgb(difference: Tensor) -> Tensor:
    """As `decibels`, all planes alike: for noise, which is scored on them."""
    return 0.015 * torch.log((difference**2).mean(dim=(1, 2, 3)) + 1e-7).mean()


def _luma(difference: Tensor) -> Tensor:
    red, green, blue = difference.unbind(dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # no tensor made of them: CUDA graphs


LOSSES = {
    "charbonnier": charbonnier,
    "mse": squared,
    "psnr": decibels,
    "psnr-rgb": decibels_rgb,
}
