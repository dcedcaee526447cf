"""Turn convolutions into 8 bits, for processors with fast 8-bit products.

Weights become signed 8-bit numbers with a step for each output channel; what a convolution reads
becomes unsigned 8-bit numbers with one step for the whole tensor, taken from what it holds on a
few pictures. Everything else stays in float32: pairs of QuantizeLinear and DequantizeLinear say
where 8 bits hold, and the runtime chooses its kernels by them.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 2.1 (equations 1 to 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from srcli.system import runtimes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from srcli.backends.base import Images

UNSIGNED, SIGNED = 255, 127

# What moves numbers without changing them is done on the 8-bit ones: a fourth of the memory.
_MOVING = ("DepthToSpace",)


@dataclass(frozen=True, slots=True)
class Step:
    """Scale of a tensor in unsigned 8-bit numbers: value = (number - zero) * size."""

    size: float  # of one step
    zero: int


def quantized(model: ModelProto, layers: tuple[str, ...], pictures: Iterable[Images]) -> ModelProto:
    """Return a graph with its convolutions in 8 bits.

    Args:
        model: In float32; not changed.
        layers: Beginnings of the weights' names of the chosen convolutions.
        pictures: n x 3 x h x w in [0, 1]: which values occur on them sets the steps.

    Returns:
        A graph with the same input and output.
    """
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chosen = [
        node for node in graph.node if node.op_type == "Conv" and node.input[1].startswith(layers)
    ]
    makers = {output: node for node in graph.node for output in node.output}
    sources = {_before_moving(node.input[0], makers) for node in chosen}
    steps = _steps(model, sorted(sources), pictures)
    nodes, weights = _Rewriter(constants, chosen, steps).rewrite(graph.node)
    set_nodes(graph, nodes)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in weights.items())
    return made


def set_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Replace the nodes of a graph, and drop the constants that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _before_moving(name: str, makers: Mapping[str, NodeProto]) -> str:
    """Return the tensor whose numbers a tensor holds, before they were only moved."""
    while name in makers and makers[name].op_type in _MOVING:
        name = makers[name].input[0]
    return name


def _steps(model: ModelProto, names: list[str], pictures: Iterable[Images]) -> dict[str, Step]:
    """Return the step of each tensor, from the least and the largest value that it takes."""
    ort = runtimes.onnxruntime()
    probe = ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for picture in pictures:
        for name, value in zip(names, session.run(names, {"input": picture}), strict=True):
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
    steps = {}
    for name in names:
        size = (high[name] - low[name]) / UNSIGNED or 1.0
        steps[name] = Step(size, round(-low[name] / size))
    return steps


class _Rewriter:
    """A rewriter that puts quantisation and its reverse around the chosen convolutions."""

    def __init__(
        self,
        constants: Mapping[str, NDArray[np.generic]],
        chosen: list[NodeProto],
        steps: dict[str, Step],
    ) -> None:
        self.constants, self.steps = constants, steps
        self.chosen = {node.name for node in chosen}
        self.weights: dict[str, NDArray[np.generic]] = {}
        self.nodes: list[NodeProto] = []
        self.replaced: dict[str, str] = {}  # tensors, by what quantised convolutions read instead

    def rewrite(
        self, nodes: Iterable[NodeProto]
    ) -> tuple[list[NodeProto], dict[str, NDArray[np.generic]]]:
        for node in nodes:
            if node.name in self.chosen:
                self._convolution(node)
            elif node.op_type in _MOVING and node.input[0] in self.steps:
                moved = NodeProto()
                moved.CopyFrom(node)
                moved.input[0] = self._eight_bits(node.input[0])
                self.nodes.append(moved)
                self.steps[node.output[0]] = self.steps[node.input[0]]
                self._eight_bits(node.output[0])
            else:
                self.nodes.append(node)
        return self.nodes, self.weights

    def _convolution(self, node: NodeProto) -> None:
        weight = self.constants[node.input[1]]
        step = self.steps[node.input[0]]
        read = self._eight_bits(node.input[0])
        sizes = np.abs(weight).max(axis=(1, 2, 3)) / SIGNED
        sizes = np.where(sizes > 0, sizes, 1).astype(np.float32)
        numbers = np.rint(weight / sizes[:, None, None, None]).astype(np.int8)
        kernel = self._dequantized(node.input[1], numbers, sizes)
        inputs = [read, kernel]
        if len(node.input) > 2:
            bias_sizes = sizes * np.array(step.size, np.float32)
            bias = np.rint(self.constants[node.input[2]] / bias_sizes).astype(np.int32)
            inputs.append(self._dequantized(node.input[2], bias, bias_sizes))
        made = NodeProto()
        made.CopyFrom(node)
        made.input[:] = inputs
        self.nodes.append(made)

    def _eight_bits(self, name: str) -> str:
        if name not in self.replaced:
            self.replaced[name] = self._pair(name, self.steps[name])
        return self.replaced[name]

    def _pair(self, name: str, step: Step) -> str:
        """Quantise a tensor and turn it back; return the result's name."""
        size, zero = f"{name}.step", f"{name}.zero"
        self.weights[size] = np.array(step.size, np.float32)
        self.weights[zero] = np.array(step.zero, np.uint8)
        narrow, wide = f"{name}.quantized", f"{name}.dequantized"
        self.nodes.append(
            helper.make_node("QuantizeLinear", [name, size, zero], [narrow], name=narrow)
        )
        self.nodes.append(
            helper.make_node("DequantizeLinear", [narrow, size, zero], [wide], name=wide)
        )
        return wide

    def _dequantized(
        self, name: str, numbers: NDArray[np.generic], sizes: NDArray[np.float32]
    ) -> str:
        """Write a constant of whole numbers and a step for each output channel; return its name."""
        narrow, size, wide = f"{name}.quantized", f"{name}.step", f"{name}.dequantized"
        self.weights[narrow], self.weights[size] = numbers, sizes
        self.nodes.append(
            helper.make_node("DequantizeLinear", [narrow, size], [wide], name=wide, axis=0)
        )
        return wide
