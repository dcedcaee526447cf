"""Adapt ONNX graphs from other programs to our calling convention, or say why they cannot run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from srcli.errors import BackendError, WeightsError, first_line

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of the operators that ONNX Runtime brings."""


def adapted(file: Path) -> bytes:
    """Adapt a graph to our convention: `input` n x 3 x h x w -> `output`, float32, RGB in [0, 1].

    Half precision at the border, channels last and networks for one plane are adapted.

    Raises:
        WeightsError: It does not take and give one picture.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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
        raise WeightsError(f"{file}: is no ONNX model ({first_line(error)}).") from error
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) < 1:
        raise WeightsError(f"{file}: takes {len(inputs)} inputs, not one picture", "Use another.")
    first, last = inputs[0], graph.output[0]
    sides = [d.dim_value or 0 for d in first.type.tensor_type.shape.dim]
    if len(sides) != 4:
        raise WeightsError(f"{file}: takes no batch of pictures ({len(sides)} dimensions).")
    channels_last = sides[3] in (1, 3) and sides[1] not in (1, 3)
    planes = sides[3] if channels_last else sides[1]
    kind = first.type.tensor_type.elem_type
    if planes not in (0, 1, 3) or kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise WeightsError(f"{file}: takes no RGB picture in floating point", "Use another.")

    before: list[Any] = []
    after: list[Any] = []

    def add(nodes: list[Any], operator: str, *values: str, **attributes: Any) -> str:
        output = f"srcli.{operator}.{len(before)}.{len(after)}"
        nodes.append(helper.make_node(operator, list(values), [output], **attributes))
        return output

    value, result = "srcli.input", last.name
    if planes == 1:
        graph.initializer.extend(
            numpy_helper.from_array(np.array(shape, np.int64), name)
            for name, shape in (("srcli.single", [-1, 1, 0, 0]), ("srcli.rgb", [-1, 3, 0, 0]))
        )
        value = add(before, "Reshape", value, "srcli.single")
    if channels_last:
        value = add(before, "Transpose", value, perm=[0, 2, 3, 1])
        result = add(after, "Transpose", result, perm=[0, 3, 1, 2])
    if kind == TensorProto.FLOAT16:
        value = add(before, "Cast", value, to=TensorProto.FLOAT16)
    if last.type.tensor_type.elem_type == TensorProto.FLOAT16:
        result = add(after, "Cast", result, to=TensorProto.FLOAT)
    if planes == 1:
        result = add(after, "Reshape", result, "srcli.rgb")
    before.append(helper.make_node("Identity", [value], [first.name]))
    after.append(helper.make_node("Identity", [result], ["srcli.output"]))

    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    batch = sides[0]
    height, width = sides[1:3] if channels_last else sides[2:4]
    if planes == 1 and batch:
        batch = 0 if batch % 3 else batch // 3
    shape: list[int | str | None] = [batch or "batch", 3, height or "height", width or "width"]
    graph.input.remove(first)
    graph.input.insert(0, helper.make_tensor_value_info("srcli.input", TensorProto.FLOAT, shape))
    del graph.output[:]
    out: list[int | str | None] = ["batch", 3, "out_height", "out_width"]
    graph.output.append(helper.make_tensor_value_info("srcli.output", TensorProto.FLOAT, out))
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except ValueError as error:  # protobuf's limit
        raise WeightsError(f"{file}: is larger than 2 GB, which srcli does not run.") from error
    return content


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
