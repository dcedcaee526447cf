"""`srcli eval` refuses what it cannot measure before it measures the rest."""

from __future__ import annotations

import pytest
from PIL import Image

from srcli.checkpoints.shipped import find_weights
from srcli.commands import eval_runs
from srcli.loading import model


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
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(
    srcli, dataset, monkeypatch, options, code, words
):
    def without_photo_x3(spec, scale, task, kind="clean"):
        return None if (scale, kind) == (3, "photo") else find_weights(spec, scale, task, kind)

    monkeypatch.setattr(model, "find_weights", without_photo_x3)
    monkeypatch.setattr(eval_runs, "way", lambda *all, **options: pytest.fail("work was done"))
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
