"""DCLS's facts; the arithmetic is in `network.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from srcli.models.spec import FRAME, Geometry, ModelSpec, MultiplyAdds, Publication

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

PAPER = (
    "Luo, Huang, Yu, Li, Fan, Liu: Deep Constrained Least Squares for Blind Image "
    "Super-Resolution. CVPR 2022"
)
PUBLICATION = Publication(
    page="https://drive.google.com/drive/folders/135xCCLWSylBaNxh6B3I_UnCeox8AkVzC",
    licence="MIT, of the authors' repository (megvii-research/DCLS-SR)",
)
FEATURES = 64  # channels of the first path
DEBLURRED = 16  # channels of the second path, and of the filtering
CODE = 256  # numbers that describe a picture's blur
GROUPS, BLOCKS = 5, 10  # groups of dual-path blocks, and blocks in a group
UNITS = GROUPS * BLOCKS

Sides = dict[int, tuple[int, ...]]
ISOTROPIC: Sides = dict.fromkeys((2, 3, 4), (11, 7, 5, 1))  # kernels of 21x21
ANISOTROPIC: Sides = {2: (7, 3, 3, 1), 4: (11, 9, 7, 5, 3)}  # 11x11 and 31x31


def _build(sides: Sides, scale: int) -> PublishedNetwork:
    from srcli.models.dcls.network import Dcls

    return Dcls(sides[scale], scale)


def _geometry(sides: Sides, scale: int) -> Geometry:
    # The filtering reaches over the whole picture, and so do the means that scale channels; both
    # change little with what is far away. The halo holds what a kernel spreads, and the
    # convolutions that matter most.
    kernel = kernel_side(sides[scale])
    # Both paths of a block at input resolution and the spectra; in front of the last convolution
    # 64 channels at output resolution, before and after they are shuffled.
    at_input = 8 * FEATURES + 16 * DEBLURRED
    return Geometry(
        frame=FRAME,
        margin=2 * kernel + 22,
        minimum=8,  # three convolutions without padding
        floats_per_pixel=at_input // scale**2 + 3 * FEATURES,
        tiling="approximate",
    )


def _multiply_adds(sides: Sides, scale: int) -> MultiplyAdds:
    wide, narrow = FEATURES, DEBLURRED
    block = 9 * (2 * wide**2 + 2 * narrow**2 + (wide + narrow) * wide)
    residual = 3 * 2 * 9 * wide**2
    filtering = 2 * wide * narrow + 3 * 9 * narrow**2
    restorer = 27 * wide + residual + 9 * wide * narrow + filtering + UNITS * block
    restorer += 9 * (wide + narrow) * wide
    estimator = 3 * 49 * wide + residual + 2 * 9 * wide**2
    up = 36 * wide**2 * 5 if scale == 4 else 9 * wide**2 * scale**2
    total = (restorer + estimator + up) / scale**2 + 27 * wide
    # A transform of N pixels takes about 2.5 N log2 N; there are three for each of 16 channels.
    # Real arithmetic spares half of each.
    transforms = 3 * narrow * 2.5 * 16 / 2 / scale**2
    return MultiplyAdds(published_form=total, fused_form=total + transforms)


def _parameters(sides: Sides, scale: int) -> int:
    wide, narrow = FEATURES, DEBLURRED

    def attention(channels: int) -> int:
        inner = channels // 4
        return _conv(channels, inner, 1) + _conv(inner, channels, 1)

    block = 2 * _conv(wide, wide) + 2 * _conv(narrow, narrow) + _conv(wide + narrow, wide)
    block += attention(wide) + attention(narrow)
    residual = 6 * _conv(wide, wide)
    filtering = _conv(wide, narrow, 1) + 3 * _conv(narrow, narrow)
    filtering += _conv(narrow, narrow, 1) + _conv(narrow, wide, 1)
    ups = 2 * _conv(wide, 4 * wide) if scale == 4 else _conv(wide, wide * scale**2)
    restorer = _conv(3, wide) + residual + _conv(wide, narrow) + filtering + UNITS * block
    restorer += _conv(wide + narrow, wide) + ups + _conv(wide, 3)
    estimator = _conv(3, wide, 7) + residual + 2 * _conv(wide, wide) + _conv(wide, CODE, 1)
    predicted = sum(math.prod(shape) for shape in filter_shapes(sides[scale]))
    return restorer + estimator + predicted * (CODE + 1)


def kernel_side(sides: Sequence[int]) -> int:
    """Return the kernel side of the convolution of square filters."""
    return sum(sides) - len(sides) + 1


def filter_shapes(sides: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Return the shapes of the predicted filters: from 3 channels through 16 to 3."""
    widths = [3, *[DEBLURRED] * (len(sides) - 1), 3]
    return [
        (outputs, inputs, side, side)
        for inputs, outputs, side in zip(widths, widths[1:], sides, strict=False)
    ]


def _kernel_side(sides: Sides, scale: int) -> int:
    return kernel_side(sides[scale])


def _conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    return outputs * (kernel**2 * inputs + 1)


def _spec(kind: str, title: str, sides: Sides, good_for: str) -> ModelSpec:
    return ModelSpec(
        name=f"dcls-{kind}",
        title=title,
        scales=tuple(sides),
        build=partial(_build, sides),
        geometry=partial(_geometry, sides),
        parameters=partial(_parameters, sides),
        multiply_adds=partial(_multiply_adds, sides),
        paper=PAPER,
        good_for={"upscale": good_for},
        blind=True,
        kernel_side=partial(_kernel_side, sides),
        # The division amplifies rounding where a kernel's spectrum is small.
        tolerance=1e-3,
        half_tolerance=None,
        publications=dict.fromkeys(sides, PUBLICATION),
    )


SPECS = (
    _spec("iso", "DCLS (isotropic blur)", ISOTROPIC, "unknown blur, round"),
    _spec("aniso", "DCLS (anisotropic blur)", ANISOTROPIC, "unknown blur, of any shape"),
)
