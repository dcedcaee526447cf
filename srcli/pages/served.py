"""The page of the service: its HTML, and the files that it loads from there."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from srcli import __version__
from srcli.pages.documents import asset

ASSETS: Mapping[str, str] = {
    "base.css": "text/css",
    "viewer.css": "text/css",
    "serve.css": "text/css",
    "viewer.js": "text/javascript",
    "serve.js": "text/javascript",
}
"""Files that the page loads, and their media types."""


def start_page() -> str:
    """Return the HTML of the page."""
    return Template(asset("serve.html")).substitute(version=__version__)
