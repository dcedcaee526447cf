"""Up to which quality weights help: measured, and written where it is used and read."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import tomllib

import pytest
from PIL import Image

limits = importlib.import_module("srcli.weights.training.limits")


def test_the_limit_is_the_last_quality_before_the_first_without_gain():
    other = dict.fromkeys((50, 75, 90, 95), 30.0)
    assert limits.limit({50: 31, 75: 30.5, 90: 30.001, 95: 30.5}, other) == 75
    assert limits.limit({50: 29, 75: 30.5, 90: 31, 95: 30.5}, other) == 0
    assert limits.limit({50: 31, 75: 30.5, 90: 31, 95: 30.5}, other) == 95


@pytest.fixture
def repository(tmp_path, monkeypatch, photograph):
    """A manifest, pages and test sets of its own, tiny."""
    for name in ("weights/manifest.toml", "docs/benchmarks.md", "docs/guide/real-pictures.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(limits.FOLDER.parent / name, tmp_path / name)
    for name, side in (("B100", 48), ("LIVE1", 32)):
        (tmp_path / "eval" / name / "HR").mkdir(parents=True)
        picture = Image.fromarray(photograph[60 : 60 + side, 60 : 60 + side])
        picture.save(tmp_path / "eval" / name / "HR" / "1.png")
    monkeypatch.setattr(limits, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr("srcli.weights.training.scores.FOLDER", tmp_path / "weights")
    pages = {
        kind: tmp_path / page.relative_to(limits.DOCS.parent) for kind, page in limits.PAGES.items()
    }
    monkeypatch.setattr(limits, "PAGES", pages)
    monkeypatch.setattr(limits, "QUALITIES", {"photo": (30, 100), "deblock": (30, 100)})
    return tmp_path


def test_limits_are_measured_and_written(repository, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["limits", "--test", str(repository / "eval")])
    before = tomllib.loads((repository / "weights/manifest.toml").read_text())
    limits.main()
    after = tomllib.loads((repository / "weights/manifest.toml").read_text())
    for name, entry in after.items():
        measured = entry.get("input") == "photo" or entry["task"] == "deblock"
        assert entry.get("better_up_to_jpeg") in ((30, 100) if measured else (None,)), name
        assert entry["sha256"] == before[name]["sha256"]
    assert after["lapar-c-deblock"]["better_up_to_jpeg"] == 30
    for kind, page in limits.PAGES.items():
        table = re.search(rf"<!-- limits-{kind}.*?-->\n(.*?)<!-- /", page.read_text(), re.DOTALL)[1]
        assert "| quality | 30 | 100 |" in table
        assert f"| gain by {kind} | +" in table


def test_what_changes_meanwhile_stays(repository, monkeypatch):
    """Measuring takes an hour: other rows come and change, and weights are replaced."""
    file = repository / "weights/manifest.toml"

    def measure(entry, test):
        text = file.read_text().replace("steps = 101100\n", "steps = 101101\n")
        file.write_text(text + '\n[new-x2]\nmodel = "new"\nscale = 2\ntask = "upscale"\n')
        return {50: 31, 100: 30}, {50: 30, 100: 31}

    monkeypatch.setattr(limits, "MEASURES", {"photo": measure, "deblock": measure})
    monkeypatch.setattr(sys, "argv", ["limits", "--test", str(repository), "lapar-c-photo-x2"])
    limits.main()
    table = tomllib.loads(file.read_text())
    assert table["new-x2"]["model"] == "new"
    assert table["lapar-c-x2"]["steps"] == 101101
    assert table["lapar-c-photo-x2"]["better_up_to_jpeg"] == 50


def test_only_what_has_a_limit_can_be_named(repository, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["limits", "--test", str(repository), "lapar-c-x2"])
    with pytest.raises(SystemExit):
        limits.main()
    assert "lapar-c-photo-x2" in capsys.readouterr().err
