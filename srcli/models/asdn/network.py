"""ASDN: enlargement by any factor with one network.

Source: Shen, Wang, Zhang, "ASDN: A Deep Convolutional Network for Arbitrary Scale Image
Super-Resolution", 2020.

The bicubically enlarged picture goes through a feature branch and one of eleven reconstruction
heads, one for each level 1.0, 1.1, ... 2.0 of a Laplacian pyramid. A scale between two levels is
their weighted mean; scales beyond 2 are reached by several passes. `Asdn` is the network in the
paper's order, with the tensor names of the published checkpoints; `FusedAsdn`, made by
`Asdn.fuse()`, does the same with what one scale needs, in operations that every runtime knows.

Shapes in comments: n pictures, F channels of a block, K known channels, h x w at the resolution of
a pass's input, H x W of its output.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.asdn import LEVELS, LOW_LEVEL, Shape, Step, level_scale, steps
from srcli.models.base import Network, PublishedNetwork
from srcli.models.layers import bicubic_phases, same_conv


class Asdn(PublishedNetwork):
    """The published network: n x 3 x h x w RGB in [0, 1] -> the same enlarged, not clamped.

    The output has the size that the nearest level not below `scale` gives, as published: 1.3 times
    the input for a scale of 1.27. Sides are rounded down.

    Args:
        shape: Of the feature branch.
        scale: Factor of enlargement; at least 1.
    """

    def __init__(self, shape: Shape, scale: int | Fraction) -> None:
        super().__init__()
        self.shape, self.scale = shape, scale
        self.feature_mapping_branch = FeatureBranch(shape)
        self.image_reconstruction_branches = nn.ModuleList(
            ReconstructionBranch(shape.features) for _ in range(LEVELS + 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in steps(self.scale):
            x = self._enlarge(x, step)
        return x

    def _enlarge(self, x: Tensor, step: Step) -> Tensor:
        """Run one pass: n 3 h w -> n 3 H W."""
        upper = self._level(x, step.level)  # n 3 H W
        if not step.weight:
            return upper
        # The levels see differently enlarged pictures, so they share no features.
        lower = self._level(x, step.level - 1)
        lower = _resized(lower, (upper.shape[2], upper.shape[3]))  # n 3 H W
        return upper + float(step.weight) * (lower - upper)

    def _level(self, x: Tensor, level: int) -> Tensor:
        scale = level_scale(level)
        height, width = (int(side * scale) for side in x.shape[2:])
        enlarged = _resized(x, (height, width))  # n 3 H W
        features = self.feature_mapping_branch(enlarged)  # n K H W
        branch = self.image_reconstruction_branches[level]
        return branch(features, enlarged)  # n 3 H W

    def fuse(self) -> FusedAsdn:
        """Return the cheaper network of the same function; it shares no tensors with this one.

        They agree for sides that are multiples of the geometry's `multiple_of`.
        """
        return FusedAsdn(self).eval().requires_grad_(False)


class FeatureBranch(nn.Module):
    """Dense attention blocks; each adds its output to what all later ones know."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.low_level_features = same_conv(3, LOW_LEVEL, 3)
        self.dabs = nn.ModuleList(
            DenseAttentionBlock(LOW_LEVEL + index * shape.channels, shape)
            for index in range(shape.blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        known: Tensor = self.low_level_features(x)  # n 64 H W
        for block in self.dabs:
            known = torch.cat([known, block(known)], dim=1)  # n K+F H W
        return known


class DenseAttentionBlock(nn.Module):
    """A residual dense block and channel attention."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        super().__init__()
        self.base = nn.Sequential(ResidualDenseBlock(inputs, shape), ChannelAttention(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)


class ResidualDenseBlock(nn.Module):
    """Compress, grow by densely connected convolutions, compress again, add."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        super().__init__()
        f = shape.channels
        self.input_compression_layer = same_conv(inputs, f, 1)
        self.output_compression_layer = same_conv((shape.layers + 1) * f, f, 1)
        self.intra_layers = nn.ModuleList(
            DenseLayer((index + 1) * f, f) for index in range(shape.layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        compressed = self.input_compression_layer(x)  # n K H W -> n F H W
        grown = compressed
        for layer in self.intra_layers:
            grown = torch.cat([grown, layer(grown)], dim=1)
        return self.output_compression_layer(grown) + compressed


class DenseLayer(nn.Module):
    """A 3x3 convolution and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Sequential(same_conv(inputs, outputs, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)


class ChannelAttention(nn.Module):
    """Channel attention: scales channels by weights from their maxima over the picture."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        f = shape.channels
        self.attention = nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            same_conv(f, f // 16, 1),
            nn.ReLU(),
            same_conv(f // 16, f, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)  # n F H W * n F 1 1


class SpatialAttention(nn.Module):
    """Spatial attention: scales every pixel of each plane by a weight from all planes there."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = nn.Sequential(same_conv(3, 6, 1), nn.ReLU(), same_conv(6, 3, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sa(x)


class ReconstructionBranch(nn.Module):
    """A branch that makes the picture of one level from features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.transform_into_image = same_conv(features, 3, 1)
        self.sa = SpatialAttention()

    def forward(self, features: Tensor, enlarged: Tensor) -> Tensor:
        residual = self.sa(self.transform_into_image(features))  # n 3 H W
        return residual + enlarged


class FusedAsdn(Network):
    """A fused form of `Asdn` at one scale, for sides that are multiples of `multiple_of`.

    Holds only the heads in use; a level of no weight is not computed; the residual connections of
    the blocks are part of their convolutions; resizing is a convolution of fixed phases.
    """

    def __init__(self, network: Asdn) -> None:
        super().__init__()
        self.features = FusedFeatures(network.feature_mapping_branch)
        passes = steps(network.scale)
        self.levels = nn.ModuleDict(
            {
                str(level): FusedLevel(level, network.image_reconstruction_branches[level])
                for level in sorted({level for step in passes for level in step.levels})
            }
        )
        self.plan = passes
        last = passes[-1]
        if last.weight:
            ratio = last.scale / level_scale(last.level - 1)
            self.align = PhaseResize(ratio, self.features.low.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.plan:
            upper = self._level(x, step.level)
            if step.weight:
                weight = float(step.weight)
                lower = self.align(self._level(x, step.level - 1))
                upper = upper * (1.0 - weight) + lower * weight
            x = upper
        return x

    def _level(self, x: Tensor, level: int) -> Tensor:
        part = self.levels[str(level)]
        assert isinstance(part, FusedLevel)
        enlarged = part.resize(x)  # n 3 H W
        return part(self.features(enlarged), enlarged)


class FusedLevel(nn.Module):
    """The parts of the network that belong to one level: its enlargement and its head."""

    def __init__(self, level: int, branch: nn.Module) -> None:
        super().__init__()
        assert isinstance(branch, ReconstructionBranch)
        self.transform = _copied(branch.transform_into_image)
        self.resize = PhaseResize(level_scale(level), self.transform.weight.dtype)
        self.attention = FusedSpatialAttention(branch.sa)

    def forward(self, features: Tensor, enlarged: Tensor) -> Tensor:
        return self.attention(self.transform(features)) + enlarged


class FusedSpatialAttention(nn.Module):
    """A fused form of `SpatialAttention`, in plain operations."""

    def __init__(self, attention: SpatialAttention) -> None:
        super().__init__()
        self.narrow, self.widen = _copied(attention.sa[0]), _copied(attention.sa[2])

    def forward(self, planes: Tensor) -> Tensor:
        return planes * torch.sigmoid(self.widen(F.relu(self.narrow(planes))))


class FusedFeatures(nn.Module):
    """A fused form of `FeatureBranch`, which concatenates features where they are read."""

    def __init__(self, branch: FeatureBranch) -> None:
        super().__init__()
        self.low = _copied(branch.low_level_features)
        self.blocks = nn.ModuleList(FusedDenseBlock(block) for block in branch.dabs)

    def forward(self, x: Tensor) -> Tensor:
        known = [self.low(x)]
        for block in self.blocks:
            known.append(block(_joined(known)))
        return _joined(known)


class FusedDenseBlock(nn.Module):
    """A fused form of `DenseAttentionBlock`, with its residual connection folded."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, DenseAttentionBlock)
        dense, attention = block.base
        assert isinstance(dense, ResidualDenseBlock)
        assert isinstance(attention, ChannelAttention)
        self.compress = _copied(dense.input_compression_layer)
        self.grow = nn.ModuleList(
            _copied(layer.get_submodule("base.0")) for layer in dense.intra_layers
        )
        self.merge = _with_identity(_copied(dense.output_compression_layer))
        self.narrow = _copied(attention.attention[1])
        self.widen = _copied(attention.attention[3])

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.compress(x)]  # n F H W
        for layer in self.grow:
            parts.append(F.relu(layer(_joined(parts))))
        merged = self.merge(_joined(parts))  # n F H W
        greatest = torch.amax(merged, dim=(2, 3), keepdim=True)  # n F 1 1
        return merged * torch.sigmoid(self.widen(F.relu(self.narrow(greatest))))


class PhaseResize(nn.Module):
    """Bicubic enlargement of RGB by a fraction p/q: n 3 h w -> n 3 h*p/q w*p/q.

    Every q input pixels become p output pixels in the same way, so one convolution with stride q
    makes p*p output pixels as channels. Sides must be multiples of q.
    """

    def __init__(self, scale: Fraction, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shuffle, self.stride = scale.numerator, scale.denominator
        if scale != 1:
            self.phases = nn.Buffer(bicubic_phases(scale, dtype).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.shuffle == self.stride:
            return x
        padded = F.pad(x, [2] * 4, mode="replicate")
        phases = F.conv2d(padded, self.phases, stride=self.stride, groups=3)
        return F.pixel_shuffle(phases, self.shuffle)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _copied(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    copy = same_conv(module.in_channels, module.out_channels, module.kernel_size[0])
    copy.to(module.weight.dtype)
    copy.load_state_dict(module.state_dict())
    return copy


def _with_identity(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a 1x1 convolution that also adds its first input channels to its output."""
    outputs = convolution.out_channels
    with torch.no_grad():
        convolution.weight[:, :outputs, 0, 0] += torch.eye(outputs)
    return convolution


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bicubically (a = -0.75, half-pixel centres) in double precision, as LAPAR enlarges."""
    if size == (x.shape[2], x.shape[3]):
        return x
    resized = F.interpolate(x.double(), size=size, mode="bicubic", align_corners=False)
    return resized.to(x.dtype)
