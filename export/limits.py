"""Find in an ONNX graph what TensorRT does not support, without TensorRT itself."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from srcli.backends.trt.engine import times
from srcli.errors import InputError, UsageError

if TYPE_CHECKING:
    import onnx
    from onnx import GraphProto, ModelProto, NodeProto

MAX_ELEMENTS = 2**31 - 1
"""Largest number of elements of one tensor."""

MAX_TOP_K = 3840

# What the ONNX parser of TensorRT-RTX 1.7 answers to `supports_operator` for every standard
# operator of opset 20. TensorRT 10 and 11 know these too.
SUPPORTED = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose
    Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow
    HannWindow HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul
    Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression Not OneHot Or
    PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round STFT
    Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
    Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905  # a column of quoted names is longer and no clearer
)

# Operators that some TensorRT takes; what to say instead of a bare "not supported".
_PARTLY = {
    "DFT": "only TensorRT 11.2.1 and newer; write it as real matrix products",
    "DeformConv": "only where TensorRT's plugin library is installed",
    "NonZero": "only where TensorRT's plugin library is installed",
}


def unsupported_operators(onnx: bytes) -> list[str]:
    """List the parts of a graph that TensorRT 10, TensorRT 11 or TensorRT-RTX does not support.

    Returns:
        One line for each kind of trouble, in the order of the graph; empty if there is none.

    Raises:
        InputError: `onnx` is no ONNX graph.
    """
    model = _load(onnx)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    functions = {(function.domain, function.name) for function in model.functions}
    found: dict[str, None] = {}
    for node in _nodes(model):
        if (node.domain, node.op_type) not in functions:
            found.update(dict.fromkeys(_objections(node, constants)))
    return list(found)


def check_largest_tensor(onnx: bytes, shape: Sequence[int]) -> int:
    """Return the elements of the largest tensor for an input of `shape` (NCHW).

    Fixed dimensions of the graph's input count as they are. Tensors whose shape cannot be
    inferred are not counted.

    Raises:
        InputError: `onnx` is no ONNX graph.
        UsageError: A tensor is too large for TensorRT, then the message names a shape that fits;
            or the graph has no image-like input.
    """
    model = _load(onnx)
    largest = _largest(model, shape)
    if largest <= MAX_ELEMENTS:
        return largest
    fitting = _largest_fitting(model, shape)
    advice = (
        "Nothing of this aspect fits: use a smaller batch."
        if fitting is None
        else f"The largest of this aspect that fits is {times(fitting)}."
    )
    raise UsageError(
        f"an input of {times(shape)} (batch x channels x height x width) makes a tensor of "
        f"{largest} elements; TensorRT allows {MAX_ELEMENTS}",
        f"{advice} Larger pictures are restored in tiles.",
    )


def _load(onnx: bytes) -> ModelProto:
    import onnx as library
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types

    try:
        return library.load_model_from_string(onnx)
    except DecodeError as error:
        raise InputError(f"this is no ONNX file ({error})", "Export the model again.") from error


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            yield node
            yield from _nested(node)


def _nested(node: NodeProto) -> Iterator[NodeProto]:
    for attribute in node.attribute:
        subgraphs: list[GraphProto] = [*attribute.graphs]
        if attribute.HasField("g"):
            subgraphs.append(attribute.g)
        for graph in subgraphs:
            for inner in graph.node:
                yield inner
                yield from _nested(inner)


def _objections(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> Iterator[str]:
    kind = node.op_type
    if node.domain not in ("", "ai.onnx"):
        yield f"{node.domain}::{kind}: not a standard operator"
    elif kind in _PARTLY:
        yield f"{kind}: {_PARTLY[kind]}"
    elif kind not in SUPPORTED:
        yield f"{kind}: not supported"
    elif kind == "Resize":
        yield from _resize_objections(node)
    elif kind == "TopK":
        yield from _top_k_objections(node, constants)


def _resize_objections(node: NodeProto) -> Iterator[str]:
    from onnx.helper import get_node_attr_value

    given = {attribute.name for attribute in node.attribute}
    if "antialias" in given and get_node_attr_value(node, "antialias"):
        yield "Resize: antialias=1 is not supported"
    mode = "coordinate_transformation_mode"
    if mode in given and get_node_attr_value(node, mode) == b"half_pixel_symmetric":
        yield f"Resize: {mode}=half_pixel_symmetric is not supported"


def _top_k_objections(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> Iterator[str]:
    from onnx.numpy_helper import to_array

    count = constants.get(node.input[1])
    if count is not None and int(to_array(count).item()) > MAX_TOP_K:
        yield f"TopK: more than {MAX_TOP_K} elements are not supported"


def _largest(model: ModelProto, shape: Sequence[int]) -> int:
    from onnx import ModelProto
    from onnx.shape_inference import infer_shapes

    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    dimensions = _image_input(fixed.graph).type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, shape, strict=True):
        if not dimension.HasField("dim_value"):
            dimension.dim_value = size
    graph = infer_shapes(fixed, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return max(_elements(value) for value in values)


def _image_input(graph: GraphProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [
        value for value in graph.input if value.name not in weights
    ]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise UsageError(
            "the graph does not have one input of batch x channels x height x width",
            "Export the model with srcli.",
        )
    return inputs[0]


def _elements(value: onnx.ValueInfoProto) -> int:
    """Return the elements of a tensor; 0 if a dimension is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return 0
    return math.prod(dimension.dim_value for dimension in tensor.shape.dim)


def _largest_fitting(model: ModelProto, shape: Sequence[int]) -> Sequence[int] | None:
    """Return the largest picture shape with the aspect of `shape` that stays within the limit."""
    batch, channels, height, width = shape

    def scaled(w: int) -> Sequence[int]:
        return batch, channels, max(1, height * w // width), w

    def too_large(w: int) -> bool:
        return _largest(model, scaled(w)) > MAX_ELEMENTS

    fitting = bisect_left(range(1, width), True, key=too_large)
    return scaled(fitting) if fitting else None
