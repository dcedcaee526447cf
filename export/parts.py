"""Replace convolutions of concatenated channels by sums of one convolution for each part.

In densely connected networks (ASDN) every convolution reads the outputs of all before it, so two
thirds of the memory, and up to a fifth of the time on a CPU, go into copies by concatenation. A
convolution is linear: over concatenated parts it is the sum of one convolution for each part, with
that part's weights.

For CPUs only: TensorRT lets layers write side by side, so concatenation is free, whereas every sum
would have to be read and written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from .quantize import set_nodes

CHANNELS = 1  # axis


def by_parts(model: ModelProto) -> ModelProto:
    """Return a graph in which a sum replaces each convolution of concatenated channels.

    A Concat stays if another node reads it too.
    """
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    parts = {node.output[0]: node.input for node in graph.node if _joins_channels(node)}
    widths = _channels(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shares: dict[str, TensorProto] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Conv" or node.input[0] not in parts or _has_groups(node):
            nodes.append(node)
            continue
        read = parts[node.input[0]]
        kernel = numpy_helper.to_array(weights[node.input[1]])
        starts = np.cumsum([widths[part] for part in read[:-1]])
        names = [f"{node.input[1]}.part{index}" for index in range(len(read))]
        for name, share in zip(names, np.split(kernel, starts, CHANNELS), strict=True):
            shares[name] = numpy_helper.from_array(np.ascontiguousarray(share), name)
        nodes += _summed(node, read, names)
    graph.initializer.extend(shares.values())
    wanted = {name for node in nodes for name in node.input}
    wanted.update(output.name for output in graph.output)
    set_nodes(graph, [node for node in nodes if wanted.intersection(node.output)])
    return made


def _summed(node: NodeProto, parts: Sequence[str], shares: Sequence[str]) -> Iterator[NodeProto]:
    """Write a convolution as the sum of one for each part, the newest first.

    The others are kept for later anyway, so beginning with them would only keep a sum alive longer.
    The bias goes to the first one.
    """
    result, bias = node.output[0], node.input[2:]
    total = ""
    for index in reversed(range(len(parts))):
        name = f"{result}.part{index}"
        convolution = helper.make_node("Conv", [parts[index], shares[index], *bias], [name], name)
        convolution.attribute.extend(node.attribute)
        yield convolution
        if total:
            into = f"{result}.sum{index}" if index else result
            yield helper.make_node("Add", [name, total], [into], into)
            name = into
        total, bias = name, []


def _joins_channels(node: NodeProto) -> bool:
    return node.op_type == "Concat" and len(node.input) > 1 and node.attribute[0].i == CHANNELS


def _has_groups(convolution: NodeProto) -> bool:
    return any(entry.name == "group" and entry.i > 1 for entry in convolution.attribute)


def _channels(model: ModelProto) -> Mapping[str, int]:
    """Return the channels of every tensor that has four axes."""
    graph = shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)
    }
    return {name: dims[CHANNELS].dim_value for name, dims in shapes.items() if len(dims) == 4}
