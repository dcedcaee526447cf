"""Pictures through files, checked with readers that did not write them: Pillow and tifffile."""

import io
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from srcli import images
from srcli.errors import InputError, OutputError, UsageError
from srcli.images import (
    FORMATS,
    Metadata,
    Picture,
    SaveOptions,
    StripReader,
    StripWriter,
    bleed,
    check_output,
    encode,
    format_of,
    from_float,
    over,
    probe,
    read,
    to_8_bits,
    to_float,
    write,
)

KINDS = [(channels, alpha) for channels in (1, 3) for alpha in (False, True)]
FROM_STORED = {  # what turns the stored picture upright, in Pillow's words
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def noise(height, width, channels, bits=8, seed=0):
    dtype = np.uint8 if bits == 8 else np.uint16
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(dtype)


def smooth(height=40, width=56, channels=3):
    rows, columns = np.mgrid[:height, :width]
    planes = [columns * 4, rows * 6, 255 - columns * 2][:channels]
    return np.stack(planes, -1).astype(np.uint8)


def picture(channels=3, alpha=False, bits=8, height=37, width=53):
    mask = noise(height, width, 1, bits, seed=1)[..., 0] if alpha else None
    return Picture(color=noise(height, width, channels, bits), alpha=mask)


def stacked(shown):
    """Colour and alpha as one H x W x 1..4 array."""
    return shown.color if shown.alpha is None else np.dstack([shown.color, shown.alpha])


def pillow_bytes(array_or_image, format, **options):
    image = array_or_image
    if not isinstance(image, Image.Image):
        image = Image.fromarray(array_or_image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pillow_array(data):
    array = np.asarray(Image.open(io.BytesIO(data)))
    return array[..., None] if array.ndim == 2 else array


def png_samples(data):
    """Samples of a PNG as its filters and zlib have them: no codec involved."""
    chunks, at = {}, 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + size]
        at += size + 12
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    bands = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    step = bands * depth // 8
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    out = np.zeros((height + 1, width * step), np.uint8)
    for y, row in enumerate(rows):
        if row[0] == 0:
            out[y + 1] = row[1:]
        else:
            assert row[0] == 2, "only the filters that we ask for"
            out[y + 1] = row[1:] + out[y]
    samples = out[1:].tobytes()
    return np.frombuffer(samples, ">u2" if depth == 16 else "u1").reshape(height, width, bands)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Exactness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "alpha"), KINDS)
def test_png_is_exact(channels, alpha, bits):
    shown = picture(channels, alpha, bits)
    data = encode(shown, SaveOptions(format="png"))
    np.testing.assert_array_equal(png_samples(data), stacked(shown))
    if bits == 8:
        np.testing.assert_array_equal(pillow_array(data), stacked(shown))
    again = read(data)
    assert (again.bits, again.color.shape) == (bits, shown.color.shape)
    np.testing.assert_array_equal(stacked(again), stacked(shown))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "alpha"), KINDS)
def test_tiff_is_exact(channels, alpha, bits):
    shown = picture(channels, alpha, bits)
    data = encode(shown, SaveOptions(format="tiff"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        samples = page.asarray().reshape(stacked(shown).shape)
        assert page.extrasamples == ((2,) if alpha else ())  # 2: not premultiplied
        assert page.photometric.name == ("MINISBLACK" if channels == 1 else "RGB")
    np.testing.assert_array_equal(samples, stacked(shown))
    np.testing.assert_array_equal(stacked(read(data)), stacked(shown))


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_is_exact(channels):
    shown = picture(channels)
    data = encode(shown, SaveOptions(format="bmp"))
    np.testing.assert_array_equal(pillow_array(data), shown.color)
    np.testing.assert_array_equal(read(data).color, shown.color)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", ["webp", "avif"])
def test_lossless_on_request(name, alpha):
    shown = picture(3, alpha)
    data = encode(shown, SaveOptions(format=name, lossless=True))
    if name == "webp":  # colour under alpha 0 included
        np.testing.assert_array_equal(pillow_array(data), stacked(shown))
    np.testing.assert_array_equal(stacked(read(data)), stacked(shown))


def test_a_lossless_webp_stays_lossless():
    source = read(pillow_bytes(noise(20, 30, 3), "WEBP", lossless=True))
    lossy = read(pillow_bytes(noise(20, 30, 3), "WEBP", quality=80))
    assert source.metadata.lossless and not lossy.metadata.lossless
    again = encode(source, SaveOptions(format="webp"))
    np.testing.assert_array_equal(pillow_array(again), source.color)
    for data in (
        encode(source, SaveOptions(format="webp", quality=80)),
        encode(lossy, SaveOptions(format="webp")),
        encode(read(encode(source, SaveOptions(format="png"))), SaveOptions(format="webp")),
    ):
        assert b"VP8 " in data[:64]


@pytest.mark.parametrize(("name", "error"), [("jpeg", 3), ("webp", 5), ("avif", 5)])
def test_lossy_formats_are_close(name, error):
    shown = Picture(color=smooth())
    data = encode(shown, SaveOptions(format=name))
    ours, theirs = read(data).color.astype(int), pillow_array(data).astype(int)
    assert np.abs(theirs - shown.color).max() <= error
    assert np.abs(theirs - ours).max() <= 2  # decoders may round differently


def test_grey_stays_grey():
    for name in ("png", "tiff", "jpeg", "bmp"):
        data = encode(picture(1), SaveOptions(format=name))
        assert Image.open(io.BytesIO(data)).mode == "L"
        assert read(data).color.shape[2] == 1
    shown = read(encode(picture(1), SaveOptions(format="webp", lossless=True)))
    assert (shown.color == picture(1).color).all(), "WebP has no grey: three equal channels"


def test_sixteen_bits_round_to_eight():
    shown = Picture(color=np.arange(65536, dtype=np.uint16).reshape(256, 256, 1))
    data = encode(shown, SaveOptions(format="bmp"))
    expected = np.rint(shown.color / 257)
    np.testing.assert_array_equal(pillow_array(data), expected)
    wide = encode(shown, SaveOptions(format="avif", lossless=True))
    assert read(wide).bits == 16
    assert np.abs(read(wide).color[..., :1].astype(int) - shown.color).max() <= 16  # 12 bits


# What is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit_and_palette(format):
    source = Image.fromarray(smooth())
    one = source.convert("1")
    shown = read(pillow_bytes(one, format))
    assert set(np.unique(shown.color)) == {0, 255}
    np.testing.assert_array_equal(shown.color[..., 0], np.asarray(one.convert("L")))
    palette = source.quantize(60)
    np.testing.assert_array_equal(
        read(pillow_bytes(palette, format)).color, np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 250, 5))])
def test_palette_with_transparency(transparency):
    data = pillow_bytes(Image.fromarray(smooth()).quantize(60), "PNG", transparency=transparency)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    np.testing.assert_array_equal(stacked(read(data)), expected)
    assert probe(data).has_alpha


def test_transparent_color_of_grey_and_rgb():
    for array, key in ((smooth()[..., 0], 4), (smooth(), (4, 6, 253))):
        data = pillow_bytes(array, "PNG", transparency=key)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
        assert expected.min() == 0
        np.testing.assert_array_equal(read(data).alpha, expected)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_of_grey(depth):
    levels = np.arange(2**depth, dtype=np.uint8)
    packed = np.packbits(np.unpackbits(levels[:, None], axis=1)[:, 8 - depth :])
    data = raw_png(2**depth, 1, depth, 0, b"\0" + packed.tobytes())
    np.testing.assert_array_equal(
        read(data).color[0, :, 0], levels.astype(int) * 255 // (2**depth - 1)
    )


def raw_png(width, height, depth, kind, rows, extra=()):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_variants(bits):
    color = noise(48, 64, 3, bits)
    top = 2**bits - 1
    for options in (
        {"tile": (16, 16)},
        {"bigtiff": True, "byteorder": ">"},
        {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
        {"extratags": [(65000, 2, 0, "x", True), (42113, 2, 0, "nan", True)]},
    ):
        assert_tiff_reads(color, color, photometric="rgb", **options)
    planes = np.ascontiguousarray(np.moveaxis(color, 2, 0))
    assert_tiff_reads(planes, color, photometric="rgb", planarconfig="separate")
    grey = color[..., :1].copy()
    assert_tiff_reads(grey, top - grey, photometric="miniswhite")


def assert_tiff_reads(stored, expected, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, stored, **options)
    np.testing.assert_array_equal(read(file.getvalue()).color, expected)


def test_premultiplied_tiff_is_divided():
    file = io.BytesIO()
    array = np.full((4, 4, 4), 64, np.uint8)
    array[..., 3] = 128
    tifffile.imwrite(file, array, photometric="rgb", extrasamples=["assocalpha"])
    shown = read(file.getvalue())
    assert (shown.alpha == 128).all()
    assert np.abs(shown.color.astype(int) - 127).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.float32, {"photometric": "rgb"}),
        (np.uint32, {"photometric": "rgb"}),
        (np.int16, {"photometric": "rgb"}),
        (np.uint16, {"photometric": "cielab"}),
        (np.uint8, {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused(dtype, options):
    file = io.BytesIO()
    bands = 6 if options["photometric"] == "minisblack" else 3
    tifffile.imwrite(file, noise(8, 8, bands).astype(dtype), **options)
    for action in (read, probe):
        with pytest.raises(InputError, match=r"x\.tif: .*convert it"):
            action(file.getvalue(), name="x.tif")


def test_sixteen_bit_cmyk_is_refused():
    file = io.BytesIO()
    tifffile.imwrite(file, noise(8, 8, 4, 16), photometric="separated")
    with pytest.raises(InputError, match="convert it"):
        read(file.getvalue())


INKS = {"white": (0, 0, 0, 0), "cyan": (255, 0, 0, 0), "black": (0, 0, 0, 255),
        "red": (0, 255, 255, 0)}  # fmt: skip


def cmyk():
    return Image.fromarray(
        np.repeat(np.array([list(INKS.values())], np.uint8), 16, 0).repeat(16, 1), "CMYK"
    )


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb(format):
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    shown = read(pillow_bytes(cmyk(), format, **options))
    assert shown.color.shape[2] == 3 and shown.metadata.icc is None
    white, cyan, black, red = (shown.color[8, 16 * i + 8].astype(int) for i in range(4))
    assert white.min() > 245 and black.max() < 60
    assert cyan[0] < 60 < 120 < cyan[2] and red[0] > 180 and red[1:].max() < 90


def test_cmyk_profile_is_used_and_not_kept():
    profile = ImageCms.ImageCmsProfile(cmyk_profile())
    data = pillow_bytes(cmyk(), "JPEG", quality=100, subsampling=0, icc_profile=profile.tobytes())
    shown = read(data)
    plain = read(pillow_bytes(cmyk(), "JPEG", quality=100, subsampling=0))
    assert shown.metadata.icc is None
    srgb = ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)), profile, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB"
    )
    assert np.abs(shown.color.astype(int) - np.asarray(expected)).max() <= 6
    assert np.abs(plain.color.astype(int) - np.asarray(expected)).max() > 6, "it made a difference"
