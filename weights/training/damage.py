"""What makes a training pair of a picture, on a device: reduction, blur and noise.

Resampling along an axis is a matrix, so a reduction is two products; a fractional scale differs
from a whole one in the matrix only. Pictures are n x 3 x H x W in [0, 255], float32. The products
are computed in float32: in shorter formats the result would be rounded to another 8-bit value.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srcli.pipeline.resample import contributions

CUBIC = -0.5  # of MATLAB's reduction
AROUND = 3  # reduced samples that the kernel looks at on each side, and one more
ENLARGING = -0.75  # of PyTorch's bicubic enlargement, which networks contain


def resizing(source: int, size: int) -> Tensor:
    """`resample.resize` along an axis of `source` samples, as a matrix: size x source."""
    sources, weights = contributions(source, size)
    matrix = np.zeros((size, source))
    np.add.at(matrix, (np.arange(size)[:, None], sources), weights)
    return torch.from_numpy(matrix).float()


def reduction(outputs: int, scale: float, around: int) -> Tensor:
    """Antialiased bicubic reduction along a stretch of a line, with context before and behind.

    Args:
        outputs: Samples of the result.
        scale: By which is reduced, at least 1, whole or not.
        around: Samples of context on each side.

    Returns:
        outputs x (outputs * scale + 2 * around). Output j lies at sample
        `around + (j + 0.5) * scale - 0.5`.
    """
    centers = around + (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale - 0.5
    return cubic(centers, round(outputs * scale) + 2 * around, 1.0 / scale, CUBIC)


def cubic(centers: Tensor, count: int, shrink: float, a: float) -> Tensor:
    """Weights of `count` samples at each of the given places: len(centers) x count, float32.

    Args:
        centers: Float64, in samples.
        count: Samples beyond them are taken to be the last one repeated.
        shrink: By how much less is sampled than the source is, at most 1: the kernel is widened.
        a: Of the cubic kernel.
    """
    reach = int(np.ceil(2 / shrink)) + 1
    samples = torch.arange(-reach, count + reach, dtype=torch.float64)
    distance = (centers[:, None] - samples).abs() * shrink
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    zero = torch.zeros((), dtype=torch.float64)
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, zero))
    weights = weights / weights.sum(1, keepdim=True)
    inside = weights[:, reach:-reach].clone()
    inside[:, 0] += weights[:, :reach].sum(1)
    inside[:, -1] += weights[:, -reach:].sum(1)
    return inside.float()


def enlargement(size: int, scale: float, source: int) -> Tensor:
    """Bicubic enlargement along an axis as networks do it, beyond the border the last sample.

    Args:
        size: Outputs.
        scale: By which is enlarged.
        source: Inputs.

    Returns:
        size x source.
    """
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) / scale - 0.5
    return cubic(centers, source, 1.0, ENLARGING)


def applied(rows: Tensor, pictures: Tensor, columns: Tensor | None = None) -> Tensor:
    """Resample both axes: matrices h x H (or n x h x H), pictures n x C x H x W -> n x C x h x w.

    Autocast must be off.
    """
    columns = rows if columns is None else columns
    if rows.ndim == 3:
        rows, columns = rows[:, None], columns[:, None]
    return rows @ pictures @ columns.mT


def rounded(pictures: Tensor) -> Tensor:
    """To the nearest of 0 to 255, as a file would hold it."""
    return pictures.round().clamp(0, 255)


def gaussian_rows(widths: Tensor, outputs: int, stride: int, around: int, side: int) -> Tensor:
    """Blur along an axis by a Gaussian, of which every `stride`-th sample is kept.

    Args:
        widths: Standard deviations in samples, one for each picture: n.
        outputs: Rows of the result; the first lies at sample `around`, that is at the first of the
            stretch: DCLS and those that it is compared with keep the upper left pixel.
        stride: Samples between two outputs.
        around: Samples of context on each side, at least `side // 2`.
        side: Of the kernel, odd.

    Returns:
        n x outputs x (outputs * stride + 2 * around), each row of sum 1.
    """
    samples = torch.arange(outputs * stride + 2 * around, device=widths.device)
    centers = around + stride * torch.arange(outputs, device=widths.device)
    distance = (centers[:, None] - samples).abs()
    weights = torch.exp(-0.5 * (distance / widths[:, None, None]) ** 2) * (distance <= side // 2)
    return weights / weights.sum(2, keepdim=True)
