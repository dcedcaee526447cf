"""Reduce a known blur to what DCLS works with: a kernel at input resolution.

The paper's equation 7 finds that kernel from the sharp picture, which nobody has who wants to make
one. Here the spectrum of photographs stands in for it: of all small kernels the result makes the
least error on pictures of that spectrum. Of the large picture every s-th pixel is kept, so each
frequency of the small one is a sum of s x s of the large one's.

Measured with `dcls-iso` x4 on Set5: blurs that are not round give 28.63 dB with the kernel known,
28.35 dB with the one that the network estimates; round ones 29.97 and 30.01 dB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Kernel = NDArray[np.float32]

SLOPE = 2.0  # photographs' power falls with frequency to this power
FREQUENCIES = 128  # of the small picture, along each axis


def reduced(kernel: Kernel, scale: int, side: int) -> Kernel:
    """Return the blur at input resolution that a blur of the large picture amounts to.

    Args:
        kernel: K' x K', odd, of sum 1; in pixels of the large picture.
        scale: Factor by which the network enlarges.
        side: Of the result, odd.

    Returns:
        side x side, no number below zero, of sum 1.
    """
    length = FREQUENCIES * scale
    power = _power(length)
    transfer = np.fft.fft2(_centred(kernel.astype(np.float64), length))
    aliases = (scale, FREQUENCIES, scale, FREQUENCIES)
    answer = (power * transfer).reshape(aliases).sum((0, 2)) / power.reshape(aliases).sum((0, 2))
    response = np.roll(np.fft.ifft2(answer).real, (side // 2, side // 2), (0, 1))
    small = np.maximum(response[:side, :side], 0.0)
    result: Kernel = (small / small.sum()).astype(np.float32)
    return result


def beyond(kernel: Kernel, scale: int, side: int) -> float:
    """Return the share of a blur of the large picture that a kernel of `side` cannot hold."""
    reach = side // 2 * scale + scale // 2
    middle = len(kernel) // 2
    inside = slice(max(0, middle - reach), middle + reach + 1)
    return 1.0 - float(kernel[inside, inside].sum() / kernel.sum())


def _power(length: int) -> NDArray[np.float64]:
    """Return the power of a photograph at each frequency, length x length."""
    frequency = np.fft.fftfreq(length)
    least = 0.5 / length  # the level of a picture is not infinite
    squares = frequency[:, None] ** 2 + frequency**2 + least**2
    power: NDArray[np.float64] = squares ** (-SLOPE / 2)
    return power


def _centred(kernel: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Put a kernel into a square of `length`, its centre at the first pixel."""
    square = np.zeros((length, length))
    square[: len(kernel), : len(kernel)] = kernel
    reach = len(kernel) // 2
    return np.roll(square, (-reach, -reach), (0, 1))
