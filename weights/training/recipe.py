"""What determines a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What determines a run. Patches are `patch` x `patch` pixels at input resolution."""

    model: str
    scale: int
    kind: str = "clean"  # of inputs to be upscaled; or "photo"
    task: str = "upscale"  # or "denoise", "deblock", at scale 1
    batch: int = 8
    patch: int = 48
    learning_rate: float = 1e-3
    warmup: float = 0.02  # share of the run in which the learning rate rises
    candidates: int = 2  # patches drawn for each one kept: most detail, or most that teachers gain
    average: float = 0.999  # decay of the moving average of the weights
    clip: float = 0.5  # largest norm of the gradient
    loss: str = "charbonnier"  # or another of LOSSES
    optimiser: str = "soap"  # or another of OPTIMISERS
    refresh: int = 10  # steps after which SOAP brings its axes up to date
    power: float = 0.5  # of second moments, by which SOAP divides
    variant: str = "published"  # or another of VARIANTS
    taught: float = 0.0  # how far from the original the target lies, towards the teachers
    bf16: bool = False  # convolutions in bfloat16; pays on GPUs and CPUs that have it
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is behind us, 0 to 1 and beyond."""
        by_step = step / self.steps if self.steps else 0.0
        by_clock = seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_step, by_clock)

    def rate(self, progress: float) -> float:
        """Linear warm-up, then a cosine to zero."""
        if progress < self.warmup:
            return self.learning_rate * (progress / self.warmup)
        share = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
