"""The options of `srcli video`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.sections import section
from srcli.models.registry import DEFAULT_MODEL, get_model
from srcli.models.spec import InputKind

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.jobs.shards import Shard
    from srcli.loading.restorer import RunOptions
    from srcli.video.colorspace import RangeChoice, Wanted
    from srcli.video.networks import Recipe

# Names of `srcli.video`, which the help does not load: tests compare them.
MATRICES = ("auto", "bt709", "bt601", "fcc", "smpte240m", "bt2020", "ycgco")
CODECS = ("auto", "x264", "x265", "av1", "prores", "ffv1")
SITINGS = ("auto", "left", "center", "topleft", "top", "bottomleft", "bottom", "paldv")


def moment(text: str) -> float:
    """Read a time in seconds, or in minutes or hours and seconds joined by colons."""
    try:
        *larger, seconds = map(float, text.split(":"))
        parts = [*larger, seconds]
        value = sum(part * 60.0**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time. Write 75.5 or 1:15.5.") from None
    if not 0 <= value < float("inf") or len(parts) > 3:
        raise click.BadParameter(f"{text!r} is no time. Write 75.5 or 1:15.5.")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """The options of `srcli video`, as parsed."""

    output: str | None
    overwrite: bool
    scale: int
    deblock: bool
    denoise: bool
    model: str
    kind: InputKind
    weights: Path | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None
    gpu: str | None
    matrix: str
    range: RangeChoice
    siting: str
    dither: bool
    codec: str
    crf: int | None
    preset: str | None
    pix_fmt: str
    start: float | None
    end: float | None
    resume: bool
    shard: Shard | None
    dry_run: bool

    @property
    def recipe(self) -> Recipe:
        """The networks that are asked for."""
        from srcli.jobs.steps import wanted_before
        from srcli.video.networks import Recipe

        get_model(self.model)  # a name that is none is told before all else
        return Recipe(
            model=self.model,
            scale=self.scale,
            kind=self.kind,
            before=wanted_before(deblock=self.deblock, denoise=self.denoise),
            weights=self.weights,
        )

    @property
    def wanted(self) -> Wanted:
        """The user's word on colours."""
        from srcli.video.colorspace import Wanted

        return Wanted(matrix=self.matrix, range=self.range, siting=self.siting)

    def run_options(self) -> RunOptions:
        """Return the options for running the networks."""
        from srcli.loading.restorer import RunOptions

        return RunOptions(
            backend=self.backend,
            precision=self.precision,
            tta=self.tta,
            threads=self.threads,
            tile=self.tile,
            memory=self.memory,
        )


video_options = options.apply(
    click.argument("inputs", nargs=-1, required=True, metavar="INPUT"),
    section(
        "Input and output",
        click.option(
            "-o",
            "--output",
            type=options.PathName(),
            metavar="OUT",
            help="File to write; - for Y4M on standard output.",
        ),
        click.option("--overwrite", "-y", is_flag=True, help="Replace an output that exists."),
        click.option(
            "--start", type=moment, metavar="TIME", help="Begin here: 75.5, or 1:15.5 or 0:01:15.5."
        ),
        click.option("--end", type=moment, metavar="TIME", help="End before this time."),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with an earlier run: make only the segments that are missing.",
        ),
        click.option(
            "--shard",
            type=options.shard,
            metavar="K/N",
            help="Make only the K-th of N parts; `srcli video join INPUT -o OUT` joins them.",
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    ),
    section(
        "Size",
        click.option(
            "-s",
            "--scale",
            type=click.IntRange(1, 8),
            default=2,
            show_default=True,
            metavar="FACTOR",
            help="Enlargement, one of the model's factors; 1 with --denoise or --deblock.",
        ),
    ),
    section("Before enlarging", options.restore_first),
    section(
        "Model",
        click.option(
            "-m",
            "--model",
            default=DEFAULT_MODEL,
            show_default=True,
            metavar="NAME",
            shell_complete=options.complete_models,
            help="Name of the model; `srcli models` lists them.",
        ),
        options.input_kind,
        options.weights,
    ),
    section(
        "Colour",
        click.option(
            "--matrix",
            type=click.Choice(MATRICES),
            default="auto",
            show_default=True,
            help="Matrix between YCbCr and RGB; auto takes what the stream states, else BT.601 up "
            "to 576 rows and BT.709 above.",
        ),
        click.option(
            "--range",
            type=click.Choice(("auto", "limited", "full")),
            default="auto",
            show_default=True,
            help="Range of the codes; auto takes what the stream states, else limited.",
        ),
        click.option(
            "--siting",
            type=click.Choice(SITINGS),
            default="auto",
            show_default=True,
            help="Place of chroma samples; auto takes what the stream states, else left.",
        ),
        click.option(
            "--dither", is_flag=True, help="Spread the error of rounding in a fixed pattern."
        ),
    ),
    section(
        "Coding",
        click.option(
            "--codec",
            type=click.Choice(CODECS),
            default="auto",
            show_default=True,
            help="Codec of the output; auto takes x264, x265 for HDR and more than 10 bits, and "
            "else ffv1.",
        ),
        click.option(
            "--crf",
            type=click.IntRange(0, 63),
            metavar="N",
            help="Quality, less is better.  [default: x264 17, x265 19, av1 24]",
        ),
        click.option("--preset", metavar="NAME", help="Speed of the encoder, by its own names."),
        click.option(
            "--pix-fmt",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Pixel format by FFmpeg's name; auto keeps depth and chroma subsampling.",
        ),
    ),
    section(
        "Running",
        *options.RUNNING,
    ),
    section("Messages", options.quiet, options.verbose),
)
