"""Scores of the shipped weights: measured, and written where they are read."""

from __future__ import annotations

import importlib
import shutil
import sys
import tomllib

import pytest

scores = importlib.import_module("srcli.weights.training.scores")
NAME = "lapar-mini-x2"
MEASURED = {"Set5": {"psnr": 40.0, "ssim": 0.99}}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of the manifest and of the pages that hold scores."""
    root = scores.FOLDER.parent
    for name in ("weights/manifest.toml", "weights/README.md", "docs/benchmarks.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    file = f"{NAME}.safetensors"
    (tmp_path / "weights" / file).symlink_to(root / "weights" / file)
    monkeypatch.setattr(scores, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(sys, "argv", ["scores", "--test", str(tmp_path), NAME])
    return tmp_path


def rows(repository):
    return tomllib.loads((repository / "weights/manifest.toml").read_text())


def test_only_the_measured_row_changes(repository, monkeypatch):
    """Others may come and change meanwhile, also without scores."""
    monkeypatch.setattr(scores, "measure", lambda entry, test: _added(repository) or MEASURED)
    before = rows(repository)
    scores.main()
    after = rows(repository)
    assert after.pop("new-x2") == {
        **{key: before[NAME][key] for key in ("model", "scale", "task")},
        **{"sha256": "", "steps": 5, "hours": 1, "hardware": "CPU"},
    }
    assert after.pop(NAME) == {**before.pop(NAME), "scores": MEASURED}
    assert after == before
    assert "| lapar-mini | x2 | 40.00" in (repository / "docs/benchmarks.md").read_text()
    assert "| new-x2 |" in (repository / "weights/README.md").read_text()


def _added(repository):
    with (repository / "weights/manifest.toml").open("a") as manifest:
        manifest.write(
            '\n[new-x2]\nmodel = "lapar-mini"\nscale = 2\ntask = "upscale"\nsha256 = ""\n'
            'steps = 5\nhours = 1\nhardware = "CPU"\n'
        )


def test_a_new_file_loses_what_was_prepared_of_the_old(repository, monkeypatch):
    file = repository / "weights" / f"{NAME}.safetensors"
    file.unlink()
    file.write_bytes(b"others")
    monkeypatch.setattr(scores, "measure", lambda entry, test: MEASURED)
    scores.main()
    row = rows(repository)[NAME]
    assert row["sha256"] == scores.sha256_of(file)
    assert "prepared_sha256" not in row
    assert row["scores"] == MEASURED


def test_scores_are_not_written_to_other_weights(repository, monkeypatch, capsys):
    manifest = repository / "weights/manifest.toml"
    digest = rows(repository)[NAME]["sha256"]

    def measure(entry, test):
        manifest.write_text(manifest.read_text().replace(digest, "other"))
        return MEASURED

    before = rows(repository)[NAME]["scores"]
    monkeypatch.setattr(scores, "measure", measure)
    scores.main()
    assert rows(repository)[NAME]["scores"] == before
    assert f"{NAME}: other weights by now" in capsys.readouterr().err
