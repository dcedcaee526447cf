"""What `upscale`, `denoise` and `deblock` have in common."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from srcli import console
from srcli.commands import options
from srcli.spec import Task

if TYPE_CHECKING:
    from srcli.batch import Job, Naming, Outcome
    from srcli.pipeline import Progress

FAILED = 1  # exit code: some inputs failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of a restoring command, as parsed."""

    inputs: tuple[str, ...]
    output: str | None
    model: str
    weights: Path | None
    backend: str
    threads: int | None
    tile: int | None
    memory: int | None
    overwrite: bool
    as_json: bool


restoring_options = options.apply(
    click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
    click.option(
        "-o",
        "--output",
        metavar="OUT",
        help="File, or folder (ends in a slash, or exists).  [default: beside the input]",
    ),
    options.model,
    options.running,
    click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    options.as_json,
)


def restore_files(request: Request, task: Task, scale: int) -> int:
    """Do what a restoring command asks for; returns the exit code."""
    from srcli.backends import get_backend
    from srcli.backends.base import SessionOptions
    from srcli.batch import Naming, run_jobs
    from srcli.images import SaveOptions
    from srcli.loading import load
    from srcli.pipeline import Restorer

    suffix = f"_x{scale}" if task == "upscale" else f"_{task}ed"
    jobs = _plan(request, Naming(suffix=suffix))
    loaded = load(request.model, scale, task=task, weights=request.weights, note=console.note)
    backend = get_backend(request.backend)
    settings = SessionOptions(threads=request.threads)
    outcomes = []
    with closing(backend.open(loaded, settings)) as session:
        restorer = Restorer(
            session=session,
            geometry=loaded.geometry,
            scale=scale,
            tile=request.tile,
            memory=request.memory,
            note=console.note,
        )
        if request.backend == "auto":
            console.note(f"{loaded.label} with {backend.name}")
        with console.progress() as bar:
            numbers = {job: number for number, job in enumerate(jobs, start=1)}

            def start(job: Job) -> Progress:
                return bar.start(f"{numbers[job]}/{len(jobs)} {job.source.name}")

            for outcome in run_jobs(jobs, restorer, SaveOptions(), start):
                outcomes.append(outcome)
                _tell(outcome, quiet=request.as_json)
    if request.as_json:
        console.print_json(
            {
                "model": loaded.spec.name,
                "scale": scale,
                "task": task,
                "backend": backend.name,
                "weights_sha256": loaded.weights.sha256,
                "files": [_as_dict(outcome) for outcome in outcomes],
            }
        )
    return _summary(outcomes)


def _plan(request: Request, naming: Naming) -> list[Job]:
    from srcli.batch import check_existing, missing_inputs, plan_jobs

    inputs = [Path(text) for text in request.inputs]
    missing = missing_inputs(inputs)
    if missing:
        raise missing[0]
    output = None if request.output is None else Path(request.output)
    into_folder = output is not None and (
        output.is_dir() or (request.output is not None and request.output.endswith(("/", "\\")))
    )
    jobs = plan_jobs(inputs, output, naming, into_folder=into_folder)
    if not request.overwrite:
        check_existing(jobs)
    return jobs


def _tell(outcome: Outcome, *, quiet: bool) -> None:
    if outcome.error is not None:
        console.error(str(outcome.error))
    elif not quiet:
        console.result(f"{outcome.job.target}  {_sizes(outcome)}  {outcome.seconds:.2f} s")


def _sizes(outcome: Outcome) -> str:
    pairs = (size for size in (outcome.source_size, outcome.size) if size)
    return " -> ".join(f"{width}x{height}" for width, height in pairs)


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.job.source),
        "output": str(outcome.job.target),
        "status": outcome.status,
        "error": None if outcome.error is None else str(outcome.error),
        "input_size": outcome.source_size,
        "output_size": outcome.size,
        "seconds": round(outcome.seconds, 4),
    }


def _summary(outcomes: list[Outcome]) -> int:
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed and len(outcomes) > 1:
        console.note(f"{len(outcomes) - failed} of {len(outcomes)} done, {failed} failed")
    return FAILED if failed else 0
