"""What the cards of models say, against what the papers print."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from srcli.checkpoints.shipped import shipped_weights
from srcli.jobs.steps import steps_before
from srcli.models.registry import MODELS, get_model
from srcli.models.spec import TASKS

# Set5, Set14, B100: PSNR-Y in dB.
PAPERS = {
    "lapar-a": {2: (38.01, 33.62, 32.19), 3: (34.36, 30.34, 29.11), 4: (32.15, 28.61, 27.61)},
    "lapar-b": {2: (37.87, 33.39, 32.10), 3: (34.20, 30.17, 29.03), 4: (31.94, 28.46, 27.52)},
    "lapar-c": {2: (37.65, 33.20, 31.95), 3: (33.91, 30.02, 28.90), 4: (31.72, 28.31, 27.40)},
    "awsrn": {
        2: (38.11, 33.78, 32.26),
        3: (34.52, 30.38, 29.16),
        4: (32.20, 28.69, 27.61),
        8: (26.97, 24.99, 24.80),
    },
    "awsrn-m": {2: (38.04, 33.66, 32.21), 3: (34.42, 30.32, 29.13), 4: (32.21, 28.65, 27.60)},
    "awsrn-s": {2: (37.75, 33.31, 32.00), 3: (34.02, 30.09, 28.92), 4: (31.77, 28.35, 27.41)},
    "awsrn-sd": {2: (37.86, 33.41, 32.07), 3: (34.18, 30.21, 28.99), 4: (31.98, 28.46, 27.48)},
    "hpinet-s": {4: (32.47, 28.80, 27.69)},
    "hpinet-m": {2: (38.12, 33.94, 32.31), 3: (34.70, 30.63, 29.26), 4: (32.60, 28.87, 27.73)},
    "hpinet-l": {4: (32.72, 28.97, 27.79)},
}
BILLIONS = {("lapar-a", 4): 94, ("lapar-b", 4): 53, ("lapar-c", 4): 25, ("hpinet-m", 4): 124.0}


# Trained parameters, as the papers count them or as the published checkpoints have them.
PARAMETERS = {
    "lapar-a": {2: 547_866, 3: 594_266, 4: 659_226},
    "lapar-b": {2: 250_184, 3: 276_344, 4: 312_968},
    "lapar-c": {2: 87_318, 3: 98_998, 4: 115_350},
    "awsrn": {2: 1_396_872, 3: 1_476_147, 4: 1_587_132, 8: 2_348_172},
    "awsrn-m": {2: 1_063_742, 3: 1_143_017, 4: 1_254_002},
    "awsrn-s": {2: 397_482, 3: 476_757, 4: 587_742},
    "awsrn-sd": {2: 348_098, 3: 388_013, 4: 443_894},
    "asdn-base": {4: 839_008},
    "asdn-paper": {4: 22_438_288},
    "dcls-iso": {2: 13_478_475, 3: 13_663_115, 4: 13_626_187},
    "dcls-aniso": {2: 8_905_931, 4: 19_054_027},
}
# Milliseconds for 1280x720 on an RTX 2080 Ti.
LATENCIES = {"lapar-a": {4: 37.3}, "lapar-b": {4: 29.1}, "lapar-c": {4: 22.2}}


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_scores_are_those_that_the_papers_print(spec):
    """faults.md 32."""
    own = {scale: (s.set5, s.set14, s.b100) for scale, s in spec.published_scores.items()}
    assert own == PAPERS.get(spec.name, {})


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_that_the_papers_print(name):
    """faults.md 32."""
    spec = get_model(name)
    assert {scale: spec.parameters(scale) for scale in PARAMETERS[name]} == PARAMETERS[name]


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_latencies_are_those_that_the_papers_print(spec):
    """faults.md 32."""
    assert dict(spec.latency) == LATENCIES.get(spec.name, {})


@pytest.mark.parametrize("name", PAPERS)
def test_cards_print_the_papers_scores(srcli, name):
    """faults.md 32: from one place of facts."""
    lines = srcli("models", name)[1].splitlines()
    for scale, scores in PAPERS[name].items():
        wanted = [f"({score:.2f})" for score in scores]
        row = [line for line in lines if all(score in line for score in wanted)]
        assert any(line.split()[0] == f"x{scale}" for line in row), (name, scale)


@pytest.mark.parametrize(("model", "billions"), BILLIONS.items())
def test_multiply_adds_are_those_that_the_papers_print(model, billions):
    """faults.md 32."""
    name, scale = model
    counted = get_model(name).multiply_adds(scale).published_form * 1280 * 720 / 1e9
    assert counted == pytest.approx(billions, rel=0.02 if name != "hpinet-m" else 1e-6)


def test_all_published_weights_are_listed(srcli):
    """faults.md 32: also those whose checksum is not known."""
    rows = {(r["model"], r["scale"]): r for r in json.loads(srcli("weights", "list", "--json")[1])}
    large = rows["hpinet-l", 4]
    assert large["address"].endswith("/checkpoints/HPINet-L-x4.pth")
    assert large["sha256"] is None
    small = rows["hpinet-s", 4]
    assert small["address"].rpartition("/")[0] == large["address"].rpartition("/")[0]


def test_more_test_sets_have_a_place(srcli, monkeypatch):
    """A column appears as soon as one row has a figure."""
    spec = get_model("lapar-a")
    assert "Urban100" not in srcli("models", "lapar-a")[1]
    more = replace(spec.published_scores[4], urban100=26.1, manga109=30.4)
    richer = replace(spec, published_scores={**spec.published_scores, 4: more})
    assert list(more.by_set()) == ["Set5", "Set14", "B100", "Urban100", "Manga109"]
    models = tuple(richer if each is spec else each for each in MODELS)
    for place in ("srcli.models.registry.MODELS", "srcli.commands.catalogue.MODELS"):
        monkeypatch.setattr(place, models)
    out = srcli("models", "lapar-a")[1]
    (row,) = [line for line in out.splitlines() if "(26.10)" in line]
    assert row.split()[0] == "x4"
    assert row.split()[-1] == "(30.40)"
    assert "Urban100" in out


@pytest.mark.parametrize("name", ["lapar-c", "lapar-a", "awsrn-sd", "asdn-base"])
def test_cards_say_for_which_files_weights_are_taken(srcli, name):
    lines = " ".join(srcli("models", name)[1].split())
    own = [w for w in shipped_weights() if w.model == name and w.better_up_to_jpeg is not None]
    for weights in own:
        limit = weights.better_up_to_jpeg
        if weights.task == "deblock":
            assert f"JPEG files above quality {limit} stay as they are" in lines
        else:
            assert f"{limit} at x{weights.scale}" in lines
    assert ("--input auto" in lines) == any(w.kind == "photo" for w in own)
    restoring = {step.task: step.model for step in steps_before(name, TASKS)}
    said = f"--denoise by {restoring['denoise']}, --deblock by {restoring['deblock']}"
    assert f"before enlarging: {said}" in lines
    (model,) = json.loads(srcli("models", name, "--json")[1])
    found = {v["photo"]["better_up_to_jpeg"] for v in model["variants"] if v["photo"]}
    assert found == {w.better_up_to_jpeg for w in own if w.kind == "photo"}
