"""The compiled module, and whether it is to be used on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

from srcli.backends.filters.cpu import REBUILD
from srcli.errors import Obstacle

COMPILED = "srcli.backends.native._network"
LAYOUT = 6  # of the compiled module: another number means that it is of another version


class Compiled(Protocol):
    """The compiled module `_network`; `_network.c` describes what its functions take."""

    LAYOUT: int

    GROUP: int
    """Channels that are computed together; those of a map are a multiple of it."""

    STEP: int
    """Input channels in a kernel are a multiple of this."""

    STRIP: int
    """Rows of output that the tail computes at once, rounded up to multiples of a tile's."""

    MAX_SOURCES: int
    """Largest number of maps that one convolution reads: that of AWSRN's last one, the features in
    nine places and the picture."""

    head: Callable[..., None]
    unit: Callable[..., None]
    reduction: Callable[..., None]
    tail: Callable[..., None]
    reconstruction: Callable[..., None]
    convolution: Callable[..., None]
    weight_gradient: Callable[..., None]

    def convolution_floats(self, side: int, channels: int, /) -> int:
        """Return the scratch that a convolution takes for its tiles."""
        ...

    def gradient_floats(self, side: int, channels: int, /) -> int:
        """Return the scratch that `weight_gradient` takes."""
        ...

    def vectors(self) -> int:
        """Return the bits of the vectors that it computes in."""
        ...

    def widest(self) -> int:
        """Return the bits of the widest vectors that the processor has."""
        ...


def compiled() -> Compiled:
    """Import the compiled module.

    Raises:
        ImportError: It was not built.
    """
    return cast("Compiled", importlib.import_module(COMPILED))


def obstacle() -> Obstacle | None:
    """Return why the compiled network cannot be used, and the remedy; None if it can."""
    try:
        module = compiled()
    except ImportError:
        return Obstacle("srcli was installed without its compiled network", REBUILD)
    if getattr(module, "LAYOUT", 0) != LAYOUT:
        return Obstacle(
            "the compiled network is of another version of srcli", "Install srcli again."
        )
    return None


def vectors() -> int:
    """Return the bits of the vectors that the compiled network computes in on this processor."""
    return compiled().vectors()


def is_narrow() -> bool:
    """Tell whether this build leaves half or more of the processor's vectors unused.

    Measured on x86-64 with 512 bits, one thread, LAPAR-C x4: 20 ms in vectors of 512 bits, 29 in
    256, 62 in 128; ONNX Runtime and OpenVINO, which use all 512, take 50. So a build without
    vectors of 256 bits comes after them there; where the processor has none either, as on Arm, they
    are no wider.
    """
    return vectors() < min(compiled().widest(), 256)
