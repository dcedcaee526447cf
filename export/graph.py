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
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional as F

from . import graph_tensors
from .writer import UnsupportedOperation, Writer

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
    """Write the network as ONNX: `input` n x 3 x h x w -> `output` n x 3 x s*h x s*w, float32.

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
    return _Walk(traced, Writer(half=half, opset=opset)).write(scale, size)


class _Walk:
    """A walk through a traced network that writes each of its nodes."""

    def __init__(self, traced: fx.GraphModule, writer: Writer) -> None:
        self._traced, self._writer = traced, writer

    def write(self, scale: int | Fraction, size: tuple[int, int] | None) -> ModelProto:
        """Write all nodes, and return the whole graph."""
        writer = self._writer
        for node in self._traced.graph.nodes:
            self._add(node)
        graph = helper.make_graph(
            writer.nodes,
            "network",
            [_image("input", 1, size)],
            [_image("output", scale, size)],
            [numpy_helper.from_array(self._typed(v), name) for name, v in writer.constants.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", writer.opset)], ir_version=_IR_VERSION
        )

    def _typed(self, value: NDArray[np.generic]) -> NDArray[np.generic]:
        return (
            value.astype(np.float16) if self._writer.half and value.dtype == np.float32 else value
        )

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            node.name = "input"
            if self._writer.half:
                self._writer.emit("Cast", ["input"], "input.half", to=TensorProto.FLOAT16)
                node.name = "input.half"
        elif node.op == "get_attr":
            self._writer.constants[node.name] = _array(_attribute(self._traced, str(node.target)))
        elif node.op == "output":
            if self._writer.half:
                self._writer.emit("Cast", [node.args[0]], "output", to=TensorProto.FLOAT)
            else:
                self._writer.emit("Identity", [node.args[0]], "output")
        elif node.op == "call_module":
            module = self._traced.get_submodule(str(node.target))
            if isinstance(module, nn.Conv2d):
                self._module_convolution(node, module)
            elif type(module) in graph_tensors.MODULES:
                graph_tensors.MODULES[type(module)](self._writer, node, module)
            else:
                raise UnsupportedOperation(type(module).__name__)
        elif node.target in _OPERATIONS:
            _OPERATIONS[node.target](self._writer, node, *node.args, **node.kwargs)
        else:
            raise UnsupportedOperation(str(node.target))

    def _module_convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        names = [f"{node.target}.weight"]
        self._writer.constants[names[0]] = _array(module.weight)
        if module.bias is not None:
            names.append(f"{node.target}.bias")
            self._writer.constants[names[1]] = _array(module.bias)
        top, left = (int(side) for side in module.padding)
        self._writer.emit(
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


def _getitem(writer: Writer, node: fx.Node, x: fx.Node, index: object) -> None:
    if isinstance(index, int) and x in writer.shapes:
        graph_tensors.side(writer, node, x, index)
        return
    if isinstance(index, int) and x.target is torch.chunk:
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
    """Tell whether a slice takes one plane, counted from the front."""
    return part.start is not None and part.start >= 0 and part.stop == part.start + 1


_OPERATIONS: dict[object, Callable[..., None]] = {
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


def _image(name: str, scale: int | Fraction, size: tuple[int, int] | None) -> ValueInfoProto:
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


def _array(tensor: torch.Tensor) -> NDArray[np.generic]:
    return tensor.detach().cpu().numpy()
