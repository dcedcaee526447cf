"""`srcli denoise`."""

from __future__ import annotations

import click

from srcli.commands.request import RestoreRequest
from srcli.commands.restoring import restore_files
from srcli.commands.restoring_options import restoring_options
from srcli.commands.sections import SectionedCommand


@click.command(cls=SectionedCommand)
@restoring_options
def denoise(request: RestoreRequest) -> int:
    """Remove noise from pictures.

    The strength of the noise need not be given: the network estimates it.

    \b
    Example:
        srcli denoise noisy.png
    """
    from fractions import Fraction

    from srcli.jobs.sizes import SizeRequest

    return restore_files(request, "denoise", SizeRequest(scale=Fraction(1)))
