"""Write a convolutional network as ONNX nodes, one for one.

`torch.onnx.export` derives symbolic shapes for every slice of the network, which takes the better
part of a minute and leaves paths of this machine in the file. The fused networks consist of a
dozen operations that need no shapes at all, so their traced graph (torch.fx) is written down
directly: in milliseconds, deterministic, and with exactly the nodes that the network names.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional as F

from . import graph_tensors
from .graph_tensors import UnsupportedOperation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IR_VERSION = 10  # what opset 20 came with: older runtimes refuse newer ones
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
_LAST = np.iinfo(np.int64).max  # "to the end" of a slice


def write_graph(
    network: nn.Module,
    *,
    scale: int | Fraction,
    opset: int,
    half: bool = False,
    size: tuple[int, int] | None = None,
) -> ModelProto:
    """The network as ONNX: `input` n x 3 x h x w -> `output` n x 3 x s*h x s*w, float32.

    Args:
        network: Fused, in float32, on the CPU.
        scale: Of the network, to name the sides of the output.
        opset: Of the file.
        half: Compute in float16 between input and output; a strongly typed graph.
        size: Height and width of the input; None leaves both dynamic. The batch always is.

    Raises:
        UnsupportedOperation: Use `torch.onnx.export` instead.
    """
    # A network may have a form of itself for runtimes that know fewer operations.
    for_export: Callable[[], nn.Module] = getattr(network, "for_export", lambda: network)
    try:
        traced = fx.symbolic_trace(for_export())
    except Exception as error:  # whatever a network's Python does to a symbolic value
        raise UnsupportedOperation(str(error)) from error
    return Writer(traced, half=half, opset=opset).write(scale, size)


class Writer:
    """Walks a traced network and collects nodes and constants."""

    def __init__(self, traced: fx.GraphModule, *, half: bool, opset: int) -> None:
        self.traced, self.half, self.opset = traced, half, opset
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.whole: set[fx.Node] = set()
        """Whose values are whole numbers; all others are floats or truth values."""
        self.shapes: set[fx.Node] = set()
        """That stand for the shape of a tensor."""

    def write(self, scale: int | Fraction, size: tuple[int, int] | None) -> ModelProto:
        for node in self.traced.graph.nodes:
            self._add(node)
        graph = helper.make_graph(
            self.nodes,
            "network",
            [_image("input", 1, size)],
            [_image("output", scale, size)],
            [numpy_helper.from_array(self._typed(v), name) for name, v in self.constants.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=_IR_VERSION
        )

    def _typed(self, value: NDArray[Any]) -> NDArray[Any]:
        return value.astype(np.float16) if self.half and value.dtype == np.float32 else value

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            node.name = "input"
            if self.half:
                self.emit("Cast", ["input"], "input.half", to=TensorProto.FLOAT16)
                node.name = "input.half"
        elif node.op == "get_attr":
            self.constants[node.name] = _array(_attribute(self.traced, str(node.target)))
        elif node.op == "output":
            if self.half:
                self.emit("Cast", [node.args[0]], "output", to=TensorProto.FLOAT)
            else:
                self.emit("Identity", [node.args[0]], "output")
        elif node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            if isinstance(module, nn.Conv2d):
                self._module_convolution(node, module)
            elif type(module) in graph_tensors.MODULES:
                graph_tensors.MODULES[type(module)](self, node, module)
            else:
                raise UnsupportedOperation(type(module).__name__)
        elif node.target in _OPERATIONS:
            _OPERATIONS[node.target](self, node, *node.args, **node.kwargs)
        else:
            raise UnsupportedOperation(str(node.target))

    def emit(self, kind: str, inputs: Sequence[Any], output: str, **attributes: Any) -> None:
        names = [self._name(value, output) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [output], name=output, **attributes))

    def integers(self, name: str, values: Sequence[int]) -> str:
        self.constants[name] = np.array(values, np.int64)
        return name

    def split(self, x: fx.Node, outputs: Sequence[str], axis: int) -> None:
        """Cut a tensor into equal parts."""
        self.nodes.append(
            helper.make_node(
                "Split", [x.name], outputs, name=outputs[0], axis=axis, num_outputs=len(outputs)
            )
        )

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def scalar(self, name: str, value: int) -> str:
        """A whole number without axes."""
        self.constants[name] = np.array(value, np.int64)
        return name

    def operand(self, value: Any, name: str, *, whole: bool) -> Any:
        """A node as it is; a number as a constant of the type that its partner has."""
        if isinstance(value, fx.Node):
            return value
        return self.integers(name, [value]) if whole else self.number(name, value)

    def is_whole(self, *values: Any) -> bool:
        """Whether any of these is a node of whole numbers."""
        return any(isinstance(value, fx.Node) and value in self.whole for value in values)

    def follow(self, node: fx.Node, x: fx.Node) -> None:
        """What is only moved around keeps its type."""
        if x in self.whole:
            self.whole.add(node)

    def _name(self, value: Any, consumer: str) -> str:
        if isinstance(value, fx.Node):
            return value.name
        if isinstance(value, str):
            return value
        name = f"{consumer}.factor"
        self.constants[name] = np.array(value, np.float32)
        return name

    def _module_convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        names = [f"{node.target}.weight"]
        self.constants[names[0]] = _array(module.weight)
        if module.bias is not None:
            names.append(f"{node.target}.bias")
            self.constants[names[1]] = _array(module.bias)
        top, left = (int(side) for side in module.padding)
        self.emit(
            "Conv",
            [node.args[0], *names],
            node.name,
            kernel_shape=module.kernel_size,
            pads=[top, left, top, left],
            strides=module.stride,
            dilations=module.dilation,
            group=module.groups,
        )


def _convolution(
    writer: Writer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> None:
    inputs = [x, weight] if bias is None else [x, weight, bias]
    writer.emit(
        "Conv",
        inputs,
        node.name,
        pads=[padding] * 4,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
        group=groups,
    )


def _relu(writer: Writer, node: fx.Node, x: fx.Node, inplace: bool = False) -> None:
    writer.emit("Relu", [x], node.name)


def _pixel_shuffle(writer: Writer, node: fx.Node, x: fx.Node, factor: int) -> None:
    writer.emit("DepthToSpace", [x], node.name, blocksize=factor, mode="CRD")


def _greatest(
    writer: Writer, node: fx.Node, x: fx.Node, dim: Sequence[int] = (), keepdim: bool = False
) -> None:
    if tuple(dim) != (2, 3) or not keepdim:
        raise UnsupportedOperation(f"amax over {dim}")
    writer.emit("GlobalMaxPool", [x], node.name)


def _pad(
    writer: Writer,
    node: fx.Node,
    x: fx.Node,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> None:
    if value:
        raise UnsupportedOperation(f"padding by {value}")
    left, right, top, bottom = pad
    pads = writer.integers(f"{node.name}.pads", [0, 0, top, left, 0, 0, bottom, right])
    writer.emit("Pad", [x, pads], node.name, mode=_PAD_MODES[mode])


def _concatenate(writer: Writer, node: fx.Node, tensors: Sequence[fx.Node], dim: int = 0) -> None:
    writer.emit("Concat", list(tensors), node.name, axis=dim)


def _getitem(writer: Writer, node: fx.Node, x: fx.Node, index: Any) -> None:
    if x in writer.shapes:
        graph_tensors.side(writer, node, x, index)
        return
    if x.target is torch.chunk:
        graph_tensors.part(node, x, index)
        return
    if not isinstance(index, tuple) or not all(isinstance(part, slice) for part in index):
        raise UnsupportedOperation(f"index {index}")
    cut = {axis: part for axis, part in enumerate(index) if part != slice(None)}
    if all(_is_single(part) for part in cut.values()) and len(cut) == 1:
        ((axis, part),) = cut.items()
        chosen = writer.integers(f"{node.name}.index", [part.start])
        # Runtimes melt slices of neighbouring planes into one Split, for which OpenVINO has no
        # fast kernel; it takes a plane out of a tensor as it lies.
        writer.emit("Gather", [x, chosen], node.name, axis=axis)
        return
    starts = [part.start or 0 for part in cut.values()]
    ends = [_LAST if part.stop is None else part.stop for part in cut.values()]
    inputs = [
        writer.integers(f"{node.name}.starts", starts),
        writer.integers(f"{node.name}.ends", ends),
        writer.integers(f"{node.name}.axes", list(cut)),
    ]
    writer.emit("Slice", [x, *inputs], node.name)


def _is_single(part: slice) -> bool:
    """Whether a slice takes one plane, counted from the front."""
    return part.start is not None and part.start >= 0 and part.stop == part.start + 1


_OPERATIONS: dict[Any, Callable[..., None]] = {
    **graph_tensors.OPERATIONS,
    F.conv2d: _convolution,
    torch.conv2d: _convolution,
    F.relu: _relu,
    torch.relu: _relu,
    F.pad: _pad,
    torch._C._nn.pad: _pad,
    F.pixel_shuffle: _pixel_shuffle,
    torch.amax: _greatest,
    torch.cat: _concatenate,
    operator.getitem: _getitem,
}


def _image(name: str, scale: int | Fraction, size: tuple[int, int] | None) -> Any:
    if size is not None:
        sides: list[int | str] = [int(side * scale) for side in size]
    elif scale == 1:
        sides = ["height", "width"]
    else:
        sides = [f"{scale}*height", f"{scale}*width"]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, *sides])


def _attribute(module: nn.Module, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    assert isinstance(value, torch.Tensor)
    return value


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()
