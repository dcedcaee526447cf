"""Pages that compare pictures: exact pixels, a slider, zoom, differences, figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from srcli.images import Picture, SaveOptions, encode
from srcli.images.picture import Metadata
from srcli.pages.documents import document, section, table

STYLES = ("base.css", "viewer.css", "compare.css")
SCRIPTS = ("viewer.js", "compare.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture of a comparison."""

    label: str
    picture: Picture
    """All pictures of a page have one size."""

    figures: Mapping[str, str] = field(default_factory=dict)
    """Values by the headings of the table, as texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A page in the index of several."""

    title: str
    page: str
    """Name of the file beside the index."""

    picture: Picture
    """A small one."""


def comparison(
    title: str, lead: str, shown: Sequence[Shown], *, best: Sequence[str] = (), note: str = ""
) -> str:
    """Return a page that compares pictures of one size.

    Args:
        title: Of the page.
        lead: A line below it.
        shown: The pictures; the first two are shown first.
        best: For each heading of `Shown.figures` the text of its best value.
        note: A line below the table.
    """
    return document(
        "compare.html",
        styles=STYLES,
        scripts=SCRIPTS,
        title=escape(title),
        lead=escape(lead),
        figures=_figures(shown, best, note),
        pictures="\n".join(_figure(entry.label, entry.picture) for entry in shown),
    )


def index(title: str, lead: str, entries: Sequence[Entry], figures: str = "") -> str:
    """Return a page that leads to several comparisons; `figures` is HTML above the pictures."""
    return document(
        "index.html",
        styles=("base.css", "compare.css"),
        title=escape(title),
        lead=escape(lead),
        figures=figures,
        pictures="\n".join(
            f'<a href="{escape(entry.page)}">{_figure(entry.title, entry.picture)}</a>'
            for entry in entries
        ),
    )


def _figures(shown: Sequence[Shown], best: Sequence[str], note: str) -> str:
    headings = list(dict.fromkeys(name for entry in shown for name in entry.figures))
    if not headings:
        return f'<p class="note">{escape(note)}</p>' if note else ""
    rows = [[entry.label, *(entry.figures.get(name, "") for name in headings)] for entry in shown]
    content = table(["Picture", *headings], rows, ["", *best] if best else ())
    return section("Figures", content, note)


def _figure(label: str, picture: Picture) -> str:
    return (
        f'<figure><img src="{data_uri(picture)}" width="{picture.width}" '
        f'height="{picture.height}" alt="{escape(label)}">'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def data_uri(picture: Picture) -> str:
    """Return a picture as the text of a URL: a WebP file without loss, with its colour profile.

    16 bits become 8, all that browsers show.
    """
    plain = Picture(
        color=picture.color, alpha=picture.alpha, metadata=Metadata(icc=picture.metadata.icc)
    )
    content = encode(plain, SaveOptions(format="webp", lossless=True))
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
