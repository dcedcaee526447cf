"""Names of outputs: templates, suffixes, habits of other programs, and what cannot be a name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.errors import UsageError
from srcli.images import SaveOptions
from srcli.jobs.planning import Wishes, plan_jobs
from srcli.jobs.sizes import SizeRequest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "in/c.png", "in/sub/d.webp"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), "teal").save(name)
    return tmp_path


def targets(*inputs, output=None, suffix="_x2", save=None, **more):
    wishes = Wishes(
        output=output,
        suffix=suffix,
        size=SizeRequest(scale=2),
        scales=(2, 3, 4),
        options=save or SaveOptions(),
        recursive=True,
        facts={"model": "lapar-c", "scale": "2", "task": "upscale"},
        **more,
    )
    return [str(job.target) for job in plan_jobs(inputs, wishes)]


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        (["a.png"], "{stem}_{model}_x{scale}{ext}", ["a_lapar-c_x2.png"]),
        (["b.jpg"], "{stem}_{task}{ext}", ["b_upscale.jpg"]),
        (["b.jpg"], "{name}.tiff", ["b.jpg.tiff"]),
        (["in"], "{stem}-{scale}{ext}", ["in_x2/c-2.png", "in_x2/sub/d-2.webp"]),
        (["in"], "out/{dir}/{stem}{ext}", ["out/c.png", "out/sub/d.webp"]),
        (["in", "a.png"], "o/{model}/{stem}.webp", ["o/lapar-c/c.webp", *2 * ["?"]]),
        (["a.png"], "{{{stem}}}{ext}", ["{a}.png"]),
        (["a.png"], "{{stem}}.png", ["{stem}.png"]),
        (["a.png"], "{.png", ["{.png"]),
    ],
)
def test_templates(here, inputs, output, expected):
    """faults.md 24: `-o '{stem}_{model}_x{scale}{ext}'`."""
    found = targets(*inputs, output=output)
    assert len(found) == len(expected)
    for target, wanted in zip(found, expected, strict=True):
        assert wanted in ("?", target)


@pytest.mark.parametrize("output", ["{bogus}.png", "{Stem}.png", "{stem:03}.png", "{}.png"])
def test_unknown_fields_are_named(here, output):
    """faults.md 24."""
    with pytest.raises(UsageError, match=r"there is no \{.*Use \{stem\} \{ext\}"):
        targets("a.png", output=output)


@pytest.mark.parametrize("output", ["same{ext}", "{model}.png", "x/{scale}{ext}"])
def test_templates_that_collide(here, output):
    """faults.md 24."""
    Image.new("RGB", (4, 4)).save("e.png")
    with pytest.raises(UsageError, match="would both become"):
        targets("a.png", "e.png", output=output)


def test_names_that_differ_by_case_collide(here):
    """faults.md 8: some file systems do not tell them apart."""
    Path("other").mkdir()
    Image.new("RGB", (4, 4)).save("other/A.png")
    with pytest.raises(UsageError, match="would both become"):
        targets("a.png", "other/A.png", output="out/")


def test_one_name_for_two_pictures(srcli, here):
    """faults.md 24: it made a folder called x.png."""
    code, _, err = srcli("upscale", "a.png", "b.jpg", "-s", 2, "-o", "x.png")
    assert code == 2
    assert "x.png: names one file" in err
    assert not (here / "x.png").exists()


@pytest.mark.parametrize("last", ["out.png", "new/out.webp"])
def test_an_output_without_its_option(srcli, here, last):
    """faults.md 24: `in.png out.png` took out.png as an input."""
    code, _, err = srcli("upscale", "a.png", last, "-s", 2)
    assert (code, f"Did you mean -o {last}?" in err) == (2, True)
    assert srcli("upscale", "a.png", "b.jpg", "-s", 2)[0] == 0  # both are there


def test_options_as_other_programs_have_them(srcli, here):
    """faults.md 24: -i, -n, -f jpg, -t, -g cpu, -v, -q."""
    code, out, err = srcli(
        *("upscale", "-i", "a.png", "-n", "lapar-a", "-s", 2, "-f", "jpg", "-t", 0, "-v"),
        *("-o", "out/", "-g", "cpu"),
    )
    assert code == 0, err
    with Image.open("out/a_x2.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (10, 8))
    assert "lapar-a" in err
    code, out, err = srcli("upscale", "-i", "a.png", "-i", "b.jpg", "-s", 2, "-q", "-o", "q/")
    assert (code, out, err) == (0, "", "")
    code, _, err = srcli("upscale", "-i", "a.png", "-n", "1")
    assert (code, "noise level" in err) == (2, True)
    code, _, err = srcli("upscale", "-i", "a.png", "-g", "first")
    assert (code, "is no GPU" in err) == (2, True)


@pytest.fixture(autouse=True)
def same_gpus(monkeypatch):
    """`-g` sets a variable of the process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@pytest.mark.parametrize(
    ("suffix", "expected"), [("-big", "a-big.png"), (".2", "a.2.png"), ("{", "a{.png")]
)
def test_suffixes(srcli, here, suffix, expected):
    """faults.md 24: `--suffix`."""
    assert srcli("upscale", "a.png", "-s", 2, "--suffix", suffix)[0] == 0
    assert (here / expected).exists()


@pytest.mark.parametrize("inputs", [["a.png"], ["in", "-r"]])
def test_no_suffix_would_replace_the_input(srcli, here, inputs):
    """faults.md 24: with or without --overwrite."""
    before = (here / "a.png").read_bytes()
    for more in ([], ["--overwrite"], ["--skip-existing"], ["--resume"]):
        code, _, err = srcli("upscale", *inputs, "-s", 2, "--suffix", "", *more)
        assert (code, "is an input" in err) == (2, True)
    assert (here / "a.png").read_bytes() == before
    assert srcli("upscale", *inputs, "-s", 2, "--suffix", "", "-o", "o/")[0] == 0


@pytest.mark.parametrize("inputs", [["a.png"], ["in"]])
def test_a_suffix_is_no_path(srcli, here, inputs):
    """faults.md 24: it would make a folder called `a..`, and for folders it was a traceback."""
    code, _, err = srcli("upscale", *inputs, "--suffix", "../../x")
    assert (code, "may hold no slash" in err) == (2, True)


@pytest.mark.parametrize("output", ["n" * 300 + ".png", "d" * 300 + "/x.png"])
def test_names_too_long_are_found_out_before_work(srcli, here, output):
    """faults.md 20: after the work, with the advice to free some space; --dry-run was content."""
    for more in ([], ["--dry-run"]):
        code, _, err = srcli("upscale", "a.png", "-s", 2, "-o", output, *more)
        assert code in (1, 2)
        assert "too long" in err or "are the most that this disk takes" in err
        assert "space" not in err
    code, _, err = srcli("upscale", "a.png", "in/c.png", "-s", 2, "--suffix", "n" * 253)
    assert (code, "are the most that this disk takes" in err) == (1, True)


def test_places_that_take_no_file_are_found_out_before_work(srcli, here):
    """faults.md 20."""
    cases = {"a.png/x.png": "a.png is a file", "a.png/": "a.png is a file"}
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.png")
        cases["pipe.png"] = "a device or a pipe"
    for output, reason in cases.items():
        for more in ([], ["--dry-run"]):
            code, _, err = srcli("upscale", "b.jpg", "-s", 2, "-o", output, "--overwrite", *more)
            assert (code, reason in err) == (1, True), err
    Path("out/c.png").mkdir(parents=True)
    code, _, err = srcli("upscale", "in", "-s", 2, "-o", "out/", "--overwrite")
    assert (code, "it is a folder, not a file" in err) == (1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
@pytest.mark.parametrize(
    "name", ["new\nline.png", "bad\udcff.png", "-dash.png", "{stem}.png", "[1].png", "esc\x1b[31m"]
)
def test_names_of_any_letters(srcli, here, name):
    """faults.md 42: what could command a terminal stands there as its code."""
    file = name if name.endswith(".png") else f"{name}.png"
    Path("odd").mkdir()
    noise = np.random.default_rng(1).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(noise).save("plain.png")
    Path("plain.png").rename(Path("odd", file))
    assert srcli("upscale", "odd", "-s", 2)[0] == 0
    assert srcli("upscale", "odd", "-s", 2, "--resume")[0] == 0
    with Path("odd_x2", file).open("rb") as opened, Image.open(opened) as picture:
        assert picture.size == (10, 8)
    code, _, err = srcli("upscale", "odd", "-s", 2)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err
