"""Convert the colours of a file to grey or RGB, on libvips' lazy pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from srcli.images.vips import library

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyvips import Image

SRGB_INTENT = "relative"


USUAL_REFERENCE = [0, 255, 128, 255, 128, 255]  # black and white of Y, Cb, Cr: all codes


def plane(image: Image, wide: bool) -> Image:
    """Convert the picture to 8 or 16 bits: rounded, and clamped to the range."""
    return image.rint().cast("ushort" if wide else "uchar")


def named(image: Image) -> Image:
    """Return the picture, marked for libvips as grey or RGB."""
    wide = image.format == "ushort"
    grey = image.bands < 3
    name = ("grey16" if wide else "b-w") if grey else ("rgb16" if wide else "srgb")
    return image.copy(interpretation=name)


def selected(image: Image, bands: list[int]) -> Image:
    """Return some of the bands, in this order."""
    if bands == list(range(image.bands)):
        return image
    first, *others = (image.extract_band(band) for band in bands)
    return first.bandjoin(others) if others else first


def with_others(converted: Image, image: Image, colors: int) -> Image:
    """Join the converted colour with the bands of `image` that come after its colour."""
    if image.bands == colors:
        return converted
    rest = image.extract_band(colors, n=image.bands - colors)
    return converted.bandjoin(rest.cast(converted.format))


def from_ycbcr(
    image: Image, coefficients: tuple[float, float, float], reference: tuple[float, ...]
) -> Image:
    """Convert Y, Cb, Cr to RGB by TIFF 6.0, section 21.

    Args:
        image: 3 bands or more, the first three Y, Cb and Cr; 8 or 16 bits.
        coefficients: how much red, green and blue make luma; they add up to 1.
        reference: codes of black and of white of Y, Cb and Cr, for the file's own range.
    """
    wide = image.format == "ushort"
    top = 65535 if wide else 255
    half = (top + 1) // 2 - 1
    usual = list(reference) == USUAL_REFERENCE
    scales, shifts = [], []
    for band, full in enumerate((top, half, half)):
        black, white = reference[2 * band], reference[2 * band + 1]
        if wide and usual:
            black, white = (0, top) if band == 0 else (half + 1, top)
        scale = full / ((white - black) or 1)
        scales.append(scale)
        shifts.append(-black * scale)
    red, green, blue = coefficients
    to_red, to_blue = 2 - 2 * red, 2 - 2 * blue
    matrix = [
        [1, 0, to_red],
        [1, -to_blue * blue / green, -to_red * red / green],
        [1, to_blue, 0],
    ]
    ready = image.extract_band(0, n=3).linear(scales, shifts)
    return named(with_others(plane(ready.recomb(matrix), wide), image, 3))


def from_inks(image: Image) -> Image:
    """Convert CMYK to sRGB, by the embedded profile if there is one; more bands stay."""
    depth = 16 if image.format == "ushort" else 8
    return image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)


def from_lab(image: Image, signed: bool) -> Image:
    """Convert CIE L*a*b* (D50) to sRGB.

    Args:
        image: 3 bands or more of 8 or 16 bits, as stored.
        signed: a* and b* are signed, as in CIELab; in ICCLab they begin at -128.
    """
    wide = image.format == "ushort"
    lightness = image.extract_band(0).linear(
        100 / (65280 if wide and not signed else _top(wide)), 0
    )
    planes = [_axis(image.extract_band(band), wide, signed) for band in (1, 2)]
    lab = lightness.bandjoin(planes).cast("float").copy(interpretation="lab")
    made = lab.icc_export(output_profile="srgb", depth=16 if wide else 8, intent=SRGB_INTENT)
    return named(with_others(made, image, 3).copy())


def _top(wide: bool) -> int:
    return 65535 if wide else 255


def _axis(band: Image, wide: bool, signed: bool) -> Image:
    half, unit = (32768, 256) if wide else (128, 1)
    if not signed:
        return band.linear(1 / unit, -128)
    return (band >= half).ifthenelse(band.cast("float") - 2 * half, band).linear(1 / unit, 0)


def full_range(image: Image, bits: int) -> Image:
    """Expand the range of television (16 to 235 of 255) to all levels."""
    wide = image.format == "ushort"
    unit = _top(wide) / (2**bits - 1) * 2 ** (bits - 8)
    black, white = 16 * unit, 235 * unit
    scale = _top(wide) / (white - black)
    return plane(image.linear(scale, -black * scale), wide)


def without_premultiplying(image: Image) -> Image:
    """Divide colour by alpha, the last band."""
    return plane(image.unpremultiply(), image.format == "ushort")


def of_array(pixels: NDArray[np.generic]) -> Image:
    """Return a libvips image of H x W x bands."""
    formats = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
    pixels = np.ascontiguousarray(pixels)
    height, width, bands = pixels.shape
    kind = formats[pixels.dtype.name]
    image: Image = library().Image.new_from_memory(pixels.data, width, height, bands, kind)
    return image
