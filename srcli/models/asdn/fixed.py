"""FSDN: ASDN's network for one whole scale, working at input resolution.

Source: as for ASDN. A transposed convolution enlarges the features before the
head. The paper fixes neither its kernel nor its width, and no checkpoint is published: here it
makes 64 channels, as the first convolution does, with a kernel of about twice its stride.

Shapes in comments: n pictures, K channels of features, h x w at input resolution,
H x W = s*h x s*w.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.asdn import LOW_LEVEL, Shape, kernel_side
from srcli.models.asdn.network import (
    FeatureBranch,
    FusedFeatures,
    FusedSpatialAttention,
    PhaseResize,
    ReconstructionBranch,
)
from srcli.models.base import Network, PublishedNetwork
from srcli.models.layers import same_conv


class Fsdn(PublishedNetwork):
    """The paper's network: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W, not clamped.

    Args:
        shape: Of the feature branch.
        scale: A whole number from 2.
    """

    def __init__(self, shape: Shape, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.feature_mapping_branch = FeatureBranch(shape)
        side = kernel_side(scale)
        self.enlarge = nn.ConvTranspose2d(
            shape.features, LOW_LEVEL, side, stride=scale, padding=(side - scale) // 2
        )
        self.image_reconstruction_branch = ReconstructionBranch(LOW_LEVEL)

    def forward(self, x: Tensor) -> Tensor:
        features = self.feature_mapping_branch(x)  # n K h w
        enlarged = F.interpolate(
            x.double(), scale_factor=self.scale, mode="bicubic", align_corners=False
        ).to(x.dtype)  # n 3 H W
        return self.image_reconstruction_branch(self.enlarge(features), enlarged)

    def fuse(self) -> FusedFsdn:
        """Return the cheaper network of the same function; it shares no tensors with this one."""
        return FusedFsdn(self).eval().requires_grad_(False)


class FusedFsdn(Network):
    """A fused form of `Fsdn`: it computes the same function, without enlarging the features.

    The transposed convolution and the 1x1 convolution of the head are linear: together they are
    one transposed convolution to three planes, which in turn is a 3x3 convolution at input
    resolution with one output channel for each phase.
    """

    def __init__(self, network: Fsdn) -> None:
        super().__init__()
        self.features = FusedFeatures(network.feature_mapping_branch)
        self.scale = network.scale
        self.planes = _composed(network)
        self.head = FusedSpatialAttention(network.image_reconstruction_branch.sa)
        self.resize = PhaseResize(Fraction(network.scale), self.planes.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        planes = F.pixel_shuffle(self.planes(self.features(x)), self.scale)  # n 3 H W
        return self.head(planes) + self.resize(x)


def _composed(network: Fsdn) -> nn.Conv2d:
    """Compose the enlarging convolution and the head's first one: n K h w -> n 3ss h w.

    Output `scale*i + phase` reads input `i + d` through tap `phase + padding - scale*d` of the
    transposed kernel, for d of -1, 0 and 1.
    """
    enlarge, image = network.enlarge, network.image_reconstruction_branch.transform_into_image
    scale, padding = network.scale, int(enlarge.padding[0])
    pointwise = image.weight[:, :, 0, 0]  # 3 64
    kernel = torch.einsum("kmyx,om->okyx", enlarge.weight, pointwise)
    assert enlarge.bias is not None
    assert image.bias is not None
    bias = pointwise @ enlarge.bias + image.bias
    side = kernel.shape[-1]
    phases = torch.zeros(3, scale, scale, kernel.shape[1], 3, 3, dtype=kernel.dtype)
    places = [
        (phase, d + 1, tap)
        for phase in range(scale)
        for d in (-1, 0, 1)
        if 0 <= (tap := phase + padding - scale * d) < side
    ]
    for py, dy, ty in places:
        for px, dx, tx in places:
            phases[:, py, px, :, dy, dx] = kernel[:, :, ty, tx]
    composed = same_conv(kernel.shape[1], 3 * scale**2, 3)
    composed.weight = nn.Parameter(phases.flatten(0, 2))
    composed.bias = nn.Parameter(bias.repeat_interleave(scale**2))
    return composed
