"""Base classes of all networks, published and fused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn


class Branch(NamedTuple):
    """A branch of a reconstruction that has several side by side."""

    kernel: int
    """Side of the kernel of its convolution."""

    weight: float
    """Learned factor of the branch."""


class Network(nn.Module):
    """Maps pictures to pictures: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W."""

    clamped: bool = False
    """True if the output is clamped to [0, 1]; a comparison that must see more sets it to False."""

    if TYPE_CHECKING:  # PyTorch types a call as Any

        def __call__(self, x: Tensor, /) -> Tensor: ...


class PublishedNetwork(Network, ABC):
    """A network in its paper's order, with the tensor names of the published checkpoints."""

    @abstractmethod
    def fuse(self) -> Network:
        """Return the cheaper network of the same function; it shares no tensors with this one."""

    def prune_branches(self, threshold: float) -> list[Branch]:
        """Take out branches of less learned weight than `threshold`, and return them.

        A network that has none stays as it is.
        """
        return []
