"""`srcli models`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.costs import PIXELS_720P, cell, costs, scores_of, test_sets
from srcli.errors import UsageError
from srcli.models.spec import ModelSpec, Purpose, Task

if TYPE_CHECKING:
    from srcli.bench.latencies import Latency
    from srcli.checkpoints.shipped import Weights
    from srcli.commands.catalogue import Entry


@click.command()
@click.argument(
    "name", required=False, metavar="[NAME|FILE]", shell_complete=options.complete_models
)
@click.option("--all", "every", is_flag=True, help="Show each scale, with its multiply-adds.")
@click.option(
    "--measure",
    "measures",
    is_flag=True,
    help="First measure the latency of the models whose weights are on this machine.",
)
@options.as_json
def models(name: str | None, every: bool, measures: bool, as_json: bool) -> None:
    """List the models, or show everything known about one, or about a file.

    What one would use stands first. A FILE is an exported graph (.onnx), an engine (.engine) or a
    checkpoint.

    Multiply-adds are for an output of 1280 x 720: of the published network as its paper counts
    them, and of the network that srcli runs, which computes the same.
    """
    from srcli import console
    from srcli.bench.latencies import kept
    from srcli.commands import catalogue
    from srcli.models.registry import MODELS, get_model

    if name and ("." in name or "/" in name):
        if every or measures:
            raise UsageError("--all and --measure are for models, not for files", "Leave them out.")
        _file(Path(name), as_json)
        return
    specs = [get_model(name)] if name else list(MODELS)
    if measures:
        _measure(specs)
    latencies = kept()
    listed = [entry for entry in catalogue.entries(latencies) if entry.spec in specs]
    if as_json:
        console.print_json([_as_dict(spec, listed) for spec in specs])
    elif every:
        _every_row(specs)
    elif name:
        from srcli.commands.cards import show_card

        show_card(specs[0], listed)
    else:
        _list(listed)


def _list(listed: Sequence[Entry]) -> None:
    from srcli import console
    from srcli.commands import catalogue

    width = catalogue.terminal_width()
    layout, rows = catalogue.table(listed, width)
    console.table(layout, rows)
    for line in catalogue.legend(layout, listed):
        for part in textwrap.wrap(line, width):
            console.note(part)


def _measure(specs: Sequence[ModelSpec]) -> None:
    """Measure all that can run, and keep it after each: an interruption loses one."""
    from srcli import console
    from srcli.bench.latencies import keep, measure
    from srcli.commands import catalogue
    from srcli.errors import SrcliError

    entries = [entry for entry in catalogue.entries({}) if entry.spec in specs]
    here = [weights for entry in entries for weights in entry.weights.values()]
    if not here:
        raise UsageError(
            f"there are no weights for {specs[0].name} here, so nothing can be measured",
            "`srcli models` shows how to get them.",
        )
    with console.progress() as bar:
        for done, weights in enumerate(here):
            label = f"{weights.model} {weights.task} x{weights.scale}"
            bar.show(label, done, len(here))
            try:
                keep({weights.sha256: measure(weights)})
            except SrcliError as error:
                console.note(f"{label} was not measured: {error}")


def _file(file: Path, as_json: bool) -> None:
    from srcli import console
    from srcli.checkpoints.identify import describe
    from srcli.images.vips import shown

    facts = describe(file)
    if as_json:
        console.print_json(facts)
        return
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        console.result(f"{shown(key) + ':':16} {shown(text)}")


def _every_row(specs: Sequence[ModelSpec]) -> None:
    from srcli import console

    shown = test_sets(measured(spec, s, task) for spec in specs for task, s in _variants(spec))
    console.table(
        ("model", "task", "scale", "params", "published", "fused", "weights", *shown),
        [row for spec in specs for row in _rows(spec, shown)],
    )
    console.note(
        "published, fused: multiply-adds at 1280x720 output; Set5...: PSNR-Y in dB, measured"
    )


def _rows(spec: ModelSpec, shown: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            spec.name if index == 0 else "",
            task,
            f"x{scale}",
            *costs(spec, scale),
            "yes" if _weights(spec, scale, task) else "no",
            *(cell(measured(spec, scale, task), name) for name in shown),
        )
        for index, (task, scale) in enumerate(_variants(spec))
    ]


def _as_dict(spec: ModelSpec, listed: Sequence[Entry]) -> dict[str, object]:
    by_purpose = {entry.purpose: entry for entry in listed if entry.spec is spec}
    return {
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "good_for": dict(spec.good_for),
        "any_scale": [1, spec.any_scale.largest] if spec.any_scale else None,
        "variants": [_variant(spec, t, scale, by_purpose) for t, scale in _variants(spec)],
    }


def _variant(
    spec: ModelSpec, task: Task, scale: int, entries: Mapping[Purpose, Entry]
) -> dict[str, object]:
    weights = _weights(spec, scale, task)
    operations = spec.multiply_adds(scale)
    publication = spec.publications.get(scale) if task == "upscale" else None
    photo = entries.get("photo") if task == "upscale" else None
    return {
        "task": task,
        "scale": scale,
        "parameters": spec.parameters(scale),
        "multiply_adds_1280x720": {
            "published": round(operations.published_form * PIXELS_720P),
            "fused": round(operations.fused_form * PIXELS_720P),
        },
        "margin": spec.geometry(scale).margin,
        "weights_sha256": weights.sha256 if weights else None,
        "weights_published_at": publication.page if publication else None,
        "psnr": measured(spec, scale, task),
        "psnr_published": scores_of(spec.published_scores.get(scale)),
        **_of_weights(entries[task], scale),
        # Of photographs; None where there are no such weights.
        "photo": _of_weights(photo, scale) if photo and scale in photo.weights else None,
    }


def _of_weights(entry: Entry, scale: int) -> dict[str, object]:
    weights = entry.weights.get(scale)
    latency: Latency | None = entry.latencies.get(weights.sha256) if weights else None
    return {
        "good_for": entry.good_for,
        "weights": entry.way(scale),
        "weights_bytes": entry.file_size(scale),
        "licence": weights.licence if weights else None,
        # Highest quality of JPEG files that gain; None where it was not measured.
        "better_up_to_jpeg": weights.better_up_to_jpeg if weights else None,
        "scores": {name: dict(row) for name, row in weights.scores.items()} if weights else {},
        "milliseconds_1280x720": latency.milliseconds if latency else None,
        "measured_with": latency.backend if latency else None,
    }


def _variants(spec: ModelSpec) -> list[tuple[Task, int]]:
    return [(task, scale) for task in spec.tasks() for scale in spec.scales_for(task)]


def _weights(spec: ModelSpec, scale: int, task: Task) -> Weights | None:
    from srcli.checkpoints.shipped import find_weights

    return find_weights(spec, scale, task)


def measured(spec: ModelSpec, scale: int, task: Task) -> dict[str, float]:
    """Return PSNR-Y of our weights by test set; empty if the task is not upscaling."""
    weights = _weights(spec, scale, task)
    scores = weights.scores if weights and weights.task == "upscale" else {}
    return {name: score["psnr"] for name, score in scores.items()}
