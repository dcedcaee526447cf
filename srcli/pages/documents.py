"""Put pages together: a template, style and script that lie within it, and a policy that fits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from srcli import __version__


@cache
def asset(name: str) -> str:
    """Return the text of a file in `assets`."""
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def document(
    template: str, *, styles: Sequence[str], scripts: Sequence[str] = (), **parts: str
) -> str:
    """Return a page that loads nothing.

    Its policy lets the browser run only the script within it, and show pictures within it.

    Args:
        template: Name of an HTML file in `assets`.
        styles: Names of CSS files there.
        scripts: Names of JavaScript files there, in the order in which they run.
        **parts: HTML for the places of the template; texts must have been escaped.
    """
    style = "\n".join(map(asset, styles))
    script = "\n".join(map(asset, scripts))
    runs = _source(script) if scripts else "'none'"
    policy = "; ".join((
        "default-src 'none'",
        "img-src data: blob:",
        f"style-src {_source(style)}",
        f"script-src {runs}",
        "base-uri 'none'",
        "form-action 'none'",
    ))  # fmt: skip
    head = Template(asset("head.html")).substitute(
        parts, policy=policy, style=style, version=__version__
    )
    return Template(asset(template)).substitute(parts, head=head, script=script, foot=made_by())


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def made_by() -> str:
    """Return the words at the foot of each page."""
    return f"Made by srcli {escape(__version__)}. This page is whole: it loads nothing."


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[str] = ()) -> str:
    """Return a table in HTML; texts are escaped here.

    Args:
        headings: Of the columns. The first column names the row; columns of numbers stand right.
        rows: As many texts each.
        best: For each column what its best cells say; empty for none.
    """
    right = [
        index > 0 and all(_is_number(row[index]) for row in rows) for index in range(len(headings))
    ]
    head = "".join(
        f'<th scope="col"{_class(right[index])}>{escape(text)}</th>'
        for index, text in enumerate(headings)
    )
    body = "\n".join(_row(row, right, best or [""] * len(headings)) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(row: Sequence[str], right: Sequence[bool], best: Sequence[str]) -> str:
    first, *others = row
    cells = [f'<th scope="row">{escape(first)}</th>']
    for index, text in enumerate(others, 1):
        classes = _class(right[index], best=bool(text) and text == best[index])
        cells.append(f"<td{classes}>{escape(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _class(right: bool, *, best: bool = False) -> str:
    names = [name for name, wanted in (("number", right), ("best", best)) if wanted]
    return f' class="{" ".join(names)}"' if names else ""


def _is_number(text: str) -> bool:
    return not text or text[0] in "0123456789-+∞–~"


def section(heading: str, content: str, note: str = "") -> str:
    """Return a part of a page: a heading, HTML, and a line of text below it."""
    below = f'\n<p class="note">{escape(note)}</p>' if note else ""
    return f'<section class="card">\n<h2>{escape(heading)}</h2>\n{content}{below}\n</section>'


def report(title: str, lead: str, sections: Sequence[str]) -> str:
    """Return a page of tables and plots.

    Args:
        title: Of the page.
        lead: A line below it.
        sections: HTML, as of `section`.
    """
    return document(
        "report.html",
        styles=("base.css",),
        title=escape(title),
        lead=escape(lead),
        sections="\n".join(sections),
    )
