"""ASDN's objective: enlarge by all of its levels, and by two passes.

A pass sees only its input enlarged to the size of its output. So all patches have one size,
whatever they were reduced by: the level of a patch is data, not shape, and a batch holds many.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models.asdn import LEVELS, level_scale
from srcli.models.asdn.network import Asdn

from .damage import AROUND, CUBIC, ENLARGING, applied, cubic, enlargement, reduction, rounded
from .dense import features, head, heads
from .draws import Draws
from .losses import LOSSES
from .patches import Store
from .recipe import Recipe

LARGEST = 2  # what one pass enlarges by at most
SECOND = (2.0, 1.5)  # what the second of two passes enlarges by, the first doubles: x4 and x3
MULTIPLE = 12  # of the side of a patch, so that it is whole small pixels at x2, x3 and x4
BETWEEN = 0.3  # weight of the loss after the first of two passes
OFTEN = 0.3  # share of patches for the level that enlarges most, on which all scales above build
RARELY = 0.02  # for the level that does not enlarge


class AnyScaleObjective:
    """A step of one pass at random levels, or of two passes. `patch` is half of the output.

    What the second pass meets is not a reduced picture but what the first made; it has to have seen
    that.
    """

    order = (0, 1, 0, 2)

    def __init__(self, net: Asdn, recipe: Recipe, store: Store, device: torch.device) -> None:
        self._net, self._recipe, self._store, self._device = net, recipe, store, device
        self._side = recipe.patch * LARGEST // MULTIPLE * MULTIPLE
        self._around = 2 * LARGEST * AROUND
        scales = [float(level_scale(level)) for level in range(LEVELS + 1)]
        pairs = [_there_and_back(self._side, self._around, scale) for scale in scales]
        self._down, self._up = (torch.stack(part).to(device) for part in zip(*pairs, strict=True))
        self._twice = [_TwoPasses(self._side, self._around, by, device) for by in SECOND]
        others = (1 - OFTEN - RARELY) / (LEVELS - 1)
        self._shares = torch.tensor([RARELY, *[others] * (LEVELS - 1), OFTEN], device=device)

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        recipe, around = self._recipe, self._around
        window = self._store.patches(
            draws, recipe.batch, self._side, around=around, tries=recipe.candidates
        )
        high = window[:, :, around:-around, around:-around] / 255
        if kind:
            return self._two_passes(window, high, self._twice[kind - 1])
        level = draws.chosen(self._shares, recipe.batch)
        small = rounded(applied(self._down[level], window))
        enlarged = applied(self._up[level], small) / 255
        return LOSSES[recipe.loss](self.one_pass(enlarged, level) - high)

    def _two_passes(self, window: Tensor, high: Tensor, passes: _TwoPasses) -> Tensor:
        loss = LOSSES[self._recipe.loss]
        small = rounded(applied(passes.down, window))
        between = self.one_pass(applied(passes.first, small) / 255, LEVELS)
        wanted = applied(passes.middle, window) / 255
        result = self.one_pass(applied(passes.last, between), passes.level)
        return (loss(result - high) + BETWEEN * loss(between - wanted)) / (1 + BETWEEN)

    def one_pass(self, enlarged: Tensor, level: Tensor | int) -> Tensor:
        """What the network makes of pictures that are enlarged already: n x 3 x h x w.

        Args:
            enlarged: In [0, 1].
            level: One for all, or one for each.
        """
        # Weights that are cast once and kept would be those of the first step.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._recipe.bf16, cache_enabled=False
        ):
            laid_out = enlarged.contiguous(memory_format=torch.channels_last)
            known = features(self._net.feature_mapping_branch, laid_out)
            if isinstance(level, int):
                return head(self._net.image_reconstruction_branches[level], known, enlarged)
        return heads(self._net.image_reconstruction_branches, level, known, enlarged)


class _TwoPasses:
    """The matrices of two passes; the last one takes what the first made."""

    def __init__(self, side: int, around: int, second: float, device: torch.device) -> None:
        count = side + 2 * around
        self.level = round(LEVELS * (second - 1))
        whole, half = LARGEST * second, round(side / second)
        small = round(side / whole)
        self.down = _reduction(small, whole, around, count).to(device)
        self.first = _enlargement(half, LARGEST, small).to(device)
        self.middle = reduction(half, second, around).to(device)
        self.last = enlargement(side, second, half).to(device)


def _there_and_back(side: int, around: int, scale: float) -> tuple[Tensor, Tensor]:
    """Reduce by a scale and enlarge again, both with zeros for samples that only others have."""
    small = int(-(-side // scale))
    down = _reduction(small, scale, around, side + 2 * around)
    up = _enlargement(side, scale, small)
    missing = side - small
    return F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, missing))


def _reduction(outputs: int, scale: float, around: int, count: int) -> Tensor:
    """Reduce to some samples and `AROUND` more on each side: (outputs + 2 AROUND) x count."""
    places = torch.arange(-AROUND, outputs + AROUND, dtype=torch.float64)
    return cubic(around + (places + 0.5) * scale - 0.5, count, 1 / scale, CUBIC)


def _enlargement(size: int, scale: float, source: int) -> Tensor:
    """Enlarge what `_reduction` made of `source` samples: size x (source + 2 AROUND)."""
    centers = AROUND + (torch.arange(size, dtype=torch.float64) + 0.5) / scale - 0.5
    return cubic(centers, source + 2 * AROUND, 1.0, ENLARGING)
