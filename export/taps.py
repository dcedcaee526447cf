"""End a graph before its last step, in which LAPAR's filters are applied.

On CPUs `srcli.backends.filters.cpu` takes that step, several times as fast as the graph's nodes.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, helper

from srcli.backends.filters.cpu import PICTURE, TAPS
from srcli.models.lapar import DISTINCT_TAPS

from .quantize import set_nodes


def without_filtering(model: ModelProto) -> ModelProto:
    """Cut a graph after the taps n x 13 x H x W and the picture n x 3 x H x W to be filtered.

    The taps are its first output. The picture is the second, unless it is the graph's input.

    Raises:
        ValueError: The graph does not filter anything with 13 taps.
    """
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    # Only the filters reflect their picture at its borders, and only they take channels apart.
    pictures = {node.input[0] for node in graph.node if _mode(node) == b"reflect"}
    taken = [node.input[0] for node in graph.node if node.op_type == "Gather"]
    taps = set(taken)
    if len(pictures) != 1 or len(taps) != 1 or len(taken) != DISTINCT_TAPS:
        raise ValueError("the graph applies no symmetric filters")
    sources = {TAPS: taps.pop(), PICTURE: pictures.pop()}
    if sources[PICTURE] == graph.input[0].name:
        del sources[PICTURE]
    nodes = _needed(list(graph.node), set(sources.values()))
    nodes += [helper.make_node("Identity", [old], [new], new) for new, old in sources.items()]
    set_nodes(graph, nodes)
    sides = [
        side.dim_param or side.dim_value for side in graph.output[0].type.tensor_type.shape.dim
    ]
    channels = {TAPS: DISTINCT_TAPS, PICTURE: 3}
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [sides[0], channels[name], *sides[2:]]
        )
        for name in sources
    ]
    del graph.output[:]
    graph.output.extend(outputs)
    return made


def _needed(nodes: list[NodeProto], tensors: set[str]) -> list[NodeProto]:
    """Return the nodes that these tensors are computed from, in their order."""
    kept = []
    for node in reversed(nodes):
        if tensors.intersection(node.output):
            kept.append(node)
            tensors.update(node.input)
    return kept[::-1]


def _mode(node: NodeProto) -> bytes:
    return next((entry.s for entry in node.attribute if entry.name == "mode"), b"")
