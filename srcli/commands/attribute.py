"""`srcli attribute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.loading.model import LoadedModel
    from srcli.quality.attribution import Attribution, Window

SIGMA, STEPS = 1.2, 50  # as in the authors' own demonstration
PANEL = 512  # least side of a panel of the picture, where the input is smaller
GAP = 8  # between the panels
LINE = 2  # of the window's outline
MAP, OUTLINE, GROUND = (178, 24, 43), (33, 102, 172), 255
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
    sharp input, how much does each of its pixels add to the edges within the window? To the left it
    lies in red on the input; to the right the contribution area, the fewest pixels that hold 95% of
    it. The window is outlined in blue. The diffusion index is 100 where all pixels contribute the
    same, and near 0 where few do everything; compare it between models on one picture.

    Models that look at the whole picture need much memory for it: cut out what is of interest.

    \b
    Examples:
        srcli attribute photo.png --window 400,320,32
        srcli attribute crop.png --window 96,96,32 -m hpinet-s -o hpinet.png
    """
    from srcli import console
    from srcli.loading.model import load
    from srcli.quality import attribution

    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: must end in .png", "Rename it.")
    options.check_free(output, overwrite)
    loaded = load(model, scale, weights=weights, note=console.note)
    picture = _picture(image)
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
    _draw(picture, found, place, scale, output, replace=overwrite)
    if as_json:
        how = {"sigma": sigma, "steps": steps}
        console.print_json({"output": str(output), **_facts(loaded, found, place), **how})
    else:
        console.result(
            f"{output}  diffusion index {found.diffusion_index:.2f}, {attribution.SHARE:.0%} from "
            f"{found.area.sum()} of {found.map.size} input pixels"
        )


def _picture(file: Path) -> NDArray[np.float32]:
    """Read a picture's colour without alpha, h x w x 3 in [0, 1]."""
    import numpy as np

    from srcli.images import read, to_float

    picture = read(file)
    return np.broadcast_to(to_float(picture.color), (picture.height, picture.width, 3))


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


def _draw(
    picture: NDArray[np.float32],
    found: Attribution,
    window: Window,
    scale: int,
    target: Path,
    *,
    replace: bool,
) -> None:
    """Draw the map on the input and the contribution area, side by side."""
    import numpy as np
    from PIL import Image

    from srcli.system.files import atomic_path

    height, width, _ = picture.shape
    factor = max(1, -(-PANEL // max(height, width)))
    pale = _pale(picture)
    strength = np.abs(found.map) / (np.abs(found.map).max() or 1.0)
    # Square roots, so that a small contribution can be told from none.
    panels = [
        _mixed(pale, np.array(MAP, np.float64), np.sqrt(strength)),
        _mixed(pale, 255.0 * picture, found.area.astype(np.float64)),
    ]
    canvas = np.full((height * factor, 2 * width * factor + GAP, 3), GROUND, np.uint8)
    for index, panel in enumerate(panels):
        shown = panel.repeat(factor, axis=0).repeat(factor, axis=1)
        _outline(shown, window, factor / scale)
        left = index * (width * factor + GAP)
        canvas[:, left : left + width * factor] = shown
    with atomic_path(target, replace=replace) as partial:
        Image.fromarray(canvas).save(partial, "PNG")


def _pale(picture: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the picture in pale grey, h x w x 3 in 0..255."""
    import numpy as np

    grey = picture.mean(axis=2, keepdims=True, dtype=np.float64)
    return np.broadcast_to(255 * (PALER + (1 - PALER) * grey), picture.shape)


def _mixed(
    below: NDArray[np.float64], above: NDArray[np.number], strength: NDArray[np.float64]
) -> NDArray[np.uint8]:
    import numpy as np

    mixed: NDArray[np.uint8] = np.rint(below + (above - below) * strength[..., None]).astype(
        np.uint8
    )
    return mixed


def _outline(panel: NDArray[np.uint8], window: Window, factor: float) -> None:
    """Draw a frame around the window, in a panel where an output pixel is `factor` wide."""
    top, left = round(window.y * factor), round(window.x * factor)
    bottom, right = (round((start + window.size) * factor) for start in (window.y, window.x))
    rows = slice(max(0, top - LINE), bottom + LINE)
    columns = slice(max(0, left - LINE), right + LINE)
    panel[max(0, top - LINE) : top, columns] = OUTLINE
    panel[bottom : bottom + LINE, columns] = OUTLINE
    panel[rows, max(0, left - LINE) : left] = OUTLINE
    panel[rows, right : right + LINE] = OUTLINE
