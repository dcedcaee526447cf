"""`srcli upscale`."""

from __future__ import annotations

from typing import Any

import click

from srcli.commands.restoring import Request, restore_files, restoring_options
from srcli.registry import DEFAULT_SCALE


@click.command()
@restoring_options
@click.option(
    "-s", "--scale", type=int, default=DEFAULT_SCALE, show_default=True, help="Enlargement."
)
def upscale(scale: int, **request: Any) -> int:
    """Enlarge pictures.

    \b
    Example:
        srcli upscale photo.png -m lapar-c -s 4
    """
    return restore_files(Request(**request), "upscale", scale)
