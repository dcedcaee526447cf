"""What files say of themselves, and published checkpoints as safetensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from srcli.checkpoints.identify import describe, identify
from srcli.checkpoints.shipped import find_weights, sha256_of
from srcli.commands import restoring
from srcli.models.registry import get_model

OURS = find_weights(get_model("lapar-c"), 2, "upscale")


@pytest.fixture
def checkpoint(tmp_path):
    """LAPAR-B x3 as a training program would leave it."""
    torch.manual_seed(0)
    state = get_model("lapar-b").build(3).state_dict()
    file = tmp_path / "theirs.pth"
    torch.save({"params": {f"module.{name}": value for name, value in state.items()}}, file)
    return file


def test_models_are_known_by_their_tensors():
    for name, scale in (("lapar-a", 4), ("lapar-c", 2)):
        found = identify(get_model(name).build(scale).state_dict())
        assert [(one.spec.name, one.scale) for one in found] == [(name, scale)]
    assert identify({"weight": torch.zeros(3)}) == []


def test_a_checkpoint_is_converted(srcli, checkpoint, photograph):
    code, out, _ = srcli("weights", "convert", checkpoint)
    target = checkpoint.with_suffix(".safetensors")
    assert code == 0
    assert out.strip() == f"{target}  lapar-b x3"
    with safe_open(target, "pt") as opened:
        provenance = json.loads(opened.metadata()["srcli"])
    assert provenance["source_sha256"] == sha256_of(checkpoint)
    assert provenance["model"] == "lapar-b"
    theirs = torch.load(checkpoint)["params"]
    with safe_open(target, "pt") as opened:
        for name, value in theirs.items():
            assert torch.equal(opened.get_tensor(name.removeprefix("module.")), value)
    before = target.read_bytes()
    assert srcli("weights", "convert", checkpoint)[0] == 2
    assert srcli("weights", "convert", checkpoint, "--overwrite")[0] == 0
    assert target.read_bytes() == before


def test_foreign_weights_are_not_converted(srcli, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "odd.pth")
    code, _, err = srcli("weights", "convert", tmp_path / "odd.pth")
    assert code == 3
    assert "belong to no model" in err
    assert [path.name for path in tmp_path.iterdir()] == ["odd.pth"]


def test_a_graph_tells_what_it_is(srcli, tmp_path):
    target = tmp_path / "graph.onnx"
    assert srcli("export", "-m", "lapar-c", "-s", 2, "-o", target)[0] == 0
    code, out, _ = srcli("models", target, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["model"], facts["scale"], facts["task"]) == ("lapar-c", "2", "upscale")
    assert facts["weights_sha256"] == OURS.sha256
    assert facts["opset"] == 20
    code, out, _ = srcli("models", target)
    assert "lapar-c" in out


def test_weights_tell_what_they_are(srcli):
    code, out, _ = srcli("models", OURS.path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["model"] == ["lapar-c x2"]
    assert facts["sha256"] == OURS.sha256


@pytest.mark.parametrize("name", ["missing.onnx", "text.onnx", "text.txt", "text.engine"])
def test_other_files_are_refused(srcli, tmp_path, name):
    if "text" in name:
        (tmp_path / name).write_text("some text")
    code, out, err = srcli("models", tmp_path / name)
    assert code in (1, 3)
    assert out == ""
    assert name in err


def test_shipped_weights_are_verified(srcli, tmp_path, monkeypatch):
    from dataclasses import replace

    from srcli.checkpoints import shipped as store

    code, out, _ = srcli("weights", "verify")
    shipped = store.shipped_weights()
    assert code == 0
    names = dict.fromkeys(entry.path.name for entry in shipped)  # one may serve several scales
    prepared = (f"prepared/{w.path.name}" for w in shipped if w.prepared_sha256 is not None)
    assert out.splitlines() == [f"{name}  ok" for name in (*names, *prepared)]
    (tmp_path / "changed.safetensors").write_bytes(b"other")
    damaged = [
        replace(shipped[0], path=tmp_path / "changed.safetensors"),
        replace(shipped[1], path=tmp_path / "gone.safetensors"),
        *shipped[2:],
    ]
    monkeypatch.setattr(store, "shipped_weights", lambda: damaged)
    code, out, err = srcli("weights", "verify", "--json")
    said = json.loads(out)
    assert (code, said["ok"]) == (1, False)
    assert said["files"]["changed.safetensors"] == "has another checksum than in the manifest"
    assert said["files"]["gone.safetensors"].startswith("cannot be read")
    assert "pip install --force-reinstall" in err


@pytest.mark.parametrize("header", ["not json", "[1, 2]", '"text"'])
def test_headers_of_others_are_shown_as_they_are(tmp_path, header):
    file = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(3)}, file, {"srcli": header})
    assert describe(file)["srcli"] == header


def external_network(folder, gain, parts=("w.data",)):
    """An ONNX network of x2 whose weights lie in files of their own."""

    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    kernel = np.zeros((12, 3, 1, 1), np.float32)
    for plane in range(3):
        kernel[plane * 4 : plane * 4 + 4, plane] = gain
    tensors = [
        numpy_helper.from_array(kernel, "w"),
        numpy_helper.from_array(np.zeros(12, np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("DepthToSpace", ["c"], ["y"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "H", "W"])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for tensor, part in zip(model.graph.initializer, parts, strict=False):
        external_data_helper.set_external_data(tensor, part)
        (folder / part).parent.mkdir(exist_ok=True)
        (folder / part).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    file = folder / "net.onnx"
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize("parts", [("w.data",), ("w.data", "b.data"), ("in/w", "in/b")])
def test_a_network_retrained_under_the_same_name(tmp_path, srcli, parts):
    """faults.md 1: its weights lie in files of their own, of which each counts."""
    from srcli.checkpoints.shipped import identity

    picture = tmp_path / "in.png"
    Image.new("RGB", (12, 9), (200, 100, 50)).save(picture)
    file = external_network(tmp_path, 1.0, parts)
    seen = []
    for gain in (1.0, 0.25):
        assert external_network(tmp_path, gain, parts) == file
        restoring.foreign.cache_clear()  # as in another process
        out = tmp_path / f"{gain}.png"
        code, _, err = srcli("upscale", picture, "--model-file", file, "-o", out)
        assert code == 0, err
        with Image.open(out) as made:
            seen.append(np.asarray(made)[4, 4].tolist())
    assert seen == [[200, 100, 50], [50, 25, 12]]

    identities = {identity(file)}
    for part in parts:
        content = (tmp_path / part).read_bytes()
        (tmp_path / part).write_bytes(content[:-1] + b"?")
        identities.add(identity(file))
        (tmp_path / part).write_bytes(content)
    assert len(identities) == 1 + len(parts)

    (tmp_path / parts[0]).unlink()
    restoring.foreign.cache_clear()
    code, _, err = srcli("upscale", picture, "--model-file", file, "-o", tmp_path / "x.png")
    assert code == 3
    assert f"{parts[0]}, cannot be read" in err


def test_what_an_onnx_file_consists_of_is_told(tmp_path, srcli):
    """faults.md 1."""
    file = external_network(tmp_path, 1.0)
    facts = json.loads(srcli("models", file, "--json")[1])
    assert facts["parts"] == ["w.data"]
    assert facts["identity"] != facts["sha256"]


@pytest.mark.parametrize("part", ["../secret", "/etc/hostname"])
def test_parts_elsewhere_are_not_read(tmp_path, part):
    """faults.md 1."""
    import onnx

    from srcli.checkpoints.shipped import identity
    from srcli.errors import WeightsError

    file = external_network(tmp_path, 1.0)
    model = onnx.load(file, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = part
    file.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="is outside of its folder"):
        identity(file)
