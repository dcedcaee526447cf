"""`srcli filters`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE
from srcli.models.spec import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import ImageDraw

    from srcli.commands.drawing import Panel
    from srcli.loading.model import LoadedModel

COLUMNS = 12  # of the dictionary's figure
ACROSS = 4  # panels in a row of the figure of places
MAGNIFIED = 12  # side of a tap in the figure
ALIKE = 4  # filters in a row; fewer are drawn larger
GAP = 6  # between filters
RISING, FALLING = (178, 24, 43), (33, 102, 172)  # colours of 1 and -1; 0 is white
WHITE, MARK = (255, 255, 255), (33, 102, 172)
VIEW = 320  # side of the picture that shows the places
ROOM = 10  # input pixels shown around them
ASIDE, STROKE = 4, 3  # from a place to its number, and around that


def position(text: str) -> tuple[int, int]:
    """Read `40,60` as column and row."""
    column, comma, row = text.partition(",")
    if not comma or not column.isdecimal() or not row.isdecimal():
        raise click.BadParameter(f"{text!r} is no position. Write X,Y, for example 40,60.")
    return int(column), int(row)


@click.command()
@click.argument("image", required=False, type=options.FILE)
@click.option(
    "--at",
    "places",
    type=position,
    multiple=True,
    metavar="X,Y",
    help="A pixel of the input, from the top left. May be repeated.",
)
@click.option("--dictionary", is_flag=True, help="Draw the dictionary's filters instead.")
@options.model
@click.option(
    "-s",
    "--scale",
    type=int,
    default=DEFAULT_SCALE,
    show_default=True,
    help="Factor of enlargement. Give 1 for a network that keeps the size; --task says which.",
)
@click.option(
    "--task",
    type=click.Choice(["denoise", "deblock"]),
    default="denoise",
    show_default=True,
    help="Task of the network, with -s 1.",
)
@options.weights
@click.option(
    "-o", "--output", type=options.FILE, default="filters.png",
    show_default=True, help="A PNG file.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@options.as_json
def filters(
    image: Path | None,
    places: tuple[tuple[int, int], ...],
    dictionary: bool,
    model: str,
    scale: int,
    task: Task,
    weights: Path | None,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the 5x5 filters that LAPAR applies.

    LAPAR enlarges a picture bicubically and then filters every pixel with a filter of its own, a
    sum of 72 that are fixed. At each pixel of the input that --at names, this draws the filters of
    the scale x scale output pixels that it becomes (the paper's figure 6), and marks the pixel on
    the picture. With --dictionary it draws the 72 (figure 3), each with its largest tap. Red is
    positive, blue negative.

    \b
    Examples:
        srcli filters photo.png --at 40,60 --at 52,60
        srcli filters noisy.png --at 40,60 -s 1
        srcli filters --dictionary -o dictionary.png
    """
    from srcli import console
    from srcli.commands.drawing import save_figure
    from srcli.loading.model import load

    if dictionary == bool(places) or bool(places) != (image is not None):
        raise UsageError("the call names nothing to draw", "Give IMAGE --at X,Y, or --dictionary.")
    options.check_png(output)
    options.check_file(output, overwrite)
    purpose: Task = task if scale == 1 else "upscale"
    loaded = load(model, scale, task=purpose, weights=weights, note=console.note)
    if loaded.spec.distinct_taps is None:
        raise UsageError(f"{loaded.spec.name} assembles no filters", "Choose a LAPAR with -m.")
    if image is None:
        taps = [_atoms(loaded)]
        panels, columns = _of_dictionary(taps[0]), COLUMNS
    else:
        taps = [assembled(loaded, image, place) for place in places]
        panels, columns = [_map_of(image, places), *_of_places(taps, places, scale)], ACROSS
    save_figure(panels, output, columns=columns, replace=overwrite)
    if as_json:
        console.print_json({"output": str(output), **_facts(taps, places)})
    else:
        least, largest = min(map(_least, taps)), max(map(_largest, taps))
        count = sum(map(len, taps))
        console.result(f"{output}  {count} filters, {least:.3f} to {largest:.3f}")


def _facts(
    taps: list[NDArray[np.float32]], places: tuple[tuple[int, int], ...]
) -> dict[str, object]:
    if not places:
        return {"filters": taps[0].tolist()}
    found = zip(places, taps, strict=True)
    return {"places": [{"at": list(at), "filters": filters.tolist()} for at, filters in found]}


def _least(taps: NDArray[np.float32]) -> float:
    return float(taps.min())


def _largest(taps: NDArray[np.float32]) -> float:
    return float(taps.max())


def _atoms(model: LoadedModel) -> NDArray[np.float32]:
    """Return the filters of the model's dictionary, 72 x 5 x 5."""
    from srcli.models.lapar.network import Lapar

    published = model.published_network()
    assert isinstance(published, Lapar), "it assembles filters"
    atoms: NDArray[np.float32] = published.decom_conv.weight.numpy()[:, 0]
    return atoms


def assembled(model: LoadedModel, file: Path, at: tuple[int, int]) -> NDArray[np.float32]:
    """Return the filters of the output pixels of one input pixel, scale**2 x 5 x 5.

    Raises:
        InputError: The picture cannot be read.
        UsageError: The pixel lies outside of it.
    """
    import numpy as np
    import torch

    from srcli.commands.drawing import color_of
    from srcli.models.lapar.network import FusedLapar

    color = color_of(file)
    height, width, _ = color.shape
    column, row = at
    if column >= width or row >= height:
        problem = f"{file}: has {width} x {height} pixels; {column},{row} is outside"
        raise UsageError(problem, "Choose another --at X,Y.")
    margin, scale = model.geometry.margin, int(model.scale)
    top, left = max(0, row - margin), max(0, column - margin)
    cut = color[top : row + margin + 1, left : column + margin + 1].astype(np.float32)
    network = model.network()
    assert isinstance(network, FusedLapar), "it assembles filters"
    with torch.inference_mode():
        taps = network.filters(torch.from_numpy(cut.transpose(2, 0, 1)[None].copy()))[0].numpy()
    y, x = (row - top) * scale, (column - left) * scale
    here = taps[:, y : y + scale, x : x + scale].reshape(len(taps), -1).T
    if here.shape[1] < 25:  # the second half of each is the first, turned
        here = np.concatenate([here, here[:, -2::-1]], axis=1)
    filters: NDArray[np.float32] = here.reshape(-1, 5, 5)
    return filters


def _of_dictionary(taps: NDArray[np.float32]) -> list[Panel]:
    """Return one panel for each filter, each in the colours of its own range."""
    from srcli.commands.drawing import Panel, magnified

    return [
        Panel(
            title=str(number),
            picture=magnified(_colored(one / _strongest(one)), MAGNIFIED),
            words=[f"{_strongest(one):.2f}"],
        )
        for number, one in enumerate(taps, start=1)
    ]


def _of_places(
    taps: list[NDArray[np.float32]], places: tuple[tuple[int, int], ...], scale: int
) -> list[Panel]:
    """Return one panel for each place: its filters, all in the colours of one range."""
    import numpy as np

    from srcli.commands.drawing import Legend, Panel

    strongest = max(map(_strongest, taps))
    bar = _colored(np.linspace(-1, 1, 255, dtype=np.float32))
    return [
        Panel(
            title=f"{number}: pixel {column},{row}",
            picture=_grid(filters / strongest, scale),
            legend=Legend(colors=bar, left=f"{-strongest:.2f}", right=f"{strongest:.2f}"),
        )
        for number, (filters, (column, row)) in enumerate(zip(taps, places, strict=True), start=1)
    ]


def _strongest(taps: NDArray[np.float32]) -> float:
    import numpy as np

    return float(np.abs(taps).max()) or 1.0


def _grid(taps: NDArray[np.float32], columns: int) -> NDArray[np.uint8]:
    """Draw filters with values of -1 to 1 in rows."""
    import numpy as np

    from srcli.commands.drawing import GROUND, magnified

    factor = MAGNIFIED * max(1, ALIKE // columns)
    side = taps.shape[-1] * factor + GAP
    rows = -(-len(taps) // columns)
    canvas = np.full((rows * side - GAP, columns * side - GAP, 3), GROUND, np.uint8)
    for index, one in enumerate(taps):
        y, x = (side * place for place in divmod(index, columns))
        tile = magnified(_colored(one), factor)
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return canvas


def _map_of(file: Path, places: tuple[tuple[int, int], ...]) -> Panel:
    """Return the part of the picture around the places, with each marked by its number."""
    import numpy as np
    from PIL import Image, ImageDraw

    from srcli.commands.drawing import Panel, color_of

    color = np.rint(255 * color_of(file)).astype(np.uint8)
    height, width, _ = color.shape
    columns, rows = zip(*places, strict=True)
    left, top = max(0, min(columns) - ROOM), max(0, min(rows) - ROOM)
    part = color[top : max(rows) + ROOM + 1, left : max(columns) + ROOM + 1]
    factor = VIEW / max(part.shape[:2])
    size = (round(part.shape[1] * factor), round(part.shape[0] * factor))
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    shown = Image.fromarray(part).resize(size, method)
    pen = ImageDraw.Draw(shown)
    for number, (column, row) in enumerate(places, start=1):
        _mark(pen, size, ((column - left) * factor, (row - top) * factor), max(factor, 3), number)
    return Panel(title=file.name, picture=np.array(shown), words=[f"{width} x {height} pixels"])


def _mark(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    side: float,
    number: int,
) -> None:
    """Outline a place and write its number beside it, both within a picture of this size."""
    from srcli.commands.drawing import LINE, letters

    x, y = (min(at, whole - 1 - side) for at, whole in zip(corner, size, strict=True))
    pen.rectangle([x, y, x + side, y + side], outline=MARK, width=2)
    wide = letters().getlength(str(number)) + STROKE
    right = x + side + ASIDE
    place = right if right + wide < size[0] else max(STROKE, x - ASIDE - wide)
    pen.text(
        (place, min(max(y - STROKE, 0), max(0, size[1] - LINE))), str(number),
        fill=MARK, font=letters(), stroke_width=STROKE, stroke_fill=WHITE,
    )  # fmt: skip


def _colored(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour values of -1 to 1 by their square roots, so that small taps differ from none."""
    import numpy as np

    strength = np.sqrt(np.abs(values))[..., None]
    end = np.where(values[..., None] < 0, FALLING, RISING)
    colors: NDArray[np.uint8] = np.rint(255 + (end - 255) * strength).astype(np.uint8)
    return colors
