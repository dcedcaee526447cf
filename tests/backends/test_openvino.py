"""What is particular to OpenVINO: compiled shapes, and small pictures."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from srcli.backends import get_backend
from srcli.backends.base import SessionOptions
from srcli.backends.openvino import session as openvino
from srcli.backends.openvino.graph import gather_pixels
from srcli.loading.model import load

SAMPLE = Path(__file__).parents[2] / "export" / "sample.png"
SMALL, LARGE = (1, 3, 19, 23), (1, 3, 20, 60)


@pytest.fixture
def session(monkeypatch):
    if reason := get_backend("openvino").unavailable():
        pytest.skip(str(reason))
    monkeypatch.setattr(openvino, "SMALL", 1000)
    with_shapes = get_backend("openvino").open(load("lapar-c", 2), SessionOptions(threads=1))
    yield with_shapes
    with_shapes.close()


def picture(shape):
    return np.random.default_rng(shape[3]).random(shape, np.float32)


def test_small_pictures_go_to_onnx_runtime(session):
    for shape in (SMALL, (1, 3, 8, 9), (2, 3, 20, 20)):
        assert session(picture(shape)).shape == (shape[0], 3, 2 * shape[2], 2 * shape[3])
    assert not session._compiled
    session(picture(LARGE))
    assert list(session._compiled) == [LARGE]


def test_both_compute_the_same(session, monkeypatch):
    shared = session(picture(SMALL)).copy()
    monkeypatch.setattr(openvino, "SMALL", 0)
    own = session(picture(SMALL))
    assert list(session._compiled) == [SMALL]
    np.testing.assert_allclose(own, shared, atol=1e-5)


def test_a_result_does_not_depend_on_what_came_before(session):
    first = [session(picture(shape)).copy() for shape in (SMALL, LARGE)]
    for width in range(30, 30 + openvino.MAX_COMPILED + 1):
        session(picture((1, 3, 40, width)))
        session(picture((1, 3, 10, width)))
    assert len(session._compiled) == openvino.MAX_COMPILED
    again = [session(picture(shape)) for shape in (SMALL, LARGE)]
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["openvino", "ort"])
def test_calls_at_the_same_time_give_what_single_ones_give(name, monkeypatch):
    """Also where more calls come than may run at once, and shapes drop out and come back."""
    backend, model = get_backend(name), load("lapar-c", 2)
    monkeypatch.setattr(openvino, "SMALL", 1000)
    monkeypatch.setattr(openvino, "MAX_COMPILED", 2)
    batches = [picture(shape) for shape in (SMALL, LARGE, (1, 3, 40, 30), (1, 3, 31, 41)) * 3]
    alone = backend.open(model, SessionOptions(threads=2))
    shared = backend.open(model, SessionOptions(threads=2, concurrency=2))
    with ThreadPoolExecutor(3) as callers:
        for batch, result in zip(batches, callers.map(shared, batches), strict=True):
            np.testing.assert_allclose(result, alone(batch), atol=1e-6)
    alone.close()
    shared.close()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("name", "scale"), [("lapar-a", 4), ("lapar-c", 2), ("awsrn-sd", 4)])
def test_short_types_stay_within_their_tolerance(photograph, name, scale, precision):
    backend, model = get_backend("openvino"), load(name, scale)
    if backend.unavailable() or backend.declines(model.spec, precision):
        pytest.skip("not on this machine")
    batch = photograph[:80, :64].transpose(2, 0, 1)[None].astype(np.float32) / 255
    with torch.inference_mode():
        expected = model.published_network()(torch.from_numpy(batch)).numpy()
    session = backend.open(model, SessionOptions(precision=precision, threads=1))
    found = session(batch)
    session.close()
    assert 1e-4 < np.abs(found - expected).max() <= model.spec.tolerance_for(precision)


def test_a_type_that_the_processor_does_not_have_is_declined(srcli, monkeypatch, tmp_path):
    if reason := get_backend("openvino").unavailable():
        pytest.skip(str(reason))
    monkeypatch.setattr(openvino, "_capabilities", lambda: frozenset({"FP32", "INT8"}))
    arguments = ("upscale", SAMPLE, "-o", tmp_path / "o.png", "--backend", "openvino")
    for precision in ("fp16", "bf16"):
        code, _, err = srcli(*arguments, "--precision", precision)
        assert code == 3
        assert f"this processor does not compute in {precision}. Leave out --precision" in err
    assert srcli(*arguments, "-m", "lapar-c", "--precision", "int8")[0] == 0


def run(core, graph, batch):
    return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_channels_in_another_order_give_the_same_picture(scale, precision):
    core = pytest.importorskip("openvino").Core()
    file = load("lapar-c", scale).graph(precision)
    before, after = core.read_model(file), core.read_model(file)
    assert gather_pixels(after) == 1
    batch = picture((2, 3, 21, 18))
    np.testing.assert_array_equal(run(core, after, batch)[0], run(core, before, batch)[0])


def rows(*shape):
    return np.random.default_rng(len(shape)).random(shape).astype(np.float32)


CONSTANTS = {
    "weight": rows(12, 4, 3, 3),
    "bias": rows(12),
    "half": rows(12, 2, 3, 3),
    "gate": rows(12, 4, 1, 1),
    "planes": rows(1, 12, 1, 1),
    "one": rows(1),
}
CONV = "made = Conv(x, weight, bias)"
SHUFFLE = "y = DepthToSpace(made)"


def graph_of(path, lines):
    """A graph from lines such as `made = Conv(x, weight)`; its outputs are y and z."""
    nodes = []
    for line in lines:
        target, kind, inputs = re.fullmatch(r"(\w+) = (\w+)\((.*)\)", line).groups()
        settings = {"DepthToSpace": {"blocksize": 2, "mode": "CRD"}}.get(kind, {})
        if kind == "Conv":
            side = CONSTANTS[inputs.split(", ")[1]].shape[2]
            settings = {"pads": [side // 2] * 4, "group": 2 if "half" in inputs else 1}
        nodes.append(helper.make_node(kind, inputs.split(", "), [target], **settings))
    outputs = [name for name in "yz" if any(name in node.output for node in nodes)]
    graph = helper.make_graph(
        nodes,
        "shuffled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [
            helper.make_tensor_value_info(o, TensorProto.FLOAT, ["n", None, "H", "W"])
            for o in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        ([CONV, SHUFFLE], 1),
        (["made = Conv(x, weight)", SHUFFLE], 1),
        ([CONV, "kept = Relu(made)", "y = DepthToSpace(kept)"], 1),
        ([CONV, "kept = Mul(made, one)", "y = DepthToSpace(kept)"], 1),
        # What else reads the channels, or has something for each of them, needs them as they were.
        ([CONV, SHUFFLE, "z = Relu(made)"], 0),
        ([CONV, "kept = Mul(made, planes)", "y = DepthToSpace(kept)"], 0),
        ([CONV, "kept = Sub(made, planes)", "y = DepthToSpace(kept)"], 0),
        (["made = Conv(x, weight)", "kept = Add(made, planes)", "y = DepthToSpace(kept)"], 0),
        ([CONV, "g = Conv(x, gate)", "kept = Mul(made, g)", "y = DepthToSpace(kept)"], 0),
        ([CONV, "other = Conv(x, weight)", SHUFFLE, "z = DepthToSpace(other)"], 0),
        ([CONV, SHUFFLE, "z = Conv(x, gate, bias)"], 0),
        (["made = Conv(x, half)", SHUFFLE], 0),
    ],
)
def test_only_what_no_other_reads_is_put_in_another_order(tmp_path, lines, changed):
    core = pytest.importorskip("openvino").Core()
    file = graph_of(tmp_path / "shuffled.onnx", lines)
    before, after = core.read_model(file), core.read_model(file)
    assert gather_pixels(after) == changed
    batch = np.random.default_rng(2).random((2, 4, 5, 7), np.float32)
    expected, found = run(core, before, batch), run(core, after, batch)
    for index in range(len(expected)):
        np.testing.assert_allclose(found[index], expected[index], atol=1e-6)
