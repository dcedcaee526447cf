"""Networks that are not ours: ONNX files of any making, and checkpoints that spandrel knows."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from srcli.backends import open_model
from srcli.backends.base import SessionOptions
from srcli.backends.eager import TorchSession
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import BackendError, DeclinedError, MissingPartError, WeightsError
from srcli.export.to_onnx import OnnxOptions, to_onnx
from srcli.loading.foreign import load_foreign
from srcli.loading.model import load
from srcli.pipeline.restorer import Restorer


def doubling(path, *, planes=3, channels_last=False, kind=TensorProto.FLOAT, size=None, batch="n"):
    """An ONNX file that blurs by 3x3 and doubles each pixel, as somebody else might write it."""
    height, width = size or ("h", "w")
    out_size = [2 * side if size else f"2{side}" for side in (height, width)]
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float16
    weight = np.zeros((planes, planes, 3, 3), dtype)
    weight[range(planes), range(planes)] = 1 / 9
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "weight"], ["soft"]),
        helper.make_node(
            "Resize", ["soft", "", "scales"], ["y"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
    ]  # fmt: skip
    source, target = "input", "output"
    if channels_last:
        nodes.insert(0, helper.make_node("Transpose", ["input"], ["x"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["y"], ["output"], perm=[0, 2, 3, 1]))
        shapes = [[batch, height, width, planes], [batch, *out_size, planes]]
    else:
        for node in nodes:
            node.input[:] = ["input" if name == "x" else name for name in node.input]
            node.output[:] = ["output" if name == "y" else name for name in node.output]
        shapes = [[batch, planes, height, width], [batch, planes, *out_size]]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info(source, kind, shapes[0])],
        [helper.make_tensor_value_info(target, kind, shapes[1])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def blurred(photograph):
    planes = photograph.transpose(2, 0, 1)[None].astype(np.float32) / 255
    padded = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = planes.shape[2:]
    soft = sum(
        padded[:, :, dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)
    )
    return (soft / 9).repeat(2, axis=2).repeat(2, axis=3)


KINDS = {
    "as ours": {},
    "one plane": {"planes": 1},
    "channels last": {"channels_last": True},
    "half": {"kind": TensorProto.FLOAT16},
    "one size": {"size": (48, 40), "batch": 1},
    "one size, one plane": {"size": (48, 40), "planes": 1},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_any_graph_of_pictures_runs(tmp_path, photograph, changes):
    model = load_foreign(doubling(tmp_path / "theirs.onnx", **changes))
    assert model.scale == 2
    picture = photograph[:90, :70]
    session = OnnxRuntimeSession(model.graph(), SessionOptions())
    restorer = Restorer(session=session, geometry=model.geometry, scale=2, tile=24)
    batch = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    allowed = 2e-3 if "kind" in changes else 1e-6
    restored, expected = restorer.restore(batch), blurred(picture)
    inside = (slice(None), slice(None), slice(None, -4), slice(None, -4))
    assert np.abs(restored - expected)[inside].max() < allowed


def test_upscale_with_a_foreign_graph(srcli, tmp_path, photograph):
    model = doubling(tmp_path / "theirs.onnx")
    Image.fromarray(photograph).save(tmp_path / "in.png")
    code, _, err = srcli("upscale", tmp_path / "in.png", "--model-file", model)
    assert code == 0, err
    with Image.open(tmp_path / "in_x2.png") as result:
        expected = np.rint(blurred(photograph)[0].transpose(1, 2, 0) * 255)
        assert np.abs(np.asarray(result, int) - expected).max() <= 1
    code, _, err = srcli("upscale", tmp_path / "in.png", "--model-file", model, "-s", 4)
    assert (code, "enlarged by 2, then by 2" in err) == (0, True)
    with Image.open(tmp_path / "in_x4.png") as result:
        assert result.size == (4 * photograph.shape[1], 4 * photograph.shape[0])


def no_graph(path):
    path.write_bytes(b"not a graph")


def two_inputs(path):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "abc"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "g", values[:2], values[2:]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )


def no_picture(path):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )


@pytest.mark.parametrize("write", [no_graph, two_inputs, no_picture])
def test_what_is_no_network_for_pictures_is_refused(srcli, tmp_path, photograph, write):
    write(tmp_path / "odd.onnx")
    Image.fromarray(photograph).save(tmp_path / "in.png")
    code, out, err = srcli("upscale", tmp_path / "in.png", "--model-file", tmp_path / "odd.onnx")
    assert (code, out) == (3, "")
    assert "odd.onnx" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "odd.onnx"]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_foreign(tmp_path / "none.onnx")


@pytest.fixture
def spandrel(monkeypatch):
    """spandrel, on a PyTorch for which there may be no torchvision: two of its networks want it."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in list(sys.modules):
            if name.partition(".")[0] == "torchvision":
                monkeypatch.delitem(sys.modules, name)
        functional = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = functional.rotate = functional.normalize = None
        for name in ("torchvision", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, functional.__name__, functional)
    return pytest.importorskip("spandrel", reason="needs srcli[spandrel]")


@pytest.fixture
def compact(tmp_path, spandrel):
    """Real-ESRGAN's compact architecture, filled with random weights, as a checkpoint."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    network = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    file = tmp_path / "compact.pth"
    torch.save({"params": network.state_dict()}, file)
    return file


def test_a_checkpoint_that_spandrel_knows(compact, photograph):
    model = load_foreign(compact)
    assert model.scale == 2
    assert model.geometry.tiling == "approximate"
    batch = np.ascontiguousarray(photograph.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    eager = TorchSession(model.network(), SessionOptions())
    whole = eager(batch)
    tiled = Restorer(session=eager, geometry=model.geometry, scale=2, tile=40).restore(batch)
    exported = OnnxRuntimeSession(model.graph(), SessionOptions())(batch)
    assert np.abs(tiled - whole).max() < 1e-5
    assert np.abs(exported - whole).max() < 1e-5
    with pytest.raises(BackendError, match="fp32"):
        model.graph("fp16")


def test_upscale_with_a_foreign_checkpoint(srcli, compact, photograph):
    picture = compact.with_name("in.png")
    Image.fromarray(photograph).save(picture)
    code, _, err = srcli("upscale", picture, "--model-file", compact)
    assert code == 0, err
    with Image.open(compact.with_name("in_x2.png")) as result:
        assert result.size == (320, 320)


def test_a_checkpoint_of_nothing_known(tmp_path, spandrel):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="spandrel knows no network"):
        load_foreign(tmp_path / "odd.pth")


def test_spandrel_that_cannot_be_loaded(monkeypatch, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"anything")
    monkeypatch.setattr("srcli.loading.foreign.importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(
        MissingPartError, match=r"cannot be loaded.*pip install 'srcli\[spandrel\]'"
    ):
        load_foreign(tmp_path / "x.pth")


def test_graphs_of_one_size_are_left_to_onnx_runtime(tmp_path, photograph):
    pytest.importorskip("openvino")
    file = tmp_path / "static.onnx"
    file.write_bytes(to_onnx(load("lapar-c", 2), OnnxOptions(size=(20, 24))).SerializeToString())
    model = load_foreign(file)
    with pytest.raises(DeclinedError, match="one size only"):
        open_model("openvino", model, SessionOptions())
    backend, session = open_model("auto", model, SessionOptions())
    assert backend.name == "ort"
    session.close()


def shifty(path, *, otherwise):
    """Doubles pictures without content, and enlarges others by `otherwise`."""
    body = [
        helper.make_graph(
            [helper.make_node("Resize", ["input", "", name], [f"y{name}"], mode="nearest")],
            name,
            [],
            [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, ["n", 3, "H", "W"])],
        )
        for name in ("two", "more")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["high"], keepdims=0),
        helper.make_node("ReduceMin", ["input"], ["low"], keepdims=0),
        helper.make_node("Equal", ["high", "low"], ["flat"]),
        helper.make_node("If", ["flat"], ["y"], then_branch=body[0], else_branch=body[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "shifty",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "H", "W"])],
        [
            numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), name)
            for name, scale in (("two", 2), ("more", otherwise))
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_network_is_probed_with_content(tmp_path):
    """faults.md 34: x2 on a flat picture, x5 on others."""
    with pytest.raises(WeightsError, match="by 2 or by 5, depending on"):
        load_foreign(shifty(tmp_path / "net.onnx", otherwise=5))
    assert load_foreign(shifty(tmp_path / "same.onnx", otherwise=2)).scale == 2


def endless(path):
    """A graph that loops for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("on", "still"), ("v", "w"))],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "yes", "input"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "H", "W"])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_loop_without_end_is_given_up(tmp_path, monkeypatch):
    """faults.md 36."""
    monkeypatch.setattr("srcli.loading.probing.LONGEST_PROBE", 0.5)
    before = threading.active_count()
    with pytest.raises(WeightsError, match="loop without end"):
        load_foreign(endless(tmp_path / "net.onnx"))
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.main_thread():
            thread.join(5)
    assert threading.active_count() <= before


def test_ctrl_c_ends_a_loop_without_end(tmp_path, monkeypatch):
    """faults.md 36: at once, with the exit code of an interruption."""
    Image.new("RGB", (9, 9)).save(tmp_path / "in.png")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    net = endless(tmp_path / "net.onnx")
    command = [sys.executable, "-m", "srcli", "upscale", tmp_path / "in.png", "--model-file", net]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            # It says that it prepares the network, and then runs it for ever.
            assert "preparing" in process.stderr.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err


def test_calls_under_way_can_be_ended(tmp_path):
    """faults.md 36: and the session goes on with others."""
    session = OnnxRuntimeSession(endless(tmp_path / "net.onnx"), SessionOptions())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(session, np.zeros((1, 3, 8, 8), np.float32))
        while not session._under_way:
            pass
        session.cancel()
        with pytest.raises(BackendError, match="stopped before it was done"):
            call.result(20)
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("backend", ["native", "openvino", "ort", "torch"])
def test_closing_while_others_compute(backend):
    """faults.md 42: they are done, or hear that it was closed; no AssertionError."""
    session = open_model(backend, load("lapar-c", 2), SessionOptions(threads=2, concurrency=2))[1]
    batch = np.random.default_rng(0).random((1, 3, 100, 120), np.float32)
    expected = session(batch)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(session, batch) for _ in range(6)]
        session.close()
        for call in calls:
            try:
                np.testing.assert_allclose(call.result(60), expected, atol=1e-6)
            except BackendError as error:
                assert "closed" in str(error)
    session.close()


def changed(path, change):
    """A plain network, made odd."""
    doubling(path)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def unknown_operator(model):
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "com.x"
    model.opset_import.append(helper.make_opsetid("com.x", 1))


def newer_opset(model):
    model.opset_import[0].version = 99


def newer_format(model):
    model.ir_version = 99


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (unknown_operator, r"does not know \(Mystery of com\.x\)"),
        (newer_opset, r"is written in opset 99, this ONNX Runtime reads up to \d+"),
        (newer_format, r"IR version"),
    ],
)
def test_a_network_that_cannot_be_loaded_is_named(tmp_path, change, says):
    """faults.md 22: the user's file, not one of the cache, and what is wrong with it."""
    file = changed(tmp_path / "net.onnx", change)
    with pytest.raises(WeightsError, match=says) as caught:
        load_foreign(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "Delete" not in str(caught.value)


def test_a_torchvision_that_does_not_fit(monkeypatch, tmp_path):
    """faults.md 38: fails in its own way, not by ImportError."""
    package = tmp_path / "spandrel.py"
    package.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(MissingPartError, match="torchvision::nms does not exist"):
        load_foreign(tmp_path / "x.pth")
