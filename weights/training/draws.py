"""Random numbers made on a device from a seed and the number of a step.

A generator has a state on the host. These numbers are a function of the seed, the step and their
place alone, computed by whole-number arithmetic: a step that is recorded in a CUDA graph draws new
ones each time it is replayed, no result comes back to the host, and a CPU draws the same.

Source of the mixing: the finaliser of Appleby's MurmurHash3, 32 bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
SPREAD = 0x9E3779B1  # odd, 2^32 over the golden ratio: neighbours in a sequence differ in most bits
FRACTION = 24  # bits of a float32 in [0, 1)


class Draws:
    """The random numbers of one step, each call the next of them.

    Args:
        seed: Of the run.
        step: A whole number on the device, int64 without dimensions.
    """

    def __init__(self, seed: int, step: Tensor) -> None:
        self._key = _mixed(_mixed(step + (seed * SPREAD & MASK)) + (seed & MASK))
        self._calls = 0

    @property
    def device(self) -> torch.device:
        """On which they are."""
        return self._key.device

    def bits(self, *shape: int) -> Tensor:
        """Whole numbers in [0, 2^32), int64."""
        self._calls += 1
        place = torch.arange(math.prod(shape), device=self.device) * SPREAD
        key = _mixed(self._key + (self._calls * SPREAD & MASK))
        return _mixed(_mixed(place & MASK) ^ key).reshape(shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), float32."""
        return (self.bits(*shape) >> (32 - FRACTION)).float() * 2.0**-FRACTION

    def within(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers in [low, high), float32."""
        return low + (high - low) * self.uniform(*shape)

    def normal(self, *shape: int) -> Tensor:
        """Numbers of mean 0 and variance 1, float32, by the method of Box and Muller."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self.uniform(*shape)))
        return radius * torch.cos(2.0 * math.pi * self.uniform(*shape))

    def chosen(self, shares: Tensor, *shape: int) -> Tensor:
        """Indices, each as often as its share of the sum says; int64."""
        edges = torch.cumsum(shares, 0)
        index = torch.searchsorted(edges, self.uniform(*shape) * edges[-1], right=True)
        return index.clamp_(max=len(shares) - 1)


def _mixed(bits: Tensor) -> Tensor:
    """Spread each bit of the low 32 over all of them; products wrap around, their low bits stay."""
    bits = bits & MASK
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & MASK
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & MASK
    return bits ^ (bits >> 16)
