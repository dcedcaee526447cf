"""BMP through Pillow, since libvips' usual builds have none."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np

from srcli.errors import InputError
from srcli.images.picture import Pixels

# What Pillow lets through when a header makes no sense.
_BUGS = (ArithmeticError, LookupError, TypeError, struct.error)
_HEADER = 26  # bytes until the end of the size fields


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height as the header has them; None when there is none."""
    file.seek(0)
    head = file.read(_HEADER)
    if len(head) < _HEADER:
        return None
    wide = int.from_bytes(head[14:18], "little") > 12
    step = 4 if wide else 2
    fields = (head[18 : 18 + step], head[18 + step : 18 + 2 * step])
    width, height = (abs(int.from_bytes(field, "little", signed=wide)) for field in fields)
    return width, height


def decode(
    name: str, file: BinaryIO, pixels: bool = True
) -> tuple[Pixels, tuple[float, float] | None]:
    """Pixels as H x W x 1, 3 or 4 uint8, and dots per inch.

    With `pixels=False` only the header is read, and the array is an empty view of that shape.

    Raises:
        InputError: the file is damaged or incomplete.
    """
    from PIL import BmpImagePlugin

    file.seek(0)
    try:
        # Not `Image.open`: it has a global limit of its own, and sniffs.
        image = BmpImagePlugin.BmpImageFile(file)
        mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
        shape = (image.height, image.width, len(mode) if mode != "L" else 1)
        if not pixels:
            return np.broadcast_to(np.uint8(0), shape), None
        array = np.asarray(image.convert(mode)).reshape(shape)
        return array, image.info.get("dpi")
    except (OSError, SyntaxError, ValueError, *_BUGS) as error:
        raise InputError(
            f"{name}: damaged or incomplete ({error}); get a whole copy of it"
        ) from error


def encode(pixels: Pixels, dpi: tuple[float, float] | None) -> bytes:
    """H x W x 1 or 3 uint8 to the bytes of a BMP file."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "BMP", **({} if dpi is None else {"dpi": dpi}))
    return file.getvalue()
