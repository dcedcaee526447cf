"""What is particular to OpenVINO: compiled shapes, and small pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from srcli.backends import get_backend, openvino
from srcli.backends.base import SessionOptions
from srcli.backends.openvino_graph import gather_pixels
from srcli.loading import load

SMALL, LARGE = (1, 3, 19, 23), (1, 3, 20, 60)


@pytest.fixture
def session(monkeypatch):
    if reason := get_backend("openvino").unavailable():
        pytest.skip(reason)
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
    """Also where there are more of them than lanes, and shapes drop out and come back."""
    backend, model = get_backend(name), load("lapar-c", 2)
    monkeypatch.setattr(openvino, "SMALL", 1000)
    monkeypatch.setattr(openvino, "MAX_COMPILED", 2)
    batches = [picture(shape) for shape in (SMALL, LARGE, (1, 3, 40, 30), (1, 3, 31, 41)) * 3]
    alone = backend.open(model, SessionOptions(threads=2))
    shared = backend.open(model, SessionOptions(threads=2, lanes=2))
    with ThreadPoolExecutor(3) as callers:
        for batch, result in zip(batches, callers.map(shared, batches), strict=True):
            np.testing.assert_array_equal(result, alone(batch))
    alone.close()
    shared.close()


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


def shuffled(path, *, relu=False, bias=True, users=1, groups=1):
    """A convolution and a shuffle that doubles the sides; other users read the convolution too."""
    rng = np.random.default_rng(1)
    weight = rng.random((12, 4 // groups, 3, 3)).astype(np.float32)
    constants = {"weight": weight, "bias": rng.random(12).astype(np.float32)}
    inputs = ["x", "weight", *(["bias"] if bias else [])]
    nodes = [
        helper.make_node("Conv", inputs, ["made"], pads=[1, 1, 1, 1], group=groups),
        *([helper.make_node("Relu", ["made"], ["kept"])] if relu else []),
        helper.make_node(
            "DepthToSpace", ["kept" if relu else "made"], ["y"], blocksize=2, mode="CRD"
        ),
        *(helper.make_node("Relu", ["made"], [f"z{index}"]) for index in range(1, users)),
    ]
    size = ["n", None, "h", "w"]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name in ("y", *(f"z{index}" for index in range(1, users)))
    ]
    graph = helper.make_graph(
        nodes,
        "shuffled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        values,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, 1),
        ({"relu": True}, 1),
        ({"bias": False}, 1),
        ({"users": 2}, 0),  # the other one needs the channels as they were
        ({"groups": 2}, 0),
    ],
)
def test_only_what_no_other_reads_is_put_in_another_order(tmp_path, changes, changed):
    core = pytest.importorskip("openvino").Core()
    file = shuffled(tmp_path / "shuffled.onnx", **changes)
    before, after = core.read_model(file), core.read_model(file)
    assert gather_pixels(after) == changed
    batch = np.random.default_rng(2).random((2, 4, 5, 7), np.float32)
    expected, found = run(core, before, batch), run(core, after, batch)
    for index in range(len(expected)):
        np.testing.assert_allclose(found[index], expected[index], atol=1e-6)
