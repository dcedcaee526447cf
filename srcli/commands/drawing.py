"""Figures: panels with titles, legends and words, drawn by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

    Color = tuple[int, int, int]
    Drawn = NDArray[np.uint8]
    """h x w x 3."""

WHITE, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
GROUND = (242, 242, 242)  # behind panels, so that white ones have an edge
TEXT = 15  # height of letters, in pixels
LINE = 22  # from one line of text to the next
GAP = 12  # around panels
BAR = 12  # height of a legend's bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """A bar of colours and the words at its ends."""

    colors: Drawn
    """n colours, n x 3, from left to right."""

    left: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A part of a figure."""

    title: str
    picture: Drawn
    legend: Legend | None = None
    words: Sequence[str] = ()
    """Lines below it."""


def save_figure(panels: Sequence[Panel], target: Path, *, columns: int, replace: bool) -> None:
    """Draw panels row by row and write them as a PNG file, whole or not at all.

    Args:
        panels: Those of one row may differ in size.
        target: The file.
        columns: Panels in a row.
        replace: True to replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    from srcli.system.files import atomic_path

    with atomic_path(target, replace=replace) as partial:
        figure(panels, columns=columns).save(partial, "PNG")


def figure(panels: Sequence[Panel], *, columns: int) -> Image.Image:
    """Return panels as one picture, row by row, each with its title, legend and words."""
    from PIL import Image, ImageDraw

    boxes = [_size(panel) for panel in panels]
    rows = [range(top, min(top + columns, len(panels))) for top in range(0, len(panels), columns)]
    widths = [max(boxes[index][0] for index in range(c, len(panels), columns))
              for c in range(min(columns, len(panels)))]  # fmt: skip
    heights = [max(boxes[index][1] for index in row) for row in rows]
    size = (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(rows) + 1))
    canvas = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(canvas)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for index, width in zip(row, widths, strict=False):
            _draw(canvas, pen, panels[index], left, top)
            left += width + GAP
        top += height + GAP
    return canvas


def _size(panel: Panel) -> tuple[int, int]:
    """Return width and height of a panel with its words."""
    height, width, _ = panel.picture.shape
    texts = [panel.title, *panel.words]
    if panel.legend is not None:
        texts.append(f"{panel.legend.left}      {panel.legend.right}")
        height += BAR + LINE + GAP // 2
    widest = max(_width(text) for text in texts)
    return max(width, widest), height + LINE * (1 + len(panel.words))


def _draw(canvas: Image.Image, pen: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    from PIL import Image

    font = letters()
    pen.text((left, top), panel.title, fill=INK, font=font)
    canvas.paste(Image.fromarray(panel.picture), (left, top + LINE))
    height, width, _ = panel.picture.shape
    below = top + LINE + height + GAP // 2
    if panel.legend is not None:
        bar = Image.fromarray(panel.legend.colors[None]).resize((width, BAR))
        canvas.paste(bar, (left, below))
        below += BAR
        pen.text((left, below), panel.legend.left, fill=FAINT, font=font)
        right = left + width - _width(panel.legend.right)
        pen.text((right, below), panel.legend.right, fill=FAINT, font=font)
        below += LINE
    for line in panel.words:
        pen.text((left, below), line, fill=FAINT, font=font)
        below += LINE


def _width(text: str) -> int:
    return round(letters().getlength(text))


def letters() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow; a plain one where it was built without FreeType."""
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)


def color_of(file: Path) -> NDArray[np.float32]:
    """Read a picture's colour without alpha, h x w x 3 in [0, 1].

    Raises:
        InputError: It cannot be read.
    """
    import numpy as np

    from srcli.images import read, to_float

    picture = read(file)
    return np.broadcast_to(to_float(picture.color), (picture.height, picture.width, 3))


def magnified(picture: Drawn, factor: int) -> Drawn:
    """Return a picture whose pixels are squares of `factor` pixels."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(
    picture: Drawn, left: int, top: int, right: int, bottom: int, *, width: int, color: Color
) -> None:
    """Draw a frame around [left, right) x [top, bottom), outside of it where there is room."""
    rows = slice(max(0, top - width), bottom + width)
    columns = slice(max(0, left - width), right + width)
    picture[max(0, top - width) : top, columns] = color
    picture[bottom : bottom + width, columns] = color
    picture[rows, max(0, left - width) : left] = color
    picture[rows, right : right + width] = color


def mixed(
    below: NDArray[np.float64], above: NDArray[np.number], strength: NDArray[np.float64]
) -> Drawn:
    """Mix two pictures in 0..255 by a strength, h x w in [0, 1]."""
    import numpy as np

    made: Drawn = np.rint(below + (above - below) * strength[..., None]).astype(np.uint8)
    return made


def ramp(start: Color, end: Color, steps: int = 256) -> Drawn:
    """Return colours from one to another, n x 3, as square roots of the distance show them."""
    import numpy as np

    share = np.sqrt(np.linspace(0, 1, steps))
    return mixed(np.full((steps, 3), start, np.float64), np.array(end, np.float64), share)
