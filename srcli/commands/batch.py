"""`srcli batch`: the state of a batch that several processes or machines work on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import FAILED

if TYPE_CHECKING:
    from srcli.jobs.status import BatchStatus

SHOWN = 20  # failures; --json has all

_place = click.argument("place", metavar="OUT", type=options.PathName())


@click.group()
def batch() -> None:
    """Look after a batch that is cut into shards, or that runs elsewhere.

    \b
    Examples:
        find in -name '*.jpg' > list
        srcli upscale --files-from list -o out/ -s 2 --shard 1/2 --resume &
        srcli upscale --files-from list -o out/ -s 2 --shard 2/2 --resume
        srcli batch status out/
        srcli upscale --files-from list -o out/ -s 2 --retry-failed
        srcli batch verify out/
    """


@batch.command()
@_place
@options.as_json
def status(place: str, as_json: bool) -> int:
    """Say how far a batch is: done, failed and why, missing, pictures a second, time left.

    OUT is the folder of the outputs, whose journals are merged. A process that has not been heard
    of for a minute counts as ended. How many are missing is known of batches from a list
    (--files-from) or in shards (--shard).
    """
    from srcli import console
    from srcli.jobs.status import Outputs, read_status

    found = read_status(Outputs(place))
    if as_json:
        console.print_json(_facts(found))
        return 0
    for name, reason in [*found.failed.items()][:SHOWN]:
        console.result(console.for_terminal(f"failed  {name}: {reason}"))
    if len(found.failed) > SHOWN:
        console.result(f"failed  {len(found.failed) - SHOWN} more; --json names them")
    for name in found.lost[:SHOWN]:
        console.result(console.for_terminal(f"lost    {name}: was made, and is there no longer"))
    console.result(_summary(found))
    if found.failed:
        console.note("To try these again, repeat the command with --retry-failed.")
    return 0


def _facts(found: BatchStatus) -> dict[str, object]:
    left, rate = found.seconds_left, found.per_second
    return {
        "done": found.done,
        "failed": [{"output": name, "error": why} for name, why in found.failed.items()],
        "lost": list(found.lost),
        "unfinished": found.unfinished,
        "total": found.total,
        "missing": found.missing,
        "shards_begun": None if found.shards is None else found.shards[0],
        "shards": None if found.shards is None else found.shards[1],
        "running": found.running,
        "per_second": None if rate is None else round(rate, 3),
        "seconds_left": None if left is None else round(left, 1),
    }


def _summary(found: BatchStatus) -> str:
    said = [f"{found.done} done", f"{len(found.failed)} failed"]
    if found.lost:
        said.append(f"{len(found.lost)} lost")
    if found.missing is not None:
        said.append(f"{found.missing} missing of {found.total}")
    if found.shards is not None:
        said.append("{} of {} shards begun".format(*found.shards))
    if found.per_second:
        said.append(f"{found.per_second:.3g} a second")
    if found.running:
        said.append(f"{found.running} at work")
    if found.seconds_left is not None:
        said.append(f"about {timedelta(seconds=round(found.seconds_left))} left")
    return ", ".join(said)


@batch.command()
@_place
@options.as_json
def verify(place: str, as_json: bool) -> int:
    """Read every output back and compare it with its record.

    OUT is the folder of the outputs. The exit code is 1 if one is missing or has changed. To make
    these again, delete them and run the batch with --resume.
    """
    from srcli import console
    from srcli.jobs.status import Outputs, merged

    outputs = Outputs(place)
    checksums = {name: record.output_sha256 for name, record in merged(outputs).items()}
    made = {name: checksum for name, checksum in checksums.items() if checksum is not None}
    flawed: list[tuple[str, str]] = []
    with console.progress() as bar:
        for done, (name, checksum) in enumerate(made.items()):
            bar.show(name, done, len(made))
            if (flaw := outputs.flaw(name, checksum)) is not None:
                flawed.append((name, flaw))
    total = len(made)
    if as_json:
        rows = [{"output": name, "flaw": flaw} for name, flaw in flawed]
        console.print_json({"whole": total - len(flawed), "flawed": rows})
    else:
        for name, flaw in flawed:
            console.result(console.for_terminal(f"{outputs.name}/{name}: {flaw}"))
        console.result(f"{total - len(flawed)} whole, {len(flawed)} not as recorded")
    return FAILED if flawed else 0
