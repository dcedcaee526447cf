"""`srcli models`: what one would use first, at the terminal's width, with what is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from srcli.bench import latencies
from srcli.checkpoints import shipped as store
from srcli.checkpoints.shipped import shipped_weights
from srcli.commands import catalogue
from srcli.models.registry import MODELS, get_model

ROOT = Path(__file__).resolve().parents[2]
ONLY = next(w for w in shipped_weights() if (w.model, w.scale) == ("lapar-c", 4))
MANIFEST = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text())


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    return tmp_path


def on_a_terminal(columns, *arguments):
    """What a run shows on a terminal of so many columns, line by line."""
    pty = pytest.importorskip("pty")
    script = "import sys; from srcli.cli import run; sys.exit(run(sys.argv[1:]))"
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 1 << 16):
            shown += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0, done.stderr
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r", ""))
    return plain.splitlines(), done.stderr.decode().splitlines()


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_every_model_says_what_it_is_good_for(spec):
    """faults.md 28."""
    said = dict(spec.good_for)
    photo = {w.model for w in shipped_weights() if w.kind == "photo"}
    assert set(said) == {*spec.tasks(), *(("photo",) if spec.name in photo else ())}
    assert all(1 < len(words) <= 26 for words in said.values())


def test_what_one_would_use_stands_first(own_cache):
    """faults.md 28: the rows had no order, and there were 58 of them."""
    listed = catalogue.entries({})
    assert len({(e.spec.name, e.purpose) for e in listed}) == len(listed) < 30
    assert (listed[0].spec.name, listed[0].task) == ("lapar-c", "upscale")
    own = [entry.best_way == "own" for entry in listed]
    assert own == sorted(own, reverse=True)
    assert sum(own) == len({(w.model, w.task, w.kind) for w in shipped_weights()})
    best = [e for e in listed if e.best_way == "own" and e.purpose == "upscale"][1:]
    # All scales before some of them, and what does the usual scale before what does not.
    ranks = [(e.ways == "own", 4 in e.scales, e.psnr(e.usual)[0]) for e in best]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("columns", [48, 60, 80, 100, 160])
def test_the_list_fits_the_terminal(own_cache, columns):
    """faults.md 28."""
    shown, notes = on_a_terminal(columns, "models")
    rows = [line.split()[0] for line in shown if line.strip()]
    assert max(map(len, shown)) <= columns
    assert max(map(len, notes), default=0) <= columns
    assert len(rows) == 2 + len(catalogue.entries({}))  # none is broken into two
    assert ("task" in shown[1]) == (columns >= 80)
    assert ("PSNR" in shown[1]) == (columns >= 100)


@pytest.mark.parametrize("name", ["lapar-c", "hpinet-s", "asdn-paper"])
def test_cards_fit_80_columns(own_cache, name):
    """faults.md 28."""
    shown, _ = on_a_terminal(80, "models", name)
    assert max(map(len, shown[:-1])) <= 80  # the last may be a long address


@pytest.mark.parametrize("task", ["denoise", "deblock"])
def test_cards_show_what_restoring_gains(srcli, task):
    """faults.md 32: the manifest had the scores, the cards had blanks."""
    for name, row in MANIFEST.items():
        if row["task"] != task:
            continue
        lines = srcli("models", row["model"])[1].splitlines()
        for test, scores in row["scores"].items():
            (line,) = [line for line in lines if line.strip().startswith(test + " ")]
            for figure, digits in (("psnr_rgb", 2), ("psnr", 2), ("psnr_b", 2), ("ssim", 4)):
                assert figure not in scores or f"{scores[figure]:.{digits}f}" in line, name


def test_cards_show_weights_for_photographs(srcli):
    """faults.md 32."""
    row = MANIFEST["lapar-c-photo-x2"]
    out = srcli("models", "lapar-c")[1]
    assert "--input photo x2" in out
    assert row["sha256"][:12] in out
    assert f"{row['scores']['Set5']['psnr']:.2f}" in out
    assert get_model("lapar-c").good_for["photo"] in out


def test_json_keeps_its_fields_and_has_more(srcli):
    """faults.md 28 and 32."""
    listed = json.loads(srcli("models", "--json")[1])
    assert [model["name"] for model in listed] == [spec.name for spec in MODELS]
    for model in listed:
        assert {"name", "title", "paper", "any_scale", "good_for", "variants"} <= set(model)
        for variant in model["variants"]:
            for field in ("parameters", "margin", "weights_sha256", "psnr", "psnr_published"):
                assert field in variant
            for field in ("weights", "weights_bytes", "licence", "milliseconds_1280x720"):
                assert field in variant
    (x2,) = [
        v for v in listed[2]["variants"] if (v["task"], v["scale"]) == ("upscale", 2)
    ]  # lapar-c
    file = ROOT / "weights" / "lapar-c-x2.safetensors"
    assert x2["weights_bytes"] == file.stat().st_size
    assert x2["photo"]["scores"]["Set5"] == MANIFEST["lapar-c-photo-x2"]["scores"]["Set5"]


def test_latencies_are_measured_kept_and_checked(srcli, tmp_path, monkeypatch):
    """faults.md 28, and 33: what is damaged is not believed."""
    file = tmp_path / "latencies.json"  # the rest of the cache is that of all tests
    monkeypatch.setattr(latencies, "_path", lambda: file)
    monkeypatch.setattr(latencies, "WIDTH", 64)
    monkeypatch.setattr(latencies, "HEIGHT", 48)
    monkeypatch.setattr(latencies, "RUNS", 2)
    monkeypatch.setattr(catalogue, "shipped_weights", lambda: (ONLY,))
    monkeypatch.setattr(store, "shipped_weights", lambda: (ONLY,))

    def known():
        (model,) = json.loads(srcli("models", "lapar-c", "--json")[1])
        return [v["milliseconds_1280x720"] for v in model["variants"] if v["weights"] == "own"]

    assert known() == [None]
    assert srcli("models", "lapar-c", "--measure")[0] == 0
    (milliseconds,) = known()
    assert milliseconds > 0
    assert f"{milliseconds:.0f}" in srcli("models")[1].splitlines()[3].split()
    (kept,) = latencies.kept().values()
    content = file.read_text()
    file.write_text(content.replace(str(kept.runs), str(kept.runs + 1), 1))
    assert known() == [None]
    latencies.keep({ONLY.sha256: kept})
    assert known() == [milliseconds]


def test_weights_that_are_gone_end_no_list(srcli, monkeypatch, tmp_path):
    """faults.md 42: `srcli weights verify` and `doctor` say what is wrong."""
    gone = [replace(w, path=tmp_path / w.path.name) for w in shipped_weights()]
    monkeypatch.setattr(store, "shipped_weights", lambda: tuple(gone))
    assert srcli("models")[0] == srcli("models", "lapar-c")[0] == 0
    listed = json.loads(srcli("models", "lapar-c", "--json")[1])
    assert {v["weights_bytes"] for v in listed[0]["variants"]} == {None}


def test_nothing_to_measure_is_said(srcli, own_cache):
    code, _, err = srcli("models", "fsdn-paper", "--measure")
    assert code == 2
    assert "no weights for fsdn-paper" in err


def test_facts_of_a_file_cannot_command_a_terminal(srcli, tmp_path):
    """faults.md 42: text from files reached the terminal raw."""
    import onnx
    from onnx import TensorProto, helper

    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, producer_name="evil\x1b]0;title\x07")
    helper.set_model_props(model, {"srcli.model": "evil\x1b[2J", "srcli_x": "\x1b[2J"})
    onnx.save(model, tmp_path / "odd.onnx")
    code, out, err = srcli("models", tmp_path / "odd.onnx")
    assert code == 0, err
    assert "\x1b" not in out
