"""Local fusion blocks of adaptive weighted residual units, and their exact cheaper form.

AWSRN introduced them and LAPAR took them over. A unit is `a*x + b*body(x)` with learned `a` and
`b`. Shapes in comments: n pictures, C channels, W channels between the two convolutions of a unit
(C in LAPAR, wider in AWSRN), h x w pixels.

Source: Wang, Li, Shi, "Lightweight Image Super-Resolution with Adaptive Weighted Learning
Network", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.layers import LearnedScale, WeightNormConv2d, same_conv

# A skip factor below this is kept as a multiplication: dividing by it would lose digits.
SMALLEST_FOLDED_SKIP = 1e-2


class LocalFusionBlock(nn.Module):
    """Adaptive residual units in a row; their outputs together, reduced, added to the input.

    Args:
        channels: In and out.
        width: Of each unit between its convolutions.
        units: Their number.
    """

    def __init__(self, channels: int, width: int, units: int) -> None:
        super().__init__()
        for name in _unit_names(units):
            self.add_module(name, AdaptiveResidualUnit(channels, width))
        self.reduction = WeightNormConv2d(channels * units, channels, 3)
        self.res_scale = LearnedScale()
        self.x_scale = LearnedScale()

    def units(self) -> list[AdaptiveResidualUnit]:
        return [unit for unit in self.children() if isinstance(unit, AdaptiveResidualUnit)]

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        y = x
        for unit in self.units():
            y = unit(y)  # n C h w
            outputs.append(y)
        reduced = self.reduction(torch.cat(outputs, dim=1))  # n units*C h w -> n C h w
        return self.res_scale(reduced) + self.x_scale(x)

    def fused_skips(self) -> list[float]:
        """Return the factor left on each skip connection, units, then block: 1 where folded."""
        skips = [float(unit.x_scale.scale.detach()) for unit in self.units()]
        return [1.0 if _foldable(s) else s for s in [*skips, float(self.x_scale.scale.detach())]]

    def fused_weights(
        self, gain: Tensor, skips: Sequence[float] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Fold all scalars into the convolutions.

        A unit computes `y = a*x + b*body(x)`. Keep `z = x / gain` instead of `x`, where `gain` is
        the product of the skip factors so far: then `z' = z + (b / (gain * a)) * body(gain * z)`,
        and both new factors move into the two convolutions of the body. The block as a whole is
        such a unit too.

        Args:
            gain: Factor that the block's input has been divided by.
            skips: Of the `FusedBlock` that they are for; else those of `fused_skips`.

        Returns:
            The weights of `FusedBlock`, and what its output has been divided by.
        """
        weights: dict[str, Tensor] = {}
        inner, gains = gain, []
        units = self.units()
        *left, own_left = skips or self.fused_skips()
        for name, unit, factor in zip(_unit_names(len(units)), units, left, strict=True):
            opening, closing = unit.convolutions()
            weights |= plain(f"{name}.first", opening, inner)
            inner = _next_gain(inner, unit.x_scale.scale, factor)
            residual = unit.res_scale.scale / inner
            weights |= named(f"{name}.second", closing.weight * residual, closing.bias * residual)
            gains.append(inner.expand(closing.weight.shape[0]))
        factors = torch.cat(gains).view(1, -1, 1, 1)  # one for each channel of the concatenation
        gain = _next_gain(gain, self.x_scale.scale, own_left)
        residual = self.res_scale.scale / gain
        kernel = self.reduction.weight * factors * residual
        return weights | named("reduction", kernel, self.reduction.bias * residual), gain


class AdaptiveResidualUnit(nn.Module):
    """A residual unit: `x_scale * x + res_scale * body(x)`, both factors learned."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            WeightNormConv2d(channels, width, 3),
            nn.ReLU(),
            WeightNormConv2d(width, channels, 3),
        )
        self.res_scale = LearnedScale()
        self.x_scale = LearnedScale()

    def convolutions(self) -> tuple[WeightNormConv2d, WeightNormConv2d]:
        opening, _, closing = self.body
        assert isinstance(opening, WeightNormConv2d)
        assert isinstance(closing, WeightNormConv2d)
        return opening, closing

    def forward(self, x: Tensor) -> Tensor:
        return self.res_scale(self.body(x)) + self.x_scale(x)


class FusedBlock(nn.Module):
    """A fused form of `LocalFusionBlock`, with its scalars folded.

    Args:
        channels: As for `LocalFusionBlock`.
        width: As for `LocalFusionBlock`.
        skips: The factors that remain: one for each unit, and the block's own.
    """

    def __init__(self, channels: int, width: int, skips: list[float]) -> None:
        super().__init__()
        *inner, self.skip = skips
        for name, skip in zip(_unit_names(len(inner)), inner, strict=True):
            self.add_module(name, FusedUnit(channels, width, skip))
        self.reduction = same_conv(channels * len(inner), channels, 3)

    def units(self) -> list[FusedUnit]:
        return [unit for unit in self.children() if isinstance(unit, FusedUnit)]

    def skips(self) -> list[float]:
        """Return the skip factors that the block was made with."""
        return [*(unit.skip for unit in self.units()), self.skip]

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        y = x
        for unit in self.units():
            y = unit(y)
            outputs.append(y)
        return _scaled(x, self.skip) + self.reduction(torch.cat(outputs, dim=1))


class FusedUnit(nn.Module):
    """A fused form of `AdaptiveResidualUnit`, with its scalars folded."""

    def __init__(self, channels: int, width: int, skip: float) -> None:
        super().__init__()
        self.skip = skip
        self.first = same_conv(channels, width, 3)
        self.second = same_conv(width, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(x, self.skip) + self.second(F.relu(self.first(x)))


def named(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return the two tensors of a plain convolution under its name."""
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def plain(
    name: str, convolution: WeightNormConv2d, gain: Tensor | None = None
) -> dict[str, Tensor]:
    """Return a convolution without its weight norm, for an input that was divided by `gain`."""
    weight = convolution.weight if gain is None else convolution.weight * gain
    return named(name, weight, convolution.bias)


def first(layers: nn.Sequential) -> WeightNormConv2d:
    """Return the convolution that a sequence begins with."""
    convolution = layers[0]
    assert isinstance(convolution, WeightNormConv2d)
    return convolution


def _unit_names(units: int) -> list[str]:
    return [f"b{index}" for index in range(units)]


def _scaled(x: Tensor, factor: float) -> Tensor:
    """Return `x * factor`, without any operation where the factor was folded away."""
    return x if factor == 1.0 else x * factor


def _foldable(skip: float) -> bool:
    return abs(skip) >= SMALLEST_FOLDED_SKIP


def _next_gain(gain: Tensor, skip: Tensor, left: float) -> Tensor:
    """Return the gain after a skip connection on which the factor `left` stays, 1 if folded."""
    return gain * skip if left == 1.0 else gain
