"""`srcli attribute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from srcli.commands import options
from srcli.models.registry import DEFAULT_SCALE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.commands.drawing import Panel
    from srcli.loading.model import LoadedModel
    from srcli.quality.attribution import Attribution, Box, Window

SIGMA, STEPS = 1.2, 50  # as in the authors' own demonstration
PANEL = 448  # least side of a panel, where the part shown is smaller
LEAST_ROOM = 8  # input pixels shown around the area of contributions
LINE = 2  # of the window's outline
MAP, OUTLINE, WHITE = (178, 24, 43), (33, 102, 172), (255, 255, 255)
PALER = 0.5  # how near to white the greyed input is


def square(text: str) -> tuple[int, int, int]:
    """Read `40,60,16` as column, row and size."""
    numbers = text.split(",")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise click.BadParameter(f"{text!r} is no window. Write X,Y,SIZE, for example 40,60,16.")
    x, y, size = map(int, numbers)
    return x, y, size


@click.command()
@click.argument("image", type=options.FILE)
@click.option(
    "--window",
    type=square,
    required=True,
    metavar="X,Y,SIZE",
    help="A square of the output, in its pixels, from the top left.",
)
@options.model
@click.option(
    "-s", "--scale", type=int, default=DEFAULT_SCALE, show_default=True, help="Enlargement."
)
@options.weights
@click.option(
    "--sigma",
    type=options.Range(min=0.1, max=32),
    default=SIGMA,
    show_default=True,
    help="Blur that the path begins with: its deviation, in input pixels.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=STEPS,
    show_default=True,
    help="Gradients taken along the path.",
)
@click.option(
    "--memory",
    type=options.memory_size,
    default="4G",
    show_default=True,
    metavar="SIZE",
    help="Memory that the network may keep for one gradient.",
)
@click.option(
    "-o", "--output", type=options.FILE, default="attribution.png",
    show_default=True, help="A PNG file.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@options.as_json
def attribute(
    image: Path,
    window: tuple[int, int, int],
    model: str,
    scale: int,
    weights: Path | None,
    sigma: float,
    steps: int,
    memory: int,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw which input pixels a window of the output is made from.

    This is the local attribution map of Gu and Dong (CVPR 2021): on the way from the blurred to the
    sharp input, how much does each of its pixels add to the edges within the window? The figure has
    three panels of one part of the picture: the contributions in red on the input; the contribution
    area, the fewest pixels that hold 95% of them; and the result. The window is outlined in blue.
    The diffusion index is 100 where all pixels contribute the same, and near 0 where few do
    everything; compare it between models on one picture.

    Models that look at the whole picture need much memory for it: cut out what is of interest.

    \b
    Examples:
        srcli attribute photo.png --window 400,320,32
        srcli attribute crop.png --window 96,96,32 -m hpinet-s -o hpinet.png
    """
    from srcli import console
    from srcli.commands.drawing import color_of, save_figure
    from srcli.loading.model import load
    from srcli.quality import attribution

    options.check_png(output)
    options.check_file(output, overwrite)
    loaded = load(model, scale, weights=weights, note=console.note)
    picture = color_of(image)
    x, y, size = window
    place = attribution.Window(x=x, y=y, size=size)
    with console.progress() as bar:
        found = attribution.attribute(
            loaded,
            picture,
            place,
            sigma=sigma,
            steps=steps,
            memory=memory,
            progress=bar.start(loaded.label),
        )
    save_figure(_panels(loaded, picture, found, place), output, columns=3, replace=overwrite)
    if as_json:
        how = {"sigma": sigma, "steps": steps}
        console.print_json({"output": str(output), **_facts(loaded, found, place), **how})
    else:
        console.result(
            f"{output}  diffusion index {found.diffusion_index:.2f}, {attribution.SHARE:.0%} from "
            f"{found.area.sum()} of {found.map.size} input pixels"
        )


def _facts(model: LoadedModel, found: Attribution, window: Window) -> dict[str, Any]:
    import numpy as np

    from srcli.quality.attribution import SHARE

    rows, columns = np.nonzero(found.area)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else ()
    return {
        "model": model.spec.name,
        "scale": int(model.scale),
        "window": [window.x, window.y, window.size],
        "diffusion_index": found.diffusion_index,
        "area": {
            "share": SHARE,
            "pixels": len(rows),
            "of": found.map.size,
            "box": [int(edge) for edge in edges],  # left, top, right, bottom
        },
        "contributions": float(found.map.sum()),
        "change": found.change,
    }


def _panels(
    model: LoadedModel, picture: NDArray[np.float32], found: Attribution, window: Window
) -> list[Panel]:
    """Return three pictures of the same part: contributions, their area, and the result."""
    import numpy as np

    from srcli.commands.drawing import Legend, Panel, magnified, mixed, ramp
    from srcli.quality.attribution import SHARE, restored_part

    scale = int(model.scale)
    view = _view(found, window, scale)
    shown = picture[view.slices]
    factor = max(1, -(-PANEL // max(shown.shape[:2])))
    pale = np.broadcast_to(_pale(shown), shown.shape)
    strength = np.abs(found.map[view.slices]) / (np.abs(found.map).max() or 1.0)
    area = found.area[view.slices].astype(np.float64)
    result = np.rint(255 * restored_part(model, picture, view)).astype(np.uint8)
    # Square roots, so that a small contribution can be told from none.
    maps = (mixed(pale, np.array(MAP), np.sqrt(strength)), mixed(pale, 255 * shown, area))
    panels = [magnified(one, factor) for one in maps]
    panels.append(_resized(result, panels[0].shape[1], panels[0].shape[0]))
    for panel in panels:
        _outline(panel, window, view, factor, scale)
    where = f"input pixels {view.left},{view.top} to {view.right - 1},{view.bottom - 1}"
    pixels = f"{found.area.sum()} of {found.map.size} pixels, in their colours"
    held = [pixels, f"diffusion index {found.diffusion_index:.2f}"]
    return [
        Panel(title="Contributions to the window", picture=panels[0], words=[where],
              legend=Legend(colors=ramp(WHITE, MAP), left="none", right="the largest")),
        Panel(title=f"{SHARE:.0%} of them come from here", picture=panels[1], words=held),
        Panel(title="The result", picture=panels[2], words=[model.label, "window outlined"]),
    ]  # fmt: skip


def _view(found: Attribution, window: Window, scale: int) -> Box:
    """Return the part of the input worth showing: the area and the window, with some room."""
    import numpy as np

    from srcli.quality.attribution import Box

    height, width = found.map.shape
    rows, columns = np.nonzero(found.area)
    ends = [-(-(start + window.size) // scale) for start in (window.y, window.x)]
    box = Box(
        int(min([window.y // scale, *rows])),
        int(max([ends[0], *(rows + 1)])),
        int(min([window.x // scale, *columns])),
        int(max([ends[1], *(columns + 1)])),
    )
    room = max(LEAST_ROOM, (box.bottom - box.top) // 4, (box.right - box.left) // 4)
    return box.grown(room, height, width)


def _pale(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the picture in pale grey, h x w x 1 in 0..255."""
    import numpy as np

    grey = picture.mean(axis=2, keepdims=True, dtype=np.float64)
    pale: NDArray[np.float64] = 255 * (PALER + (1 - PALER) * grey)
    return pale


def _resized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture in another size, its pixels as squares where they are magnified."""
    import numpy as np
    from PIL import Image

    larger = width >= picture.shape[1]
    method = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    return np.array(Image.fromarray(picture).resize((width, height), method))


def _outline(panel: NDArray[np.uint8], window: Window, view: Box, factor: int, scale: int) -> None:
    """Draw a frame around the window, in a panel where an input pixel is `factor` wide."""
    from srcli.commands.drawing import outline

    left, top = window.x / scale - view.left, window.y / scale - view.top
    side = window.size / scale
    edges = (left, top, left + side, top + side)
    outline(panel, *(round(edge * factor) for edge in edges), width=LINE, color=OUTLINE)
