"""`srcli filters`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.loading.model import LoadedModel

COLUMNS = 12  # of the dictionary's picture
MAGNIFIED = 12  # side of a tap in the picture
GAP = 6  # between filters
RISING, FALLING = (178, 24, 43), (33, 102, 172)  # colours of 1 and -1; 0 is white


def position(text: str) -> tuple[int, int]:
    """Read `40,60` as column and row."""
    column, comma, row = text.partition(",")
    if not comma or not column.isdecimal() or not row.isdecimal():
        raise click.BadParameter(f"{text!r} is no position. Write X,Y, for example 40,60.")
    return int(column), int(row)


@click.command()
@click.argument("image", required=False, type=options.FILE)
@click.option("--at", type=position, metavar="X,Y", help="A pixel of the input, from the top left.")
@click.option("--dictionary", is_flag=True, help="Draw the dictionary's filters instead.")
@options.model
@click.option(
    "-s", "--scale", type=int, default=DEFAULT_SCALE, show_default=True, help="Enlargement."
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
    at: tuple[int, int] | None,
    dictionary: bool,
    model: str,
    scale: int,
    weights: Path | None,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the 5x5 filters that LAPAR applies.

    LAPAR enlarges a picture bicubically and then filters every pixel with a filter of its own, a
    sum of 72 that are fixed. At a pixel of the input this draws the filters of the scale x scale
    output pixels that it becomes (the paper's figure 6); with --dictionary the 72 (figure 3). Red
    is positive, blue negative.

    \b
    Examples:
        srcli filters photo.png --at 40,60
        srcli filters --dictionary -o dictionary.png
    """
    from srcli import console
    from srcli.loading.model import load

    if dictionary == (at is not None) or (at is not None) != (image is not None):
        raise UsageError("give an IMAGE and --at X,Y, or --dictionary alone.")
    options.check_free(output, overwrite)
    loaded = load(model, scale, weights=weights, note=console.note)
    if loaded.spec.distinct_taps is None:
        raise UsageError(f"{loaded.spec.name} assembles no filters", "Choose a LAPAR with -m.")
    if image is None or at is None:
        from srcli.models.lapar.network import Lapar

        published = loaded.published_network()
        assert isinstance(published, Lapar), "it assembles filters"
        taps, columns = published.decom_conv.weight.numpy()[:, 0], COLUMNS
    else:
        taps, columns = assembled(loaded, image, at), scale
    _draw(taps, columns, output, replace=overwrite)
    if as_json:
        console.print_json({"output": str(output), "filters": taps.tolist()})
    else:
        console.result(f"{output}  {len(taps)} filters, {taps.min():.3f} to {taps.max():.3f}")


def assembled(model: LoadedModel, file: Path, at: tuple[int, int]) -> NDArray[np.float32]:
    """Return the filters of the output pixels of one input pixel, scale**2 x 5 x 5.

    Raises:
        InputError: The picture cannot be read.
        UsageError: The pixel lies outside of it.
    """
    import numpy as np
    import torch

    from srcli.images import read, to_float
    from srcli.models.lapar.network import FusedLapar

    picture = read(file)
    column, row = at
    if column >= picture.width or row >= picture.height:
        raise UsageError(
            f"{file}: has {picture.width} x {picture.height} pixels; {column},{row} is outside."
        )
    color = np.broadcast_to(to_float(picture.color), (picture.height, picture.width, 3))
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


def _draw(taps: NDArray[np.float32], columns: int, target: Path, *, replace: bool) -> None:
    import numpy as np
    from PIL import Image

    from srcli.system.files import atomic_path

    side = taps.shape[-1] * MAGNIFIED + GAP
    rows = -(-len(taps) // columns)
    canvas = np.full((rows * side + GAP, columns * side + GAP, 3), 230, np.uint8)
    largest = float(np.abs(taps).max()) or 1.0
    for index, one in enumerate(taps):
        y, x = (GAP + side * place for place in divmod(index, columns))
        tile = _colored(one / largest).repeat(MAGNIFIED, axis=0).repeat(MAGNIFIED, axis=1)
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    with atomic_path(target, replace=replace) as partial:
        Image.fromarray(canvas).save(partial, "PNG")


def _colored(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour values of -1 to 1 by their square roots, so that small taps differ from none."""
    import numpy as np

    strength = np.sqrt(np.abs(values))[..., None]
    end = np.where(values[..., None] < 0, FALLING, RISING)
    colors: NDArray[np.uint8] = np.rint(255 + (end - 255) * strength).astype(np.uint8)
    return colors
