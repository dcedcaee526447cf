"""Records for pictures in memory, their headers, their metadata and options for saving."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8 | np.uint16]
Subsampling: TypeAlias = Literal["keep", "444", "420"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Metadata of a picture. Byte strings are as found in the source file."""

    format: str | None = None  # name of the source's format
    icc: bytes | None = None  # colour profile; None means sRGB
    exif: bytes | None = None  # TIFF structure, without the "Exif\0\0" that JPEG puts before it
    xmp: bytes | None = None
    iptc: bytes | None = None  # Photoshop image resources, starting at "8BIM"
    dpi: tuple[float, float] | None = None  # horizontal, vertical, of the picture as stored
    aspect: tuple[float, float] | None = None  # density without a unit, where pixels are not square
    comments: tuple[bytes, ...] = ()  # a JPEG's, a GIF's
    size: tuple[int, int] | None = None  # width and height as stored, in pixels
    orientation: int = 1  # EXIF's 1..8, as stored; the pixels that go with this are upright
    converted: bool = False  # colours became sRGB, so what is said of their space no longer holds
    depth: int | None = None  # bits that each sample really has, if fewer than 8 or 16
    subsampling: str | None = None  # of a JPEG source: "4:4:4", "4:2:0"...
    lossless: bool = True  # of the source; False for most JPEG, WebP and AVIF
    quality: int | None = None  # of a JPEG source, 1..100, as its quantisation tables tell
    quality_estimated: bool = False  # those tables are another program's than the usual library's
    png_text: tuple[tuple[bytes, bytes], ...] = ()  # a PNG's text chunks: type and data
    png_background: bytes | None = None  # a PNG's suggested colour behind it, as stored
    png_color: tuple[tuple[bytes, bytes], ...] = ()  # gAMA, cHRM, sRGB, cICP...; an AVIF's too


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        color: H x W x C, uint8 or uint16, full range; C is 1 (grey) or 3 (RGB); contiguous.
        alpha: H x W of the same type, 0 is transparent, not premultiplied; or None.
        notes: what a reader of the file should know, one line each; mostly empty.
    """

    color: Pixels
    alpha: Pixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        return int(self.color.shape[0])

    @property
    def width(self) -> int:
        return int(self.color.shape[1])

    @property
    def bits(self) -> int:
        return 8 * self.color.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts about a file, known before its pixels are decoded; sizes are of the upright picture."""

    format: str
    width: int
    height: int
    channels: int  # 1 or 3, as `read` will give
    has_alpha: bool
    bits: int  # 8 or 16
    orientation: int  # EXIF's 1..8, as stored; `read` applies it
    streams: bool  # `StripReader` needs neither the whole picture nor a spool file

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOptions:
    """Options for writing a picture.

    Attributes:
        format: a name of `FORMATS`; None takes it from the target's suffix.
        quality: 1..100; None is 95 for JPEG and WebP, 90 for AVIF.
        lossless: for WebP and AVIF. Without it and without `quality`, a picture that came
            from a lossless WebP or AVIF is written losslessly again.
        subsampling: of JPEG chroma; "keep" repeats a JPEG source's 4:2:0, else 4:4:4.
        background: 8-bit RGB to lay a picture with alpha upon.
        strip: leave all metadata out.
        opaque: the picture's alpha is known to hide nothing; a format without alpha leaves it out.
    """

    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    subsampling: Subsampling = "keep"
    background: tuple[int, int, int] | None = None
    strip: bool = False
    opaque: bool = False
