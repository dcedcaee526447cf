"""Write a model as an ONNX file: the fused graph, any size, no traces of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srcli import __version__
from srcli.files import atomic_path
from srcli.loading import LoadedModel

from .verify import verify_file

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the newest that TensorRT 10.0 reads


def export_verified(model: LoadedModel, target: Path) -> None:
    """Export a model to `target`, which appears only after its output was checked.

    Raises:
        VerificationError: The file computes something else than the published network.
        OutputError: The file cannot be written.
    """
    with atomic_path(target) as partial:
        partial.write_bytes(to_onnx(model).SerializeToString(deterministic=True))
        verify_file(model, partial)


def to_onnx(model: LoadedModel, *, opset: int = OPSET) -> onnx.ModelProto:
    """The fused graph in float32: `input` n x 3 x h x w, `output` n x 3 x s*h x s*w, all dynamic.

    The same weights give the same bytes. Facts about the model are in the file's metadata.
    """
    from .graph import write_graph

    proto = write_graph(model.network(), scale=model.scale, opset=opset)
    _describe(proto, model)
    return proto


def _describe(proto: onnx.ModelProto, model: LoadedModel) -> None:
    geometry = model.geometry
    facts: dict[str, object] = {
        "model": model.spec.name,
        "scale": model.scale,
        "task": model.weights.task,
        "licence": model.weights.licence,
        "weights_sha256": model.weights.sha256,
        "version": __version__,
        "margin": geometry.margin,
        "minimum": geometry.minimum,
        "multiple_of": geometry.multiple_of,
        "range": "RGB, NCHW, 0 to 1",
    }
    proto.producer_name, proto.producer_version = "srcli", __version__
    del proto.metadata_props[:]
    for key, value in facts.items():
        proto.metadata_props.add(key=f"srcli.{key}", value=str(value))
