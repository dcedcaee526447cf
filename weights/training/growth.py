"""Begin the training of a larger LAPAR or AWSRN where a smaller one stands.

The larger network computes the same function as the smaller at first: what is new reads from the
old channels, nothing old reads from what is new, and blocks that the smaller one lacks add nothing.
Training then finds use for the room, instead of learning everything again.

Source: Chen, Goodfellow, Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016
(the idea; theirs copies channels where this leaves the new ones as they were drawn).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from srcli.models.lapar import UNITS

PER_CHANNEL = (".weight_g", ".weight_v", ".bias")
LAPAR_ROWS = ("w_conv.up.0.bias", "w_conv.head.0.bias")
AWSRN_ROWS = "skip.0.bias"


def grown(small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `large` changed to compute what `small` computes.

    Args:
        small: Tensors of a LAPAR or an AWSRN, by their published names.
        large: Tensors as they were drawn for one of the same family and scale with at least as many
            channels (AWSRN: as many) and blocks.

    Raises:
        ValueError: `small` does not fit into `large`.
    """
    _check_scales(small, large)
    result = {}
    for name, drawn in large.items():
        value = small.get(name)
        if value is None:
            result[name] = _silent(name, drawn)
        elif value.shape == drawn.shape:
            result[name] = value.clone()
        else:
            result[name] = _widened(name, value, drawn)
    if missing := sorted(small.keys() - large.keys()):
        raise ValueError(f"the larger network has no {missing[0]}")
    return result


def _check_scales(small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> None:
    """The up-sampling has a channel for each pixel that one becomes: its rows tell the scale."""
    both = (small, large)
    up, head = LAPAR_ROWS
    if head in small:
        rows = [len(tensors[up]) / len(tensors[head]) for tensors in both if up in tensors]
    elif AWSRN_ROWS in small:
        rows = [len(tensors[AWSRN_ROWS]) for tensors in both if AWSRN_ROWS in tensors]
    else:
        raise ValueError("no LAPAR and no AWSRN")
    if len(rows) == 1 or len(set(rows)) > 1:
        raise ValueError("the scales differ")


def _silent(name: str, drawn: Tensor) -> Tensor:
    """A tensor of a block that the smaller network lacks: its reduction is nothing at first."""
    ends = name.endswith(("reduction.weight_g", "reduction.bias"))
    return drawn.new_zeros(drawn.shape) if ends else drawn.clone()


def _widened(name: str, value: Tensor, drawn: Tensor) -> Tensor:
    """The old outputs from the old inputs, zero from the new; new outputs stay as drawn."""
    fits = value.dim() == drawn.dim() and all(
        a <= b for a, b in zip(value.shape, drawn.shape, strict=True)
    )
    if not fits or not name.endswith(PER_CHANNEL):
        raise ValueError(f"{name}: {tuple(value.shape)} does not fit into {tuple(drawn.shape)}")
    wide = drawn.clone()
    old = value.shape[0]
    if not name.endswith(".weight_v"):
        wide[:old] = value
        return wide
    wide[:old] = 0
    # A reduction reads its units' outputs one after another; each has grown.
    groups = UNITS if ".reduction." in name else 1
    sources, targets = value.chunk(groups, dim=1), wide[:old].chunk(groups, dim=1)
    for source, target in zip(sources, targets, strict=True):
        target[:, : source.shape[1]] = source
    return wide
