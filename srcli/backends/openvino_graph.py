"""Rearrange a graph of OpenVINO's into one of the same function that its CPU runs faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What passes each number on by itself.
_ELEMENTWISE = {"Relu", "Convert", "FakeQuantize", "Multiply", "Subtract"}


def gather_pixels(model: Any) -> int:
    """Let the convolutions before pixel shuffles write the channels of one pixel side by side.

    PyTorch's shuffle takes a pixel's channels s*s apart from each other. OpenVINO keeps channels
    last, so it collects them one by one; side by side they are copied in one piece. Other channels
    of the convolution and another mode of the shuffle: the numbers stay the same. Measured on
    LAPAR-C: the whole network 1.09 to 1.14 times as fast.

    Args:
        model: An `openvino.Model`, which is changed.

    Returns:
        How many shuffles were changed.
    """
    changed = 0
    for shuffle in model.get_ops():
        if shuffle.get_type_name() != "DepthToSpace":
            continue
        attributes = shuffle.get_attributes()
        constants = _made_by(shuffle) if attributes["mode"] == "depth_first" else None
        if constants is None:
            continue
        for constant in constants:
            _replace(constant, _side_by_side(constant.data, attributes["block_size"] ** 2))
        shuffle.set_attribute("mode", "blocks_first")
        changed += 1
    return changed


def _side_by_side(values: NDArray[Any], pixels: int) -> NDArray[Any]:
    """Rows (channel, pixel) in the order (pixel, channel)."""
    channels, *rest = values.shape
    grid = values.reshape(channels // pixels, pixels, *rest)
    return np.ascontiguousarray(grid.swapaxes(0, 1).reshape(values.shape))


def _made_by(shuffle: Any) -> list[Any] | None:
    """Constants with a row for each channel of the convolution that a shuffle rearranges.

    None if there is no such convolution, or if others use it or one of these constants too.
    """
    node = shuffle.input_value(0).get_node()
    channels = node.get_output_partial_shape(0)[1]
    roots = []
    while node.get_type_name() in _ELEMENTWISE and _users(node) == 1:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "Add" and _users(node) == 1:
        roots.append(node.input_value(1).get_node())
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Convolution" or _users(node) != 1 or channels.is_dynamic:
        return None
    roots.append(node.input_value(1).get_node())
    count = channels.get_length()
    constants = _constants(roots)
    return constants and [c for c in constants if c.data.ndim and len(c.data) == count]


def _constants(roots: list[Any]) -> list[Any] | None:
    """All constants whose values go into some nodes; None if the input does so too."""
    found, seen, waiting = [], set(), list(roots)
    while waiting:
        node = waiting.pop()
        kind = node.get_type_name()
        if kind == "Parameter":
            return None
        if node.get_name() in seen or kind == "ShapeOf":  # of which no values pass on
            continue
        seen.add(node.get_name())
        if kind == "Constant":
            found.append(node)
        waiting += [node.input_value(index).get_node() for index in range(node.get_input_size())]
    return found


def _users(node: Any) -> int:
    """How many nodes read what a node computes; the shape alone may be read by others too."""
    readers = (target.get_node() for target in node.output(0).get_target_inputs())
    return sum(reader.get_type_name() != "ShapeOf" for reader in readers)


def _replace(constant: Any, values: NDArray[Any]) -> None:
    from openvino import op

    constant.output(0).replace(op.Constant(values).output(0))
