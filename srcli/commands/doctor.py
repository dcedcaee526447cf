"""`srcli doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import MissingPartError, UsageError

if TYPE_CHECKING:
    from srcli.bench.tuning import Tuned
    from srcli.health import Finding


@click.command()
@click.option(
    "--tune",
    is_flag=True,
    help="Measure every backend and keep the fastest for `auto`. Takes a few minutes.",
)
@click.option("--forget", is_flag=True, help="Forget what --tune measured on this machine.")
@options.as_json
def doctor(tune: bool, forget: bool, as_json: bool) -> int:
    """Look for what is missing or broken on this machine.

    Tells which versions are installed, what of ONNX Runtime, CUDA and TensorRT really loads,
    where the cache is, whether the shipped weights are whole, and which backend `auto` takes.
    The exit code is 3 if there is a problem. Nothing is changed without --tune or --forget.

    `auto` takes the backends in the order that was the fastest where srcli was made. With --tune
    each is measured here, in fp32, with the smallest network of each family, and the order is kept
    in the cache; it then holds for the whole family.
    """
    if tune and forget:
        raise UsageError("--tune and --forget exclude each other", "Choose one.")
    if forget:
        return _forget()
    return _tune(as_json) if tune else _examine(as_json)


def _examine(as_json: bool) -> int:
    from srcli import console
    from srcli.health import examine

    findings = examine()
    problems = sum(finding.status == "problem" for finding in findings)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        console.print_json({"healthy": not problems, "findings": listed})
    else:
        _table([_row(finding) for finding in findings])
        console.note(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return MissingPartError.exit_code if problems else 0


def _forget() -> int:
    from srcli import console
    from srcli.backends.preference import orders_file
    from srcli.system.cache import remove

    remove(orders_file())
    console.note("auto takes the backends in their usual order again")
    return 0


def _tune(as_json: bool) -> int:
    from srcli import console
    from srcli.backends.preference import keep_orders
    from srcli.bench.tuning import subjects, tune

    with console.progress() as bar:
        found = list(tune(subjects(), console.note, bar.show))
    keep_orders({one.family: one.order for one in found})
    if as_json:
        console.print_json({"measured": [{**asdict(one), "order": one.order} for one in found]})
        return 0
    console.table(
        ("measured with", "auto takes", "ms for 1280x720"),
        [(f"{one.model} x{one.scale}", one.order[0], _latencies(one)) for one in found],
    )
    console.note("Kept for this machine. To take it back, run `srcli doctor --forget`.")
    return 0


def _latencies(found: Tuned) -> str:
    return ", ".join(f"{name} {least:,.0f}" for name, least in found.milliseconds.items())


def _row(finding: Finding) -> tuple[str, ...]:
    from srcli import console

    remedy = f". {finding.remedy}" if finding.remedy else ""
    # Names of files, versions of packages and errors of libraries may hold anything.
    return finding.status, console.shown(finding.subject), console.shown(finding.found + remedy)


def _table(rows: list[tuple[str, ...]]) -> None:
    from srcli import console

    try:
        console.table(("", "what", "found"), rows)
    except ImportError:  # what lays tables out may be what is missing
        for row in rows:
            console.result("  ".join(row))
