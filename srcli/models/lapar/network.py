"""LAPAR: linearly-assembled pixel-adaptive regression.

Source: Li, Zhou, Qi, Jiang, Lu and Jia, "LAPAR: Linearly-Assembled Pixel-Adaptive Regression
Network for Single Image Super-resolution and Beyond", NeurIPS 2020.

`Lapar` is the network in the paper's order, with the tensor names of the published checkpoints.
`FusedLapar` computes the same function with a fraction of the arithmetic; `Lapar.fuse()` makes it.
Shapes in comments: n pictures, C channels, h x w at input resolution, H x W = s*h x s*w.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.base import Network, PublishedNetwork
from srcli.models.lapar import ATOMS, SIDE, UNITS
from srcli.models.layers import (
    RGB_MEAN,
    LearnedScale,
    WeightNormConv2d,
    bicubic_phases,
    gaussian_kernel,
    pad_kernel,
    same_conv,
)
from srcli.models.residual import FusedBlock, LocalFusionBlock, first, named, plain

Filters = Callable[[Tensor, Tensor, int], Tensor]
"""A function that computes what `apply_filters` computes: (picture, taps, scale) -> picture."""


class Lapar(PublishedNetwork):
    """The published network: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W, not clamped.

    Args:
        channels: Width of the coefficient network (32, 24 or 16 for A, B or C).
        blocks: Number of local fusion blocks (4, 3 or 2).
        scale: 2, 3 or 4; 1 restores at the same size (no up-sampling stage).
    """

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.w_conv = CoefficientNet(channels, blocks, scale)
        self.decom_conv = nn.Conv2d(1, ATOMS, SIDE, bias=False)
        self.decom_conv.weight = nn.Parameter(dictionary().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.w_conv(x)  # n 72 H W
        enlarged = _enlarge_bicubic(x, self.scale)  # n 3 H W
        n, _, height, width = enlarged.shape
        padded = F.pad(enlarged, [SIDE // 2] * 4, mode="reflect")
        planes = padded.reshape(n * 3, 1, height + SIDE - 1, width + SIDE - 1)
        filtered = self.decom_conv(planes).reshape(n, 3, ATOMS, height, width)
        restored: Tensor = (coefficients.unsqueeze(1) * filtered).sum(dim=2)
        return restored  # n 3 H W, equation 2

    def fuse(self) -> FusedLapar:
        """Return the cheaper network of the same function; it shares no tensors with this one."""
        return FusedLapar.from_weights(self.fused_weights(), self.scale, self.skips())

    def fused_weights(self, form: FusedLapar | None = None) -> dict[str, Tensor]:
        """Return the weights of `FusedLapar` as differentiable functions of the published ones.

        Training runs the fused network on these, so it optimises the published parameters at the
        price of the cheap graph.

        Args:
            form: The network that they are for, if there is one already: how it folds is not asked
                of the weights again, which would wait for a GPU.
        """
        net = self.w_conv
        weights: dict[str, Tensor] = {"mean": net.rgb_mean} | plain("head", first(net.head))
        gain = torch.ones(1, device=net.rgb_mean.device, dtype=net.rgb_mean.dtype)
        skips = self.skips() if form is None else form.skips()
        for index, (block, left) in enumerate(zip(net.blocks(), skips, strict=True)):
            folded, gain = block.fused_weights(gain, left)
            weights |= {f"body.{index}.{name}": value for name, value in folded.items()}
        tail = net.tail.fused_weights(self.basis(None if form is None else form.taps.out_channels))
        if self.scale > 1:
            weights |= plain("up", first(net.up), gain)
        else:
            tail["mix.weight"] = tail["mix.weight"] * gain
        return weights | tail

    def basis(self, count: int | None = None) -> Tensor:
        """Return the matrix, (72, taps), that turns 72 coefficients into the taps of one filter.

        Args:
            count: 13 or 25; by default what the dictionary needs. Filters that equal their own
                half-turn need 13 taps (the centre and one of each opposite pair), and every
                published dictionary is like that; a foreign one may need all 25.
        """
        taps = self.decom_conv.weight.flatten(1)  # 72 25
        if count is None:
            symmetric = torch.equal(taps, taps.flip(1))
            count = taps.shape[1] // 2 + 1 if symmetric else taps.shape[1]
        return taps[:, :count]

    def skips(self) -> list[list[float]]:
        """Return the factors that remain on each block's skip connections when it is fused."""
        return [block.fused_skips() for block in self.w_conv.blocks()]


class CoefficientNet(nn.Module):
    """Predicts 72 coefficients for every output pixel (section 3.2 and figure 2 of the paper)."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.rgb_mean = nn.Parameter(torch.tensor(RGB_MEAN).view(1, 3, 1, 1), requires_grad=False)
        self.head = nn.Sequential(WeightNormConv2d(3, channels, 3), nn.ReLU())
        self.body = nn.Sequential(
            *(LocalFusionBlock(channels, channels, UNITS) for _ in range(blocks))
        )
        if scale > 1:
            self.up = nn.Sequential(
                WeightNormConv2d(channels, channels * scale**2, 3),
                nn.ReLU(),
                nn.PixelShuffle(scale),
            )
        else:
            self.up = nn.Sequential()
        self.tail = CoefficientTail(channels)

    def blocks(self) -> list[LocalFusionBlock]:
        return [block for block in self.body if isinstance(block, LocalFusionBlock)]

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x - self.rgb_mean)  # n C h w
        features = self.body(features)  # n C h w
        features = self.up(features)  # n C H W
        return self.tail(features)  # n 72 H W


class CoefficientTail(nn.Module):
    """Two kernel sizes side by side, a fusion, and the coefficients, all at output resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tail_k3 = WeightNormConv2d(channels, channels, 3)
        self.tail_k5 = WeightNormConv2d(channels, channels, 5)
        self.scale_k3 = LearnedScale(0.5)
        self.scale_k5 = LearnedScale(0.5)
        self.fuse = WeightNormConv2d(channels, channels, 3)
        self.w_conv = WeightNormConv2d(channels, ATOMS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale_k3(self.tail_k3(x)) + self.scale_k5(self.tail_k5(x))  # n C H W
        x = F.relu(self.fuse(x))  # n C H W
        return self.w_conv(x)  # n 72 H W

    def fused_weights(self, basis: Tensor) -> dict[str, Tensor]:
        k3, k5 = self.tail_k3, self.tail_k5
        a, b = self.scale_k3.scale, self.scale_k5.scale
        mixed = pad_kernel(k3.weight, 5) * a + k5.weight * b
        # The last convolution and the dictionary are both linear: compose them, in double
        # precision because the dictionary's atoms nearly cancel.
        taps = torch.einsum("lt,lcyx->tcyx", basis.double(), self.w_conv.weight.double())
        offset = torch.einsum("lt,l->t", basis.double(), self.w_conv.bias.double())
        return (
            named("mix", mixed, k3.bias * a + k5.bias * b)
            | plain("merge", self.fuse)
            | named("taps", taps.to(basis.dtype), offset.to(basis.dtype))
        )


class FusedLapar(Network):
    """A fused form of `Lapar`: the same function in about a third of the multiply-adds.

    Weight normalisation and all learned scalars are folded; the 3x3 and 5x5 convolutions of the
    tail are one; the network predicts the 13 distinct taps of each assembled filter (25 for an
    asymmetric dictionary) instead of 72 coefficients, so neither the 72-channel map nor the 72
    filtered pictures exist; the bicubic enlargement is one small convolution.

    Args:
        channels: As for `Lapar`.
        scale: As for `Lapar`.
        taps: 13 or 25.
        skips: For each block, the factors that remain on its skip connections.
        dtype: In which it computes.
    """

    def __init__(
        self,
        channels: int,
        scale: int,
        taps: int,
        skips: list[list[float]],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mean = nn.Buffer(torch.tensor(RGB_MEAN).view(1, 3, 1, 1))
        self.head = same_conv(3, channels, 3)
        self.body = nn.ModuleList(FusedBlock(channels, channels, factors) for factors in skips)
        if scale > 1:
            self.up = same_conv(channels, channels * scale**2, 3)
            self.phases = nn.Buffer(bicubic_phases(scale, dtype).repeat(3, 1, 1, 1))
        self.mix = same_conv(channels, channels, 5)
        self.merge = same_conv(channels, channels, 3)
        self.taps = same_conv(channels, taps, 3)
        self.assemble: Filters = apply_filters
        self.to(dtype)

    @classmethod
    def from_weights(
        cls, weights: dict[str, Tensor], scale: int, skips: list[list[float]]
    ) -> FusedLapar:
        head, taps = weights["head.weight"], weights["taps.weight"]
        net = cls(head.shape[0], scale, taps.shape[0], skips, head.dtype)
        net.load_state_dict(weights, strict=False)
        return net.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.filters(x)  # n 13 H W
        return self.assemble(self.enlarge(x), taps, self.taps.out_channels)  # n 3 H W

    def skips(self) -> list[list[float]]:
        """Return the skip factors that the network was made with."""
        return [block.skips() for block in self.body if isinstance(block, FusedBlock)]

    def filters(self, x: Tensor) -> Tensor:
        """Predict the taps of every output pixel's filter, n x 13 x H x W or n x 25 x H x W.

        Row by row; 13 are the first half of a filter that equals its own half-turn, and its centre.
        """
        features = F.relu(self.head(x - self.mean))  # n C h w
        for block in self.body:
            features = block(features)  # n C h w
        if self.scale > 1:
            features = F.pixel_shuffle(F.relu(self.up(features)), self.scale)  # n C H W
        features = F.relu(self.merge(self.mix(features)))  # n C H W
        return self.taps(features)

    def enlarge(self, x: Tensor) -> Tensor:
        """Enlarge bicubically, n x 3 x h x w -> n x 3 x H x W."""
        if self.scale == 1:
            return x
        padded = F.pad(x, [2] * 4, mode="replicate")
        return F.pixel_shuffle(F.conv2d(padded, self.phases, groups=3), self.scale)


def apply_filters(picture: Tensor, taps: Tensor, count: int) -> Tensor:
    """Filter every pixel with its own 5x5 kernel, borders reflected.

    Args:
        picture: n x c x H x W.
        taps: n x 13 x H x W: row by row the first half of a kernel that equals its own half-turn,
            and its centre; or n x 25 x H x W: a whole kernel.
        count: 13 or 25, given because a traced tensor does not know.

    Returns:
        n x c x H x W.
    """
    padded = F.pad(picture, [SIDE // 2] * 4, mode="reflect")
    planes = [taps[:, tap : tap + 1] for tap in range(count)]  # each n 1 H W
    last = SIDE * SIDE - 1
    if count == SIDE * SIDE:
        neighbours = [_shifted(padded, tap) for tap in range(last + 1)]
    else:
        neighbours = [_shifted(padded, t) + _shifted(padded, last - t) for t in range(last // 2)]
        neighbours.append(picture)
    filtered = planes[0] * neighbours[0]
    for plane, neighbour in zip(planes[1:], neighbours[1:], strict=True):
        filtered = filtered + plane * neighbour
    return filtered


@cache
def dictionary() -> Tensor:
    """Return our own dictionary of 72 filters by the paper's formulas, shape (72, 1, 5, 5).

    Gaussians of unit sum, then differences of Gaussians of unit sum (2 Ga - Gb), each kind at
    several widths, ratios and angles; every filter equals its own half-turn.

    Source: section 3.3 of the paper; the parameters are read off the published dictionary.
    """
    # On the CPU whatever the caller's default is: what is kept must have values.
    with torch.device("cpu"):
        kernels = [gaussian_kernel(SIDE, *shape) for shape in _gaussians()]
        wide, middle, narrow = (gaussian_kernel(SIDE, s, s) for s in (2.0, 1.2, 0.4))
        kernels += [2 * wide - middle, 2 * wide - narrow, 2 * middle - narrow]
        ratios = (0.8, 0.6, 0.4)
        for outer, inner in zip(
            _turned(2.0, ratios, step=30), _turned(1.2, ratios, step=30), strict=True
        ):
            kernels.append(2 * gaussian_kernel(SIDE, *outer) - gaussian_kernel(SIDE, *inner))
        return torch.stack(kernels).unsqueeze(1).float()


def _gaussians() -> list[tuple[float, float, float]]:
    """Return (sigma1, sigma2, angle) of the dictionary's first 51 entries."""
    wide = [*_turned(2.0, (0.8, 0.6, 0.4), step=30), *_turned(2.0, (0.2,), step=15)]
    middle = _turned(1.2, (0.8, 0.6, 0.4), step=30)
    return [(2.0, 2.0, 0.0), *wide, (1.2, 1.2, 0.0), *middle, (0.4, 0.4, 0.0)]


def _turned(sigma: float, ratios: tuple[float, ...], step: int) -> list[tuple[float, float, float]]:
    return [(ratio * sigma, sigma, angle) for ratio in ratios for angle in range(0, 180, step)]


def _shifted(padded: Tensor, tap: int) -> Tensor:
    """Move the picture so that neighbour `tap` (row by row of a 5x5 window) lies on each pixel."""
    dy, dx = divmod(tap, SIDE)
    # Counted from the far end, so that an exported graph needs no arithmetic on shapes.
    bottom, right = dy - SIDE + 1, dx - SIDE + 1
    return padded[:, :, dy : bottom or None, dx : right or None]


def _enlarge_bicubic(x: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return x
    # In float32 PyTorch computes positions as multiples of 1/scale, which is inexact for a scale of
    # 3: on a 512-pixel picture the result is off by 1e-5. Three planes in float64 cost nothing
    # beside the 72 that follow. (The exported graph, made for comparison only, keeps float32.)
    exact = scale & (scale - 1) == 0 or torch.onnx.is_in_onnx_export()
    values = x if exact else x.double()
    enlarged = F.interpolate(values, scale_factor=scale, mode="bicubic", align_corners=False)
    return enlarged.to(x.dtype)
