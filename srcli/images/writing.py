"""From pixels to a file: what a format cannot hold is said before any work, and a file gets its
name only when it is whole."""

from __future__ import annotations

import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srcli.errors import OutputError, UsageError
from srcli.images import bmp, vips
from srcli.images.formats import FORMATS, Format, format_of
from srcli.images.picture import Metadata, Picture, Pixels, SaveOptions
from srcli.images.pixels import over, to_8_bits

_QUALITY = {"jpeg": 95, "webp": 95, "avif": 90}
_BIG_TIFF = 3_500_000_000  # bytes of pixels above which offsets may pass 2^32


def check_output(
    width: int,
    height: int,
    has_alpha: bool,
    bits: int,
    format: str,
    options: SaveOptions,
    name: str,
) -> list[str]:
    """Say before any work whether a picture can be written.

    Args:
        width, height: of the output, in pixels.
        bits: 8 or 16 per channel.
        format: a name of `FORMATS`.
        name: what messages call the output.

    Returns:
        Notes on what will change, such as 16 bits becoming 8; mostly empty.

    Raises:
        UsageError: the format cannot hold the picture, or the options contradict each other.
    """
    fmt = FORMATS[format]
    _check_side(fmt, width, height, name)
    _check_options(fmt, options, name)
    if has_alpha and not fmt.alpha and options.background is None:
        raise UsageError(
            f"{name}: {fmt.name.upper()} has no transparency; give --background COLOR, "
            "or another --format such as png"
        )
    if bits > fmt.bits:
        return [f"{name}: {bits} bits per channel become {fmt.bits}, all that {fmt.name} holds"]
    return []


def write(picture: Picture, target: Path, options: SaveOptions | None = None) -> None:
    """Write a file that appears under its name whole or not at all, replacing an earlier one.

    Raises:
        UsageError: as `check_output`.
        OutputError: the file cannot be written; nothing is left behind.
    """
    options = options or SaveOptions()
    fmt = format_of(options.format or target)
    prepared = _prepared(picture, fmt, options, str(target))
    with vips.writing(str(target)), whole_file(target) as file:
        _save(prepared, file, fmt, options)


def encode(picture: Picture, options: SaveOptions) -> bytes:
    """The bytes of the file that `write` would write; `options.format` is needed."""
    if options.format is None:
        raise UsageError("standard output has no suffix to tell the format; give --format")
    fmt = format_of(options.format)
    prepared = _prepared(picture, fmt, options, "standard output")
    file = io.BytesIO()
    with vips.writing("standard output"):
        _save(prepared, file, fmt, options)
    return file.getvalue()


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """A new file beside `target` that takes its place when the block ends well, else vanishes."""
    check_target(target)
    temporary = target.parent / f".srcli-{secrets.token_hex(8)}.part"
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_target(target: Path) -> None:
    """Refuse to put a file in the place of a folder or a device."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{target}: this is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{target}: not a regular file; write to `-` and redirect")


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_side(fmt: Format, width: int, height: int, name: str) -> None:
    if max(width, height) > fmt.max_side:
        raise UsageError(
            f"{name}: {width} x {height} is more than the {fmt.max_side} pixels a side that "
            f"{fmt.name} can have; use --format png or tiff, or a smaller scale"
        )


def _check_options(fmt: Format, options: SaveOptions, name: str) -> None:
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise UsageError(f"--quality {options.quality}: give a number from 1 to 100")
    if options.quality is not None and not fmt.lossy:
        raise UsageError(f"{name}: {fmt.name} has no quality to set; leave --quality out")
    if options.lossless and not fmt.lossless:
        raise UsageError(f"{name}: {fmt.name} is never lossless; use png, tiff, webp or avif")
    if options.lossless and options.quality is not None:
        raise UsageError(f"{name}: --lossless and --quality exclude each other; give one")


def _prepared(picture: Picture, fmt: Format, options: SaveOptions, name: str) -> Picture:
    """The picture as the format will hold it."""
    check_output(
        picture.width, picture.height, picture.alpha is not None, picture.bits,
        fmt.name, options, name,
    )  # fmt: skip
    color, alpha = picture.color, picture.alpha
    if alpha is not None and (options.background is not None or not fmt.alpha):
        color, alpha = over(color, alpha, options.background or (0, 0, 0)), None
    if fmt.bits == 8:
        color, alpha = to_8_bits(color), None if alpha is None else to_8_bits(alpha)
    return Picture(color=color, alpha=alpha, metadata=picture.metadata)


def _save(picture: Picture, file: BinaryIO, fmt: Format, options: SaveOptions) -> None:
    if fmt.name == "bmp":
        file.write(bmp.encode(picture.color, None if options.strip else picture.metadata.dpi))
        return
    save_image(_as_image(picture), file, fmt, picture.metadata, options)


def save_image(
    image: Any, file: BinaryIO, fmt: Format, metadata: Metadata, options: SaveOptions
) -> None:
    """Encode a libvips image into an open file."""
    sink = vips.Sink(file)
    tagged = image if options.strip else _tagged(image, metadata)
    save, settings = _saver(image, fmt, metadata, options)
    try:
        getattr(tagged, save)(sink.target, **settings)
    except vips.library().Error:
        if sink.error is not None:
            raise sink.error from None
        raise


def _saver(
    image: Any, fmt: Format, metadata: Metadata, options: SaveOptions
) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the libvips call that writes this format."""
    quality = options.quality or _QUALITY.get(fmt.name)
    same = metadata.format == fmt.name and metadata.lossless and options.quality is None
    lossless = options.lossless or same
    keep: dict[str, Any] = {"keep": "none"} if options.strip else {}
    if fmt.name == "png":
        return "pngsave_target", {"compression": 6, **keep}
    if fmt.name == "tiff":
        size = image.width * image.height * image.bands * (1 if image.format == "uchar" else 2)
        return "tiffsave_target", {
            "compression": "deflate", "predictor": "horizontal", "bigtiff": size > _BIG_TIFF, **keep
        }  # fmt: skip
    if fmt.name == "jpeg":
        return "jpegsave_target", {
            "Q": quality, "optimize_coding": True, "subsample_mode": _subsample(metadata, options),
            **keep,
        }  # fmt: skip
    if fmt.name == "webp":
        choice = {"lossless": True, "exact": True} if lossless else {"Q": quality}
        return "webpsave_target", {**choice, **keep}
    choice = {"lossless": True} if lossless else {"Q": quality}
    return "heifsave_target", {"compression": "av1", "subsample_mode": "off", **choice, **keep}


def _subsample(metadata: Metadata, options: SaveOptions) -> str:
    # libvips writes 4:2:0 or 4:4:4 only; what is between them must not lose any more.
    kept = options.subsampling == "keep" and metadata.subsampling == "4:2:0"
    return "on" if kept or options.subsampling == "420" else "off"


def _as_image(picture: Picture) -> Any:
    pixels: Pixels = picture.color
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], axis=2)
    pixels = np.ascontiguousarray(pixels)
    kind = "uchar" if pixels.dtype == np.uint8 else "ushort"
    height, width, bands = pixels.shape
    image = vips.library().Image.new_from_memory(pixels.data, width, height, bands, kind)
    return interpreted(image)


def interpreted(image: Any) -> Any:
    """The image with libvips told whether it is grey or RGB."""
    wide = image.format == "ushort"
    grey = image.bands < 3
    name = ("grey16" if wide else "b-w") if grey else ("rgb16" if wide else "srgb")
    return image.copy(interpretation=name)


def _tagged(image: Any, metadata: Metadata) -> Any:
    """A copy of the image that carries the metadata."""
    blob = vips.library().GValue.blob_type
    tagged = image.copy()
    if metadata.dpi is not None:
        tagged = tagged.copy(xres=metadata.dpi[0] / 25.4, yres=metadata.dpi[1] / 25.4)
    for name, data in (
        ("icc-profile-data", metadata.icc),
        ("exif-data", metadata.exif),
        ("xmp-data", metadata.xmp),
    ):
        if data is not None:
            tagged.set_type(blob, name, data)
    tagged.set_type(vips.library().GValue.gint_type, "orientation", 1)
    return tagged
