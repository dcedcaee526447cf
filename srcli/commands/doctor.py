"""`srcli doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import MissingPartError

if TYPE_CHECKING:
    from srcli.health import Finding


@click.command()
@options.as_json
def doctor(as_json: bool) -> int:
    """Look for what is missing or broken on this machine.

    Tells which versions are installed, what of ONNX Runtime, CUDA and TensorRT really loads,
    where the cache is, whether the shipped weights are whole, and which backend `auto` takes.
    The exit code is 3 if there is a problem. Nothing is changed.
    """
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
