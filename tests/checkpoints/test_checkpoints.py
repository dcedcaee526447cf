"""Weights from other people's files."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from srcli.checkpoints.reading import load_weights, read_tensors
from srcli.checkpoints.shipped import find_weights
from srcli.errors import WeightsError
from srcli.models.lapar.network import dictionary
from srcli.models.registry import get_model


@pytest.fixture
def tensors():
    weights = find_weights(get_model("lapar-c"), 4, "upscale")
    assert weights is not None
    return load_file(weights.path)


@pytest.fixture
def network():
    return get_model("lapar-c").build(4)


def same(network, tensors):
    state = network.state_dict()
    return all(torch.equal(state[name], value) for name, value in tensors.items())


WRAPPERS = {
    "bare": lambda t: t,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "params": lambda t: {"params": t},
    "params_ema": lambda t: {"params": {k: v * 0 for k, v in t.items()}, "params_ema": t},
    "module": lambda t: {f"module.{k}": v for k, v in t.items()},
    "compiled": lambda t: {"model": {f"_orig_mod.module.{k}": v for k, v in t.items()}},
    "half": lambda t: {k: v.half() for k, v in t.items()},
    "optimizer beside": lambda t: {"net": t, "optimizer": {"state": {0: torch.ones(3)}}},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_sees_through_what_training_programs_write(wrap, tensors, network, tmp_path):
    if wrap is WRAPPERS["half"]:
        tensors = {k: v.half().float() for k, v in tensors.items()}
    torch.save(wrap(tensors), tmp_path / "net.pth")
    load_weights(network, tmp_path / "net.pth")
    assert same(network, tensors)


def test_reads_safetensors(tensors, network, tmp_path):
    save_file({f"module.{k}": v for k, v in tensors.items()}, tmp_path / "net.safetensors")
    load_weights(network, tmp_path / "net.safetensors")
    assert same(network, tensors)


def test_the_dictionary_may_be_missing(tensors, network, tmp_path):
    """Some trainers do not store constants; ours are built by formula."""
    del tensors["decom_conv.weight"], tensors["w_conv.rgb_mean"]
    save_file(tensors, tmp_path / "net.safetensors")
    load_weights(network, tmp_path / "net.safetensors")
    assert torch.equal(network.state_dict()["decom_conv.weight"], dictionary())


def test_the_dictionary_comes_from_the_checkpoint(tensors, network, tmp_path):
    tensors["decom_conv.weight"] = tensors["decom_conv.weight"] * 0.5
    save_file(tensors, tmp_path / "net.safetensors")
    load_weights(network, tmp_path / "net.safetensors")
    assert same(network, tensors)


class Payload:
    """What an attacker would put into a checkpoint."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_unexecuted(legacy, tmp_path):
    trap, file = tmp_path / "executed", tmp_path / "net.pth"
    content = {"state_dict": {"a": torch.ones(1)}, "extra": Payload(trap)}
    if legacy:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    trap.unlink(missing_ok=True)
    with pytest.raises(WeightsError, match=r"net\.pth: (refused|damaged)"):
        read_tensors(file)
    assert not trap.exists()


def damaged(tensors, tmp_path):
    torch.save(tensors, tmp_path / "whole.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])


def empty(tensors, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"")


def text(tensors, tmp_path):
    (tmp_path / "net.pth").write_text("not a checkpoint")


def without_tensors(tensors, tmp_path):
    torch.save({"epoch": 1}, tmp_path / "net.pth")


def of_another_scale(tensors, tmp_path):
    tensors["w_conv.up.0.weight_v"] = torch.zeros(64, 16, 3, 3)
    torch.save(tensors, tmp_path / "net.pth")


def incomplete(tensors, tmp_path):
    del tensors["w_conv.head.0.bias"]
    torch.save(tensors, tmp_path / "net.pth")


def too_many(tensors, tmp_path):
    torch.save(tensors | {"w_conv.body.2.b0.x_scale.scale": torch.ones(1)}, tmp_path / "net.pth")


def not_finite(tensors, tmp_path):
    tensors["w_conv.head.0.bias"][0] = torch.nan
    torch.save(tensors, tmp_path / "net.pth")


def absent(tensors, tmp_path):
    pass


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, "damaged"),
        (empty, "damaged"),
        (text, "damaged|refused"),
        (without_tensors, "no tensors"),
        (of_another_scale, "64x16x3x3, this model needs 256x16x3x3"),
        (incomplete, "missing"),
        (too_many, "no tensor"),
        (not_finite, "not finite"),
        (absent, "no such file"),
    ],
)
def test_what_does_not_fit_is_refused(spoil, reason, tensors, network, tmp_path):
    spoil(tensors, tmp_path)
    with pytest.raises(WeightsError, match=reason) as caught:
        load_weights(network, tmp_path / "net.pth")
    assert "net.pth" in str(caught.value)


def test_garbage_in_safetensors_is_refused(network, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(network, tmp_path / "net.safetensors")


def test_other_suffixes_are_refused(network, tmp_path):
    (tmp_path / "net.zip").write_bytes(b"")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        load_weights(network, tmp_path / "net.zip")


def pointer(tensors, file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


def web_page(tensors, file):
    file.write_text("<!DOCTYPE html>\n<html><title>Not\x1b[2J found</title></html>")


def torchscript(tensors, file):
    torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.ones(1, 3, 4, 4)).save(file)


def whole_network(tensors, file):
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), file)


def onnx_network(tensors, file):
    from srcli.export.to_onnx import to_onnx
    from srcli.loading.model import load

    file.write_bytes(to_onnx(load("lapar-c", 2)).SerializeToString())


def gzipped(tensors, file):
    import gzip

    file.write_bytes(gzip.compress(b"whatever"))


def archive(tensors, file):
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("folder/weights.pth", b"whatever")


def swelling(tensors, file):
    torch.save({"w": torch.zeros(1 << 20)}, file)
    with zipfile.ZipFile(file) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    assert file.stat().st_size < 100_000


def repeated(tensors, file):
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)


def sparse(tensors, file):
    torch.save({"w": torch.eye(3).to_sparse()}, file)


def quantised(tensors, file):
    torch.save({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, file)


def meta(tensors, file):
    torch.save({"w": torch.empty(3, device="meta")}, file)


def complex_numbers(tensors, file):
    torch.save({"w": torch.ones(3, dtype=torch.complex64)}, file)


def holding_itself(tensors, file):
    content = {}
    content["state_dict"] = content
    torch.save(content, file)


def index(tensors, file):
    file.write_text('{"metadata": {}, "weight_map": {"a": "model-1-of-2.safetensors"}}')


def pipe(tensors, file):
    os.mkfifo(file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (pointer, "git lfs pull"),
        (web_page, r"is a web page \(\"Not\?\[2J found\"\)"),
        (torchscript, r"is a program \(TorchScript\)"),
        (whole_network, r"Python objects \(torch\.nn\.modules\.container\.Sequential\)"),
        (onnx_network, "is an ONNX network"),
        (gzipped, r"is packed \(gzip\)"),
        (archive, "ZIP archive"),
        (index, "in several files"),
        (swelling, "parts are compressed"),
        (repeated, "larger than what the file holds"),
        (sparse, "sparse"),
        (quantised, "quantised"),
        (meta, "without values"),
        (complex_numbers, "complex"),
        (holding_itself, "no tensors"),
        (pipe, "no regular file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_checkpoint_is_named(make, says, tensors, tmp_path):
    """faults.md 21, 35, 38: what it is and what to do, never that it could run code."""
    file = tmp_path / "net.pth"
    make(tensors, file)
    with pytest.raises(WeightsError, match=says) as caught:
        read_tensors(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith((".", "`."))


def test_the_content_decides_not_the_name(tensors, network, tmp_path):
    """faults.md 21: safetensors called .pth, and the reverse."""
    save_file(tensors, tmp_path / "net.pth")
    torch.save(tensors, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        load_weights(network, tmp_path / name)
        assert same(network, tensors)


EXTRAS = {
    "thop": lambda t: t | {"total_ops": torch.ones(1), "w_conv.total_params": torch.ones(1)},
    "SWA": lambda t: {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in t.items()},
    "both": lambda t: {
        "state_dict": {f"module.{k}": v for k, v in t.items()}
        | {"module.total_ops": torch.ones(1), "n_averaged": torch.tensor(3)}
    },
}


@pytest.mark.parametrize("add", EXTRAS.values(), ids=EXTRAS)
def test_what_tools_leave_among_the_weights_is_left_out(add, tensors, network, tmp_path):
    """faults.md 21."""
    torch.save(add(tensors), tmp_path / "net.pth")
    load_weights(network, tmp_path / "net.pth")
    assert same(network, tensors)
