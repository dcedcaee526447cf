"""What is said where there are no weights."""

from __future__ import annotations

import pytest

from srcli.errors import WeightsError
from srcli.loading import model
from srcli.loading.model import load


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "scale", "best"),
    [("awsrn", 3, "lapar-a"), ("hpinet-l", 4, "lapar-a"), ("dcls-aniso", 2, "lapar-a")],
)
def test_the_best_of_those_that_ship_is_proposed(monkeypatch, name, scale, best):
    """faults.md 23: not the first of the alphabet; and not one 20 times slower for 0.03 dB."""
    with monkeypatch.context() as without:
        without.setattr(model, "find_weights", lambda *_: None)
        with pytest.raises(WeightsError, match=f"use -m {best}, the best that ships"):
            load(name, scale)
    load(best, scale)


def test_the_faster_of_two_that_look_alike_is_proposed(monkeypatch):
    means = {"lapar-a": 30.0, "hpinet-s": 30.01, "lapar-c": 29.98}
    monkeypatch.setattr(model, "_mean_score", lambda weights: means.get(weights.model, 0))
    assert model._best(3, "upscale") == "lapar-a"
    means["hpinet-s"] = 30.03
    assert model._best(3, "upscale") == "hpinet-s"


def test_fetching_is_offered_where_a_program_can_fetch():
    """faults.md 23: elsewhere, that it takes a browser."""
    with pytest.raises(WeightsError, match=r"Run `srcli weights fetch hpinet-l -s 4` for its auth"):
        load("hpinet-l", 4)
    with pytest.raises(WeightsError, match="with a browser") as caught:
        load("awsrn", 3)
    assert "Run `srcli weights fetch" not in str(caught.value)


def test_nothing_is_proposed_that_is_not_there(monkeypatch):
    """faults.md 23."""
    others = [weights for weights in model.shipped_weights() if weights.model != "awsrn"]
    monkeypatch.setattr(model, "shipped_weights", lambda: others)
    with pytest.raises(WeightsError) as caught:
        load("fsdn-base", 8)  # ASDN does it, with scores that nobody has measured
    assert "-m" not in str(caught.value)
    assert "fetch" not in str(caught.value)
    assert str(caught.value).endswith("has weights, or give your own with --weights FILE.")


@pytest.mark.parametrize(
    ("name", "scale", "others"), [("dcls-iso", 3, "x2 or x4"), ("awsrn", 2, "x8")]
)
def test_the_scales_that_have_weights_are_named(name, scale, others):
    """Another scale may do: `srcli upscale -s 2.5` wants x3 of DCLS, and -s 4 works."""
    with pytest.raises(WeightsError, match=f"Choose {others}, for which it has weights, or fetch"):
        load(name, scale)


def test_no_scales_are_named_where_none_has_weights():
    with pytest.raises(WeightsError) as caught:
        load("asdn-paper", 3)
    assert "for which it has weights" not in str(caught.value)
