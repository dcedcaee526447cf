"""Read blur kernels from files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.images import read, to_float
from srcli.models.dcls.reduction import Kernel

SUFFIXES = (".npy", ".png")
LARGEST = 255  # pixels of a side


def read_kernel(file: Path) -> Kernel:
    """Read a blur kernel: the numbers of a `.npy` file, or a picture that is bright where it blurs.

    A picture of more than 255 pixels a side may be drawn large, each number as a square, as `srcli
    upscale --save-kernel` does.

    Returns:
        K x K, K odd, of sum 1.

    Raises:
        InputError: The file cannot be read, or is no kernel.
    """
    return as_kernel(_numbers(file), str(file))


def as_kernel(numbers: NDArray[np.floating], name: str) -> Kernel:
    """Check the numbers of a blur kernel, K x K, and return them with a sum of 1.

    Args:
        numbers: Of any sum.
        name: What messages call them.

    Raises:
        InputError: They are no kernel.
    """
    height, width = numbers.shape
    if height != width or height % 2 == 0:
        raise InputError(
            f"{name}: a blur kernel has as many rows as columns and a pixel in its middle, not "
            f"{width} x {height}",
            "Cut it, or pad it with zeros.",
        )
    if height > LARGEST:
        problem = f"{name}: {height} x {height} pixels are too many for a blur kernel"
        raise InputError(problem, f"Cut it to at most {LARGEST} x {LARGEST}.")
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() <= 0:
        raise InputError(
            f"{name}: a blur kernel holds weights: none below zero, and not all of them zero",
            "Check where the file comes from.",
        )
    shares = numbers / numbers.max()  # their sum is finite, however large they are
    kernel: Kernel = (shares / shares.sum()).astype(np.float32)
    return kernel


def _numbers(file: Path) -> NDArray[np.float64]:
    if file.suffix.lower() == ".npy":
        return _array(file)
    if file.suffix.lower() != ".png":
        raise InputError(f"{file}: is no .npy and no .png file", "Save the kernel as one of these.")
    color = to_float(read(file).color).astype(np.float64)
    return _undrawn(color.mean(axis=2))


def _array(file: Path) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(np.load(file, allow_pickle=False))
    except OSError as error:
        reason = error.strerror or "it is no array of numbers"
        raise InputError(f"{file}: cannot be read ({reason})", "Check the path.") from error
    except (ValueError, EOFError) as error:
        problem = f"{file}: cannot be read (it is no array of numbers)"
        raise InputError(problem, "Save the kernel by numpy.save.") from error
    # A kernel of one pixel is K x K, too: of its axes only those beyond two are left out.
    alone = [axis for axis, length in enumerate(numbers.shape) if length == 1]
    squeezed = np.squeeze(numbers, tuple(alone[: max(0, numbers.ndim - 2)]))
    if squeezed.ndim != 2 or squeezed.dtype.kind not in "fiu":
        raise InputError(f"{file}: holds no square of numbers", "Save one kernel, K x K.")
    return squeezed.astype(np.float64)


def _undrawn(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one number for each square of a picture that is made of equal squares.

    Only of pictures that are too large to be kernels themselves: a smaller one may be a blur in the
    form of a box, which is made of equal squares, too.
    """
    if max(picture.shape) <= LARGEST:
        return picture
    for side in range(math.gcd(*picture.shape), 1, -1):
        if picture.shape[0] % side or picture.shape[1] % side:
            continue
        small = picture[::side, ::side]
        if min(small.shape) > 1 and (small.repeat(side, 0).repeat(side, 1) == picture).all():
            return small
    return picture
