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
"""Inputs that weights for upscaling were trained on: reduced pictures as they are, or pictures
with noise and JPEG compression, as cameras and the web make them."""
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)

InputChoice = Literal["auto"] | InputKind
"""Kind of weights that a user wants; `auto` chooses by what each file tells."""
INPUT_CHOICES: tuple[InputChoice, ...] = ("auto", *INPUT_KINDS)

Purpose = Task | Literal["photo"]
"""Purpose of weights: a task on clean pictures, or `photo`, which is upscaling of photographs."""

GraphPrecision = Literal["fp32", "fp16", "int8"]
"""Number type that an exported graph computes in."""

GraphForm = Literal["whole", "taps", "parts"]
"""Form of an exported graph. For CPUs there are `taps`, which ends where filters are applied
(`srcli.export.taps`), and `parts`, which replaces a convolution of concatenated channels by a sum
(`srcli.export.parts`)."""

Scale = int | Fraction
"""A factor of enlargement; whole ones are always `int`."""


FRAME = 4
"""Width of a frame, in pixels, beyond which the zeros that networks pad with have no effect.

On flat pictures of nine colours, with 4, all weights that ship are off by 3 of 255 at most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Facts about the sizes that a network takes, its receptive field, its memory and its tiles."""

    margin: int
    """Receptive field: number of input pixels to each side that can change an output pixel."""

    minimum: int = 1
    """Smallest side the network accepts; smaller pictures are padded and the result cropped."""

    frame: int = 0
    """Mirrored pixels to be put around a picture, so that the network's own border lies outside."""

    multiple_of: int = 1
    """Sides must be a multiple of this; others are padded and the result cropped."""

    floats_per_pixel: int = 64
    """Floats alive at the peak for each output pixel: what a tile costs in memory."""

    tiling: Literal["exact", "approximate"] = "exact"
    """`exact` if tiles with a halo of `margin` give the same result as the whole picture."""

    dynamic: bool = True
    """True if one exported graph serves every height and width."""

    def accepted(self, side: int) -> int:
        """Return the smallest side of at least `side` pixels that the network accepts."""
        return -(-max(self.minimum, side) // self.multiple_of) * self.multiple_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds for each output pixel."""

    published_form: float
    """Multiply-adds of the published network, counted as its paper counts."""

    fused_form: float
    """Multiply-adds of the fused network, everything counted."""


TEST_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
"""Usual test sets of super-resolution. Tables have columns for those with a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """PSNR-Y in dB on the usual test sets; None where no figure is known."""

    set5: float
    set14: float
    b100: float
    urban100: float | None = None
    manga109: float | None = None

    def by_set(self) -> dict[str, float]:
        """Return the known figures by the names of test sets."""
        found = {name: getattr(self, name.lower()) for name in TEST_SETS}
        return {name: psnr for name, psnr in found.items() if psnr is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A place where a model's authors publish trained weights."""

    page: str
    """Address of the page for people, to open in a browser."""

    file: str | None = None
    """Name of the checkpoint there, with folders; None if it is not known."""

    address: str | None = None
    """Address of the checkpoint itself, http or https; None if no program can fetch it."""

    sha256: str | None = None
    """Checksum of the checkpoint, in hexadecimal. None if it is not known: then only names and
    shapes of the tensors are checked."""

    size: int | None = None
    """Size of the checkpoint in bytes; None if it is not known."""

    licence: str | None = None
    """Licence as stated beside the weights; None if none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBits:
    """The convolutions of the fused network that may run in 8 bits, and the error of that."""

    layers: tuple[str, ...]
    """Beginnings of the names of these convolutions."""

    tolerance: float
    """Largest difference from float32, pictures in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyScale:
    """Enlargement by any factor from 1 to `largest`."""

    largest: int

    grid: Callable[[Fraction], Fraction]
    """Function from a factor to the one that the network makes: the same or a little more. One
    resampling does the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that is known about a model before any weights are loaded."""

    name: str
    """Name as users type it: lower case, words joined by hyphens."""

    title: str
    """Name as the paper writes it."""

    scales: tuple[int, ...]
    """Factors of enlargement; 1 restores at the same size."""

    any_scale: AnyScale | None = None
    """Set if the model takes fractional factors, and others than `scales`, too."""

    # Scales are `int` for all models; those of any scale take a `Fraction` too.
    build: Callable[[Any], PublishedNetwork]
    """The published network for a scale, untrained. The module has a method `fuse()`."""

    geometry: Callable[[Any], Geometry]
    """Sizes, receptive field and memory, by scale."""

    parameters: Callable[[Any], int]
    """Number of trained parameters by scale."""

    multiply_adds: Callable[[Any], MultiplyAdds]
    """Multiply-adds by scale."""

    paper: str

    good_for: Mapping[Purpose, str] = field(default_factory=dict)
    """Pictures or wishes that the model suits: a few words for a table, by purpose.

    At most 26 letters each, so that the list of models fits into 80 columns.
    """

    prunable: bool = False
    """True if the network has a method `prune_branches(threshold)`."""

    blind: bool = False
    """True if the network estimates the picture's blur: it has `estimate_kernel` and `restore`."""

    kernel_side: Callable[[int], int] | None = None
    """Side of a blind network's blur kernels at input resolution, by scale; None for others."""

    compiled: bool = False
    """True if the backend `native` runs the model."""

    dense: bool = False
    """True if most convolutions read the outputs of all before them, as in DenseNet."""

    distinct_taps: int | None = None
    """Taps of each pixel's filter, if the fused network ends by filtering its picture with
    filters that it computed, each equal to its own half-turn; else None."""

    tolerance: float = 1e-5
    """Largest difference, in [0, 1], between two ways of computing the model in float32."""

    half_tolerance: float | None = 1 / 255
    """Largest difference in float16; None if float16 ruins the result."""

    eight_bits: EightBits | None = None
    """Set if the model may be computed with 8-bit convolutions."""

    published_scores: Mapping[int, Scores] = field(default_factory=dict)
    """The paper's own scores by scale."""

    latency: Mapping[int, float] = field(default_factory=dict)
    """The paper's own milliseconds for an output of 1280x720, by scale."""

    publications: Mapping[int, Publication] = field(default_factory=dict)
    """The authors' own weights by scale of enlargement, where they publish them."""

    def grid(self, scale: Scale) -> Scale:
        """Return the factor that the network makes: `scale`, or for fractions a little more."""
        return whole(self.any_scale.grid(Fraction(scale))) if self.any_scale else scale

    def takes(self, scale: Scale, task: Task = "upscale") -> bool:
        """Tell whether the model has this scale for the task."""
        fits = self.any_scale is not None and task == "upscale"
        return scale in self.scales_for(task) or (fits and 1 <= scale <= self.largest_scale(task))

    def largest_scale(self, task: Task) -> int:
        """Return the largest scale of the model; 0 if it does not do the task."""
        if self.any_scale is not None and task == "upscale":
            return self.any_scale.largest
        return max(self.scales_for(task), default=0)

    def reached(self, task: Task) -> tuple[int, ...]:
        """Return the factors that one pass makes for a task, the largest of any factor included."""
        largest = () if self.any_scale is None else (self.any_scale.largest,)
        return (*self.scales_for(task), *largest)

    @property
    def family(self) -> str:
        """First word of the name: the networks of a family differ in their sizes."""
        return self.name.partition("-")[0]

    @property
    def scale_grid(self) -> Callable[[Fraction], Fraction] | None:
        """Function from a factor to the one that the network makes; None without fractions."""
        return None if self.any_scale is None else self.any_scale.grid

    def tolerance_for(self, precision: str) -> float:
        """Return the largest difference allowed in `fp32` or a shorter type."""
        if precision == "int8":
            return self.eight_bits.tolerance if self.eight_bits else 0.0
        half = self.half_tolerance or 0.0
        # bfloat16 has three bits fewer than float16, whose tolerance is twice what it needs.
        return {"fp32": self.tolerance, "fp16": half, "bf16": 4 * half}[precision]

    def tasks(self) -> tuple[Task, ...]:
        """Tasks that the model does."""
        upscales: tuple[Task, ...] = ("upscale",) if max(self.scales) > 1 else ()
        return upscales + (("denoise", "deblock") if 1 in self.scales else ())

    def scales_for(self, task: Task) -> tuple[int, ...]:
        """Return the scales for a task."""
        return tuple(scale for scale in self.scales if (scale > 1) == (task == "upscale"))


def purpose_of(task: Task, kind: InputKind = "clean") -> Purpose:
    """Return the purpose of weights for a task and a kind of input."""
    return "photo" if (task, kind) == ("upscale", "photo") else task


def whole(scale: Scale) -> Scale:
    """Return a scale as `int` if it is whole."""
    return int(scale) if scale.denominator == 1 else scale


def number(scale: Scale) -> int | float:
    """Return a scale as `int` or `float`, for JSON and for people."""
    return scale if isinstance(scale, int) else float(scale)
