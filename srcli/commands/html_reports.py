"""What `srcli eval --html` and `srcli bench --html` write: tables with plots, as one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli.bench.rows import Result
    from srcli.commands.eval_report import Measured
    from srcli.models.spec import Task

option = click.option(
    "--html",
    "html",
    type=options.FILE,
    metavar="FILE",
    help="Write the table and a plot as a page for a browser.",
)


def check_page(page: Path, overwrite: bool, other: str = "another --html") -> None:
    """Refuse, before any work, a page that cannot be written; `other` names another.

    Raises:
        UsageError: It does not end in .html.
        OutputExistsError: It is there already.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page}: a page must end in .html", "Rename it.")
    options.check_file(page, overwrite, other)


def write_page(page: Path, html: str) -> None:
    """Write a page, whole or not at all; one that exists is replaced.

    Raises:
        OutputError: It cannot be written.
    """
    from srcli.system.files import atomic_path

    with atomic_path(page) as partial:
        partial.write_text(html, "utf-8")


def write_scores(
    page: Path, results: Sequence[Measured], model: str, task: Task, *, each: bool
) -> None:
    """Write what `srcli eval` measured.

    Args:
        page: The file; one that exists is replaced.
        results: What was measured.
        model: Its name.
        task: What was undone.
        each: Show every picture too.
    """
    from srcli.commands.eval_report import COLUMNS, TITLES, cells_of, title
    from srcli.pages.charts import Bar, bars
    from srcli.pages.documents import report, section, table

    headings, rows = cells_of(results, task, each=each)
    figure = COLUMNS[task][0]
    points = [
        Bar(label=label, value=value, text=f"{value:.2f}")
        for result in results
        for label, value in [(result.label(results), result.mean[figure])]
        if value is not None and math.isfinite(value)
    ]
    sections = [section("Scores", table(headings, rows))]
    if points:
        plot = bars(points, f"{TITLES[figure]}, mean", from_zero=False)
        sections.insert(0, section(TITLES[figure].partition(" (")[0], plot))
    sets = ", ".join(dict.fromkeys(result.name for result in results))
    write_page(page, report(title(results, model, task), sets, sections))


def write_times(
    page: Path,
    title: str,
    table_of: tuple[Sequence[str], Sequence[Sequence[str]]],
    results: Sequence[Result],
    notes: Sequence[str],
) -> None:
    """Write what `srcli bench` measured.

    Args:
        page: The file; one that exists is replaced.
        title: Of the page.
        table_of: Headings and cells.
        results: What was measured.
        notes: Lines on how and where.
    """
    from srcli.bench.runner import describe
    from srcli.pages.charts import Bar, bars
    from srcli.pages.documents import report, section, table

    rows = [
        Bar(
            label=describe(result.row),
            value=summary.median,
            text=f"{summary.median:.0f}" if summary.median >= 100 else f"{summary.median:.2f}",
            until=summary.p90,
        )
        for result in results
        if (summary := result.summary) is not None
    ]
    sections = [section("Times", table(*table_of), " · ".join(notes))]
    if rows:
        plot = bars(rows, "milliseconds: the median, and a line up to nine runs of ten")
        sections.insert(0, section("Latency", plot))
    lead = "Shorter is faster. Every output was compared with the published network."
    write_page(page, report(title, lead, sections))
