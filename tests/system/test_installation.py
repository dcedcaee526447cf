"""Which of the two distributions is installed, and what messages say because of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from srcli.checkpoints import shipped
from srcli.cli import missing_part
from srcli.health import installed
from srcli.models.registry import get_model
from srcli.system import installation


@pytest.fixture
def only(tmp_path, monkeypatch):
    """Pretend that nothing is installed but these distributions, with their requirements."""

    def pretend(**distributions):
        for name, requirements in distributions.items():
            place = tmp_path / f"{name}-1.0.dist-info"
            place.mkdir(exist_ok=True)
            lines = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", "Version: 1.0"]
            lines += [f"Requires-Dist: {text}" for text in requirements]
            (place / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        forget()

    def forget():
        installation.is_small.cache_clear()
        installation.is_released.cache_clear()

    yield pretend
    forget()


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


@pytest.mark.parametrize(
    ("model", "scale", "command"),
    [
        ("hpinet-s", 4, "pip install srcli"),
        ("asdn-base", Fraction(27, 10), "pip install srcli"),
        ("dcls-iso", 4, "pip install 'srcli[dcls]'"),
    ],
)
@pytest.mark.parametrize("small", [True, False])
def test_weights_of_a_part_that_is_not_installed(only, monkeypatch, model, scale, command, small):
    """A release's parts can be there one by one; in a clone all weights are."""
    listed = [replace(w, path=w.path.with_name("absent")) for w in shipped._listed()]
    monkeypatch.setattr(shipped, "_listed", lambda: listed)
    spec = get_model(model)
    only(srcli=CLONE)
    assert shipped.left_out(spec, scale, "upscale") is None
    only(**({} if small else {"srcli": RELEASED}), srcli_lite=SMALL)
    found = shipped.left_out(spec, scale, "upscale")
    assert installation.bring(found) == command
    assert shipped.left_out(get_model("lapar-c"), scale, "upscale") is None


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
