"""`srcli pick`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE
from srcli.models.spec import INPUT_CHOICES, TASKS, InputChoice, ModelSpec, Task

if TYPE_CHECKING:
    from srcli.commands.candidates import Candidate, Wanted, Way
    from srcli.images import Header
    from srcli.images.picture import Metadata

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}


def duration(text: str) -> float:
    """Read `500ms`, `2s`, `1.5m` or `3` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is no time. Write 1s or 500ms.")
    return float(found[1]) * UNITS[found[2] or "s"]


@click.command()
@click.argument("image", type=options.FILE)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="upscale",
    show_default=True,
    help="Task to choose for.",
)
@click.option(
    "-s",
    "--scale",
    type=options.factor,
    default=str(DEFAULT_SCALE),
    show_default=True,
    metavar="FACTOR",
    help="Factor of enlargement, for the task upscale.",
)
@click.option(
    "--input",
    "kind",
    type=click.Choice(INPUT_CHOICES),
    default="auto",
    show_default=True,
    help="Kind of weights for upscaling, as for `srcli upscale`.",
)
@click.option(
    "--best",
    is_flag=True,
    help="Choose the best result, however long it takes. This is the default.",
)
@click.option("--fastest", is_flag=True, help="Choose what takes least time.")
@click.option(
    "--within",
    type=duration,
    metavar="TIME",
    help="Choose the best result that takes at most so much time, for example 1s or 500ms.",
)
@click.option("--all-backends", is_flag=True, help="Try each backend, not only the usual one.")
@click.option(
    "--measure/--no-measure",
    "measures",
    default=True,
    show_default=True,
    help="Measure what was not measured on this machine before.",
)
@options.as_json
def pick(
    image: Path,
    task: Task,
    scale: Fraction,
    kind: InputChoice,
    best: bool,
    fastest: bool,
    within: float | None,
    all_backends: bool,
    measures: bool,
    as_json: bool,
) -> int:
    """Choose model, backend and precision for a file on this machine.

    Times are estimates for the network alone: each model is measured once on this machine, by an
    output of 1280x720 pixels, and the figure is kept. PSNR is that of the model card. Weights for
    photographs count as better than those for clean pictures where the file calls for them. The
    last line is the command to run.

    \b
    Examples:
        srcli pick photo.jpg -s 2
        srcli pick photo.png --within 1s
        srcli pick scan.png --task denoise --fastest --json
    """  # fmt: skip
    from srcli import console
    from srcli.commands.candidates import candidates, chosen, elsewhere, timed
    from srcli.system.installation import bring

    if best + fastest + (within is not None) > 1:
        raise UsageError("--best, --fastest and --within exclude each other", "Choose one.")
    wanted = _wanted(image, task, scale, kind)
    found = candidates(wanted)
    if not found:
        _check_gain(image, wanted)
        problem = f"no model with weights on this machine can {task} {image}"
        raise UsageError(problem, "`srcli models` shows what there is.")
    for distribution, names in elsewhere(found, task).items():
        console.note(f"not installed: {', '.join(names)}; `{bring(distribution)}` brings them")
    with console.progress() as bar:
        ways = _every_way if all_backends else _usual_ways
        rows = list(timed(found, ways, console.note, bar.show, measures=measures))
    rows.sort(key=lambda one: one.seconds or 0.0)
    if not rows and measures:
        raise UsageError(
            f"nothing that can {task} {image} could be measured", "`srcli doctor` looks for why."
        )
    if not rows:
        raise UsageError("nothing was measured on this machine yet", "Leave out --no-measure.")
    winner = chosen(rows, fastest=fastest, within=within)
    if winner is None:
        problem = f"nothing takes at most {within:g} s; the fastest takes {_seconds(rows[0])} s"
        raise UsageError(problem, "Give more time with --within, or choose --fastest.")
    command = _command(image, winner, scale, kind)
    if as_json:
        facts = {"chosen": _facts(winner), "command": command, "candidates": [*map(_facts, rows)]}
        console.print_json(facts)
    else:
        _table(rows, winner)
        console.result(shlex.join(command))
    return 0


def _wanted(image: Path, task: Task, scale: Fraction, kind: InputChoice) -> Wanted:
    from srcli.commands.candidates import Wanted
    from srcli.images.reading import probe_all
    from srcli.jobs.sizes import SizeRequest

    header, metadata = probe_all(image)
    if task == "upscale" and kind == "auto" and _was_jpeg(image, header, metadata):
        metadata = replace(metadata, lossless=False)  # as `srcli upscale` will find out, too
    size = SizeRequest(scale=scale if task == "upscale" else Fraction(1))
    return Wanted(task=task, size=size, input=kind, header=header, metadata=metadata)


def _was_jpeg(image: Path, header: Header, metadata: Metadata) -> bool:
    """Tell whether pixels without loss have traces of JPEG."""
    from srcli.images import StripReader
    from srcli.images.traces import quality_in_strips
    from srcli.jobs.steps import may_have_been_jpeg

    if not may_have_been_jpeg(metadata, has_alpha=header.has_alpha, bits=header.bits):
        return False
    with StripReader(image) as reader:
        return quality_in_strips(reader) is not None


def _check_gain(image: Path, wanted: Wanted) -> None:
    """Raise `UsageError` if the file is too good to be deblocked."""
    from srcli.jobs.steps import LITTLE_TO_GAIN

    quality = wanted.metadata.quality
    if wanted.task == "deblock" and quality is not None and quality >= LITTLE_TO_GAIN:
        raise UsageError(
            f"{image} (JPEG of quality {quality}): there is nothing to gain by deblocking",
            "Take the file as it is.",
        )


def _usual_ways(spec: ModelSpec) -> Sequence[Way]:
    """Return the usual backend, on a GPU also in half precision."""
    from srcli.system.cuda import driver

    half: list[Way] = [("auto", "fp16")] if spec.half_tolerance and driver().devices else []
    return [("auto", "fp32"), *half]


def _every_way(spec: ModelSpec) -> Sequence[Way]:
    """Return every backend that can be used here; an engine is built only if it is there."""
    from srcli.backends import by_preference
    from srcli.backends.base import Precision

    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    return [
        (backend.name, precision)
        for backend in by_preference()
        if backend.unavailable() is None
        for precision in precisions
        if backend.declines(spec, precision) is None
        and (precision == "fp32" or spec.half_tolerance is not None)
    ]


def _command(image: Path, found: Candidate, scale: Fraction, kind: InputChoice) -> list[str]:
    """Return the command line that restores the file in this way."""
    step = found.steps[0]
    name = f"./{image}" if str(image).startswith("-") else str(image)  # no option
    words = ["srcli", step.task, name, "-m", found.spec.name]
    if step.task == "upscale":
        decimal = f"{float(scale):g}"
        words += ["-s", decimal if Fraction(decimal) == scale else str(scale)]
        stated = "photo" if step.kind == "photo" else kind
        words += ["--input", stated] if stated != "auto" else []
    words += ["--backend", found.backend]
    return words + (["--precision", found.precision] if found.precision != "fp32" else [])


def _facts(found: Candidate) -> dict[str, object]:
    return {
        "model": found.spec.name,
        "steps": [step.label for step in found.steps],
        "backend": found.backend,
        "precision": found.precision,
        "seconds": found.seconds,
        "psnr": found.psnr,
    }


def _seconds(found: Candidate) -> str:
    return f"{found.seconds or 0.0:.3g}"


def _table(rows: Sequence[Candidate], winner: Candidate) -> None:
    from srcli import console
    from srcli.commands.catalogue import MEASURES, NONE

    name = MEASURES[winner.steps[0].task][2]
    console.table(
        ("", "model", "networks", "backend", "precision", "seconds", f"PSNR ({name})"),
        [
            (
                ">" if one is winner else "",
                one.spec.name,
                ", ".join(step.label for step in one.steps),
                one.backend,
                one.precision,
                _seconds(one),
                NONE if one.psnr is None else f"{one.psnr:.2f}",
            )
            for one in rows
        ],
    )
