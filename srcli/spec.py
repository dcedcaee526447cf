"""Facts about a model, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

Task = Literal["upscale", "denoise", "deblock"]
TASKS: tuple[Task, ...] = get_args(Task)

InputKind = Literal["clean", "photo"]
"""Which inputs weights for upscaling were trained on: reduced pictures as they are, or pictures
with noise and JPEG compression, as cameras and the web make them."""
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)

Purpose = Task | Literal["photo"]
"""What weights are for: a task on clean pictures, or `photo`, which is upscaling of photographs."""

GraphPrecision = Literal["fp32", "fp16", "int8"]
"""What an exported graph computes in."""

GraphForm = Literal["whole", "taps", "parts"]
"""Whether a graph ends where filters are applied (`srcli.export.taps`), or convolves by parts what
others put together (`srcli.export.parts`); both for CPUs."""

Scale = int | Fraction
"""A factor of enlargement; whole ones are always `int`."""


FRAME = 4
"""Pixels around a picture after which the zeros that networks pad with can no longer be seen.

On flat pictures of nine colours, with 4, all weights that ship are off by 3 of 255 at most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a network's output depends on the shape and extent of its input."""

    margin: int
    """Receptive field: how many input pixels to each side can change an output pixel."""

    minimum: int = 1
    """Smallest side the network accepts; smaller pictures are padded and the result cropped."""

    frame: int = 0
    """Mirrored pixels to be put around a picture, so that the network's own border lies outside."""

    multiple_of: int = 1
    """Sides must be a multiple of this; others are padded and the result cropped."""

    floats_per_pixel: int = 64
    """Numbers alive at the worst moment for each output pixel: what a tile costs in memory."""

    tiling: Literal["exact", "approximate"] = "exact"
    """Whether tiles with a halo of `margin` give what the whole picture gives."""

    dynamic: bool = True
    """Whether one exported graph serves every height and width."""

    def accepted(self, side: int) -> int:
        """The smallest side of at least `side` pixels that the network accepts."""
        return -(-max(self.minimum, side) // self.multiple_of) * self.multiple_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds for each output pixel."""

    published: float
    """Of the published network, counted as its paper counts."""

    fused: float
    """Of the fused network, everything counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """PSNR-Y in dB on the usual test sets."""

    set5: float
    set14: float
    b100: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Where a model's authors publish trained weights."""

    page: str
    """For people: what to open in a browser."""

    file: str | None = None
    """What the checkpoint is called there, if known; with folders."""

    address: str | None = None
    """Of the checkpoint itself, http or https; None where no program can fetch it."""

    sha256: str | None = None
    """Of the checkpoint, in hexadecimal; None where it is not known: then whatever comes is only
    checked for being the model's tensors."""

    size: int | None = None
    """Of the checkpoint in bytes, if known."""

    licence: str | None = None
    """As stated beside the weights; None if none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBits:
    """Which convolutions of the fused network bear 8 bits, and what that costs."""

    layers: tuple[str, ...]
    """What their names begin with."""

    tolerance: float
    """Largest difference from float32, pictures in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyScale:
    """Enlargement by any factor from 1 to `largest`."""

    largest: int

    grid: Callable[[Fraction], Fraction]
    """What the network's output really is enlarged by for a factor: the same or a little more. The
    rest is one resampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that is known about a model before any weights are loaded."""

    name: str
    """As users type it: lower case, words joined by hyphens."""

    title: str
    """As its paper writes it."""

    scales: tuple[int, ...]
    """Factors of enlargement; 1 restores at the same size."""

    any_scale: AnyScale | None = None
    """Set if the model takes fractional factors, and others than `scales`, too."""

    # Scales are `int` for all models; those of any scale take a `Fraction` too.
    build: Callable[[Any], PublishedNetwork]
    """The published network for a scale, untrained. The module has a method `fuse()`."""

    geometry: Callable[[Any], Geometry]
    """By scale."""

    parameters: Callable[[Any], int]
    """Number of trained parameters by scale."""

    multiply_adds: Callable[[Any], MultiplyAdds]
    """Multiply-adds by scale."""

    paper: str

    good_for: Mapping[Purpose, str] = field(default_factory=dict)
    """Which pictures, or which wish, the model suits: a few words for a table, by purpose.

    At most 26 letters each, so that the list of models fits into 80 columns.
    """

    prunable: bool = False
    """Whether the network has a method `prune_branches(threshold)`."""

    blind: bool = False
    """Whether the network estimates the picture's blur: it has `estimate_kernel` and `restore`."""

    compiled: bool = False
    """Whether the `native` backend runs it."""

    dense: bool = False
    """Whether most convolutions read what all before them made, put together, as in DenseNet."""

    distinct_taps: int | None = None
    """Of each pixel's filter, where the fused network ends by filtering its picture with filters
    that it computed, each equal to its own half-turn."""

    tolerance: float = 1e-5
    """Largest difference, in [0, 1], between two ways of computing the model in float32."""

    half_tolerance: float | None = 1 / 255
    """The same in float16; None where float16 ruins the result."""

    eight_bits: EightBits | None = None
    """Set if the model may be computed with 8-bit convolutions."""

    published: Mapping[int, Scores] = field(default_factory=dict)
    """The paper's own scores by scale."""

    latency: Mapping[int, float] = field(default_factory=dict)
    """The paper's own milliseconds for an output of 1280x720, by scale."""

    weights: Mapping[int, Publication] = field(default_factory=dict)
    """The authors' own weights by scale of enlargement, where they publish them."""

    def grid(self, scale: Scale) -> Scale:
        """What the network's output is enlarged by: `scale`, or for fractions a little more."""
        return whole(self.any_scale.grid(Fraction(scale))) if self.any_scale else scale

    def takes(self, scale: Scale, task: Task = "upscale") -> bool:
        """Whether the model has this scale for the task."""
        fits = self.any_scale is not None and task == "upscale"
        return scale in self.scales_for(task) or (fits and 1 <= scale <= self.largest_scale(task))

    def largest_scale(self, task: Task) -> int:
        """The most that the model can enlarge by; 0 if it does not do the task."""
        if self.any_scale is not None and task == "upscale":
            return self.any_scale.largest
        return max(self.scales_for(task), default=0)

    def reached(self, task: Task) -> tuple[int, ...]:
        """Return the factors that one pass makes for a task, the largest of any factor included."""
        largest = () if self.any_scale is None else (self.any_scale.largest,)
        return (*self.scales_for(task), *largest)

    @property
    def scale_grid(self) -> Callable[[Fraction], Fraction] | None:
        """What turns a factor into one that the network makes; None if it takes whole ones only."""
        return None if self.any_scale is None else self.any_scale.grid

    def tolerance_for(self, precision: str) -> float:
        """Largest difference allowed in `fp32` or a shorter type."""
        if precision == "int8":
            return self.eight_bits.tolerance if self.eight_bits else 0.0
        half = self.half_tolerance or 0.0
        # bfloat16 has three bits fewer than float16, whose tolerance is twice what it needs.
        return {"fp32": self.tolerance, "fp16": half, "bf16": 4 * half}[precision]

    def tasks(self) -> tuple[Task, ...]:
        """What the model is for."""
        upscales: tuple[Task, ...] = ("upscale",) if max(self.scales) > 1 else ()
        return upscales + (("denoise", "deblock") if 1 in self.scales else ())

    def scales_for(self, task: Task) -> tuple[int, ...]:
        """The factors that serve a task."""
        return tuple(scale for scale in self.scales if (scale > 1) == (task == "upscale"))


def purpose_of(task: Task, kind: InputKind = "clean") -> Purpose:
    """Return what weights for a task and a kind of input are for."""
    return "photo" if (task, kind) == ("upscale", "photo") else task


def whole(scale: Scale) -> Scale:
    """The same number, as `int` where it is whole."""
    return int(scale) if scale.denominator == 1 else scale


def number(scale: Scale) -> int | float:
    """The same for JSON and for people."""
    return scale if isinstance(scale, int) else float(scale)
