"""`srcli bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from srcli.commands import html_reports, options
from srcli.commands.bench_rows import RowOptions, chosen_rows
from srcli.commands.sections import SectionedGroup, section
from srcli.errors import FAILED, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.backends.base import Session
    from srcli.bench.hardware import Conditions
    from srcli.bench.rows import Result, Row
    from srcli.models.spec import Geometry, Scale


class BenchOptions(RowOptions):
    """The options of `srcli bench`, as parsed."""

    plot: Path | None
    html: Path | None
    overwrite: bool
    as_json: bool
    as_csv: bool
    as_markdown: bool
    seconds: float
    threads: int | None
    allocator: str
    sweep: bool
    roofline: bool


LONGEST = 10.0  # seconds of one run, in a sweep


@click.group("bench", cls=SectionedGroup, invoke_without_command=True)
@section(
    "Rows to measure",
    click.option("--size", metavar="WxH", help="Size of the output.  [default: 1280x720]"),
    click.option("--input-size", metavar="WxH", help="Size of the input, instead of --size."),
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="NAME",
        shell_complete=options.complete_models,
        help="May be repeated.  [default: lapar-a, -b, -c]",
    ),
    click.option(
        "-s",
        "--scale",
        "scales",
        multiple=True,
        type=int,
        metavar="N",
        help="May be repeated.  [default: 4]",
    ),
    click.option(
        "--backend",
        "backends",
        multiple=True,
        metavar="NAME",
        shell_complete=options.complete_backends,
        help="May be repeated.  [default: all that work here]",
    ),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        type=click.Choice(("fp32", "fp16", "bf16", "int8")),
        help="May be repeated.  [default: fp32, on CUDA also fp16 and bf16]",
    ),
    click.option(
        "--graph",
        "graphs",
        multiple=True,
        type=click.Choice(("published", "fused")),
        help="[default: fused on every backend, published in PyTorch]",
    ),
    click.option(
        "--scope",
        "scopes",
        multiple=True,
        type=click.Choice(("network", "host", "file")),
        help="network: data stays on the device; host: from numpy to numpy; file: from PNG "
        "to PNG, as `srcli upscale` does it. May be repeated.  [default: network]",
    ),
    click.option(
        "--batch",
        "batches",
        multiple=True,
        type=click.IntRange(min=1),
        metavar="N",
        help="Pictures in one run.",
    ),
    click.option(
        "--sweep", is_flag=True, help="360p to 4K, 1 to 16 pictures at once, with roofline."
    ),
)
@section(
    "How it is measured",
    click.option(
        "--seconds",
        type=options.Range(min=0),
        metavar="S",
        default=45.0,
        show_default=True,
        help="Time to measure for, after warming up; at least three rounds.",
    ),
    click.option(
        "--allocator",
        type=click.Choice(("keep", "default")),
        default="keep",
        show_default=True,
        help="keep: memory that a run frees stays with the process; default: malloc "
        "gives most of it back to the system, and the next run has to ask for it again.",
    ),
    options.threads,
    click.option("--no-cuda-graph", is_flag=True, help="On CUDA: also without CUDA graphs."),
    click.option("--cold", is_flag=True, help="On CUDA: also with a cold L2 cache."),
)
@section(
    "Results",
    click.option(
        "--roofline", is_flag=True, help="Show what limits each row: computing or memory."
    ),
    click.option(
        "--plot",
        type=options.FILE,
        metavar="FILE.svg|png",
        help="Draw latency against PSNR, or against size if there are several.",
    ),
    html_reports.option,
    click.option(
        "--overwrite", is_flag=True, help="Replace what --plot and --html name if it exists."
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print everything as JSON, samples included."
    ),
    click.option("--csv", "as_csv", is_flag=True, help="Print CSV."),
    click.option("--markdown", "as_markdown", is_flag=True, help="Print a Markdown table."),
)
@click.pass_context
def bench(context: click.Context, /, **given: Unpack[BenchOptions]) -> int | None:
    """Measure how long networks take, next to their published form.

    Without options: the table of the LAPAR paper, 1280x720 output from 320x180 input. Rows take
    turns, each backend in a process of its own; every row's output is compared with the published
    network in float32, and a row that is wrong makes the command fail.

    \b
    Example:
        srcli bench --size 1280x720
        srcli bench -m lapar-c -s 2 -s 4 --backend ort --json > now.json
        srcli bench compare before.json now.json
    """
    if context.invoked_subcommand is not None:
        return None
    return _bench(**given)


@bench.command("compare")
@click.argument("first", type=options.PLACE)
@click.argument("second", type=options.PLACE)
@click.option(
    "--tolerance", type=options.Range(min=0), default=0.05, show_default=True,
    help="Share by which a row may become slower.",
)  # fmt: skip
@click.option(
    "--anyway", is_flag=True, help="Compare across different hardware, scopes and allocators."
)
@options.as_json
def compare_files(
    first: Path, second: Path, tolerance: float, anyway: bool, as_json: bool
) -> int | None:
    """Compare two files written by `srcli bench --json`; fails if a row has become slower.

    A row counts as slower if even the lower end of the 95 % confidence interval of the ratio of
    its medians exceeds the tolerance.
    """
    from dataclasses import asdict

    from srcli import console
    from srcli.bench.compare import compare, read_report

    changes = compare(read_report(first), read_report(second), anyway=anyway)
    slower = [change for change in changes if change.regressed(tolerance)]
    if as_json:
        console.print_json(
            {"rows": [{**asdict(c), "regressed": c.regressed(tolerance)} for c in changes]}
        )
    else:
        rows = [
            (
                change.label,
                f"{change.before:.2f}",
                f"{change.after:.2f}",
                f"{change.ratio:.3f}",
                f"{change.low:.3f} to {change.high:.3f}",
                _word(change.regressed(tolerance), change.improved(tolerance)),
            )
            for change in changes
        ]
        console.table(("row", "before ms", "after ms", "ratio", "95 %", ""), rows)
    return FAILED if slower else None


def _word(regressed: bool, improved: bool) -> str:
    return "slower" if regressed else "faster" if improved else "same"


def _bench(
    *,
    plot: Path | None,
    html: Path | None,
    overwrite: bool,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    seconds: float,
    threads: int | None,
    allocator: str,
    sweep: bool,
    roofline: bool,
    **wishes: Unpack[RowOptions],
) -> int | None:
    from srcli import console
    from srcli.bench import elsewhere, report
    from srcli.bench.hardware import hardware, state
    from srcli.bench.messages import Habits
    from srcli.bench.runner import check, measure

    if as_json + as_csv + as_markdown > 1:
        raise UsageError("--json, --csv and --markdown exclude each other", "Choose one.")
    if plot is not None:
        from srcli.bench.plot import check_target

        check_target(plot)
        options.check_file(plot, overwrite, "another --plot")
    if html is not None:
        html_reports.check_page(html, overwrite)
    chosen = list(dict.fromkeys(chosen_rows(sweep=sweep, **wishes)))
    if not chosen:
        raise UsageError(
            "there is nothing to measure: no backend that was asked for runs these models in this "
            "form and precision",
            "Leave out --backend, --graph or --precision.",
        )
    machine, before = hardware(), state()
    with console.progress() as bar:
        measured = measure(
            chosen,
            seconds=seconds,
            threads=threads,
            apart=sweep,
            longest=LONGEST if sweep else None,
            habits=Habits(keep_memory=allocator == "keep", files=restore_files),
            tell=bar.show,
            # A sweep takes minutes: where there is no bar, lines say how far it is.
            finished=_tell_row if sweep and not sys.stderr.isatty() else lambda result: None,
        )
    results = measured.results
    facts: Conditions = {
        **machine,
        "allocator": allocator,
        "threads": threads,
        "before": before,
        "after": state(),
        "ceilings": measured.ceilings,
    }
    check(results)
    shown = {
        "paper": _has_paper_rows(results),
        "roof": roofline or sweep,
        "burst": any(result.bursts for result in results),
    }
    headings = report.columns(**shown)
    cells = [report.cells(result, **shown) for result in results]
    if as_json:
        whole = report.as_dict(results, facts)
        console.print_json({**whole, "interrupted": measured.stopped is not None})
    elif as_csv:
        console.result(report.to_csv(results).rstrip())
    elif as_markdown:
        console.result(report.to_markdown(headings, cells).rstrip())
    else:
        console.table(headings, cells, title=_title(chosen))
        if others := elsewhere.figures(results):
            console.table(elsewhere.HEADINGS, [elsewhere.cells(figure) for figure in others])
        for line in [*report.conditions(facts), *report.notes(results)]:
            console.note(line)
    if plot is not None:
        from srcli.bench.plot import plot as draw

        console.note(f"{plot}: {draw(results, plot, replace=overwrite)}")
    if html is not None:
        notes = [*report.conditions(facts), *report.notes(results)]
        html_reports.write_times(
            html, f"Latency {_title(chosen)}", (headings, cells), results, notes
        )
        console.note(f"{html}: the table and a plot")
    if measured.stopped is not None:
        raise measured.stopped
    return _outcome(results, sweep=sweep)


def _tell_row(result: Result) -> None:
    from srcli import console
    from srcli.bench.runner import describe

    summary = result.summary
    said = result.failure or (f"{summary.median:.0f} ms" if summary else "nothing")
    console.note(f"{describe(result.row)}: {said}")


def restore_files(
    session: Session,
    geometry: Geometry,
    scale: Scale,
    pictures: Sequence[NDArray[np.uint8]],
    folder: Path,
) -> Callable[[], object]:
    """Return a run that restores PNG to PNG as `srcli upscale` does, one step after the other.

    Args:
        session: An open network.
        geometry: Of the network.
        scale: Of the network.
        pictures: H x W x 3, of one size; they are written into the folder.
        folder: An empty one.

    Returns:
        A function that decodes the pictures, restores them together and encodes the results.
    """
    from srcli import images
    from srcli.loading.restorer import RunOptions, restorer_of

    sources = [folder / f"{number}.png" for number in range(len(pictures))]
    for source, pixels in zip(sources, pictures, strict=True):
        images.write(images.Picture(color=pixels), source, images.SaveOptions())
    restorer = restorer_of(session, geometry, scale, RunOptions())

    def run() -> None:
        restored = restorer.restore_all([images.read(source) for source in sources])
        for source, picture in zip(sources, restored, strict=True):
            images.write(picture, source.with_suffix(".out.png"), images.SaveOptions())

    return run


def _outcome(results: Sequence[Result], *, sweep: bool) -> int | None:
    from srcli import console
    from srcli.bench.runner import describe

    bad = [r for r in results if r.verdict == "wrong" or (r.failure and not sweep)]
    for result in bad:
        why = result.failure or f"differs by {result.error:.1e}, allowed {result.tolerance:.1e}"
        console.error(f"{describe(result.row)}: {why}")
    return FAILED if bad else None


def _has_paper_rows(results: Sequence[Result]) -> bool:
    from srcli.bench.report import paper_latency

    return any(paper_latency(result) for result in results)


def _title(rows: Sequence[Row]) -> str:
    sizes = {(row.width, row.height, *row.output) for row in rows}
    if len(sizes) > 1:
        return ""
    width, height, *output = sizes.pop()
    return f"{width}x{height} -> {output[0]}x{output[1]}"
