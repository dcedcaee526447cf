"""`srcli compare`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.sections import SectionedCommand, section
from srcli.errors import UsageError
from srcli.models.spec import TASKS, InputChoice, Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from srcli.commands.compare_parts import View
    from srcli.commands.compare_views import Comparison, Ways

Region = tuple[int, int, int, int]
"""Left, top, width and height, in pixels."""

LARGEST = (1024, 1024)
INDEX = "index.html"


def region(text: str) -> Region:
    """Read `40,60,320x240` as column, row, width and height."""
    try:
        x, y, sides = text.split(",")
        width, height = options.size(sides)
        left, top = int(x), int(y)
    except ValueError:
        left, top, width, height = -1, 0, 0, 0
    if min(left, top) < 0:
        raise click.BadParameter(f"{text!r} is no region. Write X,Y,WxH, as in 40,60,320x240.")
    return left, top, width, height


@click.command(cls=SectionedCommand)
@click.argument("inputs", nargs=-1, required=True, type=options.FILE, metavar="INPUT...")
@section(
    "Ways to compare",
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="NAME",
        shell_complete=options.complete_models,
        help="A model, or bicubic, nearest, or none (the input as it is). May be repeated.  "
        "[default: bicubic and lapar-c for one input; of several inputs, the files themselves]",
    ),
    click.option(
        "--truth",
        type=options.FILE,
        metavar="FILE",
        help="The picture as it should be: shown too, and PSNR and SSIM are measured against it.",
    ),
    click.option(
        "--task",
        type=click.Choice(TASKS),
        default="upscale",
        show_default=True,
        help="What the models do.",
    ),
    click.option(
        "-s",
        "--scale",
        type=options.factor,
        metavar="FACTOR",
        help="Enlargement, any number.  [default: that of --truth, else 4]",
    ),
    options.input_choice,
)
@section(
    "What is shown",
    click.option(
        "--region",
        type=region,
        metavar="X,Y,WxH",
        help="Show this part, in pixels of the results.",
    ),
    click.option(
        "--size",
        type=options.size,
        metavar="WxH",
        help="Show at most so many pixels, from the middle of the results.  [default: 1024x1024]",
    ),
    click.option(
        "--frame",
        type=click.IntRange(0),
        metavar="N",
        help="Take this frame of inputs that are videos, counted from 0.",
    ),
)
@section("Running", options.backend, options.threads)
@section(
    "Results",
    click.option(
        "-o",
        "--output",
        type=options.PLACE,
        metavar="OUT",
        help="The page; for several inputs with models, a folder of pages.  "
        "[default: compare.html, or compare/]",
    ),
    click.option("--overwrite", "-y", is_flag=True, help="Replace pages that exist."),
    options.as_json,
    options.quiet,
)
def compare(
    inputs: tuple[Path, ...],
    models: tuple[str, ...],
    truth: Path | None,
    task: Task,
    scale: Fraction | None,
    input: InputChoice,
    region: Region | None,
    size: tuple[int, int] | None,
    frame: int | None,
    backend: str,
    threads: int | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a page to compare pictures in a browser.

    One INPUT is restored by each model, and the results are compared. Several INPUTs are compared
    with each other, as they are: files that were made before. With -m each of several INPUTs gets a
    page of its own, and an index leads to them.

    A page holds everything: open it anywhere, send it to anybody. Its pixels are exact (WebP
    without loss). It has a slider, zoom, difference maps and, with --truth, PSNR and SSIM.

    \b
    Examples:
        srcli compare photo.png -m bicubic -m lapar-c -m awsrn-sd -o compare.html
        srcli compare small.png --truth large.png -m lapar-c -m lapar-a
        srcli compare noisy.png --task denoise -m none -m lapar-c --region 40,60,320x240
        srcli compare ours.png theirs.png original.png
        srcli compare in.mkv out.mkv --frame 120
        srcli compare holiday/*.jpg -m bicubic -m lapar-c -o compare/
    """
    from srcli import console
    from srcli.commands.compare_parts import View
    from srcli.commands.compare_views import Ways

    if region is not None and size is not None:
        raise UsageError("--region and --size exclude each other", "Choose one.")
    view = View(region=region, largest=size or LARGEST, frame=frame)
    ready = len(inputs) > 1 and not models
    if ready:
        _refuse_for_files(task, scale, input)
    elif len(inputs) > 1 and truth is not None:
        raise UsageError(f"{truth}: is the truth of one input", "Compare one input at a time.")
    ways = Ways(
        models=models or _usual(task),
        task=task,
        scale=scale,
        input=input,
        backend=backend,
        threads=threads,
        note=console.note,
    )
    if ready:
        made = [_files(inputs, truth, view, _page(output, overwrite))]
    elif len(inputs) == 1:
        made = [_restored(inputs[0], truth, ways, view, _page(output, overwrite))]
    else:
        made = _several(inputs, ways, view, output or Path("compare"), overwrite)
    if as_json:
        console.print_json({"pages": [page.as_dict() for page in made]})
    else:
        for page in made:
            console.report(page.summary)


def _usual(task: Task) -> tuple[str, ...]:
    from srcli.models.registry import DEFAULT_MODEL

    return ("bicubic" if task == "upscale" else "none", DEFAULT_MODEL)


def _refuse_for_files(task: Task, scale: Fraction | None, input: InputChoice) -> None:
    """Raise `UsageError` for options of models where files are compared as they are."""
    given = {"--task": task != "upscale", "--scale": scale is not None, "--input": input != "auto"}
    for option in (name for name, is_given in given.items() if is_given):
        raise UsageError(
            f"{option} is for models, and several inputs without -m are compared as they are",
            f"Name models with -m, or leave out {option}.",
        )


def _page(output: Path | None, overwrite: bool) -> Path:
    """Return the name of one page.

    Raises:
        UsageError: It does not end in .html.
        OutputExistsError: It is there already.
    """
    from srcli.commands.html_reports import check_page

    page = output or Path("compare.html")
    check_page(page, overwrite, "-o")
    return page


def _files(inputs: Sequence[Path], truth: Path | None, view: View, page: Path) -> Comparison:
    from srcli.commands.compare_views import files

    comparison = files(inputs, truth, view, page)
    comparison.write()
    return comparison


def _restored(source: Path, truth: Path | None, ways: Ways, view: View, page: Path) -> Comparison:
    from srcli import console
    from srcli.commands.compare_views import restored

    with ways, console.progress() as bar:
        comparison = restored(source, truth, ways, view, page, bar.start(str(source)))
    comparison.write()
    return comparison


def _several(
    inputs: Sequence[Path], ways: Ways, view: View, folder: Path, overwrite: bool
) -> list[Comparison]:
    """Write a page for each input, and an index of them."""
    from srcli import console
    from srcli.commands.compare_views import restored, write_index

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, and several pages are made", "Name a folder.")
    pages = [folder / f"{name}.html" for name in _names(inputs)]
    for page in (folder / INDEX, *pages):
        options.check_file(page, overwrite)
    made = []
    with ways, console.progress() as bar:
        for number, (source, page) in enumerate(zip(inputs, pages, strict=True), 1):
            advance = bar.start(f"{number}/{len(inputs)} {source}")
            comparison = restored(source, None, ways, view, page, advance)
            comparison.write()
            made.append(comparison.without_pictures())
    write_index(folder / INDEX, made)
    return made


def _names(inputs: Sequence[Path]) -> list[str]:
    """Return a name for the page of each input; those that would be alike get numbers."""
    names: list[str] = []
    taken = {Path(INDEX).stem}
    for source in inputs:
        name, number = source.stem, 2
        while os.path.normcase(name) in taken:
            name, number = f"{source.stem}-{number}", number + 1
        taken.add(os.path.normcase(name))
        names.append(name)
    return names
