"""Convolutions by parts: the same result, nothing put together."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.random_weights import untrained_model

from srcli.backends.base import SessionOptions
from srcli.backends.filters.cpu import shortest_graph
from srcli.backends.ort import OnnxRuntimeBackend, OnnxRuntimeSession
from srcli.export.parts import by_parts


def run(graph, tmp_path, batch):
    onnx.checker.check_model(graph, full_check=True)
    (tmp_path / "graph.onnx").write_bytes(graph.SerializeToString())
    session = OnnxRuntimeSession(tmp_path / "graph.onnx", SessionOptions())
    return session(batch)


def operators(graph):
    return [node.op_type for node in graph.graph.node]


def convolution_of_parts(widths, *, bias=True, groups=1, extra=()):
    """A graph that cuts its input into parts, puts these together in reverse, and convolves."""
    channels = sum(widths)
    generator = np.random.default_rng(channels)
    constants = {
        "weights": generator.standard_normal((6, channels // groups, 3, 3)),
        "bias": generator.standard_normal(6),
    }
    parts = [f"part{index}" for index in range(len(widths))]
    nodes = [
        helper.make_node("Split", ["input", "widths"], parts, axis=1),
        helper.make_node("Concat", parts[::-1], ["joined"], axis=1),
        helper.make_node(
            "Conv",
            ["joined", "weights", "bias"][: 3 if bias else 2],
            ["output"],
            pads=[1] * 4,
            group=groups,
        ),
        *extra,
    ]
    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in constants.items()
        if bias or name != "bias"
    ]
    initializers.append(numpy_helper.from_array(np.array(widths), "widths"))
    ends = {"input": channels, extra[-1].output[0] if extra else "output": 6}
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count, "h", "w"])
        for name, count in ends.items()
    ]
    graph = helper.make_graph(nodes, "g", images[:1], images[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@settings(deadline=None, max_examples=25)
@given(widths=st.lists(st.integers(1, 9), min_size=2, max_size=6), bias=st.booleans())
def test_a_sum_gives_the_same(tmp_path_factory, widths, bias):
    folder = tmp_path_factory.mktemp("parts")
    graph = convolution_of_parts(widths, bias=bias)
    parted = by_parts(graph)
    assert operators(parted).count("Conv") == len(widths)
    assert "Concat" not in operators(parted)
    batch = np.random.default_rng(1).standard_normal((2, sum(widths), 5, 7)).astype(np.float32)
    expected, found = (run(one, folder, batch) for one in (graph, parted))
    assert np.abs(expected - found).max() <= 1e-5 * np.abs(expected).max()


def test_groups_are_left_alone():
    graph = convolution_of_parts([2, 2, 2], groups=2)
    assert by_parts(graph) == graph


def test_what_something_else_reads_stays(tmp_path):
    """The Concat, for an average of its channels."""
    extra = (
        helper.make_node("ReduceMean", ["joined"], ["mean"], keepdims=1),
        helper.make_node("Add", ["output", "mean"], ["sum"]),
    )
    graph = convolution_of_parts([2, 3], extra=extra)
    parted = by_parts(graph)
    assert operators(parted).count("Concat") == 1
    assert operators(parted).count("Conv") == 2
    batch = np.random.default_rng(1).standard_normal((1, 5, 6, 4)).astype(np.float32)
    expected, found = (run(one, tmp_path, batch) for one in (graph, parted))
    assert np.abs(expected - found).max() < 1e-5


def test_dense_models_run_by_parts_on_cpus(tmp_path):
    """ASDN does so in `test_memory`."""
    model = untrained_model("fsdn-base", 2, tmp_path)
    graph = onnx.load(shortest_graph(model, "fp32"))
    assert "Concat" not in operators(graph)
    assert {entry.key for entry in graph.metadata_props} >= {"srcli.weights_sha256"}
    names = [tensor.name for tensor in graph.graph.initializer]
    read = {name for node in graph.graph.node for name in node.input}
    assert read.issuperset(names)
    session = OnnxRuntimeBackend().open(model, SessionOptions())
    assert session.memory_share < 0.5
    batch = np.random.default_rng(0).random((1, 3, 12, 14), np.float32)
    with torch.inference_mode():
        expected = model.published_network()(torch.from_numpy(batch)).numpy()
    assert np.abs(session(batch) - expected).max() < model.spec.tolerance


def test_others_do_not(tmp_path):
    model = untrained_model("awsrn-sd", 2, tmp_path)
    assert model.cpu_graph() == model.graph()
    session = OnnxRuntimeBackend().open(model, SessionOptions())
    assert session.memory_share == 1
