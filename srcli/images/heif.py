"""Read HEIC files by pillow-heif, if it is installed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.errors import InputError
from srcli.images import avif, exif
from srcli.images.metadata import Gathered, checked
from srcli.images.picture import Metadata, Pixels

if TYPE_CHECKING:
    from pillow_heif import HeifFile


def divided(pixels: Pixels) -> Pixels:
    """Divide colour by alpha, the last channel: H x W x 4, of the same type."""
    top = np.iinfo(pixels.dtype).max
    alpha = pixels[..., 3:].astype(np.float64)
    color = np.rint(pixels[..., :3] * np.divide(top, alpha, where=alpha > 0, out=alpha * 0))
    made: Pixels = np.concatenate([color.clip(0, top), alpha], -1).astype(pixels.dtype)
    return made


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


class Container:
    """A HEIC file; its pictures are decoded when they are asked for."""

    def __init__(self, name: str, source: Path | bytes) -> None:
        """Read the headers.

        Raises:
            InputError: the file is damaged.
        """
        import pillow_heif

        self._name = name
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            self._turned = avif.facts(file).turned
        content = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            self._file: HeifFile = pillow_heif.open_heif(
                content, convert_hdr_to_8bit=False, hdr_to_16bit=True
            )
            self.count = len(self._file)
            if not self.count:
                raise ValueError("it holds no picture")
        except MemoryError:
            raise
        except Exception as error:  # it raises whatever its parts raise
            raise self._damaged(error) from error

    def size(self, page: int) -> tuple[int, int]:
        """Return width and height of a picture, upright."""
        width, height = self._file[page].size
        return int(width), int(height)

    def empty(self, page: int) -> Pixels:
        """Return an array of the picture's shape and type without its pixels."""
        width, height = self.size(page)
        mode = self._file[page].mode
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}[mode.partition(";")[0]]
        kind = np.uint16(0) if "16" in mode else np.uint8(0)
        return np.broadcast_to(kind, (height, width, channels))

    def pixels(self, page: int) -> Pixels:
        """Decode the pixels, H x W x 1 to 4, 8 or 16 bits, upright.

        Raises:
            InputError: the picture is damaged.
        """
        expected = self.empty(page).shape
        try:
            made: Pixels = np.asarray(self._file[page])
            made = made.reshape((*made.shape[:2], expected[2]))
            if made.shape != expected:
                raise ValueError("its pixels are not as many as it says")
        except MemoryError:
            raise
        except Exception as error:
            raise self._damaged(error) from error
        premultiplied = str(self._file[page].mode).startswith("RGBa")
        return divided(made) if premultiplied else made

    def gathered(self, page: int) -> Gathered:
        """Return what the file says beside the pixels."""
        info = self._file[page].info
        stored, depth = _bytes(info.get("exif")), info.get("bit_depth")
        metadata = Metadata(
            format="heic", lossless=False, icc=_bytes(info.get("icc_profile")), exif=stored,
            xmp=_bytes(info.get("xmp")), dpi=exif.resolution_of(exif.checked(stored)),
            depth=depth if isinstance(depth, int) and depth > 8 else None,
        )  # fmt: skip
        parts = {"depth_images": "its depth map", "aux": "its auxiliary pictures"}
        lost = [words for key, words in parts.items() if info.get(key)]
        notes = (f"{self._name}: left out: {', '.join(lost)}",) if lost else ()
        # The decoder has turned the picture as the container says.
        found = Gathered(
            metadata=metadata, orientation=1, turned=self._turned,
            frames=self.count, notes=notes,
        )  # fmt: skip
        return checked(self._name, found)

    def _damaged(self, error: Exception) -> InputError:
        text = "".join(c for c in " ".join(str(error).split()) if c.isprintable())[:120]
        return InputError(
            f"{self._name}: damaged or incomplete ({text})",
            "get a whole copy of it, or save it as JPEG or PNG",
        )
