"""`srcli eval` refuses what it cannot measure before it measures the rest."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from srcli.checkpoints.shipped import find_weights
from srcli.commands import eval_runs
from srcli.errors import MemoryExhaustedError, OutputError
from srcli.loading import model
from srcli.quality import evaluation


@pytest.fixture
def dataset(tmp_path, photograph):
    (tmp_path / "own").mkdir()
    Image.fromarray(photograph[:60, :64]).save(tmp_path / "own" / "a.png")
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-s", 4, "-s", 3, "-m", "dcls-iso"), 3, "dcls-iso to upscale by 3"),
        (("-s", 2, "-s", 3, "--input", "photo"), 3, "photographs by 3"),
        (("-s", 2, "-s", 1, "-m", "bicubic"), 2, "-s 1: bicubic enlarges"),
        (("-s", 2, "-m", "nobody"), 2, "no model is called 'nobody'"),
        (("-s", 2, "-m", "none"), 2, "Choose bicubic, or a model."),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(
    srcli, dataset, monkeypatch, options, code, words
):
    def without_photo_x3(spec, scale, task, kind="clean"):
        return None if (scale, kind) == (3, "photo") else find_weights(spec, scale, task, kind)

    monkeypatch.setattr(model, "find_weights", without_photo_x3)
    monkeypatch.setattr(
        evaluation, "evaluate", lambda *all, **options: pytest.fail("work was done")
    )
    found, out, err = srcli("eval", *options, dataset)
    assert (found, out) == (code, "")
    assert words in err


def test_bicubic_begins_above_1_in_a_plot(srcli, dataset, tmp_path):
    """A model of any scale is drawn from 1 on."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "scales.svg"
    code, _, err = srcli("eval", "-s", 1, "-s", 2, dataset, "--plot", file)
    assert code == 0, err
    assert "<!-- bicubic, own -->" in file.read_text()


def test_each_scale_is_loaded_once(srcli, dataset, monkeypatch):
    loaded = Counter()
    load = eval_runs._loaded

    def counted(name, scale, *rest):
        loaded[scale] += 1
        return load(name, scale, *rest)

    monkeypatch.setattr(eval_runs, "_loaded", counted)
    assert srcli("eval", "-s", 2, "-s", 3, dataset)[0] == 0
    assert loaded == {2: 1, 3: 1}


class TestPicturesThatCannotBeMeasured:
    """They cost the results of no others, and no mean is taken for that of the whole set."""

    def test_damage_is_named_once_and_counted(self, srcli, dataset):
        whole = srcli("eval", "-m", "bicubic", "-s", 2, "-s", 3, dataset, "--json")[1]
        (dataset / "b.png").write_bytes((dataset / "a.png").read_bytes()[:900])
        arguments = ("eval", "-m", "bicubic", "-s", 2, "-s", 3, dataset)
        code, out, err = srcli(*arguments)
        assert code == 1
        assert [line.split()[:4] for line in out.splitlines()[-3:-1]] == [
            ["own", "x2", "1", "of"],
            ["own", "x3", "1", "of"],
        ]
        assert err.count("b.png: damaged") == 1
        code, out, _ = srcli(*arguments, "--json")
        assert code == 1
        for row, before in zip(
            json.loads(out)["datasets"], json.loads(whole)["datasets"], strict=True
        ):
            assert (row["psnr"], row["pictures"]) == (before["psnr"], before["pictures"])
            assert [failed["name"] for failed in row["failed"]] == ["b.png"]
            assert before["failed"] == []

    def test_where_there_is_no_other_there_is_no_table(self, srcli, dataset):
        (dataset / "a.png").write_bytes(b"no picture")
        code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset)
        assert (code, out) == (1, "")
        assert "a.png" in err

    @pytest.mark.parametrize(
        "options",
        [("--blur", 1), ("--jpeg", 50), ("--set", "gaussian8"), ("--noise", 1)],
        ids=lambda options: options[0],
    )
    def test_one_pixel(self, srcli, dataset, options):
        Image.new("RGB", (1, 1)).save(dataset / "b.png")
        code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset, *options)
        assert code == 1
        assert "b.png: 1 x 1 pixels are too few to be compared at x2. Leave out" in err
        assert "sides below 16." in err
        assert "1 of 2" in out

    @pytest.mark.parametrize("error", [MemoryExhaustedError("too large", "Wait."), MemoryError()])
    def test_memory_for_one(self, dataset, error):
        (dataset / "b.png").write_bytes((dataset / "a.png").read_bytes())
        left, failed = iter([error]), {}

        def enlarge(low):
            for problem in left:
                raise problem
            return np.repeat(np.repeat(low, 2, 0), 2, 1) / 255

        files = evaluation.dataset_files(dataset)
        scores = evaluation.evaluate(files, 2, enlarge, failed=failed.__setitem__)
        assert [score.name for score in scores] == ["b"]
        assert list(failed) == [dataset / "a.png"]
        found = failed[dataset / "a.png"]
        assert isinstance(found, MemoryExhaustedError)
        assert str(found).startswith(f"{dataset / 'a.png'}: ")

    def test_a_reduced_picture_of_another_name_is_not_passed_over(
        self, srcli, tmp_path, photograph
    ):
        """It would be made from the original, and another file measured than the user's."""
        for folder, name, step in (("HR", "a.png", 1), ("LRx2", "ax2.png", 2)):
            (tmp_path / folder).mkdir()
            Image.fromarray(photograph[:40:step, :40:step]).save(tmp_path / folder / name)
        code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, tmp_path)
        assert (code, out) == (1, "")
        assert f"{tmp_path / 'LRx2' / 'a.png'}: is missing" in err
        assert srcli("eval", "-m", "bicubic", "-s", 3, tmp_path)[0] == 0


def test_hidden_files_are_no_pictures(srcli, dataset):
    """File managers leave `._a.png` beside `a.png`, which holds no picture."""
    (dataset / "._a.png").write_bytes(b"Mac OS X")
    code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset)
    assert (code, err) == (0, "")
    assert "own" in out


def test_a_folder_that_may_not_be_listed(srcli, dataset, monkeypatch):
    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(type(dataset), "iterdir", refused)
    code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset)
    assert (code, out) == (1, "")
    assert f"{dataset}: cannot be read (Permission denied)" in err


def test_pictures_are_counted_and_told_apart_whatever_their_names(srcli, dataset):
    for name in ("a.bmp", "a, b.png", "a, c.png"):
        with Image.open(dataset / "a.png") as picture:
            picture.save(dataset / name)
    _, out, _ = srcli("eval", "-m", "bicubic", "-s", 2, dataset, "--each")
    assert [" ".join(line.split()[:-2]) for line in out.splitlines()[4:-1]] == [
        "a, b",
        "a, c",
        "a.bmp",
        "a.png",
        "own 4",
    ]


class TestFilesOfResults:
    def test_a_place_that_takes_none_is_said_before_any_work(self, srcli, dataset, monkeypatch):
        monkeypatch.setattr(
            evaluation, "evaluate", lambda *all, **options: pytest.fail("work was done")
        )
        page = dataset / "a.png" / "scores.html"
        code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset, "--html", page)
        assert (code, out) == (1, "")
        assert f"{page}: cannot be written" in err
        assert "Give another --html." in err

    def test_one_that_cannot_be_written_costs_no_result(self, srcli, dataset, monkeypatch):
        def full(*all, **options):
            raise OutputError("scores.html: cannot be written (no space left)", "Free some.")

        monkeypatch.setattr("srcli.commands.html_reports.write_page", full)
        page = dataset / "scores.html"
        code, out, err = srcli("eval", "-m", "bicubic", "-s", 2, dataset, "--html", page)
        assert (code, "no space left" in err) == (1, True)
        assert "own" in out


def test_kernels_of_one_name_are_two(srcli, dataset, tmp_path):
    files = [tmp_path / name / "k.npy" for name in "xy"]
    for side, file in zip((1, 3), files, strict=True):
        file.parent.mkdir()
        np.save(file, np.ones((side, side)))
    options = [part for file in files for part in ("--kernel", file)]
    code, out, _ = srcli("eval", "-m", "bicubic", "-s", 2, dataset, *options, "--json")
    assert code == 0
    assert [row["level"] for row in json.loads(out)["datasets"]] == [str(file) for file in files]
