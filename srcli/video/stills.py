"""Read one frame of a video as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from srcli.errors import InputError, UsageError
from srcli.images import Picture, from_float
from srcli.video.color import Converter
from srcli.video.colorspace import Stated, Wanted, settled
from srcli.video.layout import SITINGS, USUAL_SITING, Layout, Planes

Y4M = ".y4m"


def frame_of(path: Path, number: int) -> Picture:
    """Read a frame as RGB, converted as `srcli video` converts it for the network.

    Args:
        path: Of a file of any container, or of Y4M.
        number: Of the frame in the order in which they are shown, from 0.

    Returns:
        A picture of 8 bits, or of 16 for frames of more.

    Raises:
        InputError: The file cannot be read, or is refused as `srcli video` refuses it.
        UsageError: It has no such frame.
    """
    planes, layout, stated = _read(path, number)
    space, _ = settled(stated, Wanted(), height=layout.height, kind=layout.kind)
    siting = SITINGS[stated.siting or USUAL_SITING]
    rgb, _ = Converter(layout, layout, space, siting).to_rgb(planes)
    color = from_float(rgb.transpose(1, 2, 0), 8 if layout.bits == 8 else 16)
    return Picture(color=np.ascontiguousarray(color))


def _read(path: Path, number: int) -> tuple[Planes, Layout, Stated]:
    if path.suffix.lower() == Y4M:
        return _from_stream(path, number)
    from srcli.video.containers import facts_of, frames_from, opened

    with opened(path) as (container, stream):
        facts = facts_of(container, stream, path)
    with opened(path) as (container, stream):
        frames = frames_from(container, stream, facts.layout, path, None)
        planes = _nth((planes for planes, _ in frames), number, path)
    return planes, facts.layout, facts.stated


def _from_stream(path: Path, number: int) -> tuple[Planes, Layout, Stated]:
    from srcli.video.y4m import Reader

    try:
        opened = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror})", "Check the name and its permissions."
        ) from error
    with opened:
        reader = Reader(opened, str(path))
        planes = _nth((frame.planes for frame in reader.frames()), number, path)
    header = reader.header
    return planes, header.layout, Stated(full_range=header.full_range, siting=header.siting)


def _nth(frames: Iterator[Planes], number: int, path: Path) -> Planes:
    """Return a frame.

    Raises:
        UsageError: There are fewer.
    """
    count = 0
    for count, planes in enumerate(islice(frames, number + 1), 1):
        if count == number + 1:
            return planes
    raise UsageError(
        f"{path}: has {count} frames, and no frame {number}", "Frames are counted from 0."
    )
