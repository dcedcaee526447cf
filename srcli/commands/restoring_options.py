"""The options that `upscale`, `denoise` and `deblock` share, as click reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import click
from click.core import ParameterSource

from srcli.commands import options
from srcli.commands.request import RestoreRequest, settled
from srcli.commands.sections import section
from srcli.images import FORMATS, MAX_PIXELS

ALSO = {"jpg": "jpeg", "jpe": "jpeg", "tif": "tiff", "auto": None}
More = ParamSpec("More")


def color(text: str) -> tuple[int, int, int]:
    """Read `white`, `#ffffff` or any other CSS colour as RGB."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no colour. Write white or #ffffff.") from None
    return red, green, blue


def file_format(text: str) -> str | None:
    """Read the name of a format as people write it: `jpg`, `.tif`, `auto`."""
    name = text.lower().lstrip(".")
    if name in ALSO:
        return ALSO[name]
    if name not in FORMATS:
        raise click.BadParameter(f"{text!r} is none of {', '.join(FORMATS)}.")
    return name


_options = options.apply(
    click.argument("inputs", nargs=-1, metavar="INPUT..."),
    section(
        "Inputs and outputs",
        click.option("-i", "named", multiple=True, metavar="INPUT", help="An input, like INPUT."),
        click.option(
            "-o",
            "--output",
            type=options.PathName(),
            metavar="OUT",
            help="File, folder (ends in a slash, or exists), - for standard output, or a template: "
            "'{stem}_{model}_x{scale}{ext}', with {name}, {dir} and {task} too (without a slash "
            "beside the input).  "
            "[default: beside the input]",
        ),
        click.option(
            "--suffix",
            metavar="TEXT",
            help="End of the names of outputs.  [default: _x4 and so on]",
        ),
        click.option(
            "--files-from",
            type=options.PathName(),
            metavar="LIST",
            help="Take the inputs from a list, a name in each line (or each ended by NUL); - for "
            "standard input. Outputs keep their folders below -o.",
        ),
        click.option(
            "--relative-to",
            type=options.PathName(),
            metavar="FOLDER",
            help="Begin the outputs' names of --files-from below this folder.  "
            "[default: the current one]",
        ),
        click.option(
            "--shard",
            type=options.shard,
            metavar="K/N",
            help="Do only the K-th of N parts, chosen by the inputs' names.",
        ),
        click.option(
            "-r", "--recursive", is_flag=True, help="Look into folders inside of folders too."
        ),
        click.option(
            "--page",
            type=click.IntRange(min=1),
            metavar="N",
            help="Take this frame or page of files that have several, counted from 1.",
        ),
        click.option("--overwrite", "-y", is_flag=True, help="Replace outputs that exist."),
        click.option("--skip-existing", is_flag=True, help="Leave outputs that exist as they are."),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with an earlier run: do only what is missing or has changed.",
        ),
        click.option(
            "--retry-failed",
            is_flag=True,
            help="Go on with an earlier run: do only what could not be done then.",
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option(
            "--max-pixels",
            type=click.IntRange(min=1),
            default=MAX_PIXELS,
            show_default=True,
            metavar="N",
            help="Refuse larger inputs.",
        ),
    ),
    section(
        "Model",
        options.model,
        click.option("-n", "alias", metavar="NAME", help="The same as -m.", hidden=True),
        click.option(
            "--model-file",
            type=options.FILE,
            metavar="FILE",
            help="Another network instead of --model: an .onnx file, or with spandrel a "
            "checkpoint.",
        ),
        options.weights,
    ),
    section(
        "Running",
        *options.RUNNING,
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Pictures of one size to restore together.",
        ),
        click.option(
            "--check",
            is_flag=True,
            help="Write nothing; compare tiles with the whole picture, and backends with each "
            "other.",
        ),
    ),
    section(
        "Files",
        click.option(
            "-f",
            "--format",
            type=file_format,
            metavar="FORMAT",
            help=f"Of outputs: {', '.join(FORMATS)}, or auto for the input's.  [default: auto]",
        ),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            metavar="N",
            help="Quality of JPEG, WebP and AVIF files.  [default: 95]",
        ),
        click.option("--lossless", is_flag=True, help="Write WebP or AVIF without loss."),
        click.option(
            "--subsampling",
            type=click.Choice(("keep", "444", "420")),
            default="keep",
            show_default=True,
            help="Chroma of JPEG outputs; keep: as in the input, 444 if that was no JPEG.",
        ),
        click.option(
            "--background",
            type=color,
            metavar="COLOR",
            help="Colour behind transparent pictures, in formats that have no transparency.",
        ),
        click.option(
            "--strip", is_flag=True, help="Leave out profiles, EXIF and all other metadata."
        ),
        click.option(
            "--preserve",
            is_flag=True,
            help="Give outputs the time and the permissions of their inputs.",
        ),
    ),
    section(
        "Messages",
        options.as_json,
        click.option(
            "--events",
            type=click.Choice(("jsonl",)),
            help="Print events as they happen, one JSON object in each line.",
        ),
        options.quiet,
        options.verbose,
    ),
)


def restoring_options(
    function: Callable[Concatenate[RestoreRequest, More], int],
) -> Callable[..., int]:
    """Give a command the options that restoring commands share.

    Args:
        function: Gets them as a `RestoreRequest`, and the command's other options by their names.
    """

    @wraps(function)
    def command(**given: Any) -> int:
        shared = {field.name for field in fields(RestoreRequest)}
        own = {name: given.pop(name) for name in [*given] if name in shared}
        request = RestoreRequest(**own, model_was_named=_was_named("model"))
        return function(settled(request), **given)  # type: ignore[call-arg]  # what is left of them

    return _options(command)


def _was_named(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is ParameterSource.COMMANDLINE
