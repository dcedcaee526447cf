"""PSNR and SSIM as the super-resolution papers measure them: the one definition in srcli.

Pictures are H x W x C arrays, RGB or grey, in [0, 255]. The papers round the network's output to
8 bits, take the luma of BT.601, and leave out a border as wide as the scale; the rounding is
done by `srcli.quality.evaluation`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
SSIM_SIDE, SSIM_SIGMA = 11, 1.5


def luma(picture: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return Y of BT.601 by MATLAB's `rgb2ycbcr`, H x W in [16, 235], not rounded.

    Args:
        picture: H x W x 3 in [0, 255]; H x W x 1 and H x W are taken as R = G = B.
    """
    values = picture.astype(np.float64)
    if values.ndim == 3 and values.shape[2] == 3:
        return np.asarray(values @ _LUMA + 16.0)
    return np.asarray(values.reshape(values.shape[:2]) * _LUMA.sum() + 16.0)


def crop_border(picture: Array, border: int) -> Array:
    """Crop `border` pixels on each of the four sides."""
    return picture[border:-border, border:-border] if border else picture


def psnr(first: Array, second: Array, *, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite if both are equal."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(peak**2 / error)


def psnr_b(original: Array, restored: Array, *, block: int = 8, peak: float = 255.0) -> float:
    """Return PSNR with blocking effect, in dB: steps at borders of JPEG's blocks count as error.

    Source: Yim and Bovik, "Quality assessment of deblocked images", IEEE TIP 2011, equations 4-10.

    Args:
        original: H x W.
        restored: H x W; only its own steps are looked at.
        block: Side of a block; blocks begin at the top left corner.
        peak: Largest value.
    """
    error = float(np.mean((original.astype(np.float64) - restored.astype(np.float64)) ** 2))
    error += _blocking_effect(restored.astype(np.float64), block)
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _blocking_effect(plane: NDArray[np.float64], block: int) -> float:
    """Return the excess of steps between blocks over steps within, weighed by the block's size."""
    at, within = np.zeros(2), np.zeros(2)  # sums of squared steps, and how many
    for axis in (0, 1):
        steps = np.diff(plane, axis=axis) ** 2
        last = np.arange(steps.shape[axis]) % block == block - 1
        for total, chosen in ((at, last), (within, ~last)):
            taken = np.compress(chosen, steps, axis=axis)
            total += taken.sum(), taken.size
    if not at[1] or not within[1]:
        return 0.0
    between, inside = at[0] / at[1], within[0] / within[1]
    if between <= inside:
        return 0.0
    return float(math.log(block) / math.log(min(plane.shape)) * (between - inside))


def ssim(first: Array, second: Array, *, peak: float = 255.0) -> float:
    """Return the mean structural similarity of two H x W planes over all whole 11 x 11 windows.

    Raises:
        ValueError: A side is shorter than the window.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment", 2004; Gaussian window
    of sigma 1.5, K1 = 0.01, K2 = 0.03.
    """
    if min(first.shape) < SSIM_SIDE:
        raise ValueError(f"SSIM needs {SSIM_SIDE} x {SSIM_SIDE} pixels, got {first.shape}")
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a = _window_mean(a * a) - mean_a**2
    var_b = _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(similarity.mean())


def _window_mean(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian-weighted mean of every whole window, in two passes of one dimension."""
    offsets = np.arange(SSIM_SIDE) - SSIM_SIDE // 2
    window = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    window /= window.sum()
    height, width = (side - SSIM_SIDE + 1 for side in plane.shape)
    rows = sum(w * plane[k : k + height] for k, w in enumerate(window))
    return np.asarray(sum(w * rows[:, k : k + width] for k, w in enumerate(window)))
