"""Print all facts about one model, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from srcli import console
from srcli.commands.catalogue import MEGA, NONE, Entry, fitting, terminal_width
from srcli.commands.costs import cell, costs, scores_of, test_sets
from srcli.jobs.steps import steps_before
from srcli.models.spec import TASKS, Geometry, ModelSpec, Task

TITLES: Mapping[Task, str] = {
    "upscale": "upscale: PSNR-Y in dB, in brackets the paper's",
    "denoise": "denoise: noise of this sigma (of 255) taken from test pictures",
    "deblock": "deblock: test pictures as JPEG of this quality, 4:2:0",
}
FIGURES = {"psnr_rgb": "PSNR-RGB", "psnr": "PSNR-Y", "psnr_b": "PSNR-B", "ssim": "SSIM-Y"}
DIGITS = {"ssim": 4}
LAYOUTS = (
    ("weights for", "from", "licence", "MB", "ms", "sha256"),
    ("weights for", "from", "licence", "MB", "ms"),
    ("weights for", "from", "MB", "ms"),
    ("weights for", "from"),
)


def show_card(spec: ModelSpec, entries: Sequence[Entry]) -> None:
    """Print everything known about a model.

    Args:
        spec: The model.
        entries: Its rows of the list of models.
    """
    paper = textwrap.fill(spec.paper, terminal_width())
    console.result(f"{spec.title} ({spec.name})\n{paper}\n")
    for entry in entries:
        console.result(f"{_label(entry)}: {entry.good_for}")
        _wrapped(entry.limits, indent="  ")
    if max(spec.scales) > 1:
        _wrapped(_before(spec))
    console.result("")
    _costs(spec)
    if spec.any_scale is not None:
        console.result(f"any other scale from 1 to {spec.any_scale.largest} too")
    elif max(spec.scales) > 1:
        console.result("any other scale too, by several passes and one resampling")
    _weights(entries)
    for entry in entries:
        _scores(entry)
    for page in dict.fromkeys(publication.page for publication in spec.publications.values()):
        console.result(f"its authors' weights: {page}")


def _before(spec: ModelSpec) -> str:
    """Say which weights restore a picture before the model enlarges it."""
    steps = steps_before(spec.name, TASKS)
    by = ", ".join(f"--{step.task} by {step.model}" for step in reversed(steps))
    return f"before enlarging: {by}"


def _wrapped(text: str, indent: str = "") -> None:
    """Print a sentence on as many lines as it takes."""
    for line in textwrap.wrap(text, terminal_width() - len(indent)):
        console.result(f"{indent}{line}")


def _label(entry: Entry) -> str:
    return f"{entry.task} --input {entry.kind}" if entry.kind != "clean" else entry.task


def _costs(spec: ModelSpec) -> None:
    console.table(
        ("scale", "params", "published", "fused", "sees", "tiling", "least"),
        [
            (
                f"x{scale}",
                *costs(spec, scale),
                _sight(spec.geometry(scale)),
                spec.geometry(scale).tiling,
                str(spec.geometry(scale).minimum),
            )
            for scale in spec.scales
        ],
        title="multiply-adds at 1280x720 output; sees: receptive field; least: smallest side",
    )


def _sight(geometry: Geometry) -> str:
    """Return the receptive field, for people."""
    if geometry.tiling == "approximate":
        return f"all, tiles {geometry.margin} px"
    return f"{geometry.margin} px"


def _weights(entries: Sequence[Entry]) -> None:
    rows = [_weights_row(entry, scale) for entry in entries for scale in entry.scales]
    cells = {name: [row[name] for row in rows] for name in LAYOUTS[0]}
    layout = fitting(LAYOUTS, cells, terminal_width())
    console.table(layout, [[row[name] for name in layout] for row in rows])


def _weights_row(entry: Entry, scale: int) -> dict[str, str]:
    weights = entry.weights.get(scale)
    milliseconds = entry.milliseconds(scale)
    return {
        "weights for": f"{_label(entry)} x{scale}",
        "from": _source(entry, scale),
        "licence": weights.licence if weights else NONE,
        "MB": f"{entry.bytes(scale) / MEGA:.1f}",
        "ms": NONE if milliseconds is None else f"{milliseconds:.0f}",
        "sha256": weights.sha256[:12] if weights else NONE,
    }


def _source(entry: Entry, scale: int) -> str:
    """Return where weights are from, or how to get them."""
    match entry.way(scale):
        case "own":
            return "comes with srcli"
        case "fetched":
            return "fetched"
        case "fetch":
            return f"srcli weights fetch {entry.spec.name} -s {scale}"
        case _:
            return "give --weights FILE"


def _scores(entry: Entry) -> None:
    headings, rows = (_upscaling if entry.task == "upscale" else _restoring)(entry)
    if rows:
        title = TITLES[entry.task]
        console.table(headings, rows, title=f"{title} (photo)" if entry.kind == "photo" else title)


def _upscaling(entry: Entry) -> tuple[Sequence[str], list[list[str]]]:
    found = {}
    for scale in entry.scales:
        weights = entry.weights.get(scale)
        own = {name: row["psnr"] for name, row in weights.scores.items()} if weights else {}
        paper = scores_of(entry.spec.published_scores.get(scale)) if entry.kind == "clean" else {}
        if own or paper:
            found[scale] = own, paper
    shown = test_sets([name for pair in found.values() for name in pair])
    rows = [[f"x{scale}", *(_pair(*pair, name) for name in shown)] for scale, pair in found.items()]
    return ("scale", *shown), rows


def _pair(own: Mapping[str, float], paper: Mapping[str, float], name: str) -> str:
    printed = f"({cell(paper, name)})" if name in paper else ""
    return f"{cell(own, name)} {printed}".strip()


def _restoring(entry: Entry) -> tuple[Sequence[str], list[list[str]]]:
    scores: Mapping[str, Mapping[str, object]] = next(
        (weights.scores for weights in entry.weights.values()), {}
    )
    figures = [name for name in FIGURES if any(name in row for row in scores.values())]
    rows = [
        [test, *(f"{row[figure]:.{DIGITS.get(figure, 2)}f}" for figure in figures)]
        for test, row in scores.items()
    ]
    return ("test", *(FIGURES[figure] for figure in figures)), rows
