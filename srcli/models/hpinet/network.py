"""HPINet: a transformer on patches, each of which also attends to its most similar other patch.

Source: Liu, Chen, Tang and Wu, "From Coarse to Fine: Hierarchical Pixel Integration for
Lightweight Image Super-Resolution", AAAI 2023.

`HpiNet` is the network in the paper's order, one patch after the other, with the tensor names of
the published checkpoints. `FusedHpiNet` computes the same function on all patches at once;
`HpiNet.fuse()` makes it. Shapes in comments: n pictures, C channels, h x w at input resolution,
H x W at output resolution, P side of a patch, p x q patches down and across, N = p*q, T = P*P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from srcli.models.base import Network, PublishedNetwork
from srcli.models.hpinet import LAYERS, OVERLAP
from srcli.models.layers import bilinear_phases, count_up

fx.wrap("count_up")  # stays one operation in a traced graph

SELF_PENALTY = 100.0  # keeps a patch from being its own best match
SLOPE = 0.1  # of the leaky ReLU after up-sampling


Stage = tuple[int, "PatchMatch", "Transformer", nn.Conv2d]
"""Patch side, matching, transformer and convolution of a block."""


class HpiNet(PublishedNetwork):
    """The published network: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W, not clamped.

    Args:
        channels: Width of the feature map and of the tokens.
        keys: Width of queries and keys.
        hidden: Width inside the feed-forward nets.
        sides: Side of the patches of each block; no side of the input may be smaller.
        scale: 2, 3 or 4.
    """

    def __init__(
        self, channels: int, keys: int, hidden: int, sides: Sequence[int], scale: int
    ) -> None:
        super().__init__()
        self.scale, self.sides = scale, tuple(sides)
        self.first_conv = _conv(3, channels)
        self.cross_match = nn.ModuleList(PatchMatch(channels) for _ in sides)
        self.blocks = nn.ModuleList(Transformer(channels, keys, hidden) for _ in sides)
        self.mid_convs = nn.ModuleList(_conv(channels, channels) for _ in sides)
        if scale == 4:
            self.upconv1 = _conv(channels, channels * 4)
            self.upconv2 = _conv(channels, channels * 4)
        else:
            self.upconv = _conv(channels, channels * scale**2)
        self.last_conv = _conv(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first_conv(x)  # n C h w
        for side, match, block, convolution in self.stages():
            maps = [_integrate(picture, side, match, block) for picture in features]  # C h w
            features = features + convolution(torch.stack(maps))  # n C h w
        for up in self.ups():
            features = F.leaky_relu(F.pixel_shuffle(up(features), _factor(self.scale)), SLOPE)
        enlarged = F.interpolate(
            x, scale_factor=self.scale, mode="bilinear", align_corners=False
        )  # n 3 H W
        return self.last_conv(features) + enlarged  # n 3 H W

    def stages(self) -> list[Stage]:
        """Return the patch side, matching, transformer and convolution of each block."""
        parts = zip(self.sides, self.cross_match, self.blocks, self.mid_convs, strict=True)
        return cast("list[Stage]", list(parts))

    def ups(self) -> list[nn.Conv2d]:
        """Return the convolutions before each `pixel_shuffle`."""
        return [self.upconv1, self.upconv2] if self.scale == 4 else [self.upconv]

    def fuse(self) -> FusedHpiNet:
        """Return the vectorised network of the same function; they share no tensors."""
        return FusedHpiNet(self).eval().requires_grad_(False)


class PatchMatch(nn.Module):
    """Finds for every patch the most similar other one, whose pixels it may then read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the index of each patch's match: N x T x C -> N."""
        means = torch.stack([patch.mean(dim=0) for patch in patches])
        descriptors = self.norm(means)  # N C
        matches = []
        for index, descriptor in enumerate(descriptors):
            similarity = descriptors @ descriptor / math.sqrt(len(descriptor))  # N
            similarity[index] -= SELF_PENALTY
            matches.append(similarity.argmax())
        return torch.stack(matches)


class Transformer(nn.Module):
    """Three layers of attention and feed-forward net on the tokens of one patch."""

    def __init__(self, channels: int, keys: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Normalised(channels, Attention(channels, keys)),
                    Normalised(channels, FeedForward(channels, hidden)),
                ]
            )
            for _ in range(LAYERS)
        )

    def steps(self) -> list[tuple[Normalised, Normalised]]:
        """Return the attention and the feed-forward net of each layer."""
        modules = [m for m in self.modules() if isinstance(m, Normalised)]
        return list(zip(modules[::2], modules[1::2], strict=True))

    def forward(self, tokens: Tensor, matched: Tensor) -> Tensor:
        """Transform T x C tokens of a patch, with those of its match -> T x C."""
        for index, (attention, feed_forward) in enumerate(self.steps()):
            queries = attention.norm(tokens)
            # The matched patch is read as it is; only what a patch says of itself is normalised.
            source = matched if index == 0 else queries
            tokens = tokens + attention.fn(queries, source)
            tokens = tokens + feed_forward.fn(feed_forward.norm(tokens))
        return tokens


class Normalised(nn.Module):
    """A layer norm and what follows it, under the published names."""

    def __init__(self, channels: int, fn: Attention | FeedForward) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fn = fn


class Attention(nn.Module):
    """Attention with one head."""

    def __init__(self, channels: int, keys: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(channels, keys, bias=False)
        self.to_k = nn.Linear(channels, keys, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Attend: tokens T x C are the queries, source T x C gives keys and values -> T x C."""
        scores = self.to_q(tokens) @ self.to_k(source).mT / math.sqrt(self.to_q.out_features)
        return scores.softmax(dim=-1) @ self.to_v(source)  # T T -> T C


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


def _integrate(picture: Tensor, side: int, match: PatchMatch, block: Transformer) -> Tensor:
    """Run one block on one feature map, C x h x w -> C x h x w, patch by patch."""
    patches = divide(picture, side)  # N T C
    matches = match(patches)
    changed = [block(patch, patches[other]) for patch, other in zip(patches, matches, strict=True)]
    return merge(torch.stack(changed), picture.shape[1], picture.shape[2], side)


def patch_starts(length: int, side: int) -> list[int]:
    """Return where patches begin along one axis: every `side - 2` pixels, the last at the end.

    Raises:
        ValueError: The axis is shorter than a patch.
    """
    if length < side:
        raise ValueError(f"patches of {side} do not fit into {length} pixels")
    count = math.ceil((length - side) / (side - OVERLAP)) + 1
    return [min(index * (side - OVERLAP), length - side) for index in range(count)]


def divide(picture: Tensor, side: int) -> Tensor:
    """Cut a map into overlapping patches, row by row: C x h x w -> N x T x C."""
    _, height, width = picture.shape
    patches = [
        picture[:, top : top + side, left : left + side].flatten(1).T
        for top in patch_starts(height, side)
        for left in patch_starts(width, side)
    ]
    return torch.stack(patches)


def merge(patches: Tensor, height: int, width: int, side: int) -> Tensor:
    """Put patches back into a map, overlaps averaged: N x T x C -> C x h x w.

    As published: all patches are added up, then each strip that two neighbouring rows of patches
    share is halved, then each strip of two columns. Where the last patch is moved back over the
    one before, a line may belong to three patches and lies in two strips: it is quartered.
    """
    tops, lefts = patch_starts(height, side), patch_starts(width, side)
    squares = patches.mT.reshape(len(patches), -1, side, side)  # N C P P
    total = patches.new_zeros(squares.shape[1], height, width)
    places = [(top, left) for top in tops for left in lefts]
    for square, (top, left) in zip(squares, places, strict=True):
        total[:, top : top + side, left : left + side] += square
    for above, top in pairwise(tops):
        total[:, top : above + side] /= 2
    for before, left in pairwise(lefts):
        total[:, :, left : before + side] /= 2
    return total


class FusedHpiNet(Network):
    """A fused form of `HpiNet`, without a loop over patches.

    All patches of one side are cut with two gathers, matched with one product, attended to
    together, and put back with three gathers along each axis. The affine half of each layer norm
    and the scale of the attention are folded into the linear layers.
    """

    phases: Tensor

    def __init__(self, published: HpiNet) -> None:
        super().__init__()
        self.scale, self.sides = published.scale, published.sides
        self.head = _copied(published.first_conv)
        self.blocks = nn.ModuleList(
            FusedBlock(match, block, convolution)
            for _, match, block, convolution in published.stages()
        )
        self.ups = nn.ModuleList(_copied(up) for up in published.ups())
        self.tail = _copied(published.last_conv)
        phases = bilinear_phases(self.scale, self.head.weight.dtype)
        self.register_buffer("phases", phases.repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)  # n C h w
        height, width = features.shape[2], features.shape[3]
        grids = {
            side: (Grid.along(height, side, x), Grid.along(width, side, x))
            for side in sorted(set(self.sides))
        }
        for side, block in zip(self.sides, self.blocks, strict=True):
            features = block(features, *grids[side])
        for up in self.ups:
            features = F.pixel_shuffle(up(features), _factor(self.scale))
            features = F.leaky_relu(features, SLOPE)
        padded = F.pad(x, [1] * 4, mode="replicate")
        enlarged = F.pixel_shuffle(F.conv2d(padded, self.phases, groups=3), self.scale)  # n 3 H W
        return self.tail(features) + enlarged


class Grid(NamedTuple):
    """The patches along one axis, as indices. All numbers may be symbols of a traced graph."""

    side: int
    patches: int
    """Number of patches along the axis."""

    cut: Tensor
    """Index in the map of each line of each patch: count * side."""

    lines: tuple[Tensor, ...]
    """Indices of the patches' lines that make each line of the map; three tensors."""

    shares: tuple[Tensor, ...]
    """Weight of each of these lines; 0 where a line of the map lies in fewer than three patches."""

    @classmethod
    def along(cls, length: int, side: int, like: Tensor) -> Grid:
        """Return the patches of `side` along an axis of `length`, on the device of `like`."""
        step = side - OVERLAP
        count = (length - side + step - 1) // step + 1
        starts = torch.clamp(count_up(count, like) * step, max=length - side)
        cut = torch.reshape(torch.unsqueeze(starts, 1) + count_up(side, like), (-1,))

        position = count_up(length, like)
        # A line lies in a patch of the regular grid, perhaps in the one before, and perhaps in
        # the last patch, which may begin anywhere.
        this = torch.clamp(torch.clamp(position // step, max=count - 2), min=0)
        before, last = torch.clamp(this - 1, min=0), count - 1
        offset = position - this * step
        in_this = offset < side
        in_before = (offset < OVERLAP) & (this > 0)
        in_last = (position >= length - side) & (this < last)
        share = torch.where(in_before, 0.5, 1.0) * torch.where(in_last & in_this, 0.5, 1.0)
        lines = (
            this * side + torch.clamp(offset, max=side - 1),
            before * side + torch.clamp(offset + step, max=side - 1),
            last * side + torch.clamp(position - (length - side), min=0),
        )
        held = (in_this, in_before, in_last)
        shares = tuple(torch.where(inside, share, 0.0) for inside in held)
        return cls(side, count, cut, lines, shares)


class FusedBlock(nn.Module):
    """Divide, match, three layers of attention, merge, convolve: n C h w -> n C h w."""

    def __init__(self, match: PatchMatch, block: Transformer, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.channels = convolution.in_channels
        self.norm = match.norm
        self.layers = nn.ModuleList(
            FusedLayer(attention, feed_forward, matched=index == 0)
            for index, (attention, feed_forward) in enumerate(block.steps())
        )
        self.convolution = _copied(convolution)

    def forward(self, features: Tensor, rows: Grid, columns: Grid) -> Tensor:
        tokens = divide_all(features, rows, columns, self.channels)  # nN T C
        matched = torch.index_select(tokens, 0, self.match(tokens, rows.patches * columns.patches))
        for layer in self.layers:
            tokens = layer(tokens, matched)
        merged = merge_all(tokens, rows, columns, self.channels)  # n C h w
        return features + self.convolution(merged)

    def match(self, tokens: Tensor, count: int) -> Tensor:
        """Return the index of the match of each patch of all pictures: nN T C -> nN."""
        descriptors = self.norm(torch.mean(tokens, 1))  # nN C
        grouped = torch.reshape(descriptors, (-1, count, self.channels))  # n N C
        similarity = torch.matmul(grouped, torch.permute(grouped, (0, 2, 1)))  # n N N
        similarity = similarity / math.sqrt(self.channels)
        order = count_up(count, tokens)
        itself = torch.unsqueeze(order, 1) == order  # N N
        best = torch.argmax(similarity - torch.where(itself, SELF_PENALTY, 0.0), 2)  # n N
        first = count_up(grouped.shape[0], tokens) * count  # of each picture
        return torch.reshape(best + torch.unsqueeze(first, 1), (-1,))


class FusedLayer(nn.Module):
    """Attention and feed-forward net on all patches at once: nN T C -> nN T C."""

    def __init__(self, attention: Normalised, feed_forward: Normalised, *, matched: bool) -> None:
        super().__init__()
        assert isinstance(attention.fn, Attention)
        assert isinstance(feed_forward.fn, FeedForward)
        self.matched = matched
        self.channels = attention.fn.to_v.out_features
        query, key, value = _padded_projections(attention.fn)
        if matched:
            self.query = _after_norm(attention.norm, query)
            self.source = _linear(torch.cat([key, value]), None)
        else:
            self.projections = _after_norm(attention.norm, torch.cat([query, key, value]))
        self.up = _after_norm(
            feed_forward.norm, feed_forward.fn.fc1.weight, feed_forward.fn.fc1.bias
        )
        self.down = _linear(feed_forward.fn.fc2.weight, feed_forward.fn.fc2.bias)

    def forward(self, tokens: Tensor, matched: Tensor) -> Tensor:
        tokens = tokens + self.attend(tokens, matched)
        return tokens + self.down(F.gelu(self.up(self.standardised(tokens))))

    def attend(self, tokens: Tensor, matched: Tensor) -> Tensor:
        """Attend with one head, which PyTorch's fast kernel wants as an axis of its own."""
        query, key, value = [torch.unsqueeze(part, 1) for part in self.project(tokens, matched)]
        return torch.squeeze(F.scaled_dot_product_attention(query, key, value, scale=1.0), 1)

    def project(self, tokens: Tensor, matched: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, each nN T C."""
        own = self.standardised(tokens)
        if self.matched:
            keys, values = torch.chunk(self.source(matched), 2, dim=2)
            return self.query(own), keys, values
        queries, keys, values = torch.chunk(self.projections(own), 3, dim=2)
        return queries, keys, values

    def standardised(self, tokens: Tensor) -> Tensor:
        """Apply a layer norm without its affine half."""
        return F.layer_norm(tokens, (self.channels,))


def divide_all(features: Tensor, rows: Grid, columns: Grid, channels: int) -> Tensor:
    """Cut all pictures into overlapping patches, row by row: n C h w -> nN T C."""
    side = rows.side
    pixels = torch.permute(features, (0, 2, 3, 1))  # n h w C
    lines = torch.index_select(pixels, 1, rows.cut)  # n pP w C
    cells = torch.index_select(lines, 2, columns.cut)  # n pP qP C
    shape = (-1, rows.patches, side, columns.patches, side, channels)
    patches = torch.permute(torch.reshape(cells, shape), (0, 1, 3, 2, 4, 5))  # n p q P P C
    return torch.reshape(patches, (-1, side * side, channels))


def merge_all(tokens: Tensor, rows: Grid, columns: Grid, channels: int) -> Tensor:
    """Put patches back into maps, overlaps averaged: nN T C -> n C h w."""
    side = rows.side
    shape = (-1, rows.patches, columns.patches, side, side, channels)
    patches = torch.permute(torch.reshape(tokens, shape), (0, 1, 3, 2, 4, 5))  # n p P q P C
    flat = (-1, rows.patches * side, columns.patches * side, channels)
    lines = _averaged(torch.reshape(patches, flat), rows, 1)  # n h qP C
    pixels = _averaged(lines, columns, 2)  # n h w C
    return torch.permute(pixels, (0, 3, 1, 2))


def _averaged(cells: Tensor, grid: Grid, axis: int) -> Tensor:
    """Put the lines of patches together along one axis of n x rows x columns x C."""
    shape = (-1, 1, 1) if axis == 1 else (-1, 1)
    parts = [
        torch.index_select(cells, axis, line) * torch.reshape(share, shape)
        for line, share in zip(grid.lines, grid.shares, strict=True)
    ]
    return parts[0] + parts[1] + parts[2]


def _padded_projections(attention: Attention) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of queries, keys and values, all C x C.

    The scale of the attention is folded into the queries. Queries and keys get rows of zeros,
    which change no product, because the fast attention kernels of the CPU want one width.
    """
    value = attention.to_v.weight
    missing = value.shape[0] - attention.to_q.out_features
    query = attention.to_q.weight / math.sqrt(attention.to_q.out_features)
    query, key = (F.pad(w, [0, 0, 0, missing]) for w in (query, attention.to_k.weight))
    return query, key, value


def _after_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a linear layer that also does the affine half of the layer norm before it."""
    offset = weight @ norm.bias
    return _linear(weight * norm.weight, offset if bias is None else offset + bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _copied(convolution: nn.Conv2d) -> nn.Conv2d:
    copy = _conv(convolution.in_channels, convolution.out_channels)
    copy.to(convolution.weight.dtype)
    copy.load_state_dict(convolution.state_dict())
    return copy


def _factor(scale: int) -> int:
    """Return the factor of one up-sampling stage; a scale of 4 has two stages."""
    return 2 if scale == 4 else scale
