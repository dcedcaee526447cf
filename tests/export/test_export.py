"""Exported graphs: what is in them, and that a wrong one never gets its name."""

from __future__ import annotations

import importlib
import json

import numpy as np
import onnx
import pytest
import torch
from support.random_weights import untrained_model

from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import SrcliError, VerificationError
from srcli.loading.model import load
from srcli.models.registry import MODELS, check_scale, get_model

to_onnx = importlib.import_module("srcli.export.to_onnx")
verify = importlib.import_module("srcli.export.verify")
SIZES = [(1, 24, 24), (2, 17, 11), (1, 31, 45), (1, 2, 7)]
COST = 4e8  # multiply-adds of a published network that a test may spend on one picture


def cost(spec, scale, pixels):
    return spec.multiply_adds(scale).published_form * scale**2 * pixels


# Networks that match patches meet near ties with random weights; their own tests export them. For
# the 22 million weights of ASDN in its paper's size the smaller size of the same network stands.
VARIANTS = [
    (spec.name, scale)
    for spec in MODELS
    for scale in spec.scales
    if not spec.name.startswith("hpinet") and spec.parameters(scale) < 10e6
]
LAPAR = [variant for variant in VARIANTS if variant[0].startswith("lapar")]


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """No crops that take seconds."""
    monkeypatch.setattr(verify, "AFFORDABLE", COST)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Any model and scale with weights drawn at random, as a user's own checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    return lambda name, scale: untrained_model(name, scale, folder, seed=7)


@pytest.mark.parametrize(("name", "scale"), VARIANTS)
def test_graph_computes_the_published_network(untrained, tmp_path, name, scale):
    model = untrained(name, scale)
    to_onnx.export_verified(model, tmp_path / "net.onnx")
    session = OnnxRuntimeSession(tmp_path / "net.onnx", SessionOptions())
    published = model.published_network()
    for count, height, width in SIZES:
        too_dear = cost(model.spec, scale, count * height * width) > COST
        if min(height, width) < model.geometry.minimum or too_dear:
            continue
        batch = np.random.default_rng(height).random((count, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = published(torch.from_numpy(batch)).numpy()
        assert np.abs(session(batch) - expected).max() < model.spec.tolerance


@pytest.mark.parametrize(("name", "scale"), LAPAR)
def test_graph_is_valid_and_lean(untrained, name, scale):
    graph = to_onnx.to_onnx(untrained(name, scale))
    onnx.checker.check_model(graph, full_check=True)
    kinds = {node.op_type for node in graph.graph.node}
    assert "Resize" not in kinds
    assert not {"Shape", "Reshape", "Unsqueeze"} & kinds
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

    def spoiled(model, options):
        graph = right(model, options)
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


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("report", "says"), [("there.json", "exists"), ("x.onnx", "own report")])
def test_a_report_replaces_nothing(srcli, here, report, says):
    (here / "there.json").write_text("mine")
    code, _, err = srcli("export", "-s", 2, "-o", "x.onnx", "--report", report)
    assert (code, says in err) == (2, True), err
    assert {path.name: path.read_text() for path in here.iterdir()} == {"there.json": "mine"}


def test_export_writes_a_verified_file(srcli, here):
    code, out, _ = srcli("export", "-m", "lapar-c", "-s", 2, "--report", "report.json", "--json")
    assert code == 0
    report = json.loads(out)
    assert report == json.loads((here / "report.json").read_text())
    assert {c["form"] for c in report["comparisons"]} == {"fused", "onnx"}
    assert all(c["difference"] < 1e-5 for c in report["comparisons"])
    onnx.checker.check_model(here / "lapar-c-x2.onnx", full_check=True)


def test_export_of_the_default_model_is_that_of_upscale(srcli, here):
    assert srcli("export")[0] == 0
    assert [p.name for p in here.iterdir()] == ["lapar-c-x4.onnx"]


@pytest.mark.parametrize(
    ("name", "scale"),
    [("lapar-c", 2), ("lapar-c", 3), ("lapar-c", 4), ("lapar-b", 3), ("lapar-a", 4)],
)
def test_half_precision_stays_within_a_grey_level(srcli, here, name, scale, photograph):
    assert srcli("export", "-m", name, "-s", scale, "--fp16")[0] == 0
    file = here / f"{name}-x{scale}-fp16.onnx"
    graph = onnx.load(file)
    onnx.checker.check_model(graph, full_check=True)
    kinds = {t.data_type for t in graph.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    batch = np.ascontiguousarray(photograph[:64, :64].transpose(2, 0, 1)[None], np.float32) / 255
    with torch.inference_mode():
        expected = load(name, scale).published_network()(torch.from_numpy(batch)).numpy()
    actual = OnnxRuntimeSession(file, SessionOptions())(batch)
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() < 1 / 255


def test_a_static_file_takes_one_size(srcli, here):
    assert srcli("export", "-s", 2, "--size", "40x24")[0] == 0
    graph = onnx.load(here / "lapar-c-x2.onnx").graph
    sides = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    assert sides[2:] == [48, 80]


@pytest.mark.parametrize("opset", [18, 21])
def test_other_opsets(srcli, here, opset):
    assert srcli("export", "-s", 2, "--opset", opset)[0] == 0
    assert onnx.load(here / "lapar-c-x2.onnx").opset_import[0].version == opset


def test_export_mistakes_leave_nothing(srcli, here):
    for arguments, code, says in [
        (["--opset", 9], 2, "opset 9"),
        (["-m", "awsrn-m", "-s", 3], 3, "--weights FILE"),
        (["--onnx", "--trt", "-o", "x.onnx"], 2, "one file"),
    ]:
        actual, _, err = srcli("export", *arguments)
        assert (actual, says in err) == (code, True), err
        assert list(here.iterdir()) == []


def test_export_replaces_nothing_unasked(srcli, here):
    (here / "lapar-c-x4.onnx").write_text("mine")
    assert srcli("export")[0] == 2
    assert (here / "lapar-c-x4.onnx").read_text() == "mine"
    assert srcli("export", "--overwrite")[0] == 0


def test_a_full_disk_leaves_nothing(here, monkeypatch):
    """Writing fails in the middle."""
    from pathlib import Path

    def full(self, data):
        with self.open("wb") as stream:
            stream.write(data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SrcliError, match="No space left"):
        to_onnx.export_verified(load("lapar-c", 2), here / "net.onnx")
    assert list(here.iterdir()) == []


def test_engines_are_built_from_the_command_line(srcli, here):
    pytest.importorskip("tensorrt_rtx_libs", reason="needs the TensorRT-RTX wheels")
    code, out, err = srcli("export", "--trt", "--fp16", "-s", 2, "--max-shape", "640x480")
    assert code == 0, err
    assert "lapar-c-x2-fp16.engine" in out
    assert "trtexec" in err or "tensorrt_rtx" in err
    sidecar = json.loads((here / "lapar-c-x2-fp16.engine.json").read_text())
    assert sidecar["precision"] == "fp16"
    assert sidecar["tags"]["weights_sha256"] == load("lapar-c", 2).weights.sha256


def test_without_tensorrt_one_line_says_what_to_install(srcli, here, monkeypatch):
    import sys

    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = srcli("export", "--trt")
    assert (code, out) == (3, "")
    assert err.startswith("error: ")
    assert "pip install" in err
    assert list(here.iterdir()) == []
