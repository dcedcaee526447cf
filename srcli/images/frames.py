"""Decode one frame of an animated PNG or AVIF file by Pillow, which composes frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np

from srcli.errors import InputError
from srcli.images.picture import Pixels

if TYPE_CHECKING:
    from PIL.AvifImagePlugin import AvifImageFile
    from PIL.Image import Image as PillowImage

_T = TypeVar("_T")


def gif_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return width and height of a GIF file's canvas."""
    file.seek(6)
    head = file.read(4)
    return int.from_bytes(head[:2], "little"), int.from_bytes(head[2:], "little")


def of_png(name: str, source: Path | bytes, page: int, decode: bool) -> Pixels:
    """Return a frame of an animated PNG, H x W x 1 to 4, 8 bits; empty if not to be decoded.

    Raises:
        InputError: it is damaged.
    """
    from PIL.PngImagePlugin import PngImageFile

    return _guarded(name, lambda: _frame(PngImageFile(_file(source)), page, decode))


def of_avif(name: str, source: Path | bytes, page: int, decode: bool) -> Pixels:
    """Return a frame of an AVIF sequence, H x W x 1 to 4, 8 bits; empty if not to be decoded."""
    return _guarded(name, lambda: _frame(_avif(source), page, decode))


def count_of_avif(name: str, source: Path | bytes) -> int:
    """Return the number of frames of an AVIF sequence."""

    def count() -> int:
        with _avif(source) as image:
            return int(image.n_frames)

    return _guarded(name, count)


def _avif(source: Path | bytes) -> AvifImageFile:
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile(_file(source))


def _file(source: Path | bytes) -> io.BytesIO | Path:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _frame(image: PillowImage, page: int, decode: bool) -> Pixels:
    with image:
        mode = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "I;16": "I;16"}.get(
            image.mode, "RGBA"
        )
        if mode == "I;16":
            raise SyntaxError("16-bit frames")
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
        if not decode:
            return np.broadcast_to(np.uint8(0), (image.height, image.width, channels))
        image.seek(page)
        pixels: Pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def _guarded(name: str, work: Callable[[], _T]) -> _T:
    try:
        return work()
    except MemoryError:
        raise
    except Exception as error:  # Pillow lets through all kinds when a header makes no sense
        text = " ".join(str(error).split())
        cause = "".join(c for c in text if c.isprintable())[:120] or type(error).__name__
        raise InputError(
            f"{name}: damaged or incomplete ({cause})", "get a whole copy of it"
        ) from error
