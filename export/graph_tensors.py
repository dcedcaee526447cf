"""ONNX nodes for transformers and Fourier transforms: shapes, gathers, products, whole numbers.

`graph.py` walks the network; here are the operations that act on tensors of any rank. The sides of
a picture are unknown when a graph is written, so what a network computes from them (how many
patches there are, where they begin) becomes arithmetic on whole numbers inside the graph. Each such
number is a tensor with one element.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import fx, nn
from torch.nn import functional as F

from srcli.models.layers import as_numbers, count_up, quotient

from .writer import Operand, UnsupportedOperation, Writer

GELU_SINCE = 20  # opset

Size: TypeAlias = fx.Node | int
"""A whole number, computed in the graph or known."""


def _arithmetic(kind: str) -> Callable[..., None]:
    """Write an operation on two operands, of which one may be a number."""

    def write(writer: Writer, node: fx.Node, first: Operand, second: Operand) -> None:
        whole = writer.is_whole(first, second)
        if whole:
            writer.whole.add(node)
        operands = [
            writer.operand(value, f"{node.name}.{place}", whole=whole)
            for place, value in (("first", first), ("second", second))
        ]
        writer.emit(kind, operands, node.name)

    return write


def _comparison(kind: str) -> Callable[..., None]:
    write_numbers = _arithmetic(kind)

    def write(writer: Writer, node: fx.Node, first: Operand, second: Operand) -> None:
        write_numbers(writer, node, first, second)
        writer.whole.discard(node)  # the result is a truth value

    return write


def _unary(kind: str) -> Callable[..., None]:
    def write(writer: Writer, node: fx.Node, x: fx.Node) -> None:
        writer.emit(kind, [x], node.name)

    return write


def _attribute(writer: Writer, node: fx.Node, x: fx.Node, name: str) -> None:
    if name != "shape":
        raise UnsupportedOperation(f"attribute {name}")
    writer.whole.add(node)
    writer.shapes.add(node)
    writer.emit("Shape", [x], node.name)


def side(writer: Writer, node: fx.Node, shape: fx.Node, axis: int) -> None:
    """Write one side of a tensor's shape."""
    writer.whole.add(node)
    writer.emit("Gather", [shape, writer.integers(f"{node.name}.axis", [axis])], node.name, axis=0)


def _count_up(writer: Writer, node: fx.Node, count: Size, like: fx.Node) -> None:
    writer.whole.add(node)
    if isinstance(count, int):
        writer.integers(node.name, range(count))
        return
    axes = writer.integers(f"{node.name}.axes", [0])
    writer.emit("Squeeze", [count, axes], f"{node.name}.count")
    start, step = (writer.scalar(f"{node.name}.{name}", i) for i, name in enumerate(("from", "by")))
    writer.emit("Range", [start, f"{node.name}.count", step], node.name)


def _as_numbers(writer: Writer, node: fx.Node, values: fx.Node, like: fx.Node) -> None:
    kind = TensorProto.FLOAT16 if writer.half else TensorProto.FLOAT
    writer.emit("Cast", [values], node.name, to=kind)


def _quotient(writer: Writer, node: fx.Node, values: Size, divisor: Size) -> None:
    """Divide whole numbers as floats."""
    floats: list[fx.Node | str] = []
    for value, place in ((values, "over"), (divisor, "under")):
        if isinstance(value, int):
            floats.append(writer.number(f"{node.name}.{place}", value))
        elif value in writer.whole:
            writer.emit("Cast", [value], f"{node.name}.{place}", to=TensorProto.FLOAT)
            floats.append(f"{node.name}.{place}")
        else:
            floats.append(value)
    writer.emit("Div", floats, node.name)


def _clamp(
    writer: Writer,
    node: fx.Node,
    x: fx.Node,
    min: Operand | None = None,
    max: Operand | None = None,
) -> None:
    whole = writer.is_whole(x)
    if whole:
        writer.whole.add(node)
    limits = [(kind, v) for kind, v in (("Max", min), ("Min", max)) if v is not None]
    current: fx.Node | str = x
    for index, (kind, value) in enumerate(limits):
        last = index == len(limits) - 1
        name = node.name if last else f"{node.name}.{kind}"
        limit = writer.operand(value, f"{node.name}.{kind}.limit", whole=whole)
        writer.emit(kind, [current, limit], name)
        current = name


def _where(
    writer: Writer, node: fx.Node, condition: fx.Node, first: Operand, second: Operand
) -> None:
    whole = writer.is_whole(first, second)
    if whole:
        writer.whole.add(node)
    operands = [
        writer.operand(value, f"{node.name}.{place}", whole=whole)
        for place, value in (("first", first), ("second", second))
    ]
    writer.emit("Where", [condition, *operands], node.name)


def _reshape(writer: Writer, node: fx.Node, x: fx.Node, shape: Sequence[Size]) -> None:
    writer.follow(node, x)
    writer.emit("Reshape", [x, _sizes(writer, f"{node.name}.shape", shape)], node.name)


def _sizes(writer: Writer, name: str, sizes: Sequence[Size]) -> str:
    """Write a shape, some sides of which may be computed in the graph."""
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return writer.integers(name, known)
    parts = [
        writer.integers(f"{name}.{index}", [size]) if isinstance(size, int) else size
        for index, size in enumerate(sizes)
    ]
    writer.emit("Concat", parts, name, axis=0)
    return name


def _permute(writer: Writer, node: fx.Node, x: fx.Node, dims: Sequence[int]) -> None:
    writer.emit("Transpose", [x], node.name, perm=list(dims))


def _on_axis(kind: str) -> Callable[..., None]:
    """Write a node Squeeze or Unsqueeze."""

    def write(writer: Writer, node: fx.Node, x: fx.Node, dim: int) -> None:
        writer.follow(node, x)
        writer.emit(kind, [x, writer.integers(f"{node.name}.axes", [dim])], node.name)

    return write


def _index_select(writer: Writer, node: fx.Node, x: fx.Node, dim: int, index: fx.Node) -> None:
    writer.follow(node, x)
    writer.emit("Gather", [x, index], node.name, axis=dim)


def _chunk(writer: Writer, node: fx.Node, x: fx.Node, chunks: int, dim: int = 0) -> None:
    parts = [f"{node.name}.{index}" for index in range(chunks)]
    writer.split(x, parts, dim)


def part(node: fx.Node, parts: fx.Node, index: int) -> None:
    """Name one of the tensors that a split gave; it needs no node of its own."""
    node.name = f"{parts.name}.{index}"


def _reduction(kind: str) -> Callable[..., None]:
    def write(
        writer: Writer, node: fx.Node, x: fx.Node, dim: int | Sequence[int], keepdim: bool = False
    ) -> None:
        axes = writer.integers(f"{node.name}.axes", [dim] if isinstance(dim, int) else list(dim))
        writer.emit(kind, [x, axes], node.name, keepdims=int(keepdim))

    return write


def _argmax(writer: Writer, node: fx.Node, x: fx.Node, dim: int, keepdim: bool = False) -> None:
    writer.whole.add(node)
    writer.emit("ArgMax", [x], node.name, axis=dim, keepdims=int(keepdim))


def _softmax(writer: Writer, node: fx.Node, x: fx.Node, dim: int = -1) -> None:
    writer.emit("Softmax", [x], node.name, axis=dim)


def _attention(
    writer: Writer,
    node: fx.Node,
    query: fx.Node,
    key: fx.Node,
    value: fx.Node,
    scale: float,
) -> None:
    """Write attention on n x heads x T x C, in the plain form that every runtime knows."""
    if scale != 1.0:
        raise UnsupportedOperation(f"attention with a scale of {scale}")
    name = node.name
    writer.emit("Transpose", [key], f"{name}.keys", perm=[0, 1, 3, 2])
    writer.emit("MatMul", [query, f"{name}.keys"], f"{name}.scores")
    writer.emit("Softmax", [f"{name}.scores"], f"{name}.shares", axis=-1)
    writer.emit("MatMul", [f"{name}.shares", value], name)


def _layer_norm(
    writer: Writer,
    node: fx.Node,
    x: fx.Node,
    shape: Sequence[int],
    weight: None = None,
    bias: None = None,
    eps: float = 1e-5,
) -> None:
    """Write a layer norm over the last axis, without factors of its own."""
    ones = writer.constant(f"{node.name}.ones", np.ones(shape, np.float32))
    writer.emit("LayerNormalization", [x, ones], node.name, axis=-1, epsilon=eps)


def _gelu(writer: Writer, node: fx.Node, x: fx.Node) -> None:
    if writer.opset >= GELU_SINCE:
        writer.emit("Gelu", [x], node.name)
        return
    name = node.name
    writer.emit("Mul", [x, writer.number(f"{name}.inner", 2**-0.5)], f"{name}.scaled")
    writer.emit("Erf", [f"{name}.scaled"], f"{name}.erf")
    writer.emit("Add", [f"{name}.erf", writer.number(f"{name}.one", 1.0)], f"{name}.shifted")
    writer.emit("Mul", [x, f"{name}.shifted"], f"{name}.doubled")
    writer.emit("Mul", [f"{name}.doubled", writer.number(f"{name}.half", 0.5)], name)


def _leaky_relu(
    writer: Writer,
    node: fx.Node,
    x: fx.Node,
    negative_slope: float = 0.01,
    inplace: bool = False,
) -> None:
    writer.emit("LeakyRelu", [x], node.name, alpha=negative_slope)


def linear(writer: Writer, node: fx.Node, module: nn.Linear) -> None:
    """Write a linear layer on the last axis."""
    weight = writer.constant(f"{node.target}.weight", module.weight.detach().numpy().T)
    has_bias = "bias" in dict(module.named_parameters())
    product = f"{node.name}.product" if has_bias else node.name
    writer.emit("MatMul", [node.args[0], weight], product)
    if has_bias:
        bias = writer.constant(f"{node.target}.bias", module.bias.detach().numpy())
        writer.emit("Add", [product, bias], node.name)


def layer_norm(writer: Writer, node: fx.Node, module: nn.LayerNorm) -> None:
    """Write a layer norm over the last axis."""
    factors = [
        writer.constant(f"{node.target}.{name}", value.detach().numpy())
        for name, value in (("weight", module.weight), ("bias", module.bias))
    ]
    inputs = [node.args[0], *factors]
    writer.emit("LayerNormalization", inputs, node.name, axis=-1, epsilon=module.eps)


def _leaky_relu_module(writer: Writer, node: fx.Node, module: nn.LeakyReLU) -> None:
    writer.emit("LeakyRelu", [node.args[0]], node.name, alpha=module.negative_slope)


def _pixel_shuffle(writer: Writer, node: fx.Node, module: nn.PixelShuffle) -> None:
    factor = module.upscale_factor
    writer.emit("DepthToSpace", [node.args[0]], node.name, blocksize=factor, mode="CRD")


def _module(kind: str) -> Callable[..., None]:
    def write(writer: Writer, node: fx.Node, module: nn.Module) -> None:
        writer.emit(kind, [node.args[0]], node.name)

    return write


MODULES: dict[type[nn.Module], Callable[..., None]] = {
    nn.LeakyReLU: _leaky_relu_module,
    nn.ReLU: _module("Relu"),
    nn.Sigmoid: _module("Sigmoid"),
    nn.PixelShuffle: _pixel_shuffle,
    nn.Linear: linear,
    nn.LayerNorm: layer_norm,
}

OPERATIONS: dict[object, Callable[..., None]] = {
    builtins.getattr: _attribute,
    as_numbers: _as_numbers,
    count_up: _count_up,
    quotient: _quotient,
    operator.add: _arithmetic("Add"),
    operator.sub: _arithmetic("Sub"),
    operator.mul: _arithmetic("Mul"),
    operator.truediv: _arithmetic("Div"),
    # ONNX cuts towards zero, which is the floor of what is not negative, as all sizes are.
    operator.floordiv: _arithmetic("Div"),
    operator.mod: _arithmetic("Mod"),
    operator.and_: _comparison("And"),
    operator.eq: _comparison("Equal"),
    operator.lt: _comparison("Less"),
    operator.gt: _comparison("Greater"),
    operator.ge: _comparison("GreaterOrEqual"),
    torch.clamp: _clamp,
    torch.where: _where,
    torch.reshape: _reshape,
    torch.permute: _permute,
    torch.squeeze: _on_axis("Squeeze"),
    torch.unsqueeze: _on_axis("Unsqueeze"),
    torch.index_select: _index_select,
    torch.chunk: _chunk,
    torch.mean: _reduction("ReduceMean"),
    torch.sum: _reduction("ReduceSum"),
    torch.argmax: _argmax,
    torch.matmul: _arithmetic("MatMul"),
    torch.exp: _unary("Exp"),
    torch.cos: _unary("Cos"),
    torch.sin: _unary("Sin"),
    torch.sigmoid: _unary("Sigmoid"),
    torch.softmax: _softmax,
    F.softmax: _softmax,
    F.scaled_dot_product_attention: _attention,
    F.layer_norm: _layer_norm,
    F.gelu: _gelu,
    F.leaky_relu: _leaky_relu,
}
