"""Options that several commands share."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli import console
from srcli.commands.sections import Command, Decorator
from srcli.errors import OutputError, OutputExistsError, UsageError
from srcli.models.registry import DEFAULT_MODEL, MODELS
from srcli.models.spec import INPUT_CHOICES, INPUT_KINDS

if TYPE_CHECKING:
    from fractions import Fraction

    from click.shell_completion import CompletionItem

    from srcli.jobs.shards import Shard


def apply(*options: Decorator) -> Decorator:
    """Join several options into one decorator; help shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Range(click.FloatRange):
    """A click range that refuses `nan`, which click's own takes."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


class PathName(click.Path):
    """A path that is not empty; `click.Path` would take an empty one for the current folder."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        if value == "":
            self.fail("There is no name. Is a variable of your shell empty?", param, ctx)
        return super().convert(value, param, ctx)


def size(text: str) -> tuple[int, int]:
    """Read the value of an option, `1280x720`, as width and height."""
    from srcli.jobs.sizes import parse_size

    with _values():
        return parse_size(text)


def factor(text: str) -> Fraction:
    """Read the value of an option, a factor of enlargement."""
    from srcli.jobs.sizes import parse_factor

    with _values():
        return parse_factor(text)


def shard(text: str) -> Shard:
    """Read the value of an option, `3/16`, as a shard."""
    from srcli.jobs.shards import Shard

    with _values():
        return Shard.parse(text)


@contextmanager
def _values() -> Iterator[None]:
    """Turn our own error about a value into click's, which names the option."""
    try:
        yield
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


FILE = PathName(path_type=Path, dir_okay=False)
PLACE = PathName(path_type=Path)
"""A click type for the name of a file or a folder."""


def check_stdout() -> None:
    """Refuse to send a result to standard output where nobody can take it; keep notes from there.

    Raises:
        UsageError: It is closed, or a terminal.
    """
    if sys.stdout is None:
        raise UsageError("standard output: is closed", "Redirect it, or name a file with -o.")
    if sys.stdout.isatty():
        raise UsageError("standard output: is a terminal", "Redirect it, or name a file with -o.")
    console.expect_data_on_stdout()


def check_png(output: Path) -> None:
    """Raise `UsageError` unless the name of a figure ends as that of a PNG file."""
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: must end in .png", "Rename it.")


def check_free(output: Path, overwrite: bool, other: str = "-o") -> None:
    """Raise `OutputExistsError` if a file is there already and may not be replaced.

    `other` is the option that names another.
    """
    if os.path.lexists(output) and not overwrite:
        raise OutputExistsError(
            f"{output}: exists already", f"Give {other}, or --overwrite to replace it."
        )


def check_file(output: Path, overwrite: bool, other: str = "-o") -> None:
    """Refuse, before any work, an output that cannot become a file.

    Args:
        output: Its name.
        overwrite: True if a file that is there may be replaced.
        other: The option that names another.

    Raises:
        OutputExistsError: It is there already and may not be replaced.
        OutputError: No file can be made there.
    """
    from srcli.system.files import check_place

    check_free(output, overwrite, other)
    try:
        check_place(output)
    except OSError as error:
        problem = f"{output}: cannot be written: {error.strerror}"
        raise OutputError(problem, f"Give {other}.") from error


def complete_models(
    ctx: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Offer the names of models to a shell: after `denoise` and `deblock`, of those that can."""
    from click.shell_completion import CompletionItem

    same_size = ctx.info_name in ("denoise", "deblock")
    able = [spec.name for spec in MODELS if 1 in spec.scales or not same_size]
    names = [name for name in able if name.startswith(text)]
    return [CompletionItem(name) for name in names] or [CompletionItem(text, type="file")]


def complete_fetchable(
    ctx: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Offer the names of models whose authors' weights a program can fetch."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(spec.name)
        for spec in MODELS
        if spec.name.startswith(text) and any(p.address for p in spec.publications.values())
    ]


def complete_backends(
    ctx: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Offer the names of backends to a shell."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in BACKEND_NAMES if name.startswith(text)]


BACKEND_NAMES = ("auto", "native", "openvino", "ort", "torch", "trt")

model = click.option(
    "-m",
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME",
    shell_complete=complete_models,
    help="Name of the model; `srcli models` lists them.",
)

input_kind = click.option(
    "--input",
    "kind",
    type=click.Choice(INPUT_KINDS),
    default="clean",
    show_default=True,
    help="Kind of weights: clean for pictures that were only reduced, photo for those with JPEG "
    "compression and noise.",
)

input_choice = click.option(
    "--input",
    type=click.Choice(INPUT_CHOICES),
    default="auto",
    show_default=True,
    help="Kind of weights: clean for pictures that were only reduced, photo for those with JPEG "
    "compression and noise; auto chooses by the file: its format, its JPEG quality, and traces of "
    "JPEG in its pixels.",
)

weights = click.option(
    "--weights",
    type=FILE,
    metavar="FILE",
    help="Your own checkpoint of the model (.safetensors or .pth) instead of the shipped one.",
)

backend = click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_backends,
    help="Engine that runs the network: native (LAPAR and AWSRN on a CPU), openvino, ort, torch, "
    "trt, or auto for the fastest that works.",
)

threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads.  [default: one for each core]",
)

precision = click.option(
    "--precision",
    type=click.Choice(("fp32", "fp16", "bf16", "int8")),
    default="fp32",
    show_default=True,
    help="Number type of the network; fp16, bf16 and int8 need hardware that has them. int8 is for "
    "LAPAR on a CPU: faster in openvino and ort, but native is faster still in fp32.",
)

tta = click.option(
    "-x",
    "--tta",
    is_flag=True,
    help="Average over the eight flips and turns of the picture: eight times the work.",
)

restore_first = apply(
    click.option(
        "--deblock",
        is_flag=True,
        help="Remove the blocks of JPEG before enlarging, without a file in between.",
    ),
    click.option("--denoise", is_flag=True, help="Remove noise before enlarging, likewise."),
)

prune_branches = click.option(
    "--prune-branches",
    "prune_below",
    type=Range(min=0),
    metavar="T",
    help="Remove reconstruction branches of less learned weight (AWSRN); changes the result.",
)

known_kernel = click.option(
    "--kernel",
    type=FILE,
    metavar="FILE",
    help="The blur of the pictures where it is known, for a blind model (DCLS): .png or .npy, in "
    "pixels of the large picture.",
)

save_kernel = click.option(
    "--save-kernel",
    type=FILE,
    metavar="FILE",
    help="Write the blur kernel that a blind model (DCLS) estimates, as .png and as .npy.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _louder(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        console.set_level(console.Level.VERBOSE)
    return value


def _quieter(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        console.set_level(console.Level.QUIET)
    return value


quiet = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_quieter,
    help="Print errors only, and show no progress.",
)

verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_louder,
    help="Print details, too.",
)


def memory_size(text: str) -> int:
    """Read `512M` or `2G` as bytes; a bare number counts mebibytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "M")
    try:
        amount = int(float(number) * units[unit])
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not an amount of memory. Write 512M or 2G."
        ) from None
    if amount < 1 << 20:
        raise click.BadParameter(f"{text!r} is too little. Give at least 1M.")
    return amount


def tile_side(text: str) -> int | None:
    """Read `128`, or `auto` and `0` for what --memory allows."""
    if text.lower() in ("auto", "0"):
        return None
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is no side of a tile. Write 256, or auto.")
    return int(text)


tile = click.option(
    "-t",
    "--tile",
    type=tile_side,
    metavar="PIXELS",
    help="Side of a tile of the input, without its halo; 0 or auto: by --memory.  [default: auto]",
)

memory = click.option(
    "--memory",
    type=memory_size,
    metavar="SIZE",
    help="Memory that the run may take, besides the program's own.  [default: a quarter of "
    "what is free, at most 512M for each picture at a time; 8G for models whose tiles "
    "are approximate]",
)


def _choose_gpu(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Let CUDA see one GPU only, or none; no library that looks for one is loaded yet."""
    if value is None:
        return None
    hidden = value.lower() in ("cpu", "-1")
    if not hidden and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is no GPU. Write 0 for the first, or cpu.")
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if hidden else value
    return value


gpu = click.option(
    "-g",
    "--gpu",
    metavar="ID",
    callback=_choose_gpu,
    help="The GPU to use, counted from 0; cpu or -1 for none.  [default: the first]",
)

RUNNING: tuple[Decorator, ...] = (backend, precision, tta, threads, gpu, tile, memory)
"""Options of how networks are run, in the order of help."""

running = apply(weights, backend, precision, tta, threads, tile, memory)
