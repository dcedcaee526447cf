"""ASDN's and FSDN's networks as they are trained: the published modules in cheaper operations.

The greatest value of a channel is a reduction here; PyTorch's adaptive pooling to one value has one
thread of a GPU look at all pixels. What is added to the picture is not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from srcli.models.asdn.fixed import Fsdn
from srcli.models.asdn.network import (
    ChannelAttention,
    DenseAttentionBlock,
    FeatureBranch,
    PhaseResize,
    ReconstructionBranch,
    ResidualDenseBlock,
)


def features(branch: FeatureBranch, x: Tensor) -> Tensor:
    """What the feature branch gives: n x 3 x h x w -> n x K x h x w."""
    known: Tensor = branch.low_level_features(x)
    for block in branch.dabs:
        assert isinstance(block, DenseAttentionBlock)
        known = torch.cat([known, _attended(block, known)], dim=1)
    return known


def _attended(block: DenseAttentionBlock, known: Tensor) -> Tensor:
    dense, attention = block.base
    assert isinstance(dense, ResidualDenseBlock)
    assert isinstance(attention, ChannelAttention)
    grown: Tensor = dense(known)
    _, *layers = attention.attention
    shares = torch.amax(grown, dim=(2, 3), keepdim=True)
    for layer in layers:
        shares = layer(shares)
    return grown * shares


def head(branch: nn.Module, known: Tensor, enlarged: Tensor) -> Tensor:
    """From features to a picture of the same size."""
    assert isinstance(branch, ReconstructionBranch)
    planes = branch.transform_into_image(known).float()
    with torch.autocast(planes.device.type, enabled=False):
        result: Tensor = branch.sa(planes) + enlarged
    return result


def heads(branches: nn.ModuleList, level: Tensor, known: Tensor, enlarged: Tensor) -> Tensor:
    """`head` with the branch of each picture's own level, without asking which that is.

    Args:
        branches: Of all levels.
        level: n whole numbers.
        known: n x K x h x w.
        enlarged: n x 3 x h x w.
    """
    all_heads = [branch for branch in branches if isinstance(branch, ReconstructionBranch)]
    one = (level[:, None] == torch.arange(len(all_heads), device=level.device)).float()

    def pointwise(x: Tensor, layers: list[nn.Conv2d]) -> Tensor:
        weights = torch.stack([layer.weight[:, :, 0, 0] for layer in layers])
        biases = torch.stack([layer.bias for layer in layers if layer.bias is not None])
        weight = torch.einsum("nl,loi->nio", one, weights).to(x.dtype)
        flat = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight  # n hw o
        planes = flat.float().mT.reshape(len(x), -1, *x.shape[2:])
        return planes + (one @ biases)[:, :, None, None]

    planes = pointwise(known, [part.transform_into_image for part in all_heads])
    narrow = pointwise(planes, [_at(part, 0) for part in all_heads]).relu()
    shares = pointwise(narrow, [_at(part, 2) for part in all_heads]).sigmoid()
    result: Tensor = planes * shares + enlarged
    return result


def _at(branch: ReconstructionBranch, index: int) -> nn.Conv2d:
    layer = branch.sa.sa[index]
    assert isinstance(layer, nn.Conv2d)
    return layer


def fixed(net: Fsdn, device: torch.device) -> Callable[[Tensor], Tensor]:
    """FSDN: n x 3 x h x w -> n x 3 x H x W, by the parameters of `net`."""
    resize = PhaseResize(Fraction(net.scale)).to(device)

    def forward(low: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            enlarged = resize(low)
        known = features(net.feature_mapping_branch, low)
        return head(net.image_reconstruction_branch, net.enlarge(known), enlarged)

    return forward
