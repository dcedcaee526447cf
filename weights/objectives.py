"""What one step makes small, for each family: from random numbers to a loss, all on one device.

An objective cuts its patches from a `Store`, damages them, restores them with the network that is
trained and compares. Nothing in it depends on values that the host would have to know, so a step
can be recorded in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from srcli.models.asdn import LEVELS, level_scale
from srcli.models.asdn.fixed import Fsdn
from srcli.models.asdn.network import Asdn, PhaseResize, ReconstructionBranch
from srcli.models.awsrn.network import Awsrn
from srcli.models.dcls.network import Dcls
from srcli.models.hpinet.network import HpiNet
from srcli.models.lapar.network import Lapar

from .bfloat16 import keep_picture
from .blind import BlindObjective
from .damage import applied, cubic, enlargement, reduction, rounded
from .draws import Draws
from .losses import LOSSES
from .patches import Store
from .recipe import Recipe
from .tokens import HpiNetTraining

AROUND = 3  # small pixels that a reduction looks at on each side, and one more
LARGEST = float(level_scale(LEVELS))  # what one pass of ASDN enlarges by at most
PASSES = ("one", "x4", "one", "x3")  # of ASDN's steps, in turn; x2 and all levels are one pass
TWO_PASSES = {"x4": 2.0, "x3": 1.5}  # what the second enlarges by, the first doubles
BETWEEN = 0.3  # weight of the loss after the first of two passes
OFTEN = 0.3  # share of patches for the level that enlarges most, on which all scales above build
RARELY = 0.02  # for the level that does not enlarge


class Objective(Protocol):
    """What a step of training makes small."""

    @property
    def kinds(self) -> int:
        """Kinds of steps, which take turns; shapes may differ between them."""
        ...

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        """The loss of the batch that the numbers draw."""
        ...


def objective(net: nn.Module, recipe: Recipe, store: Store, device: torch.device) -> Objective:
    """The objective of a published network, which is on the device; its parameters are trained.

    Raises:
        SystemExit: The network is of a family that has none.
    """
    if isinstance(net, Asdn):
        return AnyScaleObjective(net, recipe, store, device)
    if isinstance(net, Dcls):
        return BlindObjective(net, recipe, store, device)
    return EnlargingObjective(_form(net, recipe, device), recipe, store, device)


def _form(net: nn.Module, recipe: Recipe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What computes the network's function from its published parameters most cheaply."""
    if isinstance(net, Lapar | Awsrn):
        return _folded(net, device)
    if isinstance(net, HpiNet):
        return HpiNetTraining(net, recipe.patch, device)
    if isinstance(net, Fsdn):
        return _fixed(net, device)
    raise SystemExit(f"{recipe.model}: there is no objective for its family.")


def _folded(net: Lapar | Awsrn, device: torch.device) -> Callable[[Tensor], Tensor]:
    fused = net.fuse().to(device)
    keep_picture(fused, device)

    def weights() -> dict[str, Tensor]:
        # Only so that each network meets its own form.
        if isinstance(net, Lapar):
            return net.fused_weights(fused)  # type: ignore[arg-type]
        return net.fused_weights(fused)  # type: ignore[arg-type]

    def forward(low: Tensor) -> Tensor:
        restored: Tensor = functional_call(fused, weights(), (low,))
        return restored

    return forward


def _fixed(net: Fsdn, device: torch.device) -> Callable[[Tensor], Tensor]:
    resize = PhaseResize(Fraction(net.scale)).to(device)

    def forward(low: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            enlarged = resize(low)
        features = net.enlarge(net.feature_mapping_branch(low))
        return head(net.image_reconstruction_branch, features, enlarged)

    return forward


def head(branch: nn.Module, features: Tensor, enlarged: Tensor) -> Tensor:
    """From features to a picture; what is added to it is not rounded."""
    assert isinstance(branch, ReconstructionBranch)
    planes = branch.transform_into_image(features).float()
    with torch.autocast(planes.device.type, enabled=False):
        result: Tensor = branch.sa(planes) + enlarged
    return result


class EnlargingObjective:
    """Enlarge by a whole factor what was reduced bicubically."""

    kinds = 1

    def __init__(
        self,
        form: Callable[[Tensor], Tensor],
        recipe: Recipe,
        store: Store,
        device: torch.device,
    ) -> None:
        self._form, self._recipe, self._store, self._device = form, recipe, store, device
        around = AROUND * recipe.scale
        self._rows = reduction(recipe.patch, recipe.scale, around).to(device)
        self._around = around

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        recipe, around = self._recipe, self._around
        window = self._store.patches(
            draws,
            recipe.batch,
            recipe.patch * recipe.scale,
            around=around,
            grid=recipe.scale,
            tries=recipe.candidates,
        )
        low = rounded(applied(self._rows, window)) / 255
        high = window[:, :, around:-around, around:-around] / 255
        with computing(recipe, self._device):
            restored = self._form(laid_out(low))
        return LOSSES[recipe.loss](restored.float() - high)


class AnyScaleObjective:
    """Enlarge by ASDN's levels, each patch of a batch by one of its own, and in two passes.

    A pass only sees its input enlarged to the size of its output: patches have one size whatever
    they were reduced by, and the level is data, not shape. `patch` is half of that size.
    """

    kinds = len(PASSES)

    def __init__(self, net: Asdn, recipe: Recipe, store: Store, device: torch.device) -> None:
        self._net, self._recipe, self._store, self._device = net, recipe, store, device
        self._side = side = round(recipe.patch * LARGEST) // 12 * 12  # divides by 3 and 4
        self._around = around = 4 * AROUND
        levels = [float(level_scale(level)) for level in range(LEVELS + 1)]
        most = side + 2 * AROUND
        pairs = [_there_and_back(side, around, scale, most) for scale in levels]
        self._down, self._up = (torch.stack(part).to(device) for part in zip(*pairs, strict=True))
        self._twice = {
            name: TwoPasses(side, around, second, device) for name, second in TWO_PASSES.items()
        }
        others = (1 - OFTEN - RARELY) / (LEVELS - 1)
        shares = [RARELY, *[others] * (LEVELS - 1), OFTEN]
        self._shares = torch.tensor(shares, device=device)

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        recipe, side, around = self._recipe, self._side, self._around
        window = self._store.patches(
            draws, recipe.batch, side, around=around, grid=1, tries=recipe.candidates
        )
        high = window[:, :, around:-around, around:-around] / 255
        name = PASSES[kind]
        if name == "one":
            level = draws.chosen(self._shares, recipe.batch)
            small = rounded(applied(self._down[level], window))
            enlarged = applied(self._up[level], small) / 255
            return LOSSES[recipe.loss](self._pass(enlarged, level) - high)
        return self._two_passes(window, high, self._twice[name])

    def _two_passes(self, window: Tensor, high: Tensor, passes: TwoPasses) -> Tensor:
        loss = LOSSES[self._recipe.loss]
        small = rounded(applied(passes.down, window))
        between = self._pass(applied(passes.first, small) / 255, LEVELS)
        wanted = applied(passes.middle, window) / 255
        level = round(LEVELS * (passes.second - 1))
        result = self._pass(applied(passes.last, between), level)
        return (loss(result - high) + BETWEEN * loss(between - wanted)) / (1 + BETWEEN)

    def _pass(self, enlarged: Tensor, level: Tensor | int) -> Tensor:
        with computing(self._recipe, self._device):
            features = self._net.feature_mapping_branch(laid_out(enlarged))
        branches = self._net.image_reconstruction_branches
        if isinstance(level, int):
            with computing(self._recipe, self._device):
                return head(branches[level], features, enlarged)
        return _heads(branches, level, features, enlarged)


class TwoPasses:
    """The matrices of two passes; the last one takes what the first made."""

    def __init__(self, side: int, around: int, second: float, device: torch.device) -> None:
        count = side + 2 * around
        self.second = second
        whole, half = 2 * second, round(side / second)
        self.down = reduction_with_context(round(side / whole), whole, around, count).to(device)
        self.first = _between(half, 2.0).to(device)
        self.middle = reduction(half, second, around, count).to(device)
        self.last = enlargement(side, second, half).to(device)


def reduction_with_context(outputs: int, scale: float, around: int, count: int) -> Tensor:
    """`reduction` with `AROUND` rows more on each side."""
    places = torch.arange(-AROUND, outputs + AROUND, dtype=torch.float64)
    return cubic(around + (places + 0.5) * scale - 0.5, count, 1 / scale, -0.5)


def _between(size: int, scale: float) -> Tensor:
    """Enlarge what `reduction_with_context` made."""
    centers = AROUND + (torch.arange(size, dtype=torch.float64) + 0.5) / scale - 0.5
    return cubic(centers, round(size / scale) + 2 * AROUND, 1.0, -0.75)


def _there_and_back(side: int, around: int, scale: float, most: int) -> tuple[Tensor, Tensor]:
    """Reduce by a scale and enlarge again; both with zeros for samples that there are not."""
    small = int(-(-side // scale))
    down = reduction_with_context(small, scale, around, side + 2 * around)
    centers = AROUND + (torch.arange(side, dtype=torch.float64) + 0.5) / scale - 0.5
    up = cubic(centers, small + 2 * AROUND, 1.0, -0.75)
    missing = most - len(down)
    return F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, missing))


def _heads(branches: nn.ModuleList, level: Tensor, features: Tensor, enlarged: Tensor) -> Tensor:
    """`head` with the branch of each picture's level, without asking which that is."""
    heads = [branch for branch in branches if isinstance(branch, ReconstructionBranch)]
    one = F.one_hot(level, len(heads)).float()  # n levels

    def own(layers: list[nn.Conv2d]) -> tuple[Tensor, Tensor]:
        weights = torch.stack([layer.weight[:, :, 0, 0] for layer in layers])
        biases = torch.stack([layer.bias for layer in layers if layer.bias is not None])
        return torch.einsum("nl,loi->noi", one, weights), (one @ biases)[:, :, None, None]

    def pointwise(x: Tensor, layers: list[nn.Conv2d]) -> Tensor:
        weight, bias = own(layers)
        flat = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.mT.to(x.dtype)  # n hw o
        return flat.float().mT.reshape(len(x), -1, *x.shape[2:]) + bias

    planes = pointwise(features, [h.transform_into_image for h in heads])
    narrow = pointwise(planes, [_at(h.sa.sa, 0) for h in heads]).relu()
    shares = pointwise(narrow, [_at(h.sa.sa, 2) for h in heads]).sigmoid()
    result: Tensor = planes * shares + enlarged
    return result


def _at(layers: nn.Sequential, index: int) -> nn.Conv2d:
    layer = layers[index]
    assert isinstance(layer, nn.Conv2d)
    return layer


def computing(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Convolutions and products in bfloat16, where the recipe wants it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16, cache_enabled=False)


def laid_out(x: Tensor) -> Tensor:
    """Pixel by pixel, as convolutions in bfloat16 want it."""
    return x.contiguous(memory_format=torch.channels_last)
