"""Weights as the compiled network reads them, in memory and in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.backends.native.compiled import compiled
from srcli.errors import BackendError, first_line

Array = NDArray[np.float32]
Kernel = tuple[Array, Array]
"""A convolution's weights at the points of Winograd's filtering, and its bias, flat."""

ALIGNMENT = 64  # bytes


def kernel_of(weights: Mapping[str, Array], name: str, **layout: int) -> Kernel:
    return packed(weights[f"{name}.weight"], weights[f"{name}.bias"], **layout)


def packed(weight: Array, bias: Array, *, sources: int = 1, scale: int = 1) -> Kernel:
    """Arrange a convolution as `_network.c` reads it.

    Args:
        weight: out x in x 3 x 3, or 5 x 5.
        bias: out.
        sources: Maps that the input channels come from, one after the other.
        scale: Of the pixel shuffle that follows; channels are put into the order of its pixels.
    """
    group, step = compiled().GROUP, compiled().STEP
    outputs, _, side, _ = weight.shape
    along = evaluation(side)
    kernels = weight.astype(np.float64).reshape(-1, side**2)
    points = (kernels @ np.kron(along, along).T).reshape(outputs, -1, (side + 3) ** 2)
    # What is a channel of which of the scale * scale pixels; where its input comes from.
    channels, inputs = outputs // scale**2, weight.shape[1] // sources
    points = points.swapaxes(1, 2).reshape(channels, scale**2, -1, sources, inputs)
    wide = np.zeros(
        (
            scale**2,
            rounded(channels, group),
            (side + 3) ** 2,
            sources,
            rounded(inputs, step),
        )
    )
    wide[:, :channels, :, :, :inputs] = points.swapaxes(0, 1)
    groups = wide.reshape(-1, group, *wide.shape[2:])
    offsets = np.zeros(wide.shape[:2])
    offsets[:, :channels] = bias.reshape(channels, scale**2).T
    return filled(groups.transpose(0, 2, 3, 4, 1)), filled(offsets)


def evaluation(side: int) -> NDArray[np.float64]:
    """Return the matrix that evaluates a kernel's side at the points of `_network_kernels.h`.

    It is side + 3 x side.

    Its rows are divided by the values that the tile's polynomials have at these points, so that
    the tile's transform needs no division.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
    """
    pairs = {3: (0.5**0.5, 2**0.5), 5: (1.0, 2.0, 0.5)}[side]
    points = np.array([0.0, *(sign * point for point in pairs for sign in (1, -1))])
    powers = points[:, None] ** np.arange(side)
    others = [np.prod(point - points[points != point]) for point in points]
    at_infinity = np.eye(side)[-1:]
    return np.concatenate([powers / np.array(others)[:, None], at_infinity])


def aligned(count: int) -> Array:
    """Return `count` float32 that begin at a multiple of 64 bytes, uninitialised."""
    memory = np.empty(count + ALIGNMENT // 4, np.float32)
    start = -memory.ctypes.data % ALIGNMENT // 4
    return memory[start : start + count]


def filled(values: NDArray[np.generic]) -> Array:
    """Copy values to a flat float32 array that begins at a multiple of 64 bytes."""
    made = aligned(values.size)
    made[:] = values.ravel()
    return made


def write_weights(
    path: Path, weights: Mapping[str, Array], scale: int, skips: Sequence[Sequence[float]]
) -> None:
    """Write what `read_weights` reads."""
    from safetensors.numpy import save

    # One entry: safetensors writes several in random order.
    facts = {"srcli": json.dumps({"scale": scale, "skips": skips})}
    path.write_bytes(save(dict(weights), facts))


def read_weights(path: Path) -> tuple[dict[str, Array], int, list[list[float]]]:
    """Read the state of a fused network, its scale, and the factors on its skip connections.

    Raises:
        BackendError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["srcli"])
            names = file.keys()  # it is no mapping, and cannot be iterated over
            weights = {name: file.get_tensor(name) for name in names}
        return weights, int(facts["scale"]), facts["skips"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BackendError(
            f"{path}: the prepared weights are damaged ({first_line(error)})",
            "Delete the file and try again; it will be made anew.",
        ) from error


def along_one_side(phases: Array, scale: int) -> NDArray[np.float64]:
    """Return the taps of bicubic enlargement along one side, scale x 5, from the filters."""
    filters = phases[: scale**2].astype(np.float64).reshape(scale, scale, 5, 5)
    # The other side's taps of each phase add up to 1.
    taps: NDArray[np.float64] = filters.sum(axis=(1, 3)) / scale
    return taps


def rounded(count: int, step: int) -> int:
    return -(-count // step) * step


class Scratch:
    """Memory that is kept between pictures: the first touch of fresh pages takes long."""

    def __init__(self) -> None:
        self._floats = aligned(0)

    def of(self, *shape: int) -> Array:
        """Return an array of this shape, with whatever is in it."""
        count = int(np.prod(shape, dtype=np.int64))
        if self._floats.size < count:
            self._floats = aligned(0)  # first give back what is too small
            self._floats = aligned(count)
        return self._floats[:count].reshape(shape)
