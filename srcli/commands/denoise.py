"""`srcli denoise`."""

from __future__ import annotations

from typing import Any

import click

from srcli.commands.restoring import Request, restore_files, restoring_options


@click.command()
@restoring_options
def denoise(**request: Any) -> int:
    """Remove noise from pictures.

    The network is blind: it needs not be told how strong the noise is.

    \b
    Example:
        srcli denoise noisy.png
    """
    from fractions import Fraction

    from srcli.sizes import SizeRequest

    return restore_files(Request(**request), "denoise", SizeRequest(scale=Fraction(1)))
