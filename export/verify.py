"""Prove that an exported file computes what the published network computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from srcli.backends.base import Images, Precision, SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import VerificationError, WeightsError
from srcli.loading.model import LoadedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from srcli.models.base import Network

_Net = TypeVar("_Net", bound="Network")

# (height, width) of the crops: a small one, an odd one, and one that is large enough to show
# what accumulates.
CROPS = ((24, 24), (37, 53), (96, 128))
AFFORDABLE = 60e9  # multiply-adds of the published network on one crop


# The fused network in double precision against the published one, of the largest value. Measured
# with random weights: 4e-15 (LAPAR) to 5e-13 (HPINet-L); see benchmarks/every_checkpoint.py.
ALGEBRA = 1e-9
# Each fused tensor in float32 against the same in double precision, of its largest value.
# Measured: 6e-7.
WEIGHTS = 1e-5
# By how many times the published network's own rounding another form may be off. Winograd's
# convolutions need it.
ROUNDING = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Difference on one crop between a way of computing a model and the published network."""

    form: str
    height: int
    width: int
    difference: float
    """Largest absolute difference, pictures in [0, 1]."""

    limit: float
    """Largest difference that is allowed."""

    reference: Literal["float32", "float64"] = "float32"
    """Number type that the published network was computed in."""

    rounding: float | None = None
    """Difference of the published network in float32 from that in float64; None if not measured."""

    @property
    def fails(self) -> bool:
        # Written so that a NaN, which compares false with everything, fails as well.
        return not self.difference <= self.limit


def verify_file(
    model: LoadedModel,
    graph: Path,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
) -> list[Comparison]:
    """Compare published form, fused form and exported graph on crops of a photograph.

    Args:
        model: The model that the graph was made from.
        graph: The file.
        precision: Number type that the graph computes in.
        size: Height and width, if the graph takes one size only.

    Raises:
        VerificationError: As `verify_form`.
        WeightsError: As `verify_form`.
    """
    session = OnnxRuntimeSession(without_clamp(graph.read_bytes()), SessionOptions())
    return verify_form(model, "onnx", session, precision, size)


def verify_form(
    model: LoadedModel,
    name: str,
    form: Callable[[Images], Images],
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
) -> list[Comparison]:
    """Compare published form, fused form and another on crops of a photograph.

    Two questions are asked apart. Is it the same function: in double precision the fused network
    must equal the published one, and its float32 weights must be those of double precision,
    rounded. Is it computed as well: in float32 a form may be off by the model's tolerance, or by
    `ROUNDING` times what the published network itself is off, where that is more, as with weights
    that make large values.

    Args:
        model: The model that the form was made from.
        name: Of the form, for people.
        form: Computes it, before the clamp of networks that have one at their end.
        precision: Number type that it computes in; shorter ones than fp32 have a fixed limit.
        size: Height and width, if the form takes one size only.

    Returns:
        What was found for each form and crop.

    Raises:
        VerificationError: A form differs by more; the message says which figure is too large.
        WeightsError: With these weights the published network gives values that are not finite.
    """
    proof = Proof(model)
    proof.check_weights()
    forms = {"fused": proof.fused, name: form}
    limits = {"fused": model.spec.tolerance, name: model.spec.tolerance_for(precision)}
    exempt = {name} if precision != "fp32" else set()
    results: list[Comparison] = []
    rounding = 0.0  # of the published network, as far as it was looked at
    for crop in sample_crops(crops_for(model) if size is None else (size,)):
        reference = proof.on(crop)
        if not results or _cost(model, crop) <= AFFORDABLE / 100:
            proof.check_algebra(reference)
        for label, run in forms.items():
            found = reference.compare(label, run, limits[label])
            if found.fails and label not in exempt:
                found = reference.compare_with_rounding(found, run, rounding)
            if found.fails:
                raise _too_far(model, found)
            rounding = max(rounding, found.rounding or 0.0)
            results.append(found)
    return results


class Proof:
    """A model's networks, open for comparison: published and fused, in float32 and in double.

    Args:
        model: Whose.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._fused = _before_clamp(model.network())
        published = _before_clamp(model.published_network())
        exact = _before_clamp(model.published_network()).double()  # faster than a copy
        self._exact_fused = exact.fuse()
        self.published, self.fused = _runner(published), _runner(self._fused)
        self.exact, self.exact_fused = _runner(exact), _runner(self._exact_fused)

    def on(self, crop: Images) -> Reference:
        """Return the published network's results on a crop.

        Raises:
            WeightsError: Values that are not finite.
        """
        expected = self.published(crop)
        if not np.isfinite(expected).all():
            raise WeightsError(
                f"{self.model.weights.path}: with these weights {self.model.label} gives values "
                "that are not finite",
                "Their training diverged, or they are of another model; use another checkpoint.",
            )
        return Reference(self, crop, expected)

    def check_weights(self) -> None:
        """Compare the tensors of the fused network with those that double precision gives."""
        exact = self._exact_fused.state_dict()
        for name, value in self._fused.state_dict().items():
            if not value.is_floating_point():
                continue
            largest = float(exact[name].abs().max()) if value.numel() else 0.0
            difference = float((value.double() - exact[name]).abs().max()) if value.numel() else 0.0
            if not difference <= WEIGHTS * largest:
                raise VerificationError(
                    f"{self.model.label}: {name} of the fused form differs by {difference:.2g} "
                    f"from what the published weights give, more than the {WEIGHTS:.0e} of its "
                    f"largest value, {largest:.2g}, that rounding explains",
                    _REPORT,
                )

    def check_algebra(self, reference: Reference) -> None:
        """Check that the fused network computes the same function as the published one."""
        difference = _largest_difference(
            self.exact_fused(reference.crop.astype(float)), reference.exact
        )
        largest = float(np.abs(reference.exact).max())
        if not difference <= ALGEBRA * largest:
            height, width = reference.crop.shape[2:]
            raise VerificationError(
                f"{self.model.label}: the fused form is another function than the published "
                f"network: in double precision they differ by {difference:.2g} at {width} x "
                f"{height}, more than {ALGEBRA:.0e} of the largest value, {largest:.2g}",
                _REPORT,
            )


@dataclass
class Reference:
    """Results of the published network on one crop."""

    proof: Proof
    crop: Images
    expected: Images
    """Output in float32."""

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """Output in double precision."""
        return self.proof.exact(self.crop.astype(np.float64)).astype(np.float64, copy=False)

    @cached_property
    def rounding(self) -> float:
        """Difference of the published network in float32 from itself in double precision."""
        return _largest_difference(self.expected, self.exact)

    def compare(self, name: str, run: Callable[[Images], Images], limit: float) -> Comparison:
        """Run another form on the crop, against the published network in float32."""
        height, width = self.crop.shape[2:]
        difference = _largest_difference(run(self.crop), self.expected)
        return Comparison(form=name, height=height, width=width, difference=difference, limit=limit)

    def compare_with_rounding(
        self, found: Comparison, run: Callable[[Images], Images], known: float
    ) -> Comparison:
        """Compare again a form whose difference is larger than the tolerance.

        Args:
            found: The comparison with a difference beyond the tolerance.
            run: Computes it.
            known: The published network's rounding on smaller crops. A form within one time less of
                that needs no double precision here, which takes long on large crops.
        """
        near = (ROUNDING - 1) * known
        if found.difference <= near:
            return replace(found, limit=max(found.limit, near), rounding=known)
        return replace(
            found,
            difference=_largest_difference(run(self.crop), self.exact),
            limit=max(found.limit, ROUNDING * self.rounding),
            reference="float64",
            rounding=self.rounding,
        )


_REPORT = (
    "No file was written. This is a fault of srcli, not of the weights: please report it. "
    "`--backend auto` goes on without this form."
)


def _too_far(model: LoadedModel, found: Comparison) -> VerificationError:
    at = f"{found.width} x {found.height}"
    why = f"the {found.limit:.2g} allowed"
    if found.rounding is not None:
        why += (
            f", which is the larger of the model's tolerance and {ROUNDING:g} times what the "
            f"published network's own float32 is off ({found.rounding:.2g})"
        )
    return VerificationError(
        f"{model.label}: the {found.form} form differs from the published network by "
        f"{found.difference:.2g} at {at}, more than {why}",
        "No file was written. `--backend auto` goes on without this form.",
    )


def _largest_difference(actual: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    if actual.shape != expected.shape:
        return math.inf
    return float(np.abs(actual - expected).max())


def _cost(model: LoadedModel, crop: Images) -> float:
    return _per_pixel(model) * math.prod(crop.shape[2:])


def _per_pixel(model: LoadedModel) -> float:
    """Return the multiply-adds of the published network for each pixel of its input."""
    return model.spec.multiply_adds(model.scale).published_form * float(model.grid) ** 2


def _before_clamp(network: _Net) -> _Net:
    """Return the network without the clamp at its end, if any: differences beyond it count."""
    network.clamped = False
    return network


def without_clamp(graph: bytes) -> bytes:
    """Return an exported graph without the clamp at its end, if it has one."""
    import onnx

    model = onnx.load_model_from_string(graph)
    makers = {output: node for node in model.graph.node for output in node.output}
    last = makers[model.graph.output[0].name]
    name = before = last.input[0]
    while name in makers and makers[name].op_type in ("Max", "Min", "Clip"):
        name = makers[name].input[0]
    if name == before:
        return graph
    last.input[0] = name
    content: bytes = model.SerializeToString()
    return content


def crops_for(model: LoadedModel) -> tuple[tuple[int, int], ...]:
    """Return those of `CROPS` that take seconds, in sizes that the model takes; at least one."""
    geometry = model.geometry
    pixels = AFFORDABLE / _per_pixel(model)
    affordable = [crop for crop in CROPS if math.prod(crop) <= pixels]
    side = max(8, geometry.minimum, math.isqrt(int(pixels)))
    step = geometry.multiple_of
    return tuple(
        (-(-height // step) * step, -(-width // step) * step)
        for height, width in affordable or [(side, side)]
    )


def sample_crops(sizes: Sequence[tuple[int, int]] = CROPS) -> Iterator[Images]:
    """Yield 1 x 3 x h x w crops of a photograph (NASA, public domain) in [0, 1].

    Sizes beyond the photograph's own are filled by mirroring it.
    """
    from PIL import Image

    with as_file(files("srcli.export") / "sample.png") as path, Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    for height, width in sizes:
        missing = [
            max(0, side - have)
            for side, have in zip((height, width), pixels.shape[:2], strict=True)
        ]
        pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
        yield np.ascontiguousarray(pixels[:height, :width].transpose(2, 0, 1)[None])


def _runner(network: nn.Module) -> Callable[[NDArray[np.floating]], NDArray[np.floating]]:
    import torch

    def run(batch: NDArray[np.floating]) -> NDArray[np.floating]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    return run
