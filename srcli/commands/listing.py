"""Restore the pictures of a list, whose headers are read one by one as their turn comes."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from srcli import console
from srcli.commands.outcome import Teller, as_dict, tell_how_to_go_on
from srcli.commands.restoring import batch_of
from srcli.jobs.examining import examined
from srcli.jobs.finding import STDIO
from srcli.jobs.listed import ListedPlan, NameList, plan_list
from srcli.system import stores

if TYPE_CHECKING:
    from srcli.commands.request import RestoreRequest
    from srcli.commands.restoring import Runner
    from srcli.jobs.job import Wishes

PEEKED = 8  # pictures that are looked at before the first is done, to open the networks they need


def restore_listed(request: RestoreRequest, wishes: Wishes, runner: Runner) -> int:
    """Do what a restoring command with `--files-from` asks for; returns the exit code."""
    kept = request.overwrite or request.skip_existing or request.resume
    with names_of(request) as names:
        plan = plan_list(
            names,
            wishes,
            relative_to=base_of(request),
            refuse=not (kept or request.dry_run),
        )
        return _restore(plan, request, runner)


def names_of(request: RestoreRequest) -> NameList:
    """Return the names of the inputs, as a list to be closed."""
    if request.files_from is not None:
        return NameList.read(request.files_from)
    return NameList.of_inputs(
        request.all_inputs, recursive=request.recursive, output=request.output
    )


def base_of(request: RestoreRequest) -> str | None:
    """Return the folder below which the names of outputs begin: that of the one input, if none is
    named."""
    if request.relative_to is not None or request.files_from is not None:
        return request.relative_to
    folders = {_folder(text) for text in request.all_inputs}
    return folders.pop() if len(folders) == 1 else None


def _folder(text: str) -> str:
    if stores.is_url(text):
        return text if text.endswith("/") else stores.parent(text)
    return text if os.path.isdir(text) else str(Path(text).parent)


def _restore(plan: ListedPlan, request: RestoreRequest, runner: Runner) -> int:
    if request.for_programs:
        console.check_stdout()
    if request.dry_run:
        return show_names(plan, request)
    teller = Teller(as_events=request.events is not None, quiet=request.as_json)
    teller.listed(len(plan), request.shard)
    files = _run(plan, request, runner, teller)
    if request.as_json:
        console.print_json({**runner.used, "files": files, "left_out": []})
    return teller.summary()


def show_names(plan: ListedPlan, request: RestoreRequest) -> int:
    """Print the names of inputs and outputs; the inputs are not looked at."""
    for job in plan.jobs():
        if request.for_programs:
            console.print_event({"input": job.name, "output": job.output})
        else:
            console.result(console.for_terminal(f"{job.name} -> {job.output}"))
    console.note(f"{len(plan)} names were checked; no file was opened")
    return 0


def _run(
    plan: ListedPlan, request: RestoreRequest, runner: Runner, teller: Teller
) -> list[dict[str, object]]:
    """Do the jobs; return the results for JSON if that is wanted."""
    files: list[dict[str, object]] = []
    with runner, console.progress() as bar:
        open_usual(plan, runner)

        def show(name: str, done: int, total: int) -> None:
            bar.show(f"{teller.finished_count + 1}/{total} {name}", done, total)

        batch = replace(
            batch_of(request, runner, teller, show),
            load=runner.load,
            wishes=plan.wishes,
            root=plan.places.root,
            root_url=plan.places.url,
        )
        try:
            for outcome in batch.run(plan.jobs(), len(plan)):
                teller.finished(outcome)
                if request.as_json:
                    files.append(as_dict(outcome))
        except (KeyboardInterrupt, SystemExit):
            if request.files_from != STDIO:
                tell_how_to_go_on(teller.finished_count)
            raise
    return files


def open_usual(plan: ListedPlan, runner: Runner) -> None:
    """Open the networks that the first pictures need: a model without weights stops everything."""
    for job in islice(plan.jobs(), PEEKED):
        looked_at = examined(job, plan.wishes, alone=False)
        for step in looked_at.steps_if_jpeg:
            runner.load(step)
        for step in looked_at.steps:
            runner.restorer(step)
