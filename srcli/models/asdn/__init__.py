"""ASDN's and FSDN's facts; the arithmetic is in `network.py` and `fixed.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from srcli.models.spec import FRAME, AnyScale, Geometry, ModelSpec, MultiplyAdds

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

PAPER = (
    "Shen, Wang, Zhang: ASDN: A Deep Convolutional Network for Arbitrary Scale Image "
    "Super-Resolution. 2020"
)
LEVELS = 10  # of the Laplacian pyramid above the picture itself; level l enlarges by 1 + l/10
LARGEST_SCALE = 32
LOW_LEVEL = 64  # channels that the first convolution makes
BICUBIC_REACH = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the feature branch."""

    blocks: int
    """Dense attention blocks."""

    channels: int
    """Channels that each block works with and adds to the features (F = G in the paper)."""

    layers: int
    """Densely connected convolutions in a block."""

    @property
    def features(self) -> int:
        """Channels that the feature branch gives."""
        return LOW_LEVEL + self.blocks * self.channels

    @property
    def reach(self) -> int:
        """Receptive field of the feature branch to each side, in pixels, without the attention."""
        return 1 + self.blocks * self.layers


BASE, FULL = Shape(8, 32, 4), Shape(16, 64, 8)


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of the network: enlarges by a level's scale."""

    level: int
    """The nearest level that enlarges no less than wanted."""

    weight: Fraction
    """Share of the level below in the result, in [0, 1)."""

    @property
    def scale(self) -> Fraction:
        """Factor by which the pass enlarges."""
        return level_scale(self.level)

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that have to be computed."""
        return (self.level, self.level - 1) if self.weight else (self.level,)


def level_scale(level: int) -> Fraction:
    """Return the scale of a level, 1 to 2."""
    return 1 + Fraction(level, LEVELS)


def steps(scale: int | Fraction) -> list[Step]:
    """Return the passes that make a scale: as many doublings as it takes, then the rest.

    Source: the paper's recursion of N = ceil(log2 scale) passes; the last one, by
    r = scale / 2^(N-1), lies between the levels i - 1 and i = ceil(10 (r - 1)), with a weight of
    10 (r_i - r) for the former.
    """
    remaining, passes = Fraction(scale), []
    while remaining > 2:
        passes.append(Step(LEVELS, Fraction(0)))
        remaining /= 2
    level = math.ceil(LEVELS * (remaining - 1))
    return [*passes, Step(level, LEVELS * (level_scale(level) - remaining))]


def grid(scale: int | Fraction) -> Fraction:
    """Return the scale that the network really makes: the least possible one that is no less."""
    return math.prod((step.scale for step in steps(scale)), start=Fraction(1))


def _build(shape: Shape, scale: int | Fraction) -> PublishedNetwork:
    from srcli.models.asdn.network import Asdn

    return Asdn(shape, scale)


def _build_fixed(shape: Shape, scale: int | Fraction) -> PublishedNetwork:
    from srcli.models.asdn.fixed import Fsdn

    return Fsdn(shape, int(scale))


def _geometry(shape: Shape, scale: int | Fraction) -> Geometry:
    passes = steps(scale)
    margin, before = 0, Fraction(1)
    for step in reversed(passes):
        margin = math.ceil(_margin(shape, step, margin))
    for step in passes[:-1]:
        before *= step.scale
    multiple = math.lcm(*((before * level_scale(i)).denominator for i in passes[-1].levels))
    return Geometry(
        frame=FRAME,
        margin=margin,
        multiple_of=multiple,
        floats_per_pixel=_floats(shape),
        tiling="approximate",  # the channel attention looks at the whole picture
    )


def _margin(shape: Shape, step: Step, wanted: int) -> Fraction:
    """Return the halo that a pass needs at its input for one of `wanted` pixels at its output."""
    upper = (shape.reach + wanted) / step.scale
    if not step.weight:
        return upper + BICUBIC_REACH
    below = level_scale(step.level - 1)
    lower = (wanted / (step.scale / below) + BICUBIC_REACH + shape.reach) / below
    return max(upper, lower) + BICUBIC_REACH


def _floats(shape: Shape) -> int:
    # All features so far and the same put together; within a block its own layers twice, and what
    # PyTorch adds. Measured there (2.65 to 3.07), rounded up.
    return math.ceil(3.1 * (shape.features + (shape.layers + 1) * shape.channels))


def _geometry_fixed(shape: Shape, scale: int | Fraction) -> Geometry:
    # The features are at input resolution, the head is at that of the output.
    floats = math.ceil(_floats(shape) / scale**2) + 72
    return Geometry(
        margin=shape.reach + 1, frame=FRAME, floats_per_pixel=floats, tiling="approximate"
    )


def _feature_weights(shape: Shape) -> int:
    """Count the weights of the feature branch that are applied to every pixel."""
    f, n = shape.channels, shape.layers
    known = sum(LOW_LEVEL + k * f for k in range(shape.blocks))
    block = 9 * f * f * n * (n + 1) // 2 + (n + 1) * f * f
    return 27 * LOW_LEVEL + known * f + shape.blocks * block


def _attention_parameters(shape: Shape) -> int:
    f = shape.channels
    return shape.blocks * (2 * f * (f // 16) + f // 16 + f)


SPATIAL_ATTENTION = 3 * 6 + 6 * 3


def _head_parameters(shape: Shape) -> int:
    return 3 * shape.features + 3 + SPATIAL_ATTENTION + 6 + 3


def _feature_parameters(shape: Shape) -> int:
    biases = LOW_LEVEL + shape.blocks * (shape.layers + 2) * shape.channels
    return _feature_weights(shape) + biases + _attention_parameters(shape)


def _parameters(shape: Shape, scale: int | Fraction) -> int:
    return _feature_parameters(shape) + (LEVELS + 1) * _head_parameters(shape)


def _multiply_adds(shape: Shape, scale: int | Fraction) -> MultiplyAdds:
    level = _feature_weights(shape) + 3 * shape.features + SPATIAL_ATTENTION
    total, done = Fraction(0), Fraction(1)
    resizing = Fraction(0)
    for step in steps(scale):
        for index in step.levels:
            pixels = (done * level_scale(index)) ** 2
            total += level * pixels
            resizing += 3 * _resize_taps(level_scale(index)) * pixels
        done *= step.scale
        if step.weight:
            ratio = step.scale / level_scale(step.level - 1)
            resizing += 3 * _resize_taps(ratio) * done**2
    body, enlarging = float(total / done**2), float(resizing / done**2)
    return MultiplyAdds(published_form=body, fused_form=body + enlarging)


def _resize_taps(scale: Fraction) -> int:
    """Count the taps of one phase of bicubic enlargement, done as a convolution."""
    return (scale.denominator + 2 * BICUBIC_REACH) ** 2 if scale != 1 else 0


def kernel_side(scale: int) -> int:
    """Return the kernel side of FSDN's transposed convolution, which reads 2 or 3 input pixels."""
    return 2 * scale - scale % 2


def _parameters_fixed(shape: Shape, scale: int | Fraction) -> int:
    enlarging = shape.features * LOW_LEVEL * kernel_side(int(scale)) ** 2 + LOW_LEVEL
    head = 3 * LOW_LEVEL + 3 + SPATIAL_ATTENTION + 6 + 3
    return _feature_parameters(shape) + enlarging + head


def _multiply_adds_fixed(shape: Shape, scale: int | Fraction) -> MultiplyAdds:
    s = int(scale)
    body = _feature_weights(shape) / s**2
    enlarging = shape.features * LOW_LEVEL * kernel_side(s) ** 2 / s**2 + 3 * LOW_LEVEL
    return MultiplyAdds(
        published_form=body + enlarging + SPATIAL_ATTENTION,
        # The transposed convolution and the head are one 3x3 convolution at input resolution.
        fused_form=body
        + 3 * 9 * shape.features
        + SPATIAL_ATTENTION
        + 3 * _resize_taps(Fraction(s)),
    )


def _spec(size: str, shape: Shape, good_for: str) -> ModelSpec:
    return ModelSpec(
        name=f"asdn-{size}",
        title=f"ASDN ({size} size)",
        # Those that need no resampling and no weighing of two levels.
        scales=(2, 3, 4, 8),
        any_scale=AnyScale(largest=LARGEST_SCALE, grid=grid),
        dense=True,
        build=partial(_build, shape),
        geometry=partial(_geometry, shape),
        parameters=partial(_parameters, shape),
        multiply_adds=partial(_multiply_adds, shape),
        paper=PAPER,
        good_for={"upscale": good_for},
        # Measured: 5e-7 between all forms in float32, 5e-4 in float16, untrained weights; relative
        # to the largest value 2e-6 with the reference weights.
        tolerance=1e-5,
    )


def _spec_fixed(size: str, shape: Shape, good_for: str) -> ModelSpec:
    return ModelSpec(
        name=f"fsdn-{size}",
        title=f"FSDN ({size} size)",
        scales=(2, 3, 4, 8),
        dense=True,
        build=partial(_build_fixed, shape),
        geometry=partial(_geometry_fixed, shape),
        parameters=partial(_parameters_fixed, shape),
        multiply_adds=partial(_multiply_adds_fixed, shape),
        paper=PAPER,
        good_for={"upscale": good_for},
        # Measured: 5e-7 between all forms in float32, 5e-4 in float16, untrained weights; relative
        # to the largest value 2e-6 with the reference weights.
        tolerance=1e-5,
    )


SPECS = (
    _spec("base", BASE, "any scale"),
    _spec("paper", FULL, "any scale, best, very slow"),
    _spec_fixed("base", BASE, "ASDN at one scale, faster"),
    _spec_fixed("paper", FULL, "ASDN at one scale, slow"),
)
