"""`srcli compare`: pages of models, of files, of several inputs."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import srcli as library
from srcli.pipeline.resample import resize
from srcli.quality.metrics import luma, psnr


@pytest.fixture
def place(tmp_path, photograph, monkeypatch):
    """A picture, the same at half its size, and a file that another program made."""
    large = Image.fromarray(photograph[:64, :80])
    large.save(tmp_path / "large.png")
    large.resize((40, 32), Image.Resampling.BICUBIC).save(tmp_path / "small.png")
    large.resize((80, 64)).save(tmp_path / "other.webp", lossless=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(page):
    """The pictures of a page, by their labels."""
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)"[^>]*alt="([^"]+)"', page)
    return {
        label: np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text, label in found
    }


def pixels(name):
    return np.asarray(Image.open(name))


def test_models_are_compared_with_the_truth(srcli, place):
    code, out, err = srcli(
        "compare", "small.png", "--truth", "large.png", "-m", "bicubic", "-m", "lapar-c",
        "-m", "nearest", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = shown((place / "compare.html").read_text())
    assert list(found) == ["bicubic", "lapar-c", "nearest", "truth"]
    small, large = pixels("small.png"), pixels("large.png")
    assert np.array_equal(found["truth"], large)
    assert np.array_equal(found["lapar-c"], library.upscale(small, "lapar-c", 2))
    assert np.array_equal(found["nearest"], small.repeat(2, 0).repeat(2, 1))
    smooth = resize(small.astype(np.float32) / 255, 64, 80)
    assert np.array_equal(found["bicubic"], np.rint(255 * np.clip(smooth, 0, 1)))
    (page,) = json.loads(out)["pages"]
    figures = {entry["label"]: entry for entry in page["pictures"]}
    border = (slice(2, -2), slice(2, -2))
    expected = psnr(luma(found["lapar-c"])[border], luma(large)[border])
    assert figures["lapar-c"]["psnr"] == pytest.approx(expected)
    assert figures["lapar-c"]["psnr"] > figures["bicubic"]["psnr"] > figures["nearest"]["psnr"]
    assert figures["truth"]["psnr"] is None


def test_files_are_compared_as_they_are(srcli, place):
    code, out, err = srcli("compare", "large.png", "other.webp", "small.png", "-o", "x.html")
    assert code == 0, err
    assert out.startswith("x.html  large.png, other.webp, small.png (pixels ×2)")
    found = shown((place / "x.html").read_text())
    assert np.array_equal(found["other.webp"], pixels("large.png"))
    assert np.array_equal(
        found["small.png (pixels ×2)"], pixels("small.png").repeat(2, 0).repeat(2, 1)
    )


@pytest.mark.parametrize(
    ("option", "part"),
    [
        (("--region", "10,20,30x24"), (slice(20, 44), slice(10, 40))),
        (("--size", "20x10"), (slice(27, 37), slice(30, 50))),
    ],
)
def test_a_part_is_shown(srcli, place, option, part):
    code, _, err = srcli("compare", "large.png", "other.webp", *option)
    assert code == 0, err
    found = shown((place / "compare.html").read_text())
    assert np.array_equal(found["large.png"], pixels("large.png")[part])


def test_several_inputs_get_an_index(srcli, place):
    (place / "more").mkdir()
    (place / "small.png").replace(place / "more" / "large.png")
    code, _, err = srcli(
        "compare", "large.png", "more/large.png", "--task", "denoise", "-m", "none", "-m", "lapar-a"
    )
    assert code == 0, err
    index = (place / "compare" / "index.html").read_text()
    assert re.findall(r'href="([^"]+)"', index) == ["large.html", "large-2.html"]
    found = shown((place / "compare" / "large-2.html").read_text())
    assert np.array_equal(found["none"], pixels("more/large.png"))
    assert found["lapar-a"].shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("large.png", "small.png", "-s", "2"), "--scale is for models"),
        (("large.png", "small.png", "-o", "x.png"), "x.png: a page must end in .html"),
        (("small.png", "-m", "none"), "none does not enlarge"),
        (("small.png", "-m", "lapar-d"), "no model is called 'lapar-d'"),
        (("small.png", "--task", "deblock", "-m", "bicubic"), "bicubic only enlarges"),
        (("small.png", "--region", "0,0,500x500"), "reaches out of the results"),
        (("small.png", "--region", "0,0"), "is no region"),
        (("small.png", "--region", "0,0,8x8", "--size", "8x8"), "exclude each other"),
        (("small.png", "-s", "3", "--truth", "large.png"), "and the results have 120 x 96"),
        (("large.png", "cut.png"), "cut.png: has 40 x 31 pixels, and another has 80 x 64"),
        (("small.png", "large.png", "-m", "nearest", "--truth", "large.png"), "truth of one input"),
    ],
)
def test_what_makes_no_sense_is_refused(srcli, place, arguments, words):
    Image.open("small.png").crop((0, 0, 40, 31)).save("cut.png")
    code, _, err = srcli("compare", *arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert not [*place.glob("*.html")]


def test_pages_are_not_replaced_unasked(srcli, place):
    (place / "compare.html").write_text("mine")
    code, _, err = srcli("compare", "large.png", "other.webp")
    assert (code, (place / "compare.html").read_text()) == (2, "mine")
    assert "compare.html: exists already. Give -o, or --overwrite" in err
    assert srcli("compare", "large.png", "other.webp", "-y")[0] == 0
