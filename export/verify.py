"""Prove that an exported file computes what the published network computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.backends.base import Batch, Precision, SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import VerificationError
from srcli.loading import LoadedModel

if TYPE_CHECKING:
    from torch import nn

# (height, width) of the crops: a small one, an odd one, and one that is large enough to show
# what accumulates.
CROPS = ((24, 24), (37, 53), (96, 128))
AFFORDABLE = 60e9  # multiply-adds of the published network on one crop


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far one way of computing a model is from the published one on one crop."""

    form: str
    height: int
    width: int
    difference: float
    """Largest absolute difference, pictures in [0, 1]."""


def verify_file(
    model: LoadedModel,
    graph: Path,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
) -> list[Comparison]:
    """Compare published form, fused form and exported graph on crops of a photograph.

    Args:
        model: What the graph was made from.
        graph: The file.
        precision: What the graph computes in.
        size: Height and width, if the graph takes one size only.

    Raises:
        VerificationError: A difference exceeds the model's tolerance.
    """
    session = OnnxRuntimeSession(graph, SessionOptions())
    limit = model.spec.tolerance_for(precision)
    return verify_form(model, "onnx", session, limit, size)


def verify_form(
    model: LoadedModel,
    name: str,
    form: Callable[[Batch], Batch],
    limit: float,
    size: tuple[int, int] | None = None,
) -> list[Comparison]:
    """Compare published form, fused form and another on crops of a photograph.

    Args:
        model: What the form was made from.
        name: Of the form, for people.
        form: Computes it.
        limit: The largest difference that is allowed.
        size: Height and width, if the form takes one size only.

    Raises:
        VerificationError: A difference exceeds the limit, or the model's tolerance.
    """
    forms = {"fused": _runner(model.network()), name: form}
    limits = {"fused": model.spec.tolerance, name: limit}
    sizes = crops_for(model) if size is None else (size,)
    results = list(_compare(_runner(model.published()), forms, sizes))
    for result in results:
        # Written so that a NaN, which compares false with everything, fails as well.
        if not result.difference <= limits[result.form]:
            raise VerificationError(
                f"{model.label}: the {result.form} form differs from the published network by "
                f"{result.difference:.2g} at {result.width} x {result.height}, more than the "
                f"{limits[result.form]:.0e} allowed. No file was written; please report this."
            )
    return results


def _compare(
    published: Callable[[Batch], Batch],
    forms: dict[str, Callable[[Batch], Batch]],
    sizes: Sequence[tuple[int, int]],
) -> Iterator[Comparison]:
    for crop in sample_crops(sizes):
        expected = published(crop)
        for name, run in forms.items():
            actual = run(crop)
            wrong_shape = actual.shape != expected.shape
            difference = np.inf if wrong_shape else float(np.abs(actual - expected).max())
            height, width = crop.shape[2:]
            yield Comparison(form=name, height=height, width=width, difference=difference)


def crops_for(model: LoadedModel) -> tuple[tuple[int, int], ...]:
    """Those of `CROPS` that take seconds, in sizes that the model takes; at least a small one."""
    geometry, scale = model.geometry, model.scale
    per_pixel = model.spec.multiply_adds(scale).published * float(model.grid) ** 2
    pixels = AFFORDABLE / per_pixel
    affordable = [crop for crop in CROPS if math.prod(crop) <= pixels]
    side = max(8, geometry.minimum, math.isqrt(int(pixels)))
    step = geometry.multiple_of
    return tuple(
        (-(-height // step) * step, -(-width // step) * step)
        for height, width in affordable or [(side, side)]
    )


def sample_crops(sizes: Sequence[tuple[int, int]] = CROPS) -> Iterator[Batch]:
    """1 x 3 x h x w crops of a photograph (NASA, public domain) in [0, 1].

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


def _runner(network: nn.Module) -> Callable[[Batch], Batch]:
    import torch

    def run(batch: Batch) -> Batch:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    return run
