"""Exported graphs: what is in them, and that a wrong one never gets its name."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest
import torch

from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import VerificationError
from srcli.loading import load
from srcli.registry import MODELS, check_scale, get_model

to_onnx = importlib.import_module("srcli.export.to_onnx")
verify = importlib.import_module("srcli.export.verify")
SIZES = [(1, 24, 24), (2, 17, 11), (1, 31, 45), (1, 2, 7)]
VARIANTS = [(spec.name, scale) for spec in MODELS for scale in spec.scales]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Any model and scale with weights drawn at random, as a user's own checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name, scale):
        torch.manual_seed(7)
        file = folder / f"{name}-x{scale}.pth"
        if not file.exists():
            torch.save(get_model(name).build(scale).state_dict(), file)
        return load(name, scale, task="denoise" if scale == 1 else "upscale", weights=file)

    return make


@pytest.mark.parametrize(("name", "scale"), VARIANTS)
def test_graph_computes_the_published_network(untrained, tmp_path, name, scale):
    model = untrained(name, scale)
    to_onnx.export_verified(model, tmp_path / "net.onnx")
    session = OnnxRuntimeSession(tmp_path / "net.onnx", SessionOptions())
    published = model.published()
    for count, height, width in SIZES:
        if min(height, width) < model.geometry.minimum:
            continue
        batch = np.random.default_rng(height).random((count, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = published(torch.from_numpy(batch)).numpy()
        assert np.abs(session(batch) - expected).max() < model.spec.tolerance


@pytest.mark.parametrize(("name", "scale"), VARIANTS)
def test_graph_is_valid_and_lean(untrained, name, scale):
    graph = to_onnx.to_onnx(untrained(name, scale))
    onnx.checker.check_model(graph, full_check=True)
    kinds = {node.op_type for node in graph.graph.node}
    assert "Resize" not in kinds
    assert not {"Shape", "Gather", "Reshape", "Unsqueeze"} & kinds
    last = [node for node in graph.graph.node if node.op_type == "Conv"][-2:]
    outputs = {t.name: t.dims[0] for t in graph.graph.initializer}
    assert 13 in {outputs[node.input[1]] for node in last}


def test_same_weights_same_bytes():
    first, second = (
        to_onnx.to_onnx(load("lapar-c", 4)).SerializeToString(deterministic=True) for _ in "ab"
    )
    assert first == second


def test_facts_are_inside():
    model = load("lapar-c", 3)
    graph = to_onnx.to_onnx(model)
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert facts["srcli.model"] == "lapar-c"
    assert facts["srcli.scale"] == "3"
    assert facts["srcli.weights_sha256"] == model.weights.sha256
    assert facts["srcli.licence"] == "Apache-2.0"


def test_no_paths_are_inside():
    content = to_onnx.to_onnx(load("lapar-c", 2)).SerializeToString()
    for trace in (b"site-packages", b".py", b"/home", b"/root", b"network.py"):
        assert trace not in content


def test_a_wrong_graph_gets_no_name(tmp_path, monkeypatch):
    """One weight of the exported file is off by a little."""
    right = to_onnx.to_onnx

    def spoiled(model):
        graph = right(model)
        weights = next(t for t in graph.graph.initializer if t.name == "taps.bias")
        values = onnx.numpy_helper.to_array(weights).copy()
        values[12] += 1e-3
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        return graph

    monkeypatch.setattr(to_onnx, "to_onnx", spoiled)
    with pytest.raises(VerificationError, match="onnx form differs"):
        to_onnx.export_verified(load("lapar-c", 2), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(verify.OnnxRuntimeSession, "__call__", lambda self, batch: batch * np.nan)
    with pytest.raises(VerificationError):
        to_onnx.export_verified(load("lapar-c", 2), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_check_scale_accepts_all_variants():
    for name, scale in VARIANTS:
        check_scale(get_model(name), scale, "deblock" if scale == 1 else "upscale")
