"""`srcli deblock`."""

from __future__ import annotations

import click

from srcli.commands.request import RestoreRequest
from srcli.commands.restoring import restore_files
from srcli.commands.restoring_options import restoring_options
from srcli.commands.sections import SectionedCommand


@click.command(cls=SectionedCommand)
@restoring_options
def deblock(request: RestoreRequest) -> int:
    """Remove the blocks and rings of JPEG compression.

    Give the JPEG file itself, or a copy in another format. What a JPEG file's tables say is too
    good to gain stays as it is.

    \b
    Example:
        srcli deblock blocky.jpg -o clean.png
    """
    from fractions import Fraction

    from srcli.jobs.sizes import SizeRequest

    return restore_files(request, "deblock", SizeRequest(scale=Fraction(1)))
