"""PSNR, SSIM, resampling and the evaluation built on them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srcli.pipeline.resample import contributions, reduce, resize
from srcli.quality.evaluation import compressed
from srcli.quality.evaluation import noisy as noisy_pictures
from srcli.quality.metrics import luma, psnr, psnr_b, ssim

# PSNR-Y of bicubic enlargement on these very pictures (they come with the reference data).
BICUBIC = {
    "Set5": {2: 33.67, 3: 30.40, 4: 28.43},
    "Set14": {2: 30.33, 3: 27.63, 4: 26.09},
    "B100": {2: 29.56, 3: 27.21, 4: 25.96},
}
# LAPAR-C on Set5: what must ship at least. The goals are the paper's 37.65, 33.91, 31.72.
AT_LEAST = {2: 37.43, 3: 33.65, 4: 31.45}  # dB on Set5, what ships


def test_luma_is_that_of_bt601():
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]])
    assert luma(corners)[0] == pytest.approx([16, 235, 81.481])


def test_luma_of_grey_is_that_of_equal_planes(photograph):
    grey = photograph[:, :, :1]
    assert np.allclose(luma(grey), luma(np.repeat(grey, 3, axis=2)))


def test_psnr_of_a_known_error():
    flat = np.zeros((8, 8))
    assert psnr(flat, flat + 16) == pytest.approx(20 * math.log10(255 / 16))
    assert psnr(flat, flat) == math.inf


def test_ssim_matches_a_plain_double_loop(photograph):
    """The same formula, window by window."""
    a = luma(photograph[:16, :14])
    b = luma(photograph[2:18, 1:15])
    offsets = np.arange(11) - 5
    line = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for y in range(6):
        for x in range(4):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
            cov = (window * p * q).sum() - mp * mq
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-12)
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_refuses_what_is_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))


@given(st.integers(1, 60), st.integers(1, 150))
def test_resampling_weights_sum_to_one(source, size):
    sources, weights = contributions(source, size)
    assert np.allclose(weights.sum(axis=1), 1)
    assert sources.min() >= 0
    assert sources.max() < source


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 50), st.integers(1, 50))
def test_resampling_keeps_a_flat_picture_flat(height, width, to_height, to_width):
    flat = np.full((height, width, 3), 0.3)
    assert np.allclose(resize(flat, to_height, to_width), 0.3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduces_as_the_test_sets_were_reduced(scale, shared):
    """The LR pictures were made by MATLAB; ours differ by a rounding here and there."""
    for file in sorted((shared / "data/eval/Set5/HR").iterdir()):
        with (
            Image.open(file) as high,
            Image.open(shared / f"data/eval/Set5/LRx{scale}" / file.name) as low,
        ):
            expected = np.asarray(low.convert("RGB"))
            height, width = expected.shape[:2]
            picture = np.asarray(high.convert("RGB"))[: height * scale, : width * scale]
        assert psnr(reduce(picture, scale), expected) > 50


@pytest.mark.parametrize(
    ("dataset", "scale"), [("Set5", 2), ("Set5", 3), ("Set5", 4), ("Set14", 2), ("B100", 4)]
)
def test_bicubic_scores_what_it_always_scores(srcli, shared, dataset, scale):
    code, out, _ = srcli(
        "eval", "-m", "bicubic", "-s", scale, shared / "data/eval" / dataset, "--json"
    )
    assert code == 0
    assert json.loads(out)["datasets"][0]["psnr"] == pytest.approx(
        BICUBIC[dataset][scale], abs=0.02
    )


@pytest.mark.parametrize("scale", AT_LEAST)
def test_lapar_c_scores_on_set5(srcli, shared, scale):
    code, out, _ = srcli("eval", "-s", scale, shared / "data/eval/Set5", "--json")
    assert code == 0
    assert json.loads(out)["datasets"][0]["psnr"] >= AT_LEAST[scale]


def test_lapar_c_beats_bicubic_on_set14(srcli, shared):
    code, out, _ = srcli("eval", "-s", 2, shared / "data/eval/Set14", "--json")
    assert code == 0
    assert json.loads(out)["datasets"][0]["psnr"] > BICUBIC["Set14"][2] + 2.5


def test_eval_shows_each_picture(srcli, tmp_path, photograph):
    """A plain folder: the reduced pictures are made from it."""
    Image.fromarray(photograph).save(tmp_path / "one.png")
    code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, tmp_path, "--each")
    assert (code, err) == (0, "")
    assert "one" in out
    assert tmp_path.name in out


def test_pictures_that_are_too_small_are_named(srcli, tmp_path, photograph):
    Image.fromarray(photograph[:40, :14]).save(tmp_path / "narrow.png")
    code, _, err = srcli("eval", "-m", "bicubic", "-s", 2, tmp_path)
    assert code == 1
    assert "narrow.png: 14 x 40 pixels are too few" in err


@pytest.mark.parametrize(("side", "is_what"), [(11, "smaller"), (21, "larger")])
def test_reduced_pictures_of_another_scale_are_named(srcli, tmp_path, photograph, side, is_what):
    for folder, pixels in {"HR": photograph[:41, :41], "LRx2": photograph[:side, :side]}.items():
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    code, _, err = srcli("eval", "-m", "bicubic", "-s", 2, tmp_path)
    assert code == 1
    assert f"{tmp_path / 'LRx2' / 'a.png'}: {is_what} than its original" in err


def test_test_sets_of_one_name_are_two(srcli, tmp_path, photograph):
    folders = [tmp_path / name / "S" for name in "xy"]
    for folder, side in zip(folders, (40, 60), strict=True):
        folder.mkdir(parents=True)
        Image.fromarray(photograph[:side, :side]).save(folder / "one.png")
    code, out, _ = srcli("eval", "-m", "bicubic", "-s", 2, *folders, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["datasets"]] == [str(f) for f in folders]


def test_equal_pictures_are_json_too(srcli, tmp_path, photograph):
    Image.fromarray(photograph).save(tmp_path / "one.png")
    code, out, _ = srcli("eval", "-m", "none", "--sigma", 0, tmp_path, "--json")
    assert code == 0
    (row,) = json.loads(out, parse_constant=pytest.fail)["datasets"]
    assert row["psnr"] is None


def test_luma_may_be_rounded_before_it_is_compared(srcli, tmp_path, photograph):
    Image.fromarray(photograph).save(tmp_path / "one.png")
    high = photograph
    low = reduce(high, 2)
    restored = np.clip(np.rint(resize(low / 255.0, *high.shape[:2]) * 255), 0, 255)
    planes = [np.rint(luma(picture))[2:-2, 2:-2] for picture in (restored, high)]
    code, out, _ = srcli("eval", "-m", "bicubic", "-s", 2, tmp_path, "--y-rounded", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["y_rounded"]
    assert result["datasets"][0]["psnr"] == pytest.approx(psnr(*planes), abs=1e-6)


def test_eval_needs_pictures(srcli, tmp_path):
    code, out, err = srcli("eval", "-s", 2, tmp_path)
    assert code == 1
    assert "no pictures" in err
    assert out == ""


def test_psnr_b_is_psnr_where_blocks_do_not_show(photograph):
    plane = luma(photograph)
    noisy = plane + np.random.default_rng(0).normal(0, 20, plane.shape)
    assert psnr_b(plane, noisy) == pytest.approx(psnr(plane, noisy), abs=0.2)


def test_psnr_b_punishes_steps_between_blocks():
    plane = np.full((80, 96), 100.0)
    blocky = plane + 6.0 * ((np.indices(plane.shape) // 8).sum(axis=0) % 2)
    shifted = np.roll(blocky - plane, 4, axis=(0, 1)) + plane  # the same error, off the grid
    assert psnr_b(plane, blocky) < psnr_b(plane, shifted) - 0.5
    assert psnr_b(plane, plane) > 40


def test_damage_is_the_same_every_time(photograph):
    for damage in (noisy_pictures(25), compressed(10)):
        assert np.array_equal(damage(photograph, 3), damage(photograph, 3))
        assert not np.array_equal(damage(photograph, 3), photograph)


@pytest.mark.parametrize("option", [("--sigma", 25), ("--quality", 10)])
def test_doing_nothing_is_measured_too(srcli, tmp_path, photograph, option):
    Image.fromarray(photograph).save(tmp_path / "a.png")
    code, out, _ = srcli("eval", "-m", "none", *option, tmp_path, "--json")
    assert code == 0
    (row,) = json.loads(out)["datasets"]
    assert 15 < row["psnr_rgb"] < 40
    assert row["psnr_b"] <= row["psnr"]


def test_eval_wants_to_know_what_is_undone(srcli, tmp_path):
    assert srcli("eval", tmp_path)[0] == 2
    assert srcli("eval", "-s", 2, "--sigma", 5, tmp_path)[0] == 2


# On Set5: what must ship at least. Left alone, these pictures have 20.81 and 32.93 dB.
RESTORED = {("--sigma", 25): ("psnr_rgb", 30.0), ("--quality", 20): ("psnr", 34.4)}


@pytest.mark.parametrize("option", RESTORED)
def test_lapar_c_denoises_and_deblocks(srcli, shared, option):
    code, out, _ = srcli("eval", "-m", "lapar-c", *option, shared / "data/eval/Set5", "--json")
    figure, minimum = RESTORED[option]
    assert code == 0
    assert json.loads(out)["datasets"][0][figure] >= minimum
