"""The compiled module, and whether it is to be used on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

from srcli.backends.filters.cpu import REBUILD
from srcli.errors import Obstacle

COMPILED = "srcli.backends.native._network"
LAYOUT = 6  # of the compiled module: another number means that it is of another version
MIN_BITS = 256  # measured on x86-64: in vectors of 128 bits other backends are faster


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
    if vectors() < MIN_BITS:
        reason = f"this build has no vectors of {MIN_BITS} bits for this processor"
        return Obstacle(reason, "Choose --backend ort.")
    return None


def vectors() -> int:
    """Return the bits of the vectors that the compiled network computes in on this processor."""
    return compiled().vectors()
