"""Weights that are prepared when they are committed: nobody needs PyTorch to run them."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from srcli.backends.base import SessionOptions
from srcli.backends.native.session import NativeBackend
from srcli.backends.native.weights import read_weights
from srcli.checkpoints import shipped
from srcli.checkpoints.shipped import flaws, prepared_file, shipped_weights
from srcli.errors import MissingPartError
from srcli.loading.model import load
from srcli.models.registry import get_model
from srcli.system.installation import SMALL

COMPILED = [
    weights
    for weights in shipped_weights()
    if get_model(weights.model).compiled and weights.distribution == SMALL
]
BATCH = np.random.default_rng(0).random((1, 3, 14, 19), np.float32)
HEAVY = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")


def test_every_file_is_there_and_whole():
    found = flaws()
    for weights in COMPILED:
        assert found[f"prepared/{weights.path.name}"] is None


SOME = ("lapar-c-x4", "awsrn-sd-x2", "lapar-c-deblock")
NAMES = [
    pytest.param(name, marks=() if name in SOME else pytest.mark.slow)
    for name in (weights.path.stem for weights in COMPILED)
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_what_would_be_made_now(tmp_path, name):
    (weights,) = (w for w in COMPILED if w.path.stem == name)
    prepare = importlib.import_module("srcli.weights.training.prepare").prepare
    prepare(weights, tmp_path / "new.safetensors")
    ours, scale, skips = read_weights(prepared_file(weights))
    made, *others = read_weights(tmp_path / "new.safetensors")
    assert others == [scale, skips]
    assert ours.keys() == made.keys()
    for key, value in ours.items():
        np.testing.assert_allclose(value, made[key], rtol=1e-5, atol=1e-7)


def test_nothing_is_written_for_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    assert load("lapar-c", 2).native_weights() == prepared_file(load("lapar-c", 2).weights)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_file_is_not_believed(tmp_path, monkeypatch, damage):
    """The weights are prepared in the cache then, as the user's own are."""
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    model = load("lapar-c", 2)
    folder = tmp_path / "weights"
    (folder / "prepared").mkdir(parents=True)
    shutil.copy(model.weights.path, folder)
    damaged = replace(model, weights=replace(model.weights, path=folder / "lapar-c-x2.safetensors"))
    target = prepared_file(damaged.weights)
    if damage != "gone":
        source = prepared_file(load("lapar-c", 3 if damage == "other" else 2).weights)
        content = source.read_bytes()
        target.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    assert damaged.native_weights().is_relative_to(tmp_path / "cache")
    sessions = [NativeBackend().open(one, SessionOptions()) for one in (damaged, model)]
    np.testing.assert_array_equal(*(session(BATCH) for session in sessions))
    for session in sessions:
        session.close()


def test_pruned_weights_are_others():
    model = load("awsrn-sd", 2, prune_below=0.5)
    assert model.native_weights() != prepared_file(model.weights)


WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from srcli.cli import main
main()
"""


def without_packages(*words, **environment):
    """Run the command line in a process in which the heavy packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, ",".join(HEAVY), *map(str, words)],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "model"),
    [("upscale", "lapar-c"), ("upscale", "awsrn-sd"), ("denoise", "lapar-a"), ("deblock", None)],
)
def test_heavy_packages_are_not_needed(tmp_path, photograph, srcli, command, model):
    """Nor a cache that can be written; the result is the same to the byte."""
    Image.fromarray(photograph[:40, :50]).save(tmp_path / "in.png")
    (tmp_path / "file").write_text("in the way")
    words = [command, str(tmp_path / "in.png")] + (["-m", model] if model else [])
    cache = tmp_path / "file" / "cache"
    done = without_packages(*words, "-o", tmp_path / "a.png", SRCLI_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert srcli(*words, "-o", tmp_path / "b.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_needs_a_package_says_which(tmp_path, photograph):
    Image.fromarray(photograph[:40, :50]).save(tmp_path / "in.png")
    own = load("lapar-c", 2).weights.path
    words = ["upscale", str(tmp_path / "in.png"), "-s", "2", "--weights", str(own)]
    done = without_packages(*words, SRCLI_CACHE=tmp_path / "cache")
    assert done.returncode == MissingPartError.exit_code, done.stderr
    assert "pip install torch" in done.stderr


@pytest.mark.parametrize(
    ("model", "command"), [("hpinet-s", "pip install srcli"), ("dcls-iso", "'srcli[dcls]'")]
)
def test_one_command_brings_weights_and_what_runs_them(
    srcli, monkeypatch, tmp_path, photograph, model, command
):
    """In the small install the first message sent users to PyTorch, the second to the weights."""
    Image.fromarray(photograph[:40, :50]).save(tmp_path / "in.png")
    for package in HEAVY:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(shipped, "_left_out", lambda weights: weights.distribution != "srcli-lite")
    shipped.shipped_weights.cache_clear()
    try:
        words = ("upscale", tmp_path / "in.png", "-s", 4, "-m", model)
        code, _, err = srcli(*words, "-o", tmp_path / "out.png")
        assert code == MissingPartError.exit_code
        assert command in err
        assert "pip install torch" not in err
        own = load("lapar-c", 4).weights.path  # of one's own: only what runs it is missing
        code, _, err = srcli(*words, "--weights", own, "-o", tmp_path / "out.png")
        assert code == MissingPartError.exit_code
        assert "pip install torch" in err
        # Some of its weights come apart (x3 for photographs), those that are wanted do not.
        words = ("upscale", tmp_path / "in.png", "-s", 4, "-m", "lapar-a", "--backend", "torch")
        code, _, err = srcli(*words, "-o", tmp_path / "out.png")
        assert code == MissingPartError.exit_code
        assert "pip install torch" in err
        assert "neither its weights" not in err
    finally:
        shipped.shipped_weights.cache_clear()
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("filters", "in.png", "--at", "3,3"),
        ("attribute", "in.png", "--window", "8,8,4"),
        ("export", "-m", "lapar-c"),
        ("upscale", "in.png", "-m", "asdn-base"),
    ],
    ids=lambda words: words[0],
)
def test_commands_that_need_a_package_say_which(tmp_path, photograph, monkeypatch, words):
    Image.fromarray(photograph[:20, :20]).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    done = without_packages(*words, SRCLI_CACHE=tmp_path / "cache")
    assert done.returncode == MissingPartError.exit_code, done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["in.png"]


@pytest.mark.parametrize(
    "words", [("models",), ("models", "lapar-a"), ("doctor",), ("eval", "HR", "-s", "2")]
)
def test_commands_that_need_none(tmp_path, photograph, monkeypatch, words):
    (tmp_path / "HR").mkdir()
    Image.fromarray(photograph[:64, :64]).save(tmp_path / "HR" / "one.png")
    monkeypatch.chdir(tmp_path)
    done = without_packages(*words)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
