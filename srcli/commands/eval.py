"""`srcli eval`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from srcli.commands import html_reports, options
from srcli.commands.sections import SectionedCommand, section
from srcli.errors import FAILED
from srcli.models.spec import Scale, Task
from srcli.quality import BLUR_SETS, BlurSet

if TYPE_CHECKING:
    from srcli.commands.eval_report import Measured
    from srcli.commands.eval_runs import Level, RunningOptions, Wanted, Way
    from srcli.console import Bar
    from srcli.errors import SrcliError
    from srcli.quality.evaluation import Failed, Score


@click.command("eval", cls=SectionedCommand)
@click.argument("datasets", nargs=-1, required=True, type=options.PLACE, metavar="DATASET...")
@section(
    "Damage to undo",
    click.option(
        "-s",
        "--scale",
        "factors",
        multiple=True,
        type=options.factor,
        metavar="FACTOR",
        help="Enlargement, any number. May be repeated.",
    ),
    click.option(
        "--sigma",
        "sigmas",
        multiple=True,
        type=options.Range(0, 255),
        metavar="S",
        help="Denoise pictures with noise of this standard deviation, of 255. May be repeated.",
    ),
    click.option(
        "--quality",
        "qualities",
        multiple=True,
        type=click.IntRange(1, 100),
        metavar="Q",
        help="Deblock JPEG pictures of this quality. May be repeated.",
    ),
)
@section("Model", options.model, options.input_kind, options.weights)
@section(
    "Running",
    options.backend,
    options.precision,
    options.tta,
    options.threads,
    options.tile,
    options.memory,
)
@section(
    "Damage before enlargement",
    click.option(
        "--blur",
        "blurs",
        multiple=True,
        type=options.Range(0.05, 20),
        metavar="SIGMA",
        help="Blur the picture before it is reduced, by a Gaussian of this sigma in its pixels. "
        "May be repeated.",
    ),
    click.option(
        "--kernel",
        "kernels",
        multiple=True,
        type=options.FILE,
        metavar="FILE",
        help="Blur the picture by this kernel (.png or .npy), then keep every s-th pixel. May be "
        "repeated.",
    ),
    click.option(
        "--set",
        "blur_set",
        type=click.Choice(BLUR_SETS),
        help="Blur as papers on unknown blur do, then keep every s-th pixel: by each of eight "
        "round Gaussians, or by one of any shape for each picture (as in DIV2KRK).",
    ),
    click.option(
        "--noise",
        "noises",
        multiple=True,
        type=options.Range(0, 255),
        metavar="SIGMA",
        help="Add noise of this standard deviation, of 255. May be repeated.",
    ),
    click.option(
        "--jpeg",
        "jpegs",
        multiple=True,
        type=click.IntRange(1, 100),
        metavar="Q",
        help="Compress the picture as a JPEG file of this quality. May be repeated.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Seed of noise and of kernels that are drawn.",
    ),
)
@section(
    "Results",
    click.option(
        "--protocol",
        type=click.Choice(("paper", "whole")),
        default="paper",
        show_default=True,
        help="paper: as papers measure, without a border; whole: all pixels, enlarged as `srcli "
        "upscale` does.",
    ),
    click.option(
        "--y-rounded",
        is_flag=True,
        help="Round Y to 8 bits before comparing, as some papers do (HPINet's among them).",
    ),
    click.option("--each", is_flag=True, help="Show every picture, not only the mean."),
    click.option(
        "--plot",
        "drawing",
        type=options.FILE,
        metavar="FILE",
        help="Draw PSNR against the scale, beside that of bicubic enlargement (.svg, .png, .pdf).",
    ),
    html_reports.option,
    click.option("--overwrite", is_flag=True, help="Replace plot and page if they exist."),
    options.as_json,
)
def evaluate(
    datasets: tuple[Path, ...],
    model: str,
    factors: tuple[Fraction, ...],
    sigmas: tuple[float, ...],
    qualities: tuple[int, ...],
    blurs: tuple[float, ...],
    kernels: tuple[Path, ...],
    blur_set: BlurSet | None,
    noises: tuple[float, ...],
    jpegs: tuple[int, ...],
    seed: int,
    protocol: str,
    y_rounded: bool,
    each: bool,
    drawing: Path | None,
    html: Path | None,
    overwrite: bool,
    as_json: bool,
    **running: Unpack[RunningOptions],
) -> int:
    """Measure PSNR and SSIM on test sets.

    A DATASET is a folder of pictures, or a folder with HR and LRx<scale> in it. The model
    `bicubic` is plain bicubic enlargement; `none` leaves noise and JPEG blocks as they are. A
    picture that cannot be measured is named, counted, and left out of the means.

    With a known kernel there is also LR-PSNR: of the small picture, against what blur and reduction
    make of the restored one. For models that estimate the blur there is the error of the kernel:
    the sum of the differences from the known one, from 0 to 2.

    \b
    Examples:
        srcli eval -m lapar-c -s 4 Set5 Set14
        srcli eval -m lapar-c --sigma 15 --sigma 25 B100
        srcli eval -m lapar-c --quality 10 LIVE1
        srcli eval -m lapar-c -s 2 --input photo --jpeg 50 --jpeg 75 B100
        srcli eval -m dcls-iso -s 4 --set gaussian8 Set5
        srcli eval -m asdn-base -s 1.5 -s 2 -s 2.7 -s 4 --plot scales.svg Set5
    """
    from srcli import console
    from srcli.commands.eval_report import plot, table
    from srcli.commands.eval_runs import BICUBIC, Wanted, scale_of

    wanted = Wanted(
        sigmas=sigmas,
        qualities=qualities,
        blurs=blurs,
        kernels=kernels,
        blur_set=blur_set,
        noises=noises,
        jpegs=jpegs,
        seed=seed,
        scales=tuple(scale_of(factor) for factor in factors),
    )
    task, whole = wanted.task, protocol == "whole"
    if drawing is not None:
        _check_plot(drawing, task, overwrite)
    if html is not None:
        html_reports.check_page(html, overwrite)
    study = _Study(_named(datasets), wanted, task, y_rounded=y_rounded, whole=whole)
    lines: dict[str, list[Measured]] = {}
    all_facts: dict[str, object] = {}
    ways = {model: study.ways(model, running)}
    if drawing is not None:
        ways[BICUBIC] = study.ways(BICUBIC, running, above=1)  # its line begins there
    with console.progress() as bar:
        for name, of_name in ways.items():
            lines[name] = []
            for facts, result in study.results(of_name, bar):
                all_facts = all_facts or facts
                lines[name].append(result)
    results = lines[model]
    try:
        if drawing is not None:
            plot(lines, drawing, replace=overwrite)
            console.note(f"{drawing}: PSNR against scale")
        if html is not None:
            html_reports.write_scores(html, results, model, task, each=each)
            console.note(f"{html}: the table and a plot")
    finally:  # a plot that cannot be written costs no result
        if as_json:
            scales = {"scale": list(dict.fromkeys(r.as_dict()["scale"] for r in results))}
            facts = all_facts | (scales if len(scales["scale"]) > 1 else {})
            facts |= {"task": task, "y_rounded": y_rounded, "seed": seed}
            console.print_json({**facts, "datasets": [result.as_dict() for result in results]})
        elif any(result.scores for result in results):
            table(results, model, task, each=each)
    return study.exit_code


def _check_plot(file: Path, task: Task, overwrite: bool) -> None:
    """Refuse, before any work, a plot that cannot be drawn."""
    from srcli.bench.plot import check_target
    from srcli.errors import UsageError

    if task != "upscale":
        raise UsageError(
            "--plot draws PSNR against the scale, and nothing is enlarged here",
            "Give --scale, or leave out --plot.",
        )
    check_target(file)
    options.check_file(file, overwrite, "another --plot")


def _named(datasets: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of test sets by names that tell these apart."""
    from srcli.quality.evaluation import dataset_files

    names = Counter(folder.name for folder in datasets)
    return {
        folder.name if names[folder.name] == 1 and folder.name else str(folder): dataset_files(
            folder
        )
        for folder in datasets
    }


class _Study:
    """What is measured, by whichever model."""

    def __init__(
        self,
        files: dict[str, list[Path]],
        wanted: Wanted,
        task: Task,
        *,
        y_rounded: bool,
        whole: bool,
    ) -> None:
        self._files, self._wanted, self._task = files, wanted, task
        self._y_rounded, self._whole = y_rounded, whole
        scales: tuple[Scale, ...] = wanted.scales or (1,)
        self._levels = {scale: [*wanted.levels(scale)] for scale in scales}  # before any work
        self._told: dict[str, SrcliError] = {}

    @property
    def exit_code(self) -> int:
        """Exit code of the command: not 0 if a picture could not be measured."""
        alone = [error.exit_code for error in self._told.values()]
        return 0 if not alone else alone[0] if len(alone) == 1 else FAILED

    def ways(
        self, model: str, running: RunningOptions, *, above: int = 0
    ) -> dict[Scale, Callable[[], Way]]:
        """Return functions that open the model at each scale above a number, before any work.

        Raises:
            UsageError: There is no such model, or it has not a scale.
            WeightsError: It has no weights for a scale.
        """
        from srcli.commands.eval_runs import way

        return {
            scale: way(model, scale, self._task, as_command=self._whole, **running)
            for scale in self._levels
            if scale > above
        }

    def results(
        self, ways: Mapping[Scale, Callable[[], Way]], bar: Bar
    ) -> Iterator[tuple[dict[str, object], Measured]]:
        """Yield facts about the run, and the scores of each data set at each scale and level."""
        for scale, way in ways.items():
            with closing(way()) as opened:
                for name in self._files:
                    for level in self._levels[scale]:
                        yield opened.facts, self._measured(opened, name, scale, level, bar)

    def _measured(self, opened: Way, name: str, scale: Scale, level: Level, bar: Bar) -> Measured:
        from srcli.commands.eval_report import Measured

        originals = self._files[name]
        advance = bar.start(f"{name} {level.name}")
        scores: list[Score] = []
        failed: dict[Path, SrcliError] = {}

        def fail(file: Path, error: SrcliError) -> None:
            self._tell(error)
            failed[file] = error

        for score in self._scores(opened, originals, scale, level, fail):
            scores.append(score)
            advance(len(scores), len(originals) * len(level.runs))
        return Measured(
            name=name,
            scale=scale,
            level=level.name,
            pictures=len(originals),
            scores=scores,
            failed=failed,
        )

    def _tell(self, error: SrcliError) -> None:
        """Write an error once: the same picture fails at each scale and level."""
        from srcli import console

        if str(error) not in self._told:
            console.error(str(error))
        self._told[str(error)] = error

    def _scores(
        self, opened: Way, originals: list[Path], scale: Scale, level: Level, failed: Failed
    ) -> Iterator[Score]:
        from srcli.quality.evaluation import evaluate as scores_of

        for run in level.runs:
            for score in scores_of(
                originals,
                scale,
                opened.enlarge,
                y_rounded=self._y_rounded,
                damage=level.damage,
                conditions=run,
                whole=self._whole,
                estimated=opened.estimated,
                failed=failed,
            ):
                kernel = run.kernel_name if run is not None and len(level.runs) > 1 else ""
                yield replace(score, name=f"{score.name}, {kernel}") if kernel else score
