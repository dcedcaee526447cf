"""Deblocking takes nothing from good JPEG files, neither in pixels nor in what is written."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

import srcli as api
from srcli.checkpoints.shipped import shipped_weights
from srcli.images import read
from srcli.images.picture import Metadata, SaveOptions
from srcli.jobs import groups, rewriting
from srcli.jobs.steps import LITTLE_TO_GAIN, Rules, Step
from srcli.quality.metrics import luma, psnr

LIMIT = next(w.better_up_to_jpeg for w in shipped_weights() if w.task == "deblock")
NOTHING, LITTLE = "there is nothing to gain by deblocking", "there is little to gain"
DEBLOCK = (Step(scale=1, task="deblock"),)


@pytest.fixture(scope="module")
def original(photograph):
    """A photograph without traces of JPEG."""
    return Image.fromarray(photograph).resize((112, 120), Image.Resampling.LANCZOS)


@pytest.fixture
def jpeg(tmp_path, original):
    """Makes a JPEG file of this quality."""

    def make(quality, name="in.jpg", **how):
        original.save(tmp_path / name, quality=quality, **how)
        return tmp_path / name

    return make


def about(quality):
    return Metadata(format="jpeg", lossless=False, quality=quality)


class TestRules:
    rules = Rules(task="deblock", deblock_up_to=96)

    @pytest.mark.parametrize(("quality", "steps"), [(96, DEBLOCK), (97, ()), (None, DEBLOCK)])
    def test_good_files_have_no_steps(self, quality, steps):
        assert self.rules.steps([1], about(quality)) == steps

    def test_they_are_left_out_of_a_chain(self):
        before = (Step(scale=1, task="deblock", model="lapar-c"),)
        rules = Rules(before=before, deblock_up_to=96)
        assert rules.steps([2], about(97)) == (Step(scale=2),)
        assert rules.steps([2], about(96)) == (*before, Step(scale=2))
        (note,) = rules.notes("x", [2], about(97), ())
        assert note.endswith("so it is left out")

    def test_it_is_said(self):
        for quality, words in ((94, None), (LITTLE_TO_GAIN, LITTLE), (97, NOTHING)):
            notes = self.rules.notes(
                "x.jpg", [1], about(quality), self.rules.steps([1], about(quality))
            )
            assert len(notes) == (words is not None)
            assert all(words in note and f"JPEG of quality {quality}" in note for note in notes)

    def test_without_a_known_limit_everything_is_done(self):
        assert Rules(task="deblock").steps([1], about(100)) == DEBLOCK

    def test_why_a_file_is_written_as_it_was(self):
        (note,) = self.rules.notes("x.jpg", [1], about(94), ())
        assert f"{NOTHING} and writing JPEG again (-f png gains a little)" in note


def test_every_file_of_weights_for_deblocking_has_its_limit():
    limits = [w.better_up_to_jpeg for w in shipped_weights() if w.task == "deblock"]
    assert limits
    assert all(90 < limit <= 100 for limit in limits)


def test_the_written_quality_is_above_the_files():
    written = {
        quality: rewriting.options_for_jpeg(SaveOptions(), about(quality)).quality
        for quality in (20, 85, 88, 95, None)
    }
    assert written == {20: 95, 85: 95, 88: 98, 95: 100, None: None}
    own = SaveOptions(quality=80)
    assert rewriting.options_for_jpeg(own, about(95)) == own


@pytest.mark.parametrize("quality", [LIMIT + 1, 100])
def test_good_files_stay_as_they_are(srcli, jpeg, quality):
    file = jpeg(quality)
    code, out, err = srcli("deblock", file)
    assert code == 0, err
    assert f"in.jpg (JPEG of quality {quality}): {NOTHING}" in err
    assert file.with_name("in_deblocked.jpg").read_bytes() == file.read_bytes()
    assert "in_deblocked.jpg" in out


def test_their_pixels_stay_in_other_formats(srcli, jpeg, tmp_path):
    file = jpeg(98)
    for name in ("a.png", "b.tif", "c.bmp"):
        assert srcli("deblock", file, "-o", tmp_path / name)[0] == 0
        np.testing.assert_array_equal(read(tmp_path / name).color, read(file).color)


@pytest.mark.parametrize("option", [["--strip"], ["--quality", 90], ["--subsampling", "444"]])
def test_what_the_user_asks_of_the_file_is_done(srcli, jpeg, option):
    file = jpeg(98, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    assert srcli("deblock", file, *option)[0] == 0
    made = file.with_name("in_deblocked.jpg")
    assert made.read_bytes() != file.read_bytes()
    wanted = option[1] if option[0] == "--quality" else 100
    assert read(made).metadata.quality == wanted


def test_a_file_that_is_written_as_jpeg_again_gains_or_stays(srcli, jpeg, original):
    """Quality 96 would gain as pixels, and lose as a file."""
    plane = luma(np.asarray(original))
    for quality in (40, 75, 90, 93, 96):
        file = jpeg(quality)
        srcli("deblock", file, "--overwrite", "-o", file.with_name("out.jpg"))
        before, after = (
            psnr(plane, luma(read(f).color)) for f in (file, file.with_name("out.jpg"))
        )
        assert after >= before, quality
        assert quality == 96 or after > before + 0.05, quality


def scaled_by(table, quality):
    """Return a quantisation table as programs make it of a quality."""
    percent = 200 - 2 * quality
    return [min(max((step * percent + 50) // 100, 1), 255) for step in table]


FREQUENCIES = np.add.outer(np.arange(8), np.arange(8)).ravel()
FINE = (16 * 1.27**FREQUENCIES).astype(int).tolist()  # rises as mozjpeg's, and more steeply


@pytest.mark.parametrize(
    "table", [[step] * 64 for step in (5, 6, 7, 8, 12, 20)] + [scaled_by(FINE, q) for q in
    (85, 92, 95, 97)], ids=lambda table: f"{table[0]} to {table[-1]}",
)  # fmt: skip
def test_a_file_of_another_program_does_not_lose(srcli, tmp_path, photograph, table):
    """Its quality is an estimate, and the library's tables do not fit its pixels."""
    noise = np.random.default_rng(0).normal(0, 4, photograph.shape)
    original = np.clip(photograph + noise, 0, 255).astype(np.uint8)[:120, :112]
    plane = luma(original)
    file, made = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(original).save(file, qtables=[table, table])
    code, _, err = srcli("deblock", file, "-o", made)
    assert code == 0, err
    assert read(file).metadata.quality_estimated
    assert psnr(plane, luma(read(made).color)) >= psnr(plane, luma(read(file).color))
    if made.read_bytes() == file.read_bytes():
        assert NOTHING in err


def test_of_the_usual_library_the_quality_is_known(jpeg):
    for quality in (1, 50, 75, 95, 100):
        assert not read(jpeg(quality)).metadata.quality_estimated


def test_little_to_gain_is_said(srcli, jpeg, tmp_path):
    code, out, err = srcli("deblock", jpeg(95), "-o", tmp_path / "x.png", "--json")
    assert code == 0
    assert LITTLE in err
    assert json.loads(out)["files"][0]["steps"] == ["deblock"]
    assert "gain" not in srcli("deblock", jpeg(90), "-o", tmp_path / "y.png")[2]


def test_a_mixed_folder(srcli, tmp_path, original):
    folder = tmp_path / "in"
    folder.mkdir()
    original.save(folder / "a.jpg", quality=30)
    original.save(folder / "b.jpg", quality=99)
    original.save(folder / "c.png")
    code, out, err = srcli("deblock", folder, "--json")
    assert code == 0, err
    steps = [row["steps"] for row in json.loads(out)["files"]]
    assert steps == [["deblock"], [], ["deblock"]]
    assert set(json.loads(out)["weights_sha256"]) == {"deblock"}
    again = json.loads(srcli("deblock", folder, "--json", "--resume")[1])
    assert {row["status"] for row in again["files"]} == {"skipped"}


def test_nothing_to_do_opens_nothing(srcli, jpeg):
    code, out, err = srcli("deblock", jpeg(98), "--json")
    assert code == 0
    assert json.loads(out)["weights_sha256"] == {}
    assert "with native" not in err


def test_to_standard_output(jpeg, capfdbinary, monkeypatch):
    from srcli.cli import run

    file = jpeg(99)
    assert run(["deblock", str(file), "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == file.read_bytes()


def test_large_files_too(srcli, jpeg, monkeypatch):
    monkeypatch.setattr("srcli.jobs.groups.IN_MEMORY", 1000)
    file = jpeg(98)
    assert srcli("deblock", file)[0] == 0
    assert file.with_name("in_deblocked.jpg").read_bytes() == file.read_bytes()
    assert srcli("deblock", file, "-o", file.with_name("x.png"))[0] == 0
    np.testing.assert_array_equal(read(file.with_name("x.png")).color, read(file).color)


@pytest.mark.parametrize("mode", ["CMYK", "MPO"])
def test_a_copy_keeps_what_reading_changes(srcli, original, tmp_path, monkeypatch, mode):
    """No note says that CMYK became RGB, or that a second picture was left out."""
    file, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    if mode == "MPO":
        original.save(file, "MPO", save_all=True, append_images=[original], quality=100)
    else:
        original.convert(mode).save(file, quality=100)
    for in_memory in (groups.IN_MEMORY, 1000):
        monkeypatch.setattr(groups, "IN_MEMORY", in_memory)
        code, _, err = srcli("deblock", file, "-o", target, "--overwrite")
        assert (code, target.read_bytes() == file.read_bytes()) == (0, True)
        assert NOTHING in err
        assert err.count("note: ") == 1


def test_a_damaged_good_file_is_not_copied(srcli, jpeg, monkeypatch):
    file = jpeg(98)
    file.write_bytes(file.read_bytes()[:-900])
    for most in (1 << 28, 1000):
        monkeypatch.setattr("srcli.jobs.groups.IN_MEMORY", most)
        code, _, err = srcli("deblock", file)
        assert code == 1
        assert "damaged" in err
        assert not file.with_name("in_deblocked.jpg").exists()


def test_from_python(jpeg, tmp_path):
    file = jpeg(98)
    made = api.deblock_file(file, tmp_path / "made.jpg")
    assert made.read_bytes() == file.read_bytes()
    picture = read(file)
    with api.load("lapar-c", 1, task="deblock") as network:
        np.testing.assert_array_equal(network.picture(picture).color, picture.color)
        assert (network(picture.color) != picture.color).any()  # of an array nothing is known


def test_a_chain_leaves_it_out(srcli, jpeg):
    _, out, err = srcli("upscale", jpeg(98), "-s", 2, "--deblock", "--json")
    assert json.loads(out)["files"][0]["steps"] == ["x2"]
    assert "so it is left out" in err


def test_the_content_counts_not_the_name(srcli, original, tmp_path):
    held = io.BytesIO()
    original.save(held, "JPEG", quality=99)
    (tmp_path / "x.png").write_bytes(held.getvalue())
    assert srcli("deblock", tmp_path / "x.png")[0] == 0
    np.testing.assert_array_equal(
        read(tmp_path / "x_deblocked.png").color, read(tmp_path / "x.png").color
    )
