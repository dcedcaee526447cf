"""Costs and scores of models, as tables show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from srcli.models.spec import TEST_SETS, ModelSpec, Scores

PIXELS_720P = 1280 * 720
GIGA = 1e9


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
    return {} if scores is None else scores.by_set()


def test_sets(rows: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Return the test sets, in their usual order, that at least one row has a figure for."""
    known = {name for row in rows for name in row}
    return tuple(name for name in TEST_SETS if name in known)


def cell(scores: Mapping[str, float], name: str) -> str:
    """Return one score for a table."""
    return f"{scores[name]:.2f}" if name in scores else "–"
