"""`srcli pick`: the command that it prints is the one that the wish is for, and it runs."""

from __future__ import annotations

import json
import shlex
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from srcli.bench import latencies
from srcli.bench.latencies import Latency
from srcli.checkpoints import shipped
from srcli.commands import candidates, pick
from srcli.errors import BackendError

# Milliseconds for 1280 x 720 pixels of output.
TIMES = {"lapar-c": 200.0, "lapar-b": 500.0, "lapar-a": 800.0, "awsrn-sd": 300.0}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which nothing was measured, and measuring takes no time."""
    asked = []

    def measure(weights, backend, precision):
        asked.append((weights.model, weights.scale, backend, precision))
        if weights.model not in TIMES:
            raise BackendError("it is too slow", "Wait.")
        time = TIMES[weights.model] * (1 if backend in (None, "native") else 2)
        return Latency(
            milliseconds=time, backend=backend or "native", runs=1, threads=1, precision=precision
        )

    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(candidates, "measure", measure)
    return asked


@pytest.fixture
def pictures(tmp_path, photograph):
    """A clean picture and a JPEG file of quality 75, 64 x 36 each."""
    picture = Image.fromarray(photograph[:36, :64])
    picture.save(tmp_path / "clean.png")
    picture.save(tmp_path / "photo.jpg", quality=75)
    return tmp_path


def chosen(srcli, *arguments):
    code, out, _ = srcli("pick", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_the_best_and_the_fastest(srcli, machine, pictures):
    file = pictures / "clean.png"
    best, fastest = chosen(srcli, file), chosen(srcli, file, "--fastest")
    assert best["chosen"]["model"] == "lapar-a"
    assert fastest["chosen"]["model"] == "lapar-c"
    # 64 x 36 becomes 256 x 144, the 25th part of 1280 x 720.
    assert fastest["chosen"]["seconds"] == pytest.approx(0.2 / 25)
    seconds = [one["seconds"] for one in best["candidates"]]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("time", "model"), [("10ms", "lapar-c"), ("15ms", "awsrn-sd"),
                                             ("1m", "lapar-a")])  # fmt: skip
def test_the_best_within_a_time(srcli, machine, pictures, time, model):
    assert chosen(srcli, pictures / "clean.png", "--within", time)["chosen"]["model"] == model


def test_too_little_time_is_told(srcli, machine, pictures):
    code, out, err = srcli("pick", pictures / "clean.png", "--within", "1ms")
    assert (code, out) == (2, "")
    assert "the fastest takes 0.008 s" in err


def test_a_photograph_gets_weights_for_photographs(srcli, machine, pictures):
    found = chosen(srcli, pictures / "photo.jpg", "-s", 2)
    assert found["chosen"]["steps"] == ["x2 photo"]
    assert found["command"][-4:] == ["--input", "photo", "--backend", "native"]
    clean = chosen(srcli, pictures / "photo.jpg", "-s", 2, "--input", "clean")
    assert clean["chosen"]["steps"] == ["x2"]


def test_what_was_measured_is_kept(srcli, machine, pictures):
    file = pictures / "clean.png"
    code, _, err = srcli("pick", file, "--no-measure")
    assert code == 2
    assert "--no-measure" in err
    chosen(srcli, file)
    count = len(machine)
    assert count > 0
    again = chosen(srcli, file, "--no-measure")
    assert len(machine) == count
    assert again["chosen"]["model"] == "lapar-a"


def test_what_cannot_be_measured_is_told_and_left_out(srcli, machine, pictures):
    code, out, err = srcli("pick", pictures / "clean.png")
    assert code == 0
    assert "dcls-iso with auto in fp32 was not measured: it is too slow" in err
    assert "dcls-iso" not in out


def test_every_backend_is_tried(srcli, machine, pictures):
    found = chosen(srcli, pictures / "clean.png", "--all-backends")
    backends = {one["backend"] for one in found["candidates"]}
    assert {"native", "ort", "torch"} <= backends
    assert found["chosen"]["backend"] == "native"


@pytest.mark.parametrize("task", ["upscale", "denoise", "deblock"])
def test_the_command_runs(srcli, machine, pictures, monkeypatch, task):
    monkeypatch.chdir(pictures)
    code, out, _ = srcli("pick", "clean.png", "--task", task, "-s", 2)
    assert code == 0
    program, *words = shlex.split(out.splitlines()[-1])
    assert program == "srcli"
    assert srcli(*words, "-o", "out.png")[0] == 0
    with Image.open("out.png") as made:
        assert made.size == ((128, 72) if task == "upscale" else (64, 36))


@pytest.mark.parametrize("factor", ["7/3", "2.5", "3"])
def test_the_command_has_the_factor_that_was_asked_for(srcli, machine, pictures, factor):
    words = chosen(srcli, pictures / "clean.png", "-s", factor)["command"]
    assert Fraction(words[words.index("-s") + 1]) == Fraction(factor)


def test_several_passes_take_their_times(machine, pictures):
    from srcli.commands.pick import _wanted

    wanted = _wanted(pictures / "clean.png", "upscale", Fraction(8), "clean")
    found = {one.spec.name: one for one in candidates.candidates(wanted)}
    lapar = found["lapar-c"]
    assert [step.scale for step in lapar.steps] == [4, 2]
    rows = [Latency(milliseconds=100, backend="native", runs=1, threads=1)] * 2
    pixels = np.array([256 * 144, 512 * 288])
    assert lapar.time(rows) == pytest.approx(0.1 * pixels.sum() / (1280 * 720))
    assert lapar.psnr is None  # of two passes nothing was measured


def test_a_model_is_really_measured(monkeypatch, pictures, tmp_path, srcli):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    for name, value in (("WIDTH", 64), ("HEIGHT", 48), ("RUNS", 1)):
        monkeypatch.setattr(latencies, name, value)
    found = chosen(srcli, pictures / "photo.jpg", "--task", "deblock")["candidates"]
    assert {(one["model"], one["precision"]) for one in found} == {
        ("lapar-c", "fp32"),
        ("lapar-a", "fp32"),
    }
    assert all(one["seconds"] > 0 for one in found)


@pytest.mark.parametrize("words", [("--best", "--fastest"), ("--within", "0s"), ("--within", "x")])
def test_wishes_that_make_no_sense(words, pictures):
    done = CliRunner().invoke(pick.pick, [str(pictures / "clean.png"), *words])
    assert done.exit_code != 0


def test_a_file_too_good_to_gain(srcli, machine, pictures, photograph):
    """There is no network to choose, and that is said."""
    Image.fromarray(photograph[:36, :64]).save(pictures / "good.jpg", quality=98)
    code, out, err = srcli("pick", pictures / "good.jpg", "--task", "deblock")
    assert (code, out) == (2, "")
    assert "good.jpg (JPEG of quality 98): there is nothing to gain by deblocking" in err


@pytest.mark.parametrize("kind", ["auto", "clean", "photo"])
@pytest.mark.parametrize("name", ["photo.jpg", "was.png", "clean.png"])
def test_the_command_takes_the_weights_that_were_chosen(srcli, machine, tmp_path, photograph,
                                                        monkeypatch, kind, name):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    picture = Image.fromarray(photograph).resize((104, 96), Image.Resampling.LANCZOS)
    picture.save("clean.png")
    picture.save("photo.jpg", quality=60)
    with Image.open("photo.jpg") as jpeg:
        jpeg.save("was.png")
    found = chosen(srcli, name, "-s", 2, "--input", kind, "--fastest")
    _, out, _ = srcli(*found["command"][1:], "-o", "out.png", "--json")
    assert json.loads(out)["files"][0]["steps"] == found["chosen"]["steps"]


def test_a_cache_that_cannot_be_written(srcli, machine, pictures, monkeypatch):
    """What was measured serves this run, and the message says so once."""
    (pictures / "file").write_text("no folder")
    monkeypatch.setenv("SRCLI_CACHE", str(pictures / "file" / "cache"))
    code, out, err = srcli("pick", pictures / "clean.png", "--fastest")
    assert code == 0
    assert "-m lapar-c" in out
    assert err.count("is not kept for later") == 1
    assert "SRCLI_CACHE" in err


def test_nothing_could_be_measured(srcli, machine, pictures, monkeypatch):
    monkeypatch.setitem(globals(), "TIMES", {})
    code, _, err = srcli("pick", pictures / "clean.png")
    assert code == 2
    assert "--no-measure" not in err
    assert "srcli doctor" in err


@pytest.mark.parametrize("factor", ["1.5", "2", "3", "6", "8"])
def test_every_candidate_can_be_run(machine, pictures, srcli, factor):
    """`srcli upscale` does not go by another scale where there are no weights for the usual one."""
    from srcli.commands.pick import _wanted

    for name in ("photo.jpg", "clean.png"):
        wanted = _wanted(pictures / name, "upscale", Fraction(factor), "auto")
        found = candidates.candidates(wanted)
        assert "lapar-c" in {one.spec.name for one in found}
        for one in found:
            words = ("-m", one.spec.name, "-s", factor, "--dry-run", "--json")
            code, out, err = srcli("upscale", pictures / name, *words)
            assert code == 0, err
            steps = json.loads(out)["files"][0]["steps"]
            assert steps == [step.label for step in one.steps], one.spec.name


def test_a_name_that_looks_like_an_option(srcli, machine, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    (pictures / "clean.png").rename("-m.png")
    code, out, _ = srcli("pick", "-s", 2, "--json", "--", "-m.png")
    assert code == 0
    assert json.loads(out)["command"][2] == "./-m.png"


def test_models_whose_weights_come_apart_are_named(srcli, machine, pictures, monkeypatch):
    """As in the small install, where they were left out without a word."""
    words = ("pick", pictures / "clean.png", "--fastest")
    try:
        with monkeypatch.context() as small:
            small.setattr(shipped, "_left_out", lambda one: one.distribution != "srcli-lite")
            shipped.shipped_weights.cache_clear()
            _, out, err = srcli(*words)
    finally:
        shipped.shipped_weights.cache_clear()
    assert "hpinet-s, hpinet-m; `pip install srcli` brings them" in err
    assert "dcls-iso, dcls-aniso; `pip install 'srcli[dcls]'` brings them" in err
    assert "lapar-a," not in err
    assert "srcli upscale" in out
    assert "not installed" not in srcli(*words)[2]
