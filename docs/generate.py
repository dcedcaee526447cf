"""Write the parts of the documentation that the code itself knows: commands and model cards.

MkDocs calls the functions that begin with `on_`. A page asks for a part by a line of its own:

    <!-- generated: commands -->
    <!-- generated: card lapar -->
    <!-- generated: models -->
"""

from __future__ import annotations

import html
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.checkpoints.shipped import Weights, shipped_weights
from srcli.cli import COMMANDS, cli
from srcli.commands.costs import scores_of, test_sets
from srcli.models.registry import MODELS
from srcli.models.spec import ModelSpec
from srcli.pages.charts import Bar, bars

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
# Code that shows such a line is passed over.
ASKED = re.compile(r"^```.*?^```$|^<!-- generated: (\w+) ?([\w-]*) -->$", re.MULTILINE | re.DOTALL)
PSNR = Mapping[str, float]  # in dB, by test set
OUTPUT_PIXELS = 1280 * 720
FIGURES = {"psnr_rgb": "PSNR-RGB", "psnr": "PSNR-Y", "psnr_b": "PSNR-B", "ssim": "SSIM-Y"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the example pictures and the changelog, which lie elsewhere in the repository."""
    from mkdocs.structure.files import File

    for picture in sorted((ROOT / "examples").glob("*.webp")):
        name = f"examples/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    changelog = ROOT / "CHANGELOG.md"
    files.append(File.generated(config, "changelog.md", abs_src_path=str(changelog)))
    return files


def on_page_markdown(markdown: str, **details: object) -> str:
    """Put generated parts where a page asks for them."""
    return ASKED.sub(_part, markdown)


def _part(asked: re.Match[str]) -> str:
    return "\n".join(PARTS[asked[1]](asked[2])) if asked[1] else asked[0]


def _commands(_: str) -> Iterator[str]:
    context = click.Context(cli, info_name="srcli")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command(command, click.Context(command, context, name), level=2)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield from _help(inspect.cleandoc(command.help or ""))
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, name), level + 1)


def _help(text: str) -> Iterator[str]:
    """Give paragraphs as they are, and those after a `\\b`, which keep their lines, as code."""
    for paragraph in text.split("\n\n"):
        kept, _, lines = paragraph.partition("\b\n")
        if kept.strip():
            yield f"{html.escape(kept)}\n"
        if lines:
            title, _, examples = lines.partition("\n")
            yield f"{title}\n\n```text\n{inspect.cleandoc(examples)}\n```\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            title = getattr(parameter, "srcli_section", "Options")
            sections.setdefault(title, []).append(record)
    for title, records in sections.items():
        yield from _table((title, ""), [(f"`{name}`", _plain(text)) for name, text in records])


def _plain(text: str) -> str:
    """Escape what Markdown would read as more than letters."""
    for letter in "\\|*_[]~":
        text = text.replace(letter, f"&#{ord(letter)};")
    return text.replace("<", "&lt;")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _card(family: str) -> Iterator[str]:
    specs: Sequence[ModelSpec] = importlib.import_module(f"srcli.models.{family}").SPECS
    weights = [w for w in shipped_weights() if w.model in {spec.name for spec in specs}]
    for paper in dict.fromkeys(spec.paper for spec in specs):
        yield f"Paper: {paper}.\n".replace("..", ".")
    yield "## Variants\n"
    rows = [row for spec in specs for row in _variants(spec)]
    headings = ("model", "scale", "good for", "parameters", "published", "fused", "sees", "tiles")
    yield from _table(headings, rows)
    yield (
        "*published*, *fused*: multiply-adds for an output of 1280 x 720, of the network in its "
        "paper's form and in the form that srcli runs. *sees*: how many input pixels to each side "
        "can change an output pixel. *tiles*: whether a picture in tiles gives what the whole "
        "picture gives.\n"
    )
    yield "## Weights that ship\n"
    if weights:
        yield from _provenance(weights)
    else:
        yield "None. See [Other people's networks](../guide/other-networks.md) for published ones."
    yield from _scores(specs, weights)
    pages = dict.fromkeys(p.page for spec in specs for p in spec.publications.values())
    if pages:
        yield "\nIts authors' weights: " + ", ".join(f"<{page}>" for page in pages) + "\n"


def _variants(spec: ModelSpec) -> Iterator[tuple[str, ...]]:
    for scale in spec.scales:
        geometry, work = spec.geometry(scale), spec.multiply_adds(scale)
        purposes = spec.good_for
        purpose = purposes.get("upscale") if scale > 1 else None
        restoring = (f"{task}: {purposes[task]}" for task in spec.tasks() if task != "upscale")
        yield (
            _name(spec.name),
            f"x{scale}",
            purpose or "; ".join(restoring),
            f"{spec.parameters(scale) / 1e6:.2f}&nbsp;M",
            _giga(work.published_form),
            _giga(work.fused_form),
            "all" if geometry.tiling == "approximate" else f"{geometry.margin}&nbsp;px",
            geometry.tiling,
        )


def _name(name: str) -> str:
    """Set a name as code that is never broken at its hyphens."""
    return f"`{name}`{{ .name }}"


def _giga(for_each_pixel: float) -> str:
    return f"{for_each_pixel * OUTPUT_PIXELS / 1e9:.1f}&nbsp;G"


def _provenance(weights: Sequence[Weights]) -> Iterator[str]:
    rows = []
    for path, same in groupby(weights, key=lambda each: each.path):
        entries = list(same)
        first = entries[0]
        facts = first.facts
        scales = ", ".join(f"x{each.scale}" for each in entries)
        kind = "" if first.kind == "clean" else f" --input {first.kind}"
        trained = f"{facts['steps']} steps, {facts['hours']} hours: {facts['hardware']}"
        purpose = f"{first.task}{kind} {scales}"
        if first.better_up_to_jpeg is not None:
            purpose += f", JPEG up to quality {first.better_up_to_jpeg}"
        rows.append((_name(path.stem), purpose, first.licence, trained))
    yield from _table(("file", "for", "licence", "trained"), rows)
    yield "Trained on 328 openly licensed photographs, which `weights/SOURCES.tsv` names.\n"


def _scores(specs: Sequence[ModelSpec], weights: Sequence[Weights]) -> Iterator[str]:
    found = {label: pair for spec in specs for label, pair in _upscaling(spec, weights)}
    shown = test_sets(name for pair in found.values() for name in pair)
    if found:
        yield "## Scores\n"
        yield "PSNR of Y in dB, of the weights that ship, in brackets the paper's.\n"
        rows = [(*label, *(_pair(*pair, name) for name in shown)) for label, pair in found.items()]
        yield from _table(("model", "scale", *shown), rows)
        yield from _plot({label: own for label, (own, _) in found.items()})
    for each in weights:
        if each.task != "upscale":
            yield f"`{each.path.stem}`, test set and level:\n"
            yield from _levels(each.scores)


def _plot(scores: Mapping[tuple[str, str], PSNR], test: str = "Set5") -> Iterator[str]:
    """Draw the scores of the weights that ship, to be compared by the eye."""
    points = [
        Bar(
            label=f"{name.replace('{ .name }', '').replace('`', '')} {scale}",
            value=own[test],
            text=f"{own[test]:.2f}",
        )
        for (name, scale), own in scores.items()
        if test in own
    ]
    if len(points) > 1:
        yield f"\n{bars(points, f'PSNR-Y on {test} in dB', from_zero=False)}\n"


def _upscaling(
    spec: ModelSpec, weights: Sequence[Weights]
) -> Iterator[tuple[tuple[str, str], tuple[PSNR, PSNR]]]:
    """Yield model and scale, with our own figures and the paper's by test set."""
    own = {
        (each.scale, each.kind): each.scores
        for each in weights
        if each.model == spec.name and each.task == "upscale"
    }
    for scale, kind in dict.fromkeys(
        [*own, *((scale, "clean") for scale in spec.published_scores)]
    ):
        paper = scores_of(spec.published_scores.get(int(scale)) if kind == "clean" else None)
        scores = {name: row["psnr"] for name, row in own.get((scale, kind), {}).items()}
        if scores or paper:
            label = _name(spec.name) + ("" if kind == "clean" else f" ({kind})")
            yield (label, f"x{scale}"), (scores, paper)


def _pair(own: PSNR, paper: PSNR, name: str) -> str:
    printed = f"({paper[name]:.2f})" if name in paper else ""
    return f"{own[name]:.2f} {printed}".strip() if name in own else printed


def _levels(scores: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    figures = [name for name in FIGURES if any(name in row for row in scores.values())]
    rows = [
        (test, *(f"{row[name]:.{4 if name == 'ssim' else 2}f}" for name in figures))
        for test, row in scores.items()
    ]
    yield from _table(("test", *(FIGURES[name] for name in figures)), rows)


def _models(_: str) -> Iterator[str]:
    """List what each model is good for; those with weights that ship first."""
    shipped = {weights.model for weights in shipped_weights()}
    rows = []
    for spec in sorted(MODELS, key=lambda spec: spec.name not in shipped):
        build = getattr(spec.build, "func", spec.build)  # some are `partial`
        family = build.__module__.split(".")[2]
        reach = f"any from 1 to {spec.any_scale.largest}" if spec.any_scale else ""
        scales = reach or ", ".join(f"x{scale}" for scale in spec.scales if scale > 1)
        good_for = "; ".join(f"{task}: {words}" for task, words in spec.good_for.items())
        weights = (
            "ship" if spec.name in shipped else "of its authors" if spec.publications else "yours"
        )
        rows.append((f"[`{spec.name}`]({family}.md)", scales, good_for, weights))
    yield from _table(("model", "scales", "good for", "weights"), rows)


PARTS = {"commands": _commands, "card": _card, "models": _models}
