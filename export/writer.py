"""Collect the nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from onnx import NodeProto, helper
from torch import fx

if TYPE_CHECKING:
    from numpy.typing import NDArray


Attribute: TypeAlias = int | float | str | Sequence[int]
"""A value that a node carries."""

Operand: TypeAlias = fx.Node | float
"""A node of the network, or a number."""


class UnsupportedOperation(Exception):
    """The network uses an operation that this writer does not know."""


class Writer:
    """A collector of nodes and constants while a traced network is walked.

    Args:
        half: True if the graph computes in float16 between its input and output.
        opset: Of the file.
    """

    def __init__(self, *, half: bool, opset: int) -> None:
        self.half, self.opset = half, opset
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self.whole: set[fx.Node] = set()
        """Nodes whose values are whole numbers; all others are floats or truth values."""
        self.shapes: set[fx.Node] = set()
        """Nodes that stand for the shape of a tensor."""

    def emit(
        self, kind: str, inputs: Sequence[object], output: str, **attributes: Attribute
    ) -> None:
        """Write a node; its inputs are nodes of the network, names, or numbers."""
        names = [self._name(value, output) for value in inputs]
        node = helper.make_node(kind, names, [output], name=output)
        pairs = sorted(attributes.items())
        node.attribute.extend(helper.make_attribute(key, value) for key, value in pairs)
        self.nodes.append(node)

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

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def scalar(self, name: str, value: int) -> str:
        """Write a whole number without axes."""
        self.constants[name] = np.array(value, np.int64)
        return name

    def operand(self, value: Operand, name: str, *, whole: bool) -> fx.Node | str:
        """Return a node as it is; write a number as a constant of its partner's type."""
        if isinstance(value, fx.Node):
            return value
        return self.integers(name, [int(value)]) if whole else self.number(name, value)

    def is_whole(self, *values: object) -> bool:
        """Tell whether any of these is a node of whole numbers."""
        return any(isinstance(value, fx.Node) and value in self.whole for value in values)

    def follow(self, node: fx.Node, x: fx.Node) -> None:
        """Note that a node has the type of `x`, whose numbers it only moves."""
        if x in self.whole:
            self.whole.add(node)

    def _name(self, value: object, consumer: str) -> str:
        if isinstance(value, fx.Node):
            return value.name
        if isinstance(value, str):
            return value
        name = f"{consumer}.factor"
        self.constants[name] = np.array(value, np.float32)
        return name
