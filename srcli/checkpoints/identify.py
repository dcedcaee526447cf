"""Identify files of weights, graphs and engines, for `srcli models FILE` and `srcli weights`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.checkpoints.reading import SUFFIXES, fits, read_tensors
from srcli.checkpoints.shipped import ENGINES, identity, part_names, sha256_of
from srcli.errors import InputError, UsageError, WeightsError
from srcli.models.registry import MODELS, get_model
from srcli.models.spec import ModelSpec
from srcli.system.files import atomic_path

if TYPE_CHECKING:
    from onnx import ValueInfoProto
    from torch import Tensor, nn

HEADER = "srcli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A model and scale that a file of weights belongs to."""

    spec: ModelSpec
    scale: int


def describe(file: Path) -> dict[str, object]:
    """Return all facts that a file states about itself, by its kind.

    Raises:
        InputError: It is no file, or of a kind that srcli does not know.
        SrcliError: It is damaged.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file", "Check the path.")
    facts: dict[str, object] = {"file": str(file), "bytes": file.stat().st_size}
    suffix = file.suffix.lower()
    if suffix == ".onnx":
        return {**facts, **_checksums(file), **_graph(file)}
    if suffix in ENGINES:
        return {**facts, **_engine(file)}
    if suffix in SUFFIXES:
        return {**facts, "sha256": sha256_of(file), **_weights(file)}
    known = ", ".join((".onnx", *ENGINES, *SUFFIXES))
    raise InputError(f"{file}: does not end in {known}", "Give the name of a model or such a file.")


def _checksums(file: Path) -> dict[str, object]:
    """Return the checksum of the file, and of all together if other files belong to it."""
    others = part_names(file)
    facts: dict[str, object] = {"sha256": sha256_of(file)}
    return {**facts, "parts": others, "identity": identity(file)} if others else facts


def identify(tensors: Mapping[str, Tensor]) -> list[Identity]:
    """Return the models and scales with exactly these tensors; several if scales look alike."""
    return [
        Identity(spec=spec, scale=scale)
        for spec in MODELS
        for scale, network in _empty_networks(spec.name)
        if fits(network, tensors)
    ]


def convert(
    file: Path,
    target: Path,
    *,
    model: str | None = None,
    scale: int | None = None,
    replace: bool = True,
) -> Identity:
    """Write a published checkpoint as safetensors, with its provenance in the header.

    Args:
        file: As published: `.pth`, `.pt`, `.ckpt` or `.safetensors`.
        target: Ends in `.safetensors`.
        model: Name of the model; needed if several models have these tensors.
        scale: Scale of the model; needed if several scales have these tensors.
        replace: True if an earlier file of that name may be replaced.

    Raises:
        WeightsError: The file cannot be read or belongs to no model.
        UsageError: It belongs to several.
    """
    from safetensors.torch import save

    from srcli.checkpoints.reading import load_weights

    tensors = read_tensors(file)
    found = [
        one
        for one in identify(tensors)
        if model in (None, one.spec.name) and scale in (None, one.scale)
    ]
    if not found:
        raise WeightsError(
            f"{file}: these weights belong to no model"
            + (" of that name and scale" if model or scale else " that srcli knows"),
            "Run `srcli models` for the list.",
        )
    if len(found) > 1:
        names = ", ".join(f"-m {one.spec.name} -s {one.scale}" for one in found)
        raise UsageError(f"{file}: fits several models: {names}", "Name one with -m and -s.")
    (one,) = found
    network = one.spec.build(one.scale)
    load_weights(network, file)
    provenance = {
        "model": one.spec.name,
        "scale": one.scale,
        "source": file.name,
        "source_sha256": sha256_of(file),
        "paper": one.spec.paper,
    }
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    with atomic_path(target, replace=replace) as partial:
        # One entry: safetensors writes several in random order.
        partial.write_bytes(save(state, {HEADER: json.dumps(provenance)}))
    return one


@cache
def _empty_networks(name: str) -> list[tuple[int, nn.Module]]:
    """Return a model's networks at each of its scales, with shapes and without values."""
    import torch

    spec = get_model(name)
    with torch.device("meta"):
        return [(scale, spec.build(scale)) for scale in spec.scales]


def _graph(file: Path) -> dict[str, object]:
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's own exceptions
        raise InputError(f"{file}: is no ONNX model", "Fetch or export it again.") from error
    named = {prop.key.removeprefix("srcli."): prop.value for prop in model.metadata_props}
    numbers = sum(_count(tensor.dims) for tensor in model.graph.initializer)
    return {
        "kind": "ONNX graph",
        **named,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": max((entry.version for entry in model.opset_import), default=0),
        "input": [_shape(value) for value in model.graph.input],
        "output": [_shape(value) for value in model.graph.output],
        "parameters": numbers,
        "nodes": len(model.graph.node),
    }


def _engine(file: Path) -> dict[str, object]:
    from srcli.backends.trt.engine import read_engine

    _, info = read_engine(file)
    facts = asdict(info)
    return {"kind": "TensorRT engine", **facts.pop("tags", {}), **facts}


def _weights(file: Path) -> dict[str, object]:
    tensors = read_tensors(file)
    stated: dict[str, str] = {}
    header: dict[str, object] = {}
    if file.suffix.lower() == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            stated = opened.metadata() or {}
        header |= stated
        if HEADER in stated:
            with suppress(ValueError):  # else it is somebody else's, and shown as it is
                ours = json.loads(stated[HEADER])
                header = ours if isinstance(ours, dict) else header
    return {
        "kind": "weights",
        "model": [f"{one.spec.name} x{one.scale}" for one in identify(tensors)] or "unknown",
        **{key: value for key, value in header.items() if key != "model"},
        "tensors": len(tensors),
        "parameters": sum(value.numel() for value in tensors.values()),
    }


def _count(sides: Sequence[int]) -> int:
    product = 1
    for side in sides:
        product *= side
    return product


def _shape(value: ValueInfoProto) -> str:
    sides = value.type.tensor_type.shape.dim
    return f"{value.name}: " + " x ".join(side.dim_param or str(side.dim_value) for side in sides)
