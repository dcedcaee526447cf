"""Begin the training of a larger HPINet where a smaller one stands.

The larger network computes the same function as the smaller at first. What is hard about it are the
layer norms, which see all channels of a token. So each new channel of the feature map is the mean
of the old ones, wherever anything is written to the map. A layer norm then finds the same mean, a
variance that is smaller by the ratio of the widths, and nothing in the new channels: what reads
them behind a norm may stay as it was drawn. What reads the map itself reads zero from them.

Source: as for `growth.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from srcli.models.hpinet import SPECS
from srcli.models.hpinet.network import Attention, FeedForward, HpiNet, Stage


@torch.no_grad()
def grown_tokens(held: Mapping[str, Tensor], large: HpiNet) -> dict[str, Tensor]:
    """The tensors of `large` changed to compute what `held` computes; `large` stays as it is.

    Args:
        held: Tensors of an HPINet of the registry, by their published names.
        large: As it was drawn, at least as wide and deep.

    Raises:
        ValueError: `held` is no HPINet of this scale, or does not fit into `large`.
    """
    small, net = _built(held, large.scale), deepcopy(large)
    if any(a > b for a, b in zip(_widths(small), _widths(net), strict=True)):
        raise ValueError("the larger network is narrower")
    _write(small.first_conv, net.first_conv)
    left = small.stages()
    for stage in net.stages():
        if left and left[0][0] == stage[0]:
            _grow(left.pop(0), stage)
        else:  # adds nothing at first
            _clear(stage[3])
    if left:
        raise ValueError(f"the larger network has no block with patches of {left[0][0]}")
    for opening, up in zip(small.ups(), net.ups(), strict=True):
        _keep(opening, up)
    _keep(small.last_conv, net.last_conv)
    return net.state_dict()


def _built(held: Mapping[str, Tensor], scale: int) -> HpiNet:
    """The network of the registry whose tensors these are."""
    for spec in SPECS:
        net = spec.build(scale)
        shapes = {name: value.shape for name, value in net.state_dict().items()}
        if isinstance(net, HpiNet) and shapes == {name: t.shape for name, t in held.items()}:
            net.load_state_dict(dict(held))
            return net
    raise ValueError("no HPINet of this scale")


def _widths(net: HpiNet) -> tuple[int, int, int]:
    """Channels, keys and hidden width."""
    attention, feed_forward = _layers(net.stages()[0])[0]
    return (
        net.first_conv.out_channels,
        attention[1].to_q.out_features,
        feed_forward[1].fc1.out_features,
    )


Layer = tuple[tuple[nn.LayerNorm, Attention], tuple[nn.LayerNorm, FeedForward]]


def _layers(stage: Stage) -> list[Layer]:
    found = []
    for attention, feed_forward in stage[2].steps():
        assert isinstance(attention.fn, Attention)
        assert isinstance(feed_forward.fn, FeedForward)
        found.append(((attention.norm, attention.fn), (feed_forward.norm, feed_forward.fn)))
    return found


def _grow(small: Stage, large: Stage) -> None:
    """Let a block compute what a narrower one with patches of the same side does."""
    _norm(small[1].norm, large[1].norm)
    pairs = zip(_layers(small), _layers(large), strict=True)
    for index, ((old, old_forward), (new, new_forward)) in enumerate(pairs):
        _norm(old[0], new[0])
        _attention(old[1], new[1], raw=index == 0)
        _norm(old_forward[0], new_forward[0])
        _feed_forward(old_forward[1], new_forward[1])
    _write(small[3], large[3])


def _norm(small: nn.LayerNorm, large: nn.LayerNorm) -> None:
    """The deviation is smaller by the root of the ratio of the widths; nothing is in the rest."""
    old, new = small.normalized_shape[0], large.normalized_shape[0]
    large.weight[:old] = small.weight * math.sqrt(old / new)
    large.bias[:old] = small.bias
    large.bias[old:] = 0


def _attention(small: Attention, large: Attention, *, raw: bool) -> None:
    """Let new queries meet nothing at first. `raw`: keys are of the map itself, not of a norm."""
    keys, old = small.to_q.out_features, small.to_q.in_features
    larger = math.sqrt(large.to_q.out_features / keys)
    large.to_q.weight[:keys, :old] = small.to_q.weight * larger
    large.to_k.weight[:keys, :old] = small.to_k.weight
    large.to_k.weight[keys:] = 0
    if raw:
        large.to_k.weight[:keys, old:] = 0
    _write(small.to_v, large.to_v)


def _feed_forward(small: FeedForward, large: FeedForward) -> None:
    hidden, old = small.fc1.weight.shape
    large.fc1.weight[:hidden, :old] = small.fc1.weight
    large.fc1.bias[:hidden] = small.fc1.bias
    _write(small.fc2, large.fc2)


Linear = nn.Linear | nn.Conv2d


def _write(small: Linear, large: Linear) -> None:
    """Let a layer write to the map: the old channels as before, their mean to the new ones."""
    rows, columns = small.weight.shape[:2]
    large.weight[:, columns:] = 0
    large.weight[:rows, :columns] = small.weight
    large.weight[rows:, :columns] = small.weight.mean(0)
    if small.bias is not None and large.bias is not None:
        large.bias[:rows] = small.bias
        large.bias[rows:] = small.bias.mean()


def _keep(small: nn.Conv2d, large: nn.Conv2d) -> None:
    """Old outputs from old inputs; new outputs stay as drawn, and nothing reads them at first."""
    rows, columns = small.weight.shape[:2]
    large.weight[:rows] = 0
    large.weight[:rows, :columns] = small.weight
    assert small.bias is not None
    assert large.bias is not None
    large.bias[:rows] = small.bias


def _clear(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
