"""`srcli upscale`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.request import RestoreRequest
from srcli.commands.restoring import restore_files
from srcli.commands.restoring_options import restoring_options
from srcli.commands.sections import SectionedCommand, section
from srcli.models.registry import DEFAULT_SCALE

if TYPE_CHECKING:
    from fractions import Fraction


@click.command(cls=SectionedCommand)
@section(
    "Size",
    click.option(
        "-s",
        "--scale",
        "--outscale",
        type=options.factor,
        metavar="FACTOR",
        help="Enlargement, any number: passes of the network, then one resampling.  [default: 4]",
    ),
    click.option(
        "--width",
        type=click.IntRange(min=1),
        metavar="PIXELS",
        help="Width of the output, in pixels.",
    ),
    click.option(
        "--height",
        type=click.IntRange(min=1),
        metavar="PIXELS",
        help="Height of the output, in pixels.",
    ),
    click.option("--fit", type=options.size, metavar="WxH", help="Box to fit the output into."),
)
@section("Before enlarging", options.restore_first)
@restoring_options
@section(
    "Model",
    options.input_choice,
    options.prune_branches,
    options.known_kernel,
    options.save_kernel,
)
def upscale(
    request: RestoreRequest,
    scale: Fraction | None,
    width: int | None,
    height: int | None,
    fit: tuple[int, int] | None,
) -> int:
    """Enlarge pictures.

    An INPUT is a file, a folder, a pattern, a URL (s3, gs, az, https), or - for standard input. Any
    factor is possible: the network enlarges by the next larger one that it has, in several passes
    if necessary, and one antialiased bicubic resampling reduces the result. Models of any scale
    (ASDN) run at the wanted factor itself, or at one that is at most a tenth larger.

    \b
    Examples:
        srcli upscale photo.png -m lapar-c -s 4
        srcli upscale holiday/ -r -s 2 --resume
        srcli upscale photo.jpg --width 3840 -o large.jpg
        srcli upscale noisy.jpg --deblock --denoise
        srcli upscale blurred.png -m dcls-iso -s 4 --save-kernel kernel.png
    """
    from fractions import Fraction

    from srcli.jobs.sizes import SizeRequest

    if scale is None and width is None and height is None and fit is None:
        scale = Fraction(DEFAULT_SCALE if request.model_file is None else max(request.spec.scales))
    size = SizeRequest(scale=scale, width=width, height=height, fit=fit)
    return restore_files(request, "upscale", size)
