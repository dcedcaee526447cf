"""Sets of blurs that papers on blind super-resolution measure with.

Source: Luo et al., "Deep Constrained Least Squares for Blind Image Super-Resolution", CVPR 2022,
section 5.1: eight round Gaussians (Gaussian8), and kernels made as those of DIV2KRK. The blurred
picture is reduced by keeping the upper left pixel of each square.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from srcli.errors import UsageError
from srcli.quality import BlurSet
from srcli.quality.degradations import Pixels8, Plane, blur, gaussian

Blur = Callable[[int], Plane]
"""A function from a picture's number to the kernel that blurs it."""

GAUSSIAN_SIDE = 21
GAUSSIAN_WIDTHS = {2: (0.80, 1.60), 3: (1.35, 2.40), 4: (1.80, 3.20)}  # the least and the greatest
GAUSSIANS = 8
SIDES = {2: 11, 3: 21, 4: 31}  # of kernels that are not round
WIDTHS = (0.6, 5.0)  # of their axes
UNEVEN = 0.25  # share by which each of their numbers is changed at most


def blurs(name: BlurSet, scale: int, seed: int = 0) -> dict[str, Blur]:
    """Return the blurs of a set by their names; each picture is measured with each of them.

    Args:
        name: Of the set.
        scale: 2, 3 or 4.
        seed: Of kernels that are drawn.

    Raises:
        UsageError: The set has no blurs for this scale.
    """
    if scale not in SIDES:
        raise UsageError(
            f"-s {scale}: the blurs of {name} are for x2, x3 and x4", "Choose one of these."
        )
    if name == "anisotropic":
        return {"": lambda number: anisotropic(scale, np.random.default_rng([seed, number]))}
    widths = np.linspace(*GAUSSIAN_WIDTHS[scale], GAUSSIANS)
    return {f"sigma {width:.2f}": always(gaussian(width, side=GAUSSIAN_SIDE)) for width in widths}


def always(kernel: Plane) -> Blur:
    """Return the blur by one kernel, whatever the picture."""
    return lambda number: kernel


def anisotropic(scale: int, rng: np.random.Generator) -> Plane:
    """Draw a Gaussian of any shape and direction, made uneven, as those of DIV2KRK.

    Args:
        scale: 2, 3 or 4.
        rng: Draws everything.
    """
    wide, narrow = (float(rng.uniform(*WIDTHS)) for _ in "ab")
    kernel = gaussian((wide, narrow), float(rng.uniform(-np.pi, np.pi)), side=SIDES[scale])
    uneven = kernel * rng.uniform(1 - UNEVEN, 1 + UNEVEN, kernel.shape)
    drawn: Plane = (uneven / uneven.sum()).astype(np.float32)
    return drawn


def seen(high: Pixels8 | Plane, kernel: Plane, scale: int) -> Plane:
    """Blur a large picture and keep the upper left pixel of each square; not rounded.

    Args:
        high: s*H x s*W x 3.
        kernel: K x K.
        scale: Whole factor, s.
    """
    return blur(high, kernel)[::scale, ::scale]
