"""What stays out of bfloat16, in a network whose convolutions are computed in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.awsrn.network import FusedAwsrn
from srcli.models.lapar.network import FusedLapar


def keep_picture(fused: nn.Module, device: torch.device) -> None:
    """Keep out of bfloat16 what a network's result is nearly made of already.

    It is not for the network to learn, and half a grey level would stay.
    """
    exactly = torch.autocast(device.type, enabled=False)
    if isinstance(fused, FusedLapar):
        fused.enlarge = exactly(fused.enlarge)  # type: ignore[method-assign]
        fused.taps = BiasApart(fused.taps)  # type: ignore[assignment]
    elif isinstance(fused, FusedAwsrn):
        fused.skip.forward = exactly(fused.skip.forward)  # type: ignore[method-assign]
        fused.tail = BiasApart(fused.tail)  # type: ignore[assignment]


class BiasApart(nn.Module):
    """A convolution whose bias is not rounded to what the convolution is computed in.

    A filter's centre is nearly one, and a bias: rounded to bfloat16 it would be off by the same at
    every pixel, and what the network learned would be right for the rounded one only.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels, self.padding = convolution.out_channels, convolution.padding
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        product = F.conv2d(x, self.weight, padding=self.padding)
        return product.float() + self.bias.view(-1, 1, 1)
