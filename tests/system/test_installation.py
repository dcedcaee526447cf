"""Which of the two distributions is installed, and what messages say because of it."""

from __future__ import annotations

import sys

import pytest

from srcli.cli import missing_part
from srcli.health import installed
from srcli.system import installation


@pytest.fixture
def only(tmp_path, monkeypatch):
    """Pretend that nothing is installed but these distributions, with their requirements."""

    def pretend(**distributions):
        for name, requirements in distributions.items():
            place = tmp_path / f"{name}-1.0.dist-info"
            place.mkdir()
            lines = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", "Version: 1.0"]
            lines += [f"Requires-Dist: {text}" for text in requirements]
            (place / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        installation.is_small.cache_clear()

    yield pretend
    installation.is_small.cache_clear()


CLONE = ("click>=8", "torch>=2.6,<2.14", 'openvino; extra == "openvino"')
SMALL = ("click>=8",)
RELEASED = ("srcli-lite==1.0", "torch>=2.6,<2.14")


def test_a_clone_is_whole(only):
    only(srcli=CLONE)
    assert not installation.is_small()
    assert not installation.is_mixed()
    assert installation.pip_install("plot") == "pip install 'srcli[plot]'"


def test_the_small_one_alone(only):
    only(srcli_lite=SMALL)
    assert installation.is_small()
    assert not installation.is_mixed()
    assert installation.pip_install("plot") == "pip install 'srcli-lite[plot]'"
    assert "--force-reinstall srcli-lite`" in installation.reinstall()
    error = missing_part(ImportError("gone", name="matplotlib"))
    assert "'srcli-lite[plot]'" in str(error)


def test_both_of_a_release_belong_together(only):
    only(srcli=RELEASED, srcli_lite=SMALL)
    assert not installation.is_small()
    assert not installation.is_mixed()


def test_a_clone_over_the_small_one_is_a_problem(only):
    only(srcli=CLONE, srcli_lite=SMALL)
    assert installation.is_mixed()
    finding = next(installed.python())
    assert finding.status == "problem"
    assert "pip uninstall -y srcli srcli-lite" in finding.remedy


def test_what_the_small_one_does_without_is_a_note(only):
    only(srcli_lite=SMALL)
    status = {finding.subject: finding.status for finding in installed.packages()}
    assert status["torch"] == status["onnx"] == "note"
    assert status["numpy"] == status["click"] == "problem"
    (runtime,) = installed.runtimes()
    assert (runtime.status, runtime.remedy) == ("note", "Run `pip install onnxruntime`.")
