"""`srcli models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from srcli.commands import options
from srcli.spec import Geometry, ModelSpec, Scores, Task

PIXELS_720P = 1280 * 720
GIGA = 1e9
TEST_SETS = ("Set5", "Set14", "B100")


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE]")
@options.as_json
def models(name: str | None, as_json: bool) -> None:
    """List the models, or show everything known about one, or about a file.

    A FILE is an exported graph (.onnx), an engine (.engine) or a checkpoint.

    Multiply-adds are for an output of 1280 x 720: of the published network as its paper counts
    them, and of the network that srcli runs, which computes the same.
    """
    from srcli import console
    from srcli.registry import MODELS, get_model

    if name and ("." in name or "/" in name):
        _file(Path(name), as_json)
        return
    specs = [get_model(name)] if name else list(MODELS)
    if as_json:
        console.print_json([_as_dict(spec) for spec in specs])
    elif name:
        _card(specs[0])
    else:
        console.table(
            ("model", "task", "scale", "params", "published", "fused", "weights", *TEST_SETS),
            [row for spec in specs for row in _rows(spec)],
        )
        console.note(
            "published, fused: multiply-adds at 1280x720 output; Set5...: PSNR-Y in dB, measured"
        )


def _file(file: Path, as_json: bool) -> None:
    from srcli import console
    from srcli.artifacts import describe

    facts = describe(file)
    if as_json:
        console.print_json(facts)
        return
    for key, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        console.result(f"{key + ':':16} {shown}")


def _rows(spec: ModelSpec) -> list[tuple[str, ...]]:
    return [
        (
            spec.name if index == 0 else "",
            task,
            f"x{scale}",
            f"{spec.parameters(scale) / 1e3:.0f} k",
            f"{_giga(spec.multiply_adds(scale).published):.1f} G",
            f"{_giga(spec.multiply_adds(scale).fused):.1f} G",
            "yes" if _weights(spec, scale, task) else "no",
            *(_cell(_measured(spec, scale, task), name) for name in TEST_SETS),
        )
        for index, (task, scale) in enumerate(_variants(spec))
    ]


def _card(spec: ModelSpec) -> None:
    from srcli import console

    console.result(f"{spec.title} ({spec.name})\n{spec.paper}\n")
    console.table(
        ("scale", "params", "published", "fused", "sees to each side", "tiling", "least side"),
        [
            (
                f"x{scale}",
                f"{spec.parameters(scale) / 1e3:.0f} k",
                f"{_giga(spec.multiply_adds(scale).published):.1f} G",
                f"{_giga(spec.multiply_adds(scale).fused):.1f} G",
                _sight(spec.geometry(scale)),
                spec.geometry(scale).tiling,
                str(spec.geometry(scale).minimum),
            )
            for scale in spec.scales
        ],
        title="multiply-adds at 1280x720 output",
    )
    if spec.any_scale is not None:
        console.result(f"any other scale from 1 to {spec.any_scale.largest} too\n")
    rows = []
    for task, scale in _variants(spec):
        weights = _weights(spec, scale, task)
        licence = weights.licence if weights else _remedy(spec, scale, task)
        own = _measured(spec, scale, task)
        paper = spec.published.get(scale) if task == "upscale" else None
        rows.append((f"{task} x{scale}", licence, *_pairs(own, paper)))
    console.table(
        ("task", "weights", *(f"{name}: own / paper" for name in TEST_SETS)),
        rows,
        title="PSNR-Y in dB",
    )
    for page in dict.fromkeys(published.page for published in spec.weights.values()):
        console.result(f"its authors' weights: {page}")


def _remedy(spec: ModelSpec, scale: int, task: Task) -> str:
    """How to get weights that are not here."""
    published = spec.weights.get(scale) if task == "upscale" else None
    if published is None or published.address is None:
        return "give --weights FILE"
    return f"srcli weights fetch {spec.name} -s {scale}"


def _sight(geometry: Geometry) -> str:
    """How far away an input pixel can be and still matter."""
    if geometry.tiling == "approximate":
        return f"the whole picture; tiles see {geometry.margin} px"
    return f"{geometry.margin} px"


def _pairs(own: dict[str, float], paper: Scores | None) -> list[str]:
    published = _scores(paper)
    return [f"{_cell(own, name)} / {_cell(published, name)}" for name in TEST_SETS]


def _as_dict(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "any_scale": [1, spec.any_scale.largest] if spec.any_scale else None,
        "variants": [_variant(spec, task, scale) for task, scale in _variants(spec)],
    }


def _variant(spec: ModelSpec, task: Task, scale: int) -> dict[str, Any]:
    weights = _weights(spec, scale, task)
    operations = spec.multiply_adds(scale)
    published = spec.weights.get(scale) if task == "upscale" else None
    return {
        "task": task,
        "scale": scale,
        "parameters": spec.parameters(scale),
        "multiply_adds_1280x720": {
            "published": round(operations.published * PIXELS_720P),
            "fused": round(operations.fused * PIXELS_720P),
        },
        "margin": spec.geometry(scale).margin,
        "weights_sha256": weights.sha256 if weights else None,
        "weights_published_at": published.page if published else None,
        "psnr": _measured(spec, scale, task),
        "psnr_published": _scores(spec.published.get(scale)),
    }


def _variants(spec: ModelSpec) -> list[tuple[Task, int]]:
    return [(task, scale) for task in spec.tasks() for scale in spec.scales_for(task)]


def _weights(spec: ModelSpec, scale: int, task: Task) -> Any:
    from srcli.store import find_weights

    return find_weights(spec, scale, task)


def _measured(spec: ModelSpec, scale: int, task: Task) -> dict[str, float]:
    weights = _weights(spec, scale, task)
    scores = weights.scores if weights and weights.task == "upscale" else {}
    return {name: score["psnr"] for name, score in scores.items()}


def _scores(scores: Scores | None) -> dict[str, float]:
    return (
        {}
        if scores is None
        else dict(zip(TEST_SETS, (scores.set5, scores.set14, scores.b100), strict=True))
    )


def _cell(scores: dict[str, float], name: str) -> str:
    return f"{scores[name]:.2f}" if name in scores else "–"


def _giga(per_pixel: float) -> float:
    return per_pixel * PIXELS_720P / GIGA
