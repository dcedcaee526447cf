"""The options of `srcli video`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.sections import section
from srcli.models.registry import DEFAULT_MODEL, get_model
from srcli.models.spec import InputKind, Task

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.loading.restorer import RunOptions
    from srcli.video.colorspace import RangeChoice, Wanted
    from srcli.video.networks import Recipe

# Names of `srcli.video`, which the help does not load: tests compare them.
MATRICES = ("auto", "bt709", "bt601", "fcc", "smpte240m", "bt2020", "ycgco")
SITINGS = ("auto", "left", "center", "topleft", "top", "bottomleft", "bottom", "paldv")


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

    @property
    def recipe(self) -> Recipe:
        """The networks that are asked for."""
        from srcli.video.networks import Recipe

        wishes: dict[Task, bool] = {"deblock": self.deblock, "denoise": self.denoise}
        get_model(self.model)  # a name that is none is told before all else
        return Recipe(
            model=self.model,
            scale=self.scale,
            kind=self.kind,
            before=tuple(task for task, wanted in wishes.items() if wanted),
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
        "Running",
        options.backend,
        options.precision,
        options.tta,
        options.threads,
        options.gpu,
        options.tile,
        options.memory,
    ),
    section("Messages", options.quiet, options.verbose),
)
