"""Adapt ONNX graphs from other programs to our calling convention, or say why they cannot run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.errors import BackendError, WeightsError, first_line

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_SINGLE, _HALF = 1, 10  # `TensorProto.FLOAT` and `.FLOAT16`
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of the operators that ONNX Runtime brings."""


def adapted(file: Path) -> bytes:
    """Adapt a graph to our convention, and return it as the content of an ONNX file.

    It takes `srcli.input`, n x 3 x h x w, and gives `srcli.output`, both float32 RGB in [0, 1].
    Half precision at the border, channels last and networks for one plane are adapted.

    Raises:
        WeightsError: It does not take and give one picture.
    """
    model = _checked(file)
    border = _border(model.graph, file)
    _surround(model.graph, border, [a for make in _ADAPTERS if (a := make(border)) is not None])
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except ValueError as error:  # protobuf's limit
        raise WeightsError(
            f"{file}: is larger than 2 GB, which srcli does not run", "Use a smaller network."
        ) from error
    return content


@dataclass(frozen=True, slots=True)
class Border:
    """Input and output of a graph."""

    input: ValueInfoProto
    output: ValueInfoProto
    sides: tuple[int, ...]
    """Of the input, in its own order; 0 where any will do."""

    @property
    def channels_last(self) -> bool:
        """Tell whether it takes n x h x w x c."""
        return self.sides[3] in (1, 3) and self.sides[1] not in (1, 3)

    @property
    def planes(self) -> int:
        """Channels of a picture: 3, 1, or 0 where any number will do."""
        return self.sides[3] if self.channels_last else self.sides[1]

    @property
    def shape(self) -> list[int | str]:
        """Return what the adapted graph takes, n x 3 x h x w; a name where any size will do."""
        batch = self.sides[0]
        height, width = self.sides[1:3] if self.channels_last else self.sides[2:4]
        if self.planes == 1:  # three pictures of one plane are one of ours
            batch = 0 if batch % 3 else batch // 3
        return [batch or "batch", 3, height or "height", width or "width"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One node of ONNX with one input and one output."""

    operator: str
    constant: tuple[int, ...] | None = None
    """A second input of whole numbers."""

    attributes: Mapping[str, int | list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Remedy for one quirk of a graph: an operation before it, one after it, or both."""

    before: Operation | None = None
    after: Operation | None = None


def one_plane(border: Border) -> Adapter | None:
    """Give a network for one plane the three planes of a picture as three pictures."""
    if border.planes != 1:
        return None
    return Adapter(Operation("Reshape", (-1, 1, 0, 0)), Operation("Reshape", (-1, 3, 0, 0)))


def channels_last(border: Border) -> Adapter | None:
    """Move the channels behind height and width, and back."""
    if not border.channels_last:
        return None
    return Adapter(
        Operation("Transpose", attributes={"perm": [0, 2, 3, 1]}),
        Operation("Transpose", attributes={"perm": [0, 3, 1, 2]}),
    )


def half_input(border: Border) -> Adapter | None:
    """Convert the input to half precision."""
    if _element(border.input) != _HALF:
        return None
    return Adapter(before=Operation("Cast", attributes={"to": _HALF}))


def half_output(border: Border) -> Adapter | None:
    """Convert an output in half precision to single precision."""
    if _element(border.output) != _HALF:
        return None
    return Adapter(after=Operation("Cast", attributes={"to": _SINGLE}))


# From the outermost to the one next to the graph.
_ADAPTERS = (one_plane, channels_last, half_input, half_output)


def _checked(file: Path) -> ModelProto:
    import onnx

    try:
        model = onnx.load(file)
        if model.ir_version > onnx.IR_VERSION:
            raise WeightsError(
                f"{file}: is of ONNX's IR version {model.ir_version}, newer than the "
                f"{onnx.IR_VERSION} that is known here",
                "Update onnx and onnxruntime, or save the network with an older onnx.",
            )
        onnx.checker.check_model(model)
    except WeightsError:
        raise
    except Exception as error:  # protobuf's and onnx's own, which share no base class
        raise WeightsError(
            f"{file}: is no ONNX model ({first_line(error)})",
            "Get a whole copy of it, or use another.",
        ) from error
    return model


def _border(graph: GraphProto, file: Path) -> Border:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) < 1:
        raise WeightsError(f"{file}: takes {len(inputs)} inputs, not one picture", "Use another.")
    sides = tuple(d.dim_value or 0 for d in inputs[0].type.tensor_type.shape.dim)
    if len(sides) != 4:
        raise WeightsError(
            f"{file}: takes no batch of pictures ({len(sides)} dimensions)",
            "Use a network whose input is N x 3 x H x W.",
        )
    border = Border(inputs[0], graph.output[0], sides)
    if border.planes not in (0, 1, 3) or _element(border.input) not in (_SINGLE, _HALF):
        raise WeightsError(f"{file}: takes no RGB picture in floating point", "Use another.")
    return border


def _element(value: ValueInfoProto) -> int:
    """Return the type of a tensor's elements, as ONNX counts them."""
    return value.type.tensor_type.elem_type


def _surround(graph: GraphProto, border: Border, adapters: Sequence[Adapter]) -> None:
    """Put adapters around a graph, and give it our names and shapes."""
    from onnx.helper import make_tensor_value_info

    before = [adapter.before for adapter in adapters if adapter.before]
    after = [adapter.after for adapter in reversed(adapters) if adapter.after]
    nodes = [
        *_chain(graph, before, "srcli.input", border.input.name),
        *graph.node,
        *_chain(graph, after, border.output.name, "srcli.output"),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.remove(border.input)
    graph.input.insert(0, make_tensor_value_info("srcli.input", _SINGLE, border.shape))
    del graph.output[:]
    out: list[int | str] = ["batch", 3, "out_height", "out_width"]
    graph.output.append(make_tensor_value_info("srcli.output", _SINGLE, out))


def _chain(
    graph: GraphProto, operations: Sequence[Operation], first: str, last: str
) -> list[NodeProto]:
    """Return nodes that do one operation after the other, from the value `first` to `last`."""
    from onnx.helper import make_attribute, make_node
    from onnx.numpy_helper import from_array

    nodes, value = [], first
    for index, operation in enumerate(operations):
        inputs, output = [value], f"{first}.srcli.{index}"
        if operation.constant is not None:
            inputs.append(f"{output}.constant")
            graph.initializer.append(from_array(np.array(operation.constant, np.int64), inputs[-1]))
        node = make_node(operation.operator, inputs, [output])
        node.attribute.extend(make_attribute(*pair) for pair in operation.attributes.items())
        nodes.append(node)
        value = output
    return [*nodes, make_node("Identity", [value], [last])]


STANDARD_ONLY = "Export the network with standard operators only."


def not_loaded(file: Path, refusal: BackendError) -> WeightsError:
    """Return the error for a network that ONNX Runtime does not load; `refusal` has its reason."""
    import onnx

    said = refusal.problem
    model = onnx.load(file, load_external_data=False)
    own = {(function.domain, function.name) for function in model.functions}
    strange = sorted(
        {
            f"{node.op_type} of {node.domain}"
            for node in model.graph.node
            if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if strange:
        return WeightsError(
            f"{file}: uses operators that ONNX Runtime does not know ({', '.join(strange[:5])})",
            STANDARD_ONLY,
        )
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    if "opset" in said and (found := re.search(r"till opset (\d+)", said)):
        return WeightsError(
            f"{file}: is written in opset {opset}, this ONNX Runtime reads up to {found[1]}",
            "Update onnxruntime, or export the network with an older opset.",
        )
    if "IR version" in said and (found := re.search(r"max supported IR version: (\d+)", said)):
        return WeightsError(
            f"{file}: is of ONNX's IR version {model.ir_version}, this ONNX Runtime reads up to "
            f"{found[1]}",
            "Update onnxruntime, or save the network with an older onnx.",
        )
    if found := re.search(r"(\w+)\(-?\d+\) is not a registered function/op", said):
        return WeightsError(
            f"{file}: uses the operator {found[1]}, which this ONNX Runtime does not know in "
            f"opset {opset}",
            STANDARD_ONLY,
        )
    begun = said[0].lower() if said[1:2].islower() else said[0]
    return WeightsError(f"{file}: {begun}{said[1:]}", refusal.remedy)
