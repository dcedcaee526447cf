"""Write a model as an ONNX file: the fused graph, any size, no traces of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli import __version__
from srcli.errors import UsageError, VerificationError
from srcli.loading.model import LoadedModel
from srcli.system.files import atomic_path

from .limits import unsupported_operators
from .verify import Comparison, sample_crops, verify_file

if TYPE_CHECKING:
    import onnx

    from srcli.backends.base import Images
    from srcli.models.spec import GraphForm, GraphPrecision

OPSET = 20  # the newest that TensorRT 10.0 reads
CALIBRATION_SIZE = (160, 160)
OPSETS = range(18, 24)  # the operators in use mean the same in all of these


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """Options for an ONNX file."""

    opset: int = OPSET
    precision: GraphPrecision = "fp32"
    """Number type: fp16 throughout, int8 in the convolutions that allow it. Input and output stay
    float32."""

    size: tuple[int, int] | None = None
    """Height and width of the input; None for any."""

    form: GraphForm = "whole"


def export_verified(
    model: LoadedModel,
    target: Path,
    options: OnnxOptions | None = None,
    *,
    replace: bool = True,
) -> list[Comparison]:
    """Export a model to `target`, which appears only after its output was checked.

    Args:
        model: With its weights.
        target: The file.
        options: Options for the file.
        replace: True if an earlier file of that name may be replaced.

    Raises:
        VerificationError: The file computes something else than the published network, or uses an
            operator that TensorRT does not know.
        OutputError: The file cannot be written.
    """
    options = options or OnnxOptions()
    content = to_onnx(model, options).SerializeToString(deterministic=True)
    unknown = unsupported_operators(content)
    if unknown:
        raise VerificationError(
            f"{model.label}: TensorRT does not know {'; '.join(unknown)}",
            "No file was written; please report this.",
        )
    with atomic_path(target, replace=replace) as partial:
        partial.write_bytes(content)
        return verify_file(model, partial, options.precision, options.size)


def to_onnx(model: LoadedModel, options: OnnxOptions | None = None) -> onnx.ModelProto:
    """Return the fused graph: `input` n x 3 x h x w, `output` n x 3 x s*h x s*w, both float32.

    The same weights give the same bytes. Facts about the model are in the file's metadata.

    Raises:
        UsageError: This opset cannot be written.
    """
    from .graph import write_graph

    options = options or OnnxOptions()
    if options.precision == "int8" and model.spec.eight_bits is None:
        raise UsageError(f"{model.spec.name} is not offered in 8 bits", "Leave out --int8.")
    if options.opset not in OPSETS:
        raise UsageError(
            f"opset {options.opset} cannot be written", f"Choose {OPSETS[0]} to {OPSETS[-1]}."
        )
    multiple = model.geometry.multiple_of
    if options.size is not None and any(side % multiple for side in options.size):
        raise UsageError(
            f"{model.label} takes sides that are multiples of {multiple}", "Choose another --size."
        )
    proto = write_graph(
        model.network(),
        scale=model.grid,
        opset=options.opset,
        half=options.precision == "fp16",
        size=options.size,
    )
    if options.precision == "int8" and model.spec.eight_bits is not None:
        from .quantize import quantized

        pictures = calibration_pictures(options.size or CALIBRATION_SIZE)
        proto = quantized(proto, model.spec.eight_bits.layers, pictures)
    if options.form == "taps":
        from .taps import without_filtering

        proto = without_filtering(proto)
    elif options.form == "parts":
        from .parts import by_parts

        proto = by_parts(proto)
    _describe(proto, model, options)
    return proto


def calibration_pictures(size: tuple[int, int]) -> Iterator[Images]:
    """Yield pictures that set the steps of 8-bit numbers, each 1 x 3 x h x w in [0, 1].

    They are a photograph, the same in pure black and white so that text does not saturate, and the
    negatives of both.
    """
    for photograph in sample_crops([size]):
        luma = photograph.mean(axis=1, keepdims=True)
        hard = np.repeat(luma > np.median(luma), 3, axis=1).astype(np.float32)
        for picture in (photograph, hard):
            yield picture
            yield 1 - picture


def _describe(proto: onnx.ModelProto, model: LoadedModel, options: OnnxOptions) -> None:
    geometry = model.geometry
    facts: dict[str, object] = {
        "model": model.spec.name,
        "scale": f"{float(model.scale):g}",
        "task": model.weights.task,
        "precision": options.precision,
        "licence": model.weights.licence,
        "weights_sha256": model.weights.sha256,
        "version": __version__,
        "margin": geometry.margin,
        "minimum": geometry.minimum,
        "multiple_of": geometry.multiple_of,
        "range": "RGB, NCHW, 0 to 1",
    }
    if model.prune_below is not None:
        facts["pruned_below"] = model.prune_below
    proto.producer_name, proto.producer_version = "srcli", __version__
    del proto.metadata_props[:]
    for key, value in facts.items():
        proto.metadata_props.add(key=f"srcli.{key}", value=str(value))
