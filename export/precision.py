"""The number types that TensorRT computes in: of each layer as parsed, and as built."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from srcli.backends.trt.engine import TensorRt, last, open_runtime
from srcli.errors import VerificationError

if TYPE_CHECKING:
    import tensorrt

_EXPECTED = {"fp32": "FLOAT", "fp16": "HALF"}
# The spellings of the inspector differ between versions ("Half", "Row major linear FP16 format").
# The narrowest type first; "float" is last because it is a part of other names.
_SPELLINGS = {
    "FP8": ("fp8", "float8"),
    "BF16": ("bf16", "bfloat"),
    "HALF": ("fp16", "half"),
    "FLOAT": ("fp32", "float"),
}
_COMPUTING = ("conv", "gemm", "matmul", "matrix_multiply")  # parts of the names of such layers

TypeCounts = Mapping[str, int]
"""Number of layers of each kind and type: "CONVOLUTION HALF" -> 24."""


def network_types(network: tensorrt.INetworkDefinition) -> TypeCounts:
    """Count the types of a parsed network's layers; a strongly typed engine is bound to them."""
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        output = layer.get_output(0)
        if output is not None and output.dtype.name in _SPELLINGS:
            counts[f"{layer.type.name} {output.dtype.name}"] += 1
    return dict(counts)


def engine_types(trt: TensorRt, plan: bytes, *, host_code: bool) -> TypeCounts | str:
    """Count the types of a built engine's layers, by TensorRT's inspector; this needs a GPU.

    Args:
        trt: TensorRT.
        plan: The serialised engine.
        host_code: True if the plan is version-compatible.

    Returns:
        The counts, or why there are none.

    Raises:
        VerificationError: TensorRT cannot load what it built.
    """
    runtime, messages = open_runtime(trt, host_code=host_code)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise VerificationError(
            f"TensorRT built an engine that it cannot load ({last(messages)})",
            "No file was written. Build it on the GPU that is to run it.",
        )
    report = engine.create_engine_inspector().get_engine_information(
        trt.LayerInformationFormat.JSON
    )
    return inspected_types(report) or "not checked: the inspector reports no types"


def inspected_types(report: str) -> TypeCounts:
    """Count, in the inspector's JSON, the narrowest type that each layer reads or writes."""
    counts: Counter[str] = Counter()
    for layer in json.loads(report).get("Layers", []):
        if isinstance(layer, dict):  # a bare name otherwise
            types = set(_types(layer))
            narrowest = next((name for name in _SPELLINGS if name in types), None)
            if narrowest:
                counts[f"{layer.get('LayerType', 'unknown')} {narrowest}"] += 1
    return dict(counts)


def _types(layer: Mapping[str, Any]) -> Iterator[str]:
    for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]:
        said = str(tensor.get("Format/Datatype", "")).lower()
        for name, spellings in _SPELLINGS.items():
            if any(spelling in said for spelling in spellings):
                yield name
                break


def check_precision(counts: TypeCounts, precision: str) -> None:
    """Compare the types of layers with the wanted precision.

    In fp32 no layer may have another type. In fp16 all that multiply matrices must be HALF; the
    conversion at either end, and what TensorRT adds there, is not.

    Raises:
        VerificationError: They differ.
    """
    expected = _EXPECTED[precision]
    wrong = [
        f"{count} {layers}"
        for layers, count in counts.items()
        if not layers.endswith(f" {expected}") and (precision == "fp32" or _computes(layers))
    ]
    if wrong:
        raise VerificationError(
            f"{precision} was asked for, but TensorRT computes {', '.join(wrong)}",
            f"No file was written. Export the graph in {precision}.",
        )


def _computes(layers: str) -> bool:
    return any(part in layers.lower() for part in _COMPUTING)
