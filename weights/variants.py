"""Other ways to train the network that LAPAR's inference graph is.

That graph needs no dictionary, no normalised weights and no scalars: what it computes with are
convolutions. They can be trained as such, with filters that need not be symmetric, or with branches
that fold into them. All variants begin as the published network they are given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.lapar.network import FusedLapar, Lapar

VARIANTS = ("published", "free", "asymmetric", "branches")


class FreeLapar(nn.Module):
    """The weights of a `FusedLapar` as parameters.

    Args:
        start: What it computes at first.
        variant: `free`: each filter has 13 taps of its own and equals its half-turn;
            `asymmetric`: 25 taps; `branches`: as `free`, and beside each 3x3 convolution a 1x1
            convolution and, where it keeps the number of channels, a factor for each channel.

    Source of the branches: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021,
    section 3.3; here without normalisation, and beginning at zero.
    """

    def __init__(self, start: Lapar, variant: str) -> None:
        super().__init__()
        self.scale, self._skips = start.scale, start.skips()
        weights = {name: value.detach() for name, value in start.fused_weights().items()}
        if variant == "asymmetric":
            weights |= {name: _mirrored(weights[name]) for name in ("taps.weight", "taps.bias")}
        self.mean = nn.Buffer(weights.pop("mean"))
        self.kernels = nn.ParameterDict({_key(name): value for name, value in weights.items()})
        self.points, self.factors = nn.ParameterDict(), nn.ParameterDict()
        for name in _branching(weights) if variant == "branches" else ():
            wide, narrow = weights[name].shape[:2]
            self.points[_key(name)] = torch.zeros(wide, narrow, 1, 1)
            if wide == narrow:
                self.factors[_key(name)] = torch.zeros(wide)

    def fused_weights(self) -> dict[str, Tensor]:
        """The weights of `FusedLapar`, with all branches folded."""
        weights: dict[str, Tensor] = {"mean": self.mean}
        for key, kernel in self.kernels.items():
            folded: Tensor = kernel
            if key in self.points:
                centre = self.points[key]
                if key in self.factors:
                    centre = centre + torch.diag(self.factors[key])[:, :, None, None]
                folded = folded + F.pad(centre, [1] * 4)
            weights[_name(key)] = folded
        return weights

    def fuse(self) -> FusedLapar:
        """The network of this function that is used."""
        return FusedLapar.from_weights(self.fused_weights(), self.scale, self._skips)


def _branching(weights: dict[str, Tensor]) -> list[str]:
    return [name for name, value in weights.items() if value.shape[2:] == (3, 3)]


def _mirrored(half: Tensor) -> Tensor:
    """13 taps of a filter that equals its half-turn as the 25 that it has."""
    return torch.cat([half, half[:-1].flip(0)])


# Names of parameters may not contain dots.
def _key(name: str) -> str:
    return name.replace(".", "|")


def _name(key: str) -> str:
    return key.replace("|", ".")
