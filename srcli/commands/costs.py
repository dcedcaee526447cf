"""Costs and scores of models, as tables show them."""

from __future__ import annotations

from collections.abc import Mapping

from srcli.models.spec import ModelSpec, Scores

PIXELS_720P = 1280 * 720
GIGA = 1e9
TEST_SETS = ("Set5", "Set14", "B100")


def costs(spec: ModelSpec, scale: int) -> tuple[str, str, str]:
    """Return parameters, and multiply-adds at 1280x720 output: published and fused."""
    operations = spec.multiply_adds(scale)
    return (
        f"{spec.parameters(scale) / 1e3:.0f} k",
        f"{operations.published_form * PIXELS_720P / GIGA:.1f} G",
        f"{operations.fused_form * PIXELS_720P / GIGA:.1f} G",
    )


def scores_of(scores: Scores | None) -> dict[str, float]:
    """Return a paper's scores by test set."""
    return (
        {}
        if scores is None
        else dict(zip(TEST_SETS, (scores.set5, scores.set14, scores.b100), strict=True))
    )


def cell(scores: Mapping[str, float], name: str) -> str:
    """Return one score for a table."""
    return f"{scores[name]:.2f}" if name in scores else "–"
