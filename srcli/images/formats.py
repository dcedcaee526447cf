"""The file formats, one record each; recognise a format by its bytes or by a name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

from srcli.errors import InputError, UsageError
from srcli.system.mistaken import is_page, is_pointer

MAX_SIDE = 100_000_000  # the longest side that libvips takes, in pixels
MAX_PIXELS = 500_000_000  # of an input, unless the user allows more


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Abilities of one file format, as the libraries in use write it."""

    name: str
    suffixes: tuple[str, ...]  # the first one names new files
    max_side: int  # longest side that can be written, in pixels
    alpha: bool
    bits: int  # most bits per channel that can be written
    grey: bool  # a grey picture comes back with one channel
    lossless: bool  # can be written without loss
    lossy: bool  # has a quality setting
    strips: bool  # can be written without holding the whole picture
    max_pixels: int | None = None  # most pixels altogether, if fewer than the sides allow


_ALL = (
    Format(
        name="png", suffixes=(".png",), max_side=MAX_SIDE, alpha=True, bits=16,
        grey=True, lossless=True, lossy=False, strips=True,
    ),
    Format(
        name="tiff", suffixes=(".tif", ".tiff"), max_side=MAX_SIDE, alpha=True, bits=16,
        grey=True, lossless=True, lossy=False, strips=True,
    ),
    Format(
        # The format's own limit is 65535; libjpeg and all its descendants stop here.
        name="jpeg", suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"),
        max_side=65500, alpha=False, bits=8, grey=True, lossless=False, lossy=True, strips=True,
    ),
    Format(
        name="webp", suffixes=(".webp",), max_side=16383, alpha=True, bits=8,
        grey=False, lossless=True, lossy=True, strips=False,
    ),
    Format(
        name="avif", suffixes=(".avif",), max_side=16384, alpha=True, bits=12,
        grey=False, lossless=True, lossy=True, strips=False,
    ),
    Format(
        # A BMP file's size has to fit in 32 bits.
        name="bmp", suffixes=(".bmp", ".dib"), max_side=MAX_SIDE, alpha=False, bits=8,
        grey=True, lossless=True, lossy=False, strips=False, max_pixels=2**30,
    ),
)  # fmt: skip

# Read, but never written: nothing is enlarged into one of them. Their pictures become PNG.
_ONLY_READ = (
    Format(
        name="gif", suffixes=(".gif",), max_side=65535, alpha=True, bits=8, grey=False,
        lossless=True, lossy=False, strips=False,
    ),
    Format(
        name="heic", suffixes=(".heic", ".heif", ".hif"), max_side=65535, alpha=True, bits=16,
        grey=False, lossless=False, lossy=True, strips=False,
    ),
)  # fmt: skip

FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in _ALL}
READABLE: dict[str, Format] = {fmt.name: fmt for fmt in (*_ALL, *_ONLY_READ)}
SUFFIXES: dict[str, Format] = {suffix: fmt for fmt in _ALL for suffix in fmt.suffixes}
# Names that pictures come under, and the suffix that a result gets instead.
_INSTEAD = {
    ".mpo": ".jpg", ".jpg_large": ".jpg", ".jpg-large": ".jpg", ".jpg_orig": ".jpg",
    ".gif": ".png", ".heic": ".png", ".heif": ".png", ".hif": ".png",
}  # fmt: skip

MAGIC_BYTES = 64  # as many leading bytes as `sniff` wants to see

_RAW = "a camera's raw file"
# What people will try, so that the message can name it; none of these reaches a decoder.
_REFUSED = (
    (b"IIRO", _RAW), (b"IIRS", _RAW), (b"MMOR", _RAW), (b"IIU\0", _RAW),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (b"v/1\x01", "an OpenEXR"),
    (b"#?RADIANCE", "a Radiance HDR"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an XML file (perhaps an SVG)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x02\x00", "a cursor"),
    (b"P1", "a Netpbm picture"), (b"P4", "a Netpbm picture"), (b"P5", "a Netpbm picture"),
    (b"P6", "a Netpbm picture"), (b"qoif", "a QOI picture"), (b"DDS ", "a DirectDraw texture"),
    (b"SDPX", "a DPX"), (b"XPDS", "a DPX"), (b"gimp xcf", "a GIMP picture"),
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def names() -> str:
    """Return the formats as a phrase for messages."""
    return "PNG, TIFF, JPEG, WebP, AVIF and BMP"


def writes_as(format: str) -> str:
    """Return the format that a picture of this format is written in by default."""
    return format if format in FORMATS else "png"


def named_for_writing(name: PurePath) -> PurePath:
    """Return the name with the suffix of the format to write: PNG if it names none."""
    suffix = name.suffix.lower()
    if suffix in SUFFIXES:
        return name
    if suffix in _INSTEAD:
        return name.with_suffix(_INSTEAD[suffix])
    return name.with_name(f"{name.name}.png")


def sniff(head: bytes) -> Format | None:
    """Return the format that a file starting with `head` claims to be; None for any other."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return FORMATS["png"]
    if head.startswith(b"\xff\xd8\xff"):
        return FORMATS["jpeg"]
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return FORMATS["tiff"]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return FORMATS["webp"]
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return READABLE["gif"]
    if head[4:8] == b"ftyp":
        return _media(head)
    return FORMATS["bmp"] if head[:2] == b"BM" else None


def _media(head: bytes) -> Format | None:
    brands = _brands(head)
    if any(b"avi" in brand for brand in brands):
        return FORMATS["avif"]
    return READABLE["heic"] if any(brand in _HEIF_BRANDS for brand in brands) else None


def refusal(name: str, head: bytes) -> InputError:
    """Return the error for a file that `sniff` does not know: what it seems to be."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if is_pointer(start):
        return InputError(
            f"{name}: a pointer of git-lfs, not the file itself", "run `git lfs pull`"
        )
    if is_page(start):
        return InputError(f"{name}: a web page, not a picture", "download the picture itself")
    if head[4:8] == b"ftyp":
        what = _RAW if b"crx " in _brands(head) else "a video or another media container"
    else:
        named = (
            words for magic, words in _REFUSED if head.startswith(magic) or start.startswith(magic)
        )
        what = next(named, "")
    if what == _RAW:
        problem = f"{name}: {_RAW}, which is not read here"
        return InputError(problem, "develop it to a 16-bit TIFF first")
    said = f"{what}, which is not read here" if what else "not a picture that is read here"
    return InputError(f"{name}: {said}", f"convert it to one of {names()}")


def _brands(head: bytes) -> list[bytes]:
    """Return major and compatible brands of an ISO media file, as far as `head` reaches."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]


def format_of(name: str | os.PathLike[str]) -> Format:
    """Return the format that a name asks for: "png", ".png", "jpg", "x.png" or a path.

    Raises:
        UsageError: no format has this name or suffix.
    """
    text = os.fspath(name)
    word = text.lower()
    found = FORMATS.get(word) or SUFFIXES.get(word) or SUFFIXES.get(f".{word}")
    found = found or SUFFIXES.get(PurePath(text).suffix.lower())
    if found is None:
        raise UsageError(
            f"{text!r}: no picture format has this suffix", f"use one of {' '.join(SUFFIXES)}"
        )
    return found


def has_picture_suffix(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name says which format is to be written."""
    return PurePath(name).suffix.lower() in SUFFIXES


def looks_readable(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name looks like that of a picture that can be read, for listing folders.

    The format need not be one that can be written.
    """
    suffix = PurePath(name).suffix.lower()
    return suffix in SUFFIXES or suffix in _INSTEAD
