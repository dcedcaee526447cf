"""What the cards of models say, against what the papers print."""

from __future__ import annotations

import json

import pytest

from srcli.registry import MODELS, get_model

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


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_scores_are_those_that_the_papers_print(spec):
    """faults.md 32."""
    own = {scale: (s.set5, s.set14, s.b100) for scale, s in spec.published.items()}
    assert own == PAPERS.get(spec.name, {})


@pytest.mark.parametrize(("model", "billions"), BILLIONS.items())
def test_multiply_adds_are_those_that_the_papers_print(model, billions):
    """faults.md 32."""
    name, scale = model
    counted = get_model(name).multiply_adds(scale).published * 1280 * 720 / 1e9
    assert counted == pytest.approx(billions, rel=0.02 if name != "hpinet-m" else 1e-6)


def test_all_published_weights_are_listed(srcli):
    """faults.md 32: also those whose checksum is not known."""
    rows = {(r["model"], r["scale"]): r for r in json.loads(srcli("weights", "list", "--json")[1])}
    large = rows["hpinet-l", 4]
    assert large["address"].endswith("/checkpoints/HPINet-L-x4.pth")
    assert large["sha256"] is None
    small = rows["hpinet-s", 4]
    assert small["address"].rpartition("/")[0] == large["address"].rpartition("/")[0]
