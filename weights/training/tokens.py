"""HPINet as it is trained: the published parameters, all patches of all pictures at once.

The fused form copies and folds the parameters, so gradients would not reach them. Here the same
arithmetic is done from the published ones. Matching has no gradient: which patch is most similar is
a whole number. Cutting and merging are linear, and each one's gradient is the other's arithmetic:
gathers, where PyTorch would add up one element after the other.

Shapes as in `srcli.models.hpinet.network`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from srcli.models.hpinet.network import (
    SELF_PENALTY,
    SLOPE,
    Attention,
    Grid,
    HpiNet,
    Normalised,
    Transformer,
)
from srcli.models.layers import bilinear_phases


class Axis(NamedTuple):
    """The patches along one axis, for cutting and merging in both directions."""

    grid: Grid
    held: tuple[Tensor, ...]
    """1 where a line of the map lies in the patch that `grid.lines` names, else 0."""

    share: Tensor
    """For each line of each patch, how much it counts in the map."""


class HpiNetTraining(nn.Module):
    """n x 3 x p x p in [0, 1] -> n x 3 x H x W; its parameters are those of `net`.

    Args:
        net: Is trained.
        patch: p.
        device: Of the constants.
    """

    def __init__(self, net: HpiNet, patch: int, device: torch.device) -> None:
        super().__init__()
        self.net = net
        like = torch.zeros(1, device=device)
        self._axes = {side: _axis(patch, side, like) for side in set(net.sides)}
        phases = bilinear_phases(net.scale).repeat(3, 1, 1, 1)
        self.phases = nn.Buffer(phases.to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        features = net.first_conv(x).float()  # n C h w
        for side, match, block, convolution in net.stages():
            axis = self._axes[side]
            tokens = divide(features, axis)
            matched = tokens.index_select(0, _matches(tokens, axis, match.norm))
            merged = merge(_attended(tokens, matched, block), axis)
            features = features + convolution(merged)
        for up in net.ups():
            factor = math.isqrt(up.out_channels // up.in_channels)
            features = F.leaky_relu(F.pixel_shuffle(up(features), factor), SLOPE)
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x, [1] * 4, mode="replicate")
            enlarged = F.pixel_shuffle(F.conv2d(padded, self.phases, groups=3), net.scale)
        restored: Tensor = net.last_conv(features) + enlarged
        return restored


def _axis(length: int, side: int, like: Tensor) -> Axis:
    grid = Grid.along(length, side, like)
    held = tuple((share > 0).float() for share in grid.shares)
    per_line = torch.stack(grid.shares).amax(0)  # all patches that hold a line count alike
    return Axis(grid, held, per_line[grid.cut])


@torch.no_grad()
def _matches(tokens: Tensor, axis: Axis, norm: nn.LayerNorm) -> Tensor:
    """For each patch the index of its match among those of all pictures: nN T C -> nN."""
    count = axis.grid.patches**2
    descriptors = norm(tokens.mean(1)).float().view(-1, count, tokens.shape[2])  # n N C
    with torch.autocast(tokens.device.type, enabled=False):
        similarity = descriptors @ descriptors.mT / math.sqrt(tokens.shape[2])
    itself = torch.eye(count, device=tokens.device) * SELF_PENALTY
    first = torch.arange(len(similarity), device=tokens.device)[:, None] * count
    matches: Tensor = ((similarity - itself).argmax(2) + first).flatten()
    return matches


def _attended(tokens: Tensor, matched: Tensor, block: Transformer) -> Tensor:
    for index, (attention, feed_forward) in enumerate(block.steps()):
        tokens = tokens + _attention(attention, tokens, matched if index == 0 else None)
        tokens = tokens + feed_forward.fn(feed_forward.norm(tokens))
    return tokens


def _attention(part: Normalised, tokens: Tensor, matched: Tensor | None) -> Tensor:
    """Queries and keys are padded with zeros to the width of values: fast kernels want one."""
    fn = part.fn
    assert isinstance(fn, Attention)
    missing = fn.to_v.out_features - fn.to_q.out_features
    queries, keys = (F.pad(layer.weight, (0, 0, 0, missing)) for layer in (fn.to_q, fn.to_k))
    own = part.norm(tokens)
    if matched is None:
        asked, key, value = F.linear(own, torch.cat([queries, keys, fn.to_v.weight])).chunk(3, 2)
    else:
        asked = F.linear(own, queries)
        key, value = F.linear(matched, torch.cat([keys, fn.to_v.weight])).chunk(2, 2)
    asked, key, value = (t.unsqueeze(1) for t in (asked, key, value))
    scale = 1 / math.sqrt(fn.to_q.out_features)
    return F.scaled_dot_product_attention(asked, key, value, scale=scale).squeeze(1)


def divide(features: Tensor, axis: Axis) -> Tensor:
    """Overlapping patches of square maps, row by row: n C h h -> nN T C."""
    channels, side, count = features.shape[1], axis.grid.side, axis.grid.patches
    pixels = features.permute(0, 2, 3, 1)  # n h w C
    cells = _cut(_cut(pixels, axis, 1), axis, 2)  # n pP qP C
    patches = cells.view(-1, count, side, count, side, channels).transpose(2, 3)
    return patches.reshape(-1, side * side, channels)


def merge(tokens: Tensor, axis: Axis) -> Tensor:
    """Patches back into maps, overlaps averaged: nN T C -> n C h h."""
    channels, side, count = tokens.shape[2], axis.grid.side, axis.grid.patches
    patches = tokens.view(-1, count, count, side, side, channels).transpose(2, 3)
    cells = patches.reshape(-1, count * side, count * side, channels)
    pixels = _merged(_merged(cells, axis, 1), axis, 2)
    return pixels.permute(0, 3, 1, 2)


def _cut(x: Tensor, axis: Axis, dim: int) -> Tensor:
    result: Tensor = _Cut.apply(x, axis, dim)  # type: ignore[no-untyped-call]  # not annotated
    return result


def _merged(x: Tensor, axis: Axis, dim: int) -> Tensor:
    result: Tensor = _Merge.apply(x, axis, dim)  # type: ignore[no-untyped-call]  # not annotated
    return result


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return x.index_select(dim, axis.grid.cut)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _sum(gradients[0], ctx.axis.grid.lines, ctx.axis.held, ctx.dim), None, None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return _sum(x, axis.grid.lines, axis.grid.shares, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cut = gradients[0].index_select(ctx.dim, ctx.axis.grid.cut)
        return cut * _along(ctx.axis.share, ctx.dim), None, None


def _sum(x: Tensor, lines: tuple[Tensor, ...], shares: tuple[Tensor, ...], dim: int) -> Tensor:
    parts = [
        x.index_select(dim, line) * _along(share, dim)
        for line, share in zip(lines, shares, strict=True)
    ]
    return parts[0] + parts[1] + parts[2]


def _along(share: Tensor, dim: int) -> Tensor:
    return share.view(-1, 1, 1) if dim == 1 else share.view(-1, 1)
