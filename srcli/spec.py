"""Facts about a model, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Task = Literal["upscale", "denoise", "deblock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a network's output depends on the shape and extent of its input."""

    margin: int
    """Receptive field: how many input pixels to each side can change an output pixel."""

    minimum: int = 1
    """Smallest side the network accepts; smaller pictures are padded and the result cropped."""

    multiple_of: int = 1
    """Sides must be a multiple of this; others are padded and the result cropped."""

    tiling: Literal["exact", "approximate"] = "exact"
    """Whether tiles with a halo of `margin` give what the whole picture gives."""

    dynamic: bool = True
    """Whether one exported graph serves every height and width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """PSNR-Y in dB on the usual test sets."""

    set5: float
    set14: float
    b100: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that is known about a model before any weights are loaded."""

    name: str
    title: str
    scales: tuple[int, ...]
    build: Callable[[int], nn.Module]
    """The published network for a scale, untrained. The module has a method `fuse()`."""

    geometry: Callable[[int], Geometry]
    parameters: Mapping[int, int]
    """Trained parameters by scale."""

    paper: str
    tolerance: float = 1e-5
    """Largest difference, in [0, 1], between two ways of computing the model in float32."""

    half_safe: bool = True
    """Whether float16 arithmetic keeps the result within 1/255."""

    published: Mapping[int, Scores] = field(default_factory=dict)
    """The paper's own scores by scale."""

    def tasks(self, scale: int) -> tuple[Task, ...]:
        return ("denoise", "deblock") if scale == 1 else ("upscale",)
