"""`srcli deblock`."""

from __future__ import annotations

from typing import Any

import click

from srcli.commands.restoring import Request, restore_files, restoring_options


@click.command()
@restoring_options
def deblock(**request: Any) -> int:
    """Remove the blocks and rings of JPEG compression.

    Give the JPEG itself; a copy in another format serves as well.

    \b
    Example:
        srcli deblock blocky.jpg -o clean.png
    """
    from fractions import Fraction

    from srcli.sizes import SizeRequest

    return restore_files(Request(**request), "deblock", SizeRequest(scale=Fraction(1)))
