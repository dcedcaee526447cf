"""Read and write BMP by Pillow, since libvips' usual builds cannot."""

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
_EMBEDDED = {4: b"\xff\xd8\xff", 5: b"\x89PNG"}  # the start of the file, by compression


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Return width and height from the header; None without a header."""
    file.seek(0)
    head = file.read(_HEADER)
    if len(head) < _HEADER:
        return None
    wide = int.from_bytes(head[14:18], "little") > 12
    step = 4 if wide else 2
    fields = (head[18 : 18 + step], head[18 + step : 18 + 2 * step])
    width, height = (abs(int.from_bytes(field, "little", signed=wide)) for field in fields)
    return width, height


def embedded(file: BinaryIO) -> bytes | None:
    """Return the PNG or JPEG file that a BMP file holds in place of pixels; None for others."""
    file.seek(0)
    head = file.read(34)
    start, info, compression = (int.from_bytes(head[i : i + 4], "little") for i in (10, 14, 30))
    if len(head) < 34 or info < 40 or compression not in _EMBEDDED:
        return None
    file.seek(start)
    content = file.read()
    return content if content.startswith(_EMBEDDED[compression]) else None


def decode(
    name: str, file: BinaryIO, pixels: bool = True
) -> tuple[Pixels, tuple[float, float] | None]:
    """Return the pixels, H x W x 1, 3 or 4 uint8, and the dots per inch.

    With `pixels=False` only the header is read, and the array is an empty view of that shape.

    Raises:
        InputError: the file is damaged, incomplete, or of a kind that Pillow does not read.
    """
    from PIL import BmpImagePlugin

    file.seek(0)
    try:
        # Not `Image.open`: it has a global limit of its own, and sniffs.
        image = BmpImagePlugin.BmpImageFile(file)
        mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
        shape = (image.height, image.width, len(mode) if mode != "L" else 1)
        if mode == "RGBA":
            return _without_empty_alpha(np.asarray(image)), image.info.get("dpi")
        if not pixels:
            return np.broadcast_to(np.uint8(0), shape), None
        array = np.asarray(image.convert(mode)).reshape(shape)
        return array, image.info.get("dpi")
    except (OSError, SyntaxError, ValueError, *_BUGS) as error:
        if str(error).startswith("Unsupported BMP"):
            kind = str(error).removeprefix("Unsupported BMP ")
            raise InputError(
                f"{name}: a BMP file of a rare kind ({kind}), which is not read here",
                "save it as an ordinary BMP (24 bits per pixel) or as PNG",
            ) from error
        remedy = "get a whole copy of it"
        if _is_packed(file):  # runs may leave pixels out, on purpose
            remedy += ", or, if it is whole, save it as an ordinary BMP (24 bits per pixel)"
        raise InputError(f"{name}: damaged or incomplete ({error})", remedy) from error


def _without_empty_alpha(pixels: Pixels) -> Pixels:
    """Drop an alpha of 0 everywhere: many programs write it and mean an opaque picture."""
    return pixels if pixels[..., 3].any() else np.ascontiguousarray(pixels[..., :3])


def _is_packed(file: BinaryIO) -> bool:
    """Tell whether pixels are stored as runs (RLE)."""
    file.seek(30)
    return int.from_bytes(file.read(4), "little") in (1, 2)


def encode(pixels: Pixels, dpi: tuple[float, float] | None) -> bytes:
    """Encode H x W x 1 or 3 uint8 as the bytes of a BMP file."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "BMP", dpi=dpi or (0, 0))  # without it Pillow makes one up
    return file.getvalue()
