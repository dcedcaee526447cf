"""Graphs that compute in 8 or 16 bits."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from srcli.backends import get_backend
from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.checkpoints.shipped import shipped_weights
from srcli.errors import BackendError, UsageError, VerificationError
from srcli.loading.model import load
from srcli.models.registry import get_model
from srcli.quality.metrics import crop_border, luma, psnr

to_onnx = importlib.import_module("srcli.export.to_onnx")
OPTIONS = to_onnx.OnnxOptions(precision="int8")
SHIPPED = [(2, "upscale"), (3, "upscale"), (4, "upscale"), (1, "denoise"), (1, "deblock")]
EIGHT_BITS = get_model("lapar-c").eight_bits


@pytest.fixture(scope="module")
def graph():
    return to_onnx.to_onnx(load("lapar-c", 4), OPTIONS)


def test_the_chosen_convolutions_read_8_bits(graph):
    onnx.checker.check_model(graph, full_check=True)
    makers = {output: node for node in graph.graph.node for output in node.output}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    quantised = set()
    for node in graph.graph.node:
        if node.op_type != "Conv":
            continue
        kernel = makers.get(node.input[1])
        if kernel is None:
            continue
        assert kernel.op_type == "DequantizeLinear"
        assert weights[kernel.input[0]].dtype == np.int8
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        quantised.add(kernel.input[0].split(".")[0])
    assert quantised == {"up", "mix", "merge", "taps"}
    assert f"{EIGHT_BITS.layers[0]}weight" not in weights  # nothing is there twice


def test_pixels_are_shuffled_in_8_bits(graph):
    makers = {output: node for node in graph.graph.node for output in node.output}
    (shuffle,) = (
        node
        for node in graph.graph.node
        if node.op_type == "DepthToSpace" and "dequantized" in node.input[0]
    )
    assert makers[shuffle.input[0]].op_type == "DequantizeLinear"


def test_same_weights_same_bytes(graph):
    again = to_onnx.to_onnx(load("lapar-c", 4), OPTIONS)
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize(("scale", "task"), SHIPPED)
def test_what_is_lost(photograph, backend, scale, task):
    if reason := get_backend(backend).unavailable():
        pytest.skip(str(reason))
    model = load("lapar-c", scale, task=task)
    whole, eighth = (
        get_backend(backend).open(model, SessionOptions(precision=precision))
        for precision in ("fp32", "int8")
    )
    color = photograph[20:84, 30:110].astype(np.float32).transpose(2, 0, 1)[None] / 255
    noise = np.random.default_rng(1).integers(0, 2, (1, 3, 40, 40)).astype(np.float32)
    expected, actual = (np.clip(session(color), 0, 1) for session in (whole, eighth))
    assert not np.array_equal(expected, actual)
    assert psnr(255 * expected, 255 * actual) > 48
    for picture in (color, noise):
        expected, actual = (np.clip(session(picture), 0, 1) for session in (whole, eighth))
        assert np.abs(expected - actual).max() <= EIGHT_BITS.tolerance


SIDE = 48


def _marks(weights):
    """Networks for x3 are those for x2 and x4 but for their ends."""
    if weights.any_scale and weights.scale > 2:
        return pytest.mark.exhaustive
    return pytest.mark.slow if weights.scale == 3 and weights.model != "lapar-c" else ()


# In half precision rounding alone moves the PSNR of one picture by up to 0.006 dB, either way.
SHORT = [
    pytest.param("fp16", w.model, w.scale, 0.005, marks=_marks(w))
    for w in shipped_weights()
    if 1 < w.scale <= 4  # there are no pictures for x8
    and w.kind == "clean"
    and get_model(w.model).half_tolerance is not None
    and "Set5" in w.scores
] + [("int8", "lapar-c", 4, 0.02)]


@pytest.mark.parametrize(("precision", "name", "scale", "decibels"), SHORT)
def test_scores_on_set5(shared, tmp_path, precision, name, scale, decibels):
    """The mean PSNR changes by no more than that, and pixels by no more than is allowed."""
    model = load(name, scale)
    sessions = []
    for kind in ("fp32", precision):
        options = to_onnx.OnnxOptions(precision=kind)
        (tmp_path / f"{kind}.onnx").write_bytes(to_onnx.to_onnx(model, options).SerializeToString())
        sessions.append(OnnxRuntimeSession(tmp_path / f"{kind}.onnx", SessionOptions()))
    scores = []
    for file in sorted((shared / "data" / "eval" / "Set5" / "HR").iterdir()):
        high = np.asarray(Image.open(file).convert("RGB"))
        with Image.open(file.parents[1] / f"LRx{scale}" / file.name) as picture:
            low = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
        high = high[: scale * low.shape[2]]  # not all sides are multiples of 3
        low = low[..., -SIDE:, :SIDE]  # of whole pictures ASDN alone would take minutes
        whole, short = (session(low)[0].transpose(1, 2, 0) for session in sessions)
        assert np.abs(whole - short).max() <= model.spec.tolerance_for(precision)
        wanted = crop_border(luma(high[-whole.shape[0] :, : whole.shape[1]]), scale)
        rounded = [np.clip(np.rint(255 * picture), 0, 255) for picture in (whole, short)]
        scores.append([psnr(crop_border(luma(picture), scale), wanted) for picture in rounded])
    assert len(scores) == 5
    whole_score, short_score = np.mean(scores, axis=0)
    assert whole_score > 31
    assert abs(whole_score - short_score) <= decibels


def test_one_size_only(tmp_path):
    options = to_onnx.OnnxOptions(precision="int8", size=(40, 52))
    to_onnx.export_verified(load("lapar-c", 2), tmp_path / "net.onnx", options)
    graph = onnx.load(tmp_path / "net.onnx")
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim][2:] == [40, 52]


def test_steps_that_are_too_coarse_are_found(tmp_path, monkeypatch):
    """Steps from a dark picture: everything bright saturates."""
    dark = np.full((1, 3, 24, 24), 0.01, np.float32)
    monkeypatch.setattr(to_onnx, "calibration_pictures", lambda size: iter([dark]))
    with pytest.raises(VerificationError, match="onnx form differs"):
        to_onnx.export_verified(load("lapar-c", 4), tmp_path / "net.onnx", OPTIONS)
    assert not list(tmp_path.iterdir())


def test_models_that_do_not_offer_it(tmp_path):
    import torch

    file = tmp_path / "x.pth"
    torch.save(get_model("awsrn-sd").build(2).state_dict(), file)
    with pytest.raises(UsageError, match="not offered in 8 bits"):
        to_onnx.to_onnx(load("awsrn-sd", 2, weights=file), OPTIONS)


def test_torch_says_who_computes_in_8_bits():
    with pytest.raises(BackendError, match="--backend openvino"):
        get_backend("torch").open(load("lapar-c", 2), SessionOptions(precision="int8"))


def test_the_command(srcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = srcli("export", "-s", 2, "--int8")
    assert code == 0, err
    assert "lapar-c-x2-int8.onnx" in out
    facts = {e.key: e.value for e in onnx.load("lapar-c-x2-int8.onnx").metadata_props}
    assert facts["srcli.precision"] == "int8"
    for other in ("--fp16", "--trt"):
        code, _, err = srcli("export", "-s", 3, "--int8", other)
        assert code == 2 and "--int8 makes ONNX files for CPUs" in err
