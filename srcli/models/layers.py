"""Building blocks that two or more networks use. All tensors are NCHW."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of the pictures that the authors trained LAPAR and AWSRN on."""


class WeightNormConv2d(nn.Module):
    """Convolution with `weight = g * v / |v|`, zero padding and output of the same size.

    The published checkpoints store `weight_g`, `weight_v` and `bias` (the names of
    PyTorch's old `weight_norm` hook), so these are the parameters here.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Side of the square kernel, odd.

    Source: Salimans and Kingma, "Weight Normalization", 2016, equation 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        initial = nn.Conv2d(inputs, outputs, kernel)
        assert initial.bias is not None
        self.bias = nn.Parameter(initial.bias.detach().clone())
        self.weight_g = nn.Parameter(torch.empty(outputs, 1, 1, 1))
        self.weight_v = nn.Parameter(initial.weight.detach().clone())
        if not self.weight_v.is_meta:  # arithmetic there loads PyTorch's compiler: seconds
            self.weight_g.data = _filter_norm(self.weight_v.data)

    @property
    def weight(self) -> Tensor:
        """The plain kernel (outputs, inputs, kernel, kernel); differentiable."""
        return self.weight_v * (self.weight_g / _filter_norm(self.weight_v))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight_v.shape[-1] // 2)


class LearnedScale(nn.Module):
    """A single learned factor: `x * scale`."""

    def __init__(self, initial: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([initial]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _filter_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
    return norm


def same_conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Return a convolution with bias, an odd kernel, zero padding and output of the same size."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def pad_kernel(weight: Tensor, side: int) -> Tensor:
    """Embed a square kernel in the middle of a larger one of zeros (both sides odd)."""
    margin = (side - weight.shape[-1]) // 2
    return F.pad(weight, [margin] * 4)


def bicubic_phases(
    scale: int | Fraction, dtype: torch.dtype = torch.float32, a: float = -0.75
) -> Tensor:
    """Return the filters of bicubic enlargement by p/q (q = 1: a whole factor), (p^2, 1, q+4, q+4).

    With half-pixel centres, output pixel `p*i + phase` lies at input position
    `q*i + (phase + 0.5) * q/p - 0.5`: for each phase the four cubic taps are fixed and lie between
    two pixels before and two after the q input pixels from `q*i` on. Channel `p*py + px` is the
    filter of phase (py, px), which is the order that `pixel_shuffle` expects.

    Source: Keys, "Cubic Convolution Interpolation", 1981; `a` as in PyTorch's bicubic.
    """
    count, stride = scale.numerator, scale.denominator
    taps = torch.zeros(count, stride + 4, dtype=torch.float64)
    for phase in range(count):
        position = (phase + 0.5) * stride / count - 0.5
        for tap in range(stride + 4):
            taps[phase, tap] = _cubic(abs(position - (tap - 2)), a)
    phases = torch.einsum("py,qx->pqyx", taps, taps)
    return phases.reshape(count * count, 1, stride + 4, stride + 4).to(dtype)


def bilinear_phases(scale: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the filters of bilinear enlargement by a whole factor, shape (scale^2, 1, 3, 3).

    As `bicubic_phases`, but each phase has two taps along an axis, within one pixel of `i`.
    """
    taps = torch.zeros(scale, 3, dtype=torch.float64)
    for phase in range(scale):
        position = (phase + 0.5) / scale - 0.5
        for tap in range(3):
            taps[phase, tap] = max(0.0, 1.0 - abs(position - (tap - 1)))
    phases = torch.einsum("py,qx->pqyx", taps, taps)
    return phases.reshape(scale * scale, 1, 3, 3).to(dtype)


def _cubic(distance: float, a: float) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0


def gaussian_kernel(side: int, sigma1: float, sigma2: float, angle: float = 0.0) -> Tensor:
    """Return an anisotropic Gaussian of unit sum on a `side` x `side` grid, float64.

    Args:
        side: Odd number of samples along each axis.
        sigma1: Standard deviation along the axis turned by `angle`, in pixels.
        sigma2: Standard deviation across it, in pixels.
        angle: Turn in degrees, counter-clockwise.
    """
    radius = side // 2
    grid = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    turn = math.radians(angle)
    along = math.cos(turn) * x + math.sin(turn) * y
    across = -math.sin(turn) * x + math.cos(turn) * y
    kernel = torch.exp(-0.5 * ((along / sigma1) ** 2 + (across / sigma2) ** 2))
    return kernel / kernel.sum()


@fx.wrap
def count_up(count: int, like: Tensor) -> Tensor:
    """Return 0, 1, ... count - 1 as int64, on the device of `like`.

    A function of its own because `torch.arange` cannot be traced where `count` depends on the size
    of the picture; the exporter knows this one.
    """
    return torch.arange(count, device=like.device)


@fx.wrap
def as_numbers(values: Tensor, like: Tensor) -> Tensor:
    """Convert whole numbers, or truth values as 1 and 0, to the type of `like`.

    A function of its own because a traced tensor does not know its type.
    """
    return values.to(like.dtype)


@fx.wrap
def quotient(values: Tensor, divisor: int) -> Tensor:
    """Divide numbers, whole or not, as floats.

    A function of its own for the same reason as `count_up`.
    """
    return values / divisor
