"""Write pixels to a file, which gets its name only when it is whole.

What a format cannot hold is reported before any work.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from srcli.errors import OutputError, UsageError
from srcli.images import avif, bmp, exif, exif_tiff, jpeg, png, tiff, vips, webp
from srcli.images.colors import named, of_array
from srcli.images.formats import FORMATS, Format, format_of
from srcli.images.metadata import current, losses
from srcli.images.picture import Metadata, Picture, Pixels, SaveOptions
from srcli.images.pixels import over, to_8_bits
from srcli.system.files import atomic_path

if TYPE_CHECKING:
    from pyvips import Image

_QUALITY = {"jpeg": 95, "webp": 95, "avif": 90}
_KEEP_EXIF, _KEEP_XMP_ICC = 1, 2 | 8
_OPTIMIZED_PIXELS = 50_000_000


def check_output(
    width: int,
    height: int,
    has_alpha: bool,
    bits: int,
    format: str,
    options: SaveOptions,
    name: str,
    *,
    channels: int = 3,
    metadata: Metadata | None = None,
) -> list[str]:
    """Check before any work that a picture can be written.

    Args:
        width, height: of the output, in pixels.
        bits: 8 or 16 per channel.
        format: a name of `FORMATS`.
        name: what messages call the output.
        channels: 1 or 3, without alpha.
        metadata: the source's, to say what of it the format cannot hold.

    Returns:
        Notes on what will change, such as 16 bits becoming 8; mostly empty.

    Raises:
        UsageError: the format cannot hold the picture, or the options contradict each other.
    """
    fmt, name = FORMATS[format], vips.shown(name)
    _check_size(fmt, width, height, name)
    _check_options(fmt, options, name)
    if has_alpha and not fmt.alpha and options.background is None and not options.opaque:
        raise UsageError(
            f"{name}: {fmt.name.upper()} has no transparency",
            "give --background COLOR, or another --format such as png",
        )
    notes = []
    depth = bits if metadata is None or metadata.depth is None else min(bits, metadata.depth)
    if depth > fmt.bits:
        notes.append(f"{name}: {depth} bits per channel become {fmt.bits}, all that {fmt.name} has")
    if metadata is not None and not options.strip:
        gone, lost = losses(metadata, fmt.name, width, height, channels, min(bits, fmt.bits))
        notes += [f"{name}: left out, as it would not be true: {', '.join(gone)}"] if gone else []
        notes += [f"{name}: {fmt.name} cannot take over: {', '.join(lost)}"] if lost else []
    return notes


def write(
    picture: Picture,
    target: Path,
    options: SaveOptions | None = None,
    *,
    replace: bool = True,
) -> None:
    """Write a file that appears under its name whole or not at all.

    Args:
        picture: what is to be in it.
        target: its name.
        options: how to encode it.
        replace: whether an earlier file of that name may be replaced.

    Raises:
        UsageError: as `check_output`.
        OutputError: the file cannot be written; nothing is left behind.
    """
    options = options or SaveOptions()
    fmt = format_of(options.format or target)
    prepared = _prepared(picture, fmt, options, vips.shown(target))
    check_target(target)
    with (
        vips.writing(vips.shown(target)),
        atomic_path(target, replace=replace) as partial,
        partial.open("r+b") as file,
    ):
        _save(prepared, file, fmt, options)


def encode(picture: Picture, options: SaveOptions) -> bytes:
    """Return the bytes of the file that `write` would write; `options.format` is needed."""
    if options.format is None:
        raise UsageError("standard output has no suffix to tell the format", "give --format")
    fmt = format_of(options.format)
    prepared = _prepared(picture, fmt, options, "standard output")
    file = io.BytesIO()
    with vips.writing("standard output"):
        _save(prepared, file, fmt, options)
    return file.getvalue()


def check_target(target: Path) -> None:
    """Refuse to replace a folder or a device by a file."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return  # whoever creates the file will find out
    except ValueError as error:  # a NUL in the name
        raise OutputError(
            f"{vips.shown(target)}: this cannot be a file's name", "Choose another with -o."
        ) from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{vips.shown(target)}: this is a folder", "name a file in it")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{vips.shown(target)}: not a regular file", "write to `-` and redirect")


def _check_size(fmt: Format, width: int, height: int, name: str) -> None:
    remedy = "use --format png or tiff, or a smaller scale"
    if max(width, height) > fmt.max_side:
        raise UsageError(
            f"{name}: {width} x {height} is more than the {fmt.max_side} pixels a side that "
            f"{fmt.name} can have",
            remedy,
        )
    if fmt.max_pixels is not None and width * height > fmt.max_pixels:
        raise UsageError(
            f"{name}: {width} x {height} is more than the {fmt.max_pixels:,} pixels that "
            f"{fmt.name} can have",
            remedy,
        )


def _check_options(fmt: Format, options: SaveOptions, name: str) -> None:
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise UsageError(
            f"--quality {options.quality}: is no quality", "Give a number from 1 to 100."
        )
    if options.quality is not None and not fmt.lossy:
        raise UsageError(f"{name}: {fmt.name} has no quality to set", "leave --quality out")
    if options.lossless and not fmt.lossless:
        raise UsageError(f"{name}: {fmt.name} is never lossless", "use png, tiff, webp or avif")
    if options.lossless and options.quality is not None:
        raise UsageError(f"{name}: --lossless and --quality exclude each other", "give one")


def _prepared(picture: Picture, fmt: Format, options: SaveOptions, name: str) -> Picture:
    """Return the picture as the format will hold it."""
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
        save_bmp(picture.color, file, picture.metadata, options)
    else:
        save_image(_as_image(picture), file, fmt, picture.metadata, options)


def save_bmp(pixels: Pixels, file: BinaryIO, metadata: Metadata, options: SaveOptions) -> None:
    """Encode H x W x 1 or 3 uint8 into an open, empty file; the resolution is all it keeps."""
    height, width, channels = pixels.shape
    about = _about(metadata, FORMATS["bmp"], options, (width, height, channels))
    file.write(bmp.encode(pixels, about.dpi))


def save_image(
    image: Image, file: BinaryIO, fmt: Format, metadata: Metadata, options: SaveOptions
) -> None:
    """Encode a libvips image of 1 to 4 bands into an open, empty file."""
    channels = 1 if image.bands < 3 else 3
    about = _about(metadata, fmt, options, (image.width, image.height, channels))
    save, settings = _saver(image, fmt, metadata, about, options)
    if fmt.name == "png":
        _encode(image, file, save, settings, lambda head: png.spliced(head, png.chunks_for(about)))
    elif fmt.name == "jpeg":
        segments = jpeg.segments_for(about)
        _encode(image, file, save, settings, lambda head: jpeg.spliced(head, segments))
    elif fmt.name == "webp":
        plain = io.BytesIO()
        _encode(image, plain, save, settings)
        alpha = image.bands in (2, 4)
        file.write(webp.with_metadata(plain.getvalue(), about, image.width, image.height, alpha))
    elif fmt.name == "tiff":
        _save_tiff(_tagged(image, about, fmt), file, save, settings, about)
    else:
        _encode(_tagged(image, about, fmt), file, save, settings)
        if about.exif is not None:
            avif.put_exif(file, about.exif)


def _about(
    metadata: Metadata, fmt: Format, options: SaveOptions, shape: tuple[int, int, int]
) -> Metadata:
    return Metadata() if options.strip else current(metadata, fmt.name, *shape)


def _encode(
    image: Image,
    file: BinaryIO,
    save: str,
    settings: dict[str, object],
    splice: Callable[[bytes], bytes] | None = None,
    start: int = 0,
) -> None:
    """Call libvips' `save`; what it writes begins at `start` of the file."""

    def encoded() -> None:
        file.seek(start)
        file.truncate()
        sink = vips.Sink(file, splice, start)
        try:
            vips.interruptible(image, lambda: getattr(image, save)(sink.target, **settings))
        except vips.library().Error:
            if sink.error is not None:
                raise sink.error from None
            raise

    vips.attempt(encoded, warnings=False)


def _save_tiff(
    image: Image, file: BinaryIO, save: str, settings: dict[str, object], about: Metadata
) -> None:
    data, wide = about.exif, image.format == "ushort"
    in_front = exif_tiff.has_maker_note(data) and exif_tiff.stays_in_front(
        data, wide, bool(settings["bigtiff"])
    )
    start = 0
    if data is not None and in_front:
        start = len(data) + len(data) % 2
        file.write(data.ljust(start, b"\0"))
    _encode(image, file, save, settings, start=start)
    if about.dpi is None:
        exif_tiff.without_resolution(file, start)
    if data is not None and in_front:
        exif_tiff.behind(file, data, start)
    elif data is not None:
        exif_tiff.into_tiff(file, data)


def _saver(
    image: Image, fmt: Format, metadata: Metadata, about: Metadata, options: SaveOptions
) -> tuple[str, dict[str, object]]:
    """Return name and arguments of the libvips call that writes this format.

    `metadata` is the source's, `about` what is to be written of it.
    """
    quality = options.quality or _QUALITY.get(fmt.name)
    again = metadata.format == fmt.name and metadata.lossless and options.quality is None
    choice = {"lossless": True} if options.lossless or again else {"Q": quality}
    if fmt.name == "png":
        # Measured on enlarged photos: a third of the time of libvips' default (level 6, no
        # filter), and smaller files, because enlarged pictures are smooth.
        return "pngsave_target", {"compression": 3, "filter": "up", "keep": "none"}
    if fmt.name == "jpeg":
        mode = _subsample(metadata, options)
        # Optimal codes need two passes over all coefficients: 6 bytes a pixel are held.
        small = image.width * image.height <= _OPTIMIZED_PIXELS
        return "jpegsave_target", {
            "Q": quality, "optimize_coding": small, "subsample_mode": mode, "keep": "none",
        }  # fmt: skip
    if fmt.name == "webp":
        # Effort 1 takes half the time of the default 4 (lossless: four fifths), at the same size.
        return "webpsave_target", {**choice, "exact": True, "effort": 1, "keep": "none"}
    if fmt.name == "avif":
        # Effort 1: the default 4 takes ten times longer, to save a seventh of the size.
        return "heifsave_target", {
            "compression": "av1", "effort": 1, "subsample_mode": "off", "keep": _kept(about),
            **choice,
        }  # fmt: skip
    size = image.width * image.height * image.bands * (1 if image.format == "uchar" else 2)
    return "tiffsave_target", {
        "compression": "deflate", "predictor": "horizontal", "level": 3, "resunit": "inch",
        "bigtiff": size > tiff.BIG,
    }  # fmt: skip


def _kept(about: Metadata) -> int:
    """Return libvips' flags for metadata; it would make up EXIF data where there is none."""
    return _KEEP_XMP_ICC | (_KEEP_EXIF if about.exif is not None else 0)


def _subsample(metadata: Metadata, options: SaveOptions) -> str:
    # libvips writes 4:2:0 or 4:4:4 only; what is between them must not lose any more.
    kept = options.subsampling == "keep" and metadata.subsampling == "4:2:0"
    return "on" if kept or options.subsampling == "420" else "off"


def _as_image(picture: Picture) -> Image:
    pixels: Pixels = picture.color
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], axis=2)
    return named(of_array(pixels))


def _tagged(image: Image, metadata: Metadata, fmt: Format) -> Image:
    """Return a copy of the image with the metadata, for formats where libvips writes it."""
    blob = vips.library().GValue.blob_type
    x, y = metadata.dpi or metadata.aspect or (25.4, 25.4)
    tagged = image.copy(xres=x / 25.4, yres=y / 25.4)
    blobs = {"icc-profile-data": metadata.icc, "xmp-data": metadata.xmp}
    if fmt.name == "tiff":
        blobs["photoshop-data"] = metadata.iptc
    else:
        blobs["exif-data"] = None if metadata.exif is None else exif.PREFIX + metadata.exif
    for name, data in blobs.items():
        if data is not None:
            tagged.set_type(blob, name, data)
    return tagged
