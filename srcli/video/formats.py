"""Translate between FFmpeg's names of pixel formats and layouts of planes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from srcli.errors import InputError, UsageError
from srcli.video.layout import Kind, Layout, Planes, Samples
from srcli.video.messages import prepared

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.plane import VideoPlane

_PLANAR = re.compile(r"(?:yuvj?(4\d\d)p|(gray)|(gbrp))(\d{1,2})?(?:le)?")
_SHARES = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}

SAME_IN_PLANES: Mapping[str, str] = MappingProxyType(
    {
        "nv12": "yuv420p",
        "nv21": "yuv420p",
        "nv16": "yuv422p",
        "nv24": "yuv444p",
        "yuyv422": "yuv422p",
        "uyvy422": "yuv422p",
        "p010le": "yuv420p10le",
        "p016le": "yuv420p16le",
        "rgb24": "gbrp",
        "bgr24": "gbrp",
        "rgb0": "gbrp",
        "bgr0": "gbrp",
        "0rgb": "gbrp",
        "0bgr": "gbrp",
    }
)
"""Formats whose samples lie in another order, and those that hold the same in planes."""


def planar(name: str) -> str:
    """Return the format in planes that holds the same samples."""
    return SAME_IN_PLANES.get(name, name)


def layout_of(name: str, width: int, height: int) -> Layout | None:
    """Return the layout of a format in planes; None for formats that srcli does not take."""
    found = _PLANAR.fullmatch(name)
    if found is None or (found[1] and found[1] not in _SHARES):
        return None
    kind: Kind = "grey" if found[2] else "rgb" if found[3] else "yuv"
    across, down = _SHARES[found[1]] if found[1] else (1, 1)
    bits = int(found[4] or 8)
    if not 8 <= bits <= 16:
        return None
    return Layout(width=width, height=height, kind=kind, bits=bits, across=across, down=down)


def name_of(layout: Layout) -> str:
    """Return FFmpeg's name of a layout."""
    shares = next(k for k, v in _SHARES.items() if v == (layout.across, layout.down))
    base = {"grey": "gray", "rgb": "gbrp", "yuv": f"yuv{shares}p"}[layout.kind]
    return base if layout.bits == 8 else f"{base}{layout.bits}le"


def input_layout(name: str | None, width: int, height: int, file: str) -> Layout:
    """Return the layout in which frames of a format are read.

    Raises:
        InputError: The format is unknown, transparent, of floats or of a palette.
    """
    layout = None if name is None else layout_of(planar(name), width, height)
    if layout is None:
        raise InputError(
            f"{file}: frames are in the format {name}, which srcli does not take",
            f"Convert it: {prepared(file, '-pix_fmt yuv444p -c:v ffv1 -c:a copy')}.",
        )
    return layout


def output_layout(name: str, layout: Layout) -> Layout:
    """Return the layout that a user asks for by --pix-fmt; `auto` keeps the input's.

    Args:
        name: Of a format, or `auto`.
        layout: Of the input, enlarged.

    Raises:
        UsageError: The format is none that can be made of this input.
    """
    if name == "auto":
        return layout
    found = layout_of(name, layout.width, layout.height)
    if found is None or found.kind != layout.kind:
        raise UsageError(
            f"--pix-fmt {name}: frames of {name_of(layout)} cannot be written so",
            f"Choose {name_of(layout)} or a relative, such as yuv420p10le.",
        )
    return found


def planes_of(frame: VideoFrame, layout: Layout) -> list[Samples]:
    """Return the planes of a decoded frame, in memory of their own."""
    if frame.format.name != planar(frame.format.name):
        frame = frame.reformat(format=planar(frame.format.name))
    return [
        _samples(plane, layout)[:height, :width].copy()
        for plane, (height, width) in zip(frame.planes, layout.shapes, strict=True)
    ]


def fill(frame: VideoFrame, planes: Planes, layout: Layout) -> None:
    """Write planes into a frame that is to be encoded."""
    for plane, samples in zip(frame.planes, planes, strict=True):
        height, width = samples.shape
        _samples(plane, layout)[:height, :width] = samples


def _samples(plane: VideoPlane, layout: Layout) -> Samples:
    """Return a view of a plane's memory, with what pads its lines."""
    size = plane.line_size // layout.dtype.itemsize
    samples: Samples = np.frombuffer(memoryview(plane), layout.dtype)
    return samples[: samples.size // size * size].reshape(-1, size)
