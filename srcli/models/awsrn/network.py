"""AWSRN: adaptive weighted super-resolution network.

Source: Wang, Li, Shi, "Lightweight Image Super-Resolution with Adaptive Weighted Learning
Network", 2019.

`Awsrn` is the network in the paper's order, with the tensor names of the published checkpoints.
`FusedAwsrn` computes the same function with fewer operations; `Awsrn.fuse()` makes it. Everything
happens at input resolution until the last pixel shuffle. Shapes in comments: n pictures,
C channels, h x w at input resolution, H x W = s*h x s*w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.awsrn import KERNELS, WIDTH
from srcli.models.base import Branch, Network, PublishedNetwork
from srcli.models.layers import RGB_MEAN, LearnedScale, WeightNormConv2d, pad_kernel, same_conv
from srcli.models.residual import FusedBlock, LocalFusionBlock, first, named

RANGE = 255.0  # the published weights are made for pictures from 0 to this
HALF_RANGE = 127.5  # which become -1 to 1, about


class Awsrn(PublishedNetwork):
    """The published network: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W, not clamped.

    Args:
        channels: Between the blocks (32; 16 in SD).
        blocks: Number of local fusion blocks (4, 3 or 1).
        units: Adaptive residual units in a block (4; 8 in SD).
        scale: 2, 3, 4 or 8.
    """

    def __init__(self, channels: int, blocks: int, units: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.mean = nn.Buffer(torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Sequential(WeightNormConv2d(3, channels, 3))
        self.body = nn.Sequential(
            *(LocalFusionBlock(channels, WIDTH, units) for _ in range(blocks))
        )
        self.tail = MultiScaleReconstruction(channels, scale)
        self.skip = nn.Sequential(WeightNormConv2d(3, 3 * scale**2, 3), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        x = (x * RANGE - self.mean * RANGE) / HALF_RANGE  # n 3 h w
        skip = self.skip(x)  # n 3 H W
        features = self.body(self.head(x))  # n C h w
        restored = self.tail(features) + skip  # n 3 H W
        return (restored * HALF_RANGE + self.mean * RANGE) / RANGE

    def blocks(self) -> list[LocalFusionBlock]:
        return [block for block in self.body if isinstance(block, LocalFusionBlock)]

    def prune_branches(self, threshold: float) -> list[Branch]:
        """Take out the reconstruction's branches of little weight, as the paper does.

        This changes what the network computes. The strongest branch always stays.

        Args:
            threshold: Branches whose learned factor is smaller in magnitude are taken out.

        Returns:
            The branches that were taken out.
        """
        return self.tail.prune(threshold)

    def fuse(self) -> FusedAwsrn:
        """Return the cheaper network of the same function; it shares no tensors with this one."""
        weights = {name: value.detach() for name, value in self.fused_weights().items()}
        return FusedAwsrn.from_weights(weights, self.scale, self.skips())

    def fused_weights(self, form: FusedAwsrn | None = None) -> dict[str, Tensor]:
        """Return the weights of `FusedAwsrn` as differentiable functions of the published ones.

        Args:
            form: The network that they are for, if there is one already: how it folds is not asked
                of the weights again, which would wait for a GPU.
        """
        # These convolutions get pictures in [0, 1] less the mean, and give pictures in [0, 1].
        into, out = RANGE / HALF_RANGE, HALF_RANGE / RANGE
        head, skip = first(self.head), first(self.skip)
        weights = named("head", head.weight * into, head.bias)
        gain = torch.ones(1, device=self.mean.device, dtype=self.mean.dtype)
        skips = self.skips() if form is None else form.skips()
        for index, (block, left) in enumerate(zip(self.blocks(), skips, strict=True)):
            folded, gain = block.fused_weights(gain, left)
            weights |= {f"body.{index}.{name}": value for name, value in folded.items()}
        side = self.tail.side() if form is None else form.tail.weight.shape[-1]
        kernel, bias = self.tail.mixed(side)
        # The pixel shuffle makes each plane of `scale**2` channels.
        mean = self.mean.flatten().repeat_interleave(self.scale**2)
        return (
            weights
            | named("tail", kernel * gain * out, (bias + skip.bias) * out + mean)
            | {"skip.weight": skip.weight * (into * out)}
        )

    def skips(self) -> list[list[float]]:
        """Return the factors that remain on each block's skip connections when it is fused."""
        return [block.fused_skips() for block in self.blocks()]


class MultiScaleReconstruction(nn.Module):
    """Four kernel sizes side by side, each enlarges by itself; their weighted sum."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        for kernel in KERNELS:
            self.add_module(f"tail_k{kernel}", WeightNormConv2d(channels, 3 * scale**2, kernel))
        for kernel in KERNELS:
            self.add_module(f"scale_k{kernel}", LearnedScale(0.25))

    def branch(self, kernel: int) -> tuple[WeightNormConv2d, LearnedScale]:
        convolution = self.get_submodule(f"tail_k{kernel}")
        factor = self.get_submodule(f"scale_k{kernel}")
        assert isinstance(convolution, WeightNormConv2d)
        assert isinstance(factor, LearnedScale)
        return convolution, factor

    def forward(self, x: Tensor) -> Tensor:
        enlarged = []
        for kernel in KERNELS:
            convolution, factor = self.branch(kernel)
            enlarged.append(factor(F.pixel_shuffle(convolution(x), self.scale)))  # n 3 H W
        return torch.stack(enlarged).sum(dim=0)

    def branches(self) -> list[Branch]:
        """Return the branches with any weight: a branch that was taken out has none."""
        weights = [float(self.branch(kernel)[1].scale.detach()) for kernel in KERNELS]
        return [Branch(*pair) for pair in zip(KERNELS, weights, strict=True) if pair[1]]

    def prune(self, threshold: float) -> list[Branch]:
        """Give no weight to weak branches; see `Awsrn.prune_branches`."""
        branches = self.branches()
        strongest = max(branches, key=lambda branch: abs(branch.weight))
        weak = [b for b in branches if abs(b.weight) < threshold and b is not strongest]
        for branch in weak:
            with torch.no_grad():
                self.branch(branch.kernel)[1].scale.zero_()
        return weak

    def side(self) -> int:
        """Return the kernel side of the largest branch that has any weight."""
        return max((branch.kernel for branch in self.branches()), default=KERNELS[0])

    def mixed(self, side: int) -> tuple[Tensor, Tensor]:
        """Return kernel (of this side) and bias of one convolution that equals all branches.

        A larger branch has no weight, so it is left out.
        """
        pairs = [self.branch(kernel) for kernel in KERNELS if kernel <= side]
        weights = [pad_kernel(c.weight, side) * f.scale for c, f in pairs]
        biases = [convolution.bias * factor.scale for convolution, factor in pairs]
        return torch.stack(weights).sum(dim=0), torch.stack(biases).sum(dim=0)


class FusedAwsrn(Network):
    """A fused form of `Awsrn`: it computes the same function in fewer multiply-adds.

    Weight normalisation, learned scalars and the published range of 0 to 255 are folded into the
    convolutions; the branches of the reconstruction are one convolution (81 taps for 164); it and
    the skip connection share one pixel shuffle. Only the mean of the pictures is still subtracted:
    beyond the border the network sees the mean, not black.

    Args:
        channels: As for `Awsrn`.
        scale: As for `Awsrn`.
        kernel: Side of the reconstruction's kernel: 9, or less after pruning.
        skips: For each block, the factors that remain on its skip connections.
    """

    def __init__(self, channels: int, scale: int, kernel: int, skips: list[list[float]]) -> None:
        super().__init__()
        self.scale = scale
        self.mean = nn.Buffer(torch.tensor(RGB_MEAN).view(1, 3, 1, 1))
        self.head = same_conv(3, channels, 3)
        self.body = nn.ModuleList(FusedBlock(channels, WIDTH, factors) for factors in skips)
        self.tail = same_conv(channels, 3 * scale**2, kernel)
        self.skip = nn.Conv2d(3, 3 * scale**2, 3, padding=1, bias=False)

    @classmethod
    def from_weights(
        cls, weights: dict[str, Tensor], scale: int, skips: list[list[float]]
    ) -> FusedAwsrn:
        head, kernel = weights["head.weight"], weights["tail.weight"].shape[-1]
        net = cls(head.shape[0], scale, kernel, skips).to(head.dtype)
        net.load_state_dict(weights, strict=False)
        return net.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean  # n 3 h w
        features = self.head(centred)  # n C h w
        for block in self.body:
            features = block(features)  # n C h w
        phases = self.tail(features) + self.skip(centred)  # n 3*s*s h w
        return F.pixel_shuffle(phases, self.scale)  # n 3 H W

    def skips(self) -> list[list[float]]:
        """Return the skip factors that the network was made with."""
        return [block.skips() for block in self.body if isinstance(block, FusedBlock)]
