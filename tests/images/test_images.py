"""Pictures of every kind through every format, checked with readers that did not write them."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from support.pictures import (
    KINDS,
    cmyk_profile,
    noise,
    picture,
    pillow_array,
    pillow_bytes,
    png_samples,
    raw_png,
    smooth,
    stacked,
)

from srcli import images
from srcli.errors import InputError, UsageError
from srcli.images import (
    FORMATS,
    Picture,
    SaveOptions,
    StripReader,
    check_output,
    encode,
    format_of,
    probe,
    read,
    write,
)
from srcli.images.formats import sniff

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


@pytest.mark.parametrize(("name", "error"), [("jpeg", 3), ("webp", 8), ("avif", 5)])
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
    profile = cmyk_profile()
    data = pillow_bytes(cmyk(), "JPEG", quality=100, subsampling=0, icc_profile=profile)
    shown = read(data)
    assert shown.metadata.icc is None
    expected = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
    )
    assert np.abs(shown.color.astype(int) - np.asarray(expected)).max() <= 6
    green = shown.color[8, 24].astype(int)  # what this profile makes of cyan
    assert green[1] > green[0] + 50 and green[1] > green[2] + 50
    for name in ("png", "jpeg", "tiff"):
        again = Image.open(io.BytesIO(encode(shown, SaveOptions(format=name))))
        assert again.mode == "RGB" and "icc_profile" not in again.info


def test_ycck_jpeg():
    """Adobe's transform 2: a CMYK file whose samples are said to be YCCK."""
    rows, columns = np.mgrid[:24, :32]
    samples = np.stack([columns * 4, rows * 6 + 60, 200 - columns * 4, rows * 5], -1)
    image = Image.fromarray(samples.astype(np.uint8), "CMYK")
    data = bytearray(pillow_bytes(image, "JPEG", quality=100, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    theirs = Image.open(io.BytesIO(data))
    assert theirs.mode == "CMYK" and theirs.info["adobe_transform"] == 2
    expected = read(pillow_bytes(theirs, "TIFF")).color.astype(int)
    assert np.abs(read(bytes(data)).color - expected).max() <= 6
    assert expected.std() > 20


# Turning upright ---------------------------------------------------------------------------------


def oriented(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = Image.fromarray(smooth())
    options = {"quality": 95} if format in ("JPEG", "AVIF") else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    if format == "TIFF":
        return pillow_bytes(source, format, tiffinfo={0x0112: orientation}), source
    return pillow_bytes(source, format, exif=exif, **options), source


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_orientation_is_applied(format, orientation):
    data, source = oriented(format, orientation)
    turn = FROM_STORED[orientation]
    upright = np.asarray(source.transpose(turn) if turn is not None else source)
    shown = read(data)
    tolerance = 12 if format in ("JPEG", "AVIF") else 0
    assert shown.color.shape == upright.shape
    assert np.abs(shown.color.astype(int) - upright).max() <= tolerance
    header = probe(data)
    assert (header.height, header.width) == upright.shape[:2]
    assert shown.color.flags.c_contiguous
    with StripReader(data) as strips:
        rows = np.concatenate([color for _, color, _ in strips.strips(9)])
    np.testing.assert_array_equal(rows, shown.color)


def test_a_turned_picture_with_many_blocks_and_alpha():
    exif = Image.Exif()
    exif[0x0112] = 7
    array = noise(600, 40, 4)
    data = pillow_bytes(array, "PNG", exif=exif)
    with StripReader(data) as strips:
        assert not strips.streams
        got = [stacked(Picture(color=c, alpha=a)) for _, c, a in strips.strips(13)]
    expected = np.asarray(Image.fromarray(array).transpose(FROM_STORED[7]))
    np.testing.assert_array_equal(np.concatenate(got), expected)


# Several frames, foreign formats, damage ---------------------------------------------------------


@pytest.mark.parametrize("format", ["TIFF", "WEBP", "PNG", "AVIF"])
def test_several_frames_are_an_error(format):
    first, second = (Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in (1, 2))
    data = pillow_bytes(first, format, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=r"holds 2 pages or frames.*--page 1.*separate files"):
        read(data)


def test_a_tiff_with_a_thumbnail_has_one_page():
    file = io.BytesIO()
    color = noise(32, 32, 3)
    with tifffile.TiffWriter(file) as writer:
        writer.write(color, photometric="rgb")
        writer.write(color[::4, ::4].copy(), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read(file.getvalue()).color, color)


def test_a_camera_raw_file_is_refused():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(noise(16, 16, 3), photometric="rgb", subfiletype=1, subifds=1)
        writer.write(noise(64, 64, 1, 16), photometric="minisblack", subfiletype=0)
    with pytest.raises(InputError, match=r"raw file.*develop it"):
        read(file.getvalue())


FOREIGN = {
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
    "an XML file": b'<?xml version="1.0"?><svg/>',
    "a PDF": b"%PDF-1.4\n",
    "a video": b"\0\0\0\x18ftypisom\0\0\0\0mp42isom",
    "a JPEG XL": b"\xff\x0a" + bytes(20),
    "a Photoshop file": b"8BPS" + bytes(20),
    "not a picture": b"Dear Sir or Madam,\n",
}


def test_what_is_mistaken_for_a_picture():
    """faults.md 17: what it is, and what to do about that."""
    cases = {
        b"IIRO\x08\0\0\0": "raw file.*develop it", b"<!DOCTYPE html><html>": "web page.*download",
        b"\n<HTML><HEAD>": "web page.*download",
        b"version https://git-lfs.github.com/spec/v1\n": "git-lfs.*git lfs pull",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom": "raw file.*develop it",
        b"II*\0\x10\0\0\0CR\2\0" + bytes(40): "raw file.*develop it",
    }  # fmt: skip
    for content, words in cases.items():
        with pytest.raises(InputError, match=f"x: .*{words}"):
            read(content, name="x")


@pytest.mark.parametrize("what", FOREIGN)
def test_other_formats_are_refused(tmp_path, what):
    path = tmp_path / "x.png"
    path.write_bytes(FOREIGN[what])
    for action in (read, probe, StripReader):
        with pytest.raises(InputError, match=rf"x\.png: {what}.*convert it to one of PNG"):
            action(path)


def test_content_decides_the_format(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(pillow_bytes(smooth(), "JPEG"))
    assert read(path).metadata.format == probe(path).format == "jpeg"


def test_what_is_no_file(tmp_path):
    empty, pipe = tmp_path / "empty.png", tmp_path / "pipe.png"
    empty.touch()
    cases = {empty: "empty", tmp_path: "a folder", tmp_path / "none.png": "no such file",
             tmp_path / ("x" * 300): "too long", empty / "x.png": "not a folder"}  # fmt: skip
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
        cases[pipe] = "not a regular file"
    for path, words in cases.items():
        for action in (read, probe, StripReader):
            with pytest.raises(InputError, match=words) as caught:
                action(path)
            assert str(caught.value).startswith(str(path))
    with pytest.raises(InputError, match="standard input: the file is empty"):
        read(b"")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encode(picture(), SaveOptions(format="png")))
    path.chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        read(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bmp"])
def test_a_file_cut_short_is_an_error(name):
    data = encode(picture(height=150, width=150), SaveOptions(format=name))
    for part in (0.3, 0.6, 0.9, 0.98):
        with pytest.raises(InputError, match="damaged or incomplete"):
            read(data[: int(len(data) * part)], name="x")
    with pytest.raises(InputError), StripReader(data[: len(data) * 3 // 4]) as strips:
        list(strips.strips(16))


def test_a_bmp_cut_short_is_an_error():
    data = encode(picture(), SaveOptions(format="bmp"))
    for size in (10, 20, 40, 60, 1000, len(data) - 2):
        with pytest.raises(InputError, match="damaged or incomplete"):
            read(data[:size])


def test_damaged_png_data_is_an_error():
    data = bytearray(encode(picture(), SaveOptions(format="png")))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(InputError, match="damaged"):
        read(bytes(data))


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 8}, {"tile": (32, 32)}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_damaged_tiff_data_is_an_error(options, compression):
    file = io.BytesIO()
    color = noise(100, 100, 3)
    tifffile.imwrite(file, color, photometric="rgb", compression=compression, **options)
    data, middle = file.getvalue(), len(file.getvalue()) // 2
    np.testing.assert_array_equal(read(data).color, color)
    damaged = [data[: len(data) * part // 10] for part in (3, 6, 9)]
    if compression is not None:  # else nothing can tell
        damaged.append(data[:middle] + bytes(40) + data[middle + 40 :])
    for wrong in damaged:
        with pytest.raises(InputError, match="damaged or incomplete"):
            read(wrong)
        with pytest.raises(InputError), StripReader(wrong) as reader:
            list(reader.strips(7))


def test_jpeg_with_junk_at_its_end_is_fine():
    data = pillow_bytes(smooth(), "JPEG")
    np.testing.assert_array_equal(read(data + b"junk").color, read(data).color)


# Sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_max_pixels(name):
    data = encode(Picture(color=smooth(20, 30)), SaveOptions(format=name))
    assert probe(data, max_pixels=600).pixels == 600
    for action in (read, probe, StripReader):
        with pytest.raises(InputError, match=r"30 x 20 is 600 pixels.*599.*--max-pixels"):
            action(data, max_pixels=599)


def test_a_bomb_is_refused_by_its_header():
    png = raw_png(100_000, 100_000, 8, 2, b"")
    bmp = bytearray(encode(Picture(color=smooth(2, 2)), SaveOptions(format="bmp")))
    bmp[18:26] = struct.pack("<ii", 100_000, -100_000)
    tiff = bytearray(encode(Picture(color=smooth(2, 2)), SaveOptions(format="tiff")))
    for number in (0x0100, 0x0101):
        at = tiff.index(struct.pack("<HHI", number, 3, 1))
        tiff[at : at + 12] = struct.pack("<HHII", number, 4, 1, 100_000)
    for data in (png, bytes(bmp), bytes(tiff)):
        for action in (read, probe, StripReader):
            with pytest.raises(InputError, match=r"10,000,000,000 pixels.*--max-pixels"):
                action(data)


def test_sides_beyond_the_library_are_refused_quietly(capfd):
    with pytest.raises(InputError, match="a side"):
        read(raw_png(2**31 - 1, 1, 8, 0, b""), max_pixels=None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "side"), [("jpeg", 65500), ("webp", 16383), ("avif", 16384)])
def test_sides_of_the_formats(name, side):
    check_output(side, 10, False, 8, name, SaveOptions(), "x")
    with pytest.raises(UsageError, match=rf"x: .*{side} pixels a side.*--format png"):
        check_output(10, side + 1, False, 8, name, SaveOptions(), "x")
    line = Picture(color=np.zeros((1, side, 1), np.uint8))
    assert probe(encode(line, SaveOptions(format=name))).width == side


def test_bmp_has_a_limit_of_its_own():
    with pytest.raises(UsageError, match="--format"):
        check_output(40_000, 40_000, False, 8, "bmp", SaveOptions(), "x")


# What a format cannot hold -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jpeg", "bmp"])
def test_alpha_needs_a_background(name, tmp_path):
    shown = picture(3, alpha=True)
    with pytest.raises(UsageError, match=r"no transparency.*--background.*--format"):
        check_output(9, 9, True, 8, name, SaveOptions(), "x")
    with pytest.raises(UsageError, match="--background"):
        encode(shown, SaveOptions(format=name))
    path = tmp_path / f"x.{name}"
    with pytest.raises(UsageError, match="--background"):
        write(shown, path)
    assert not list(tmp_path.iterdir())
    options = SaveOptions(format=name, background=(255, 0, 128), quality=None)
    data = encode(shown, options)
    opacity = shown.alpha[..., None] / 255
    expected = shown.color * opacity + np.array([255, 0, 128]) * (1 - opacity)
    if name == "bmp":
        assert np.abs(pillow_array(data) - expected).max() <= 0.5 + 1e-9


def test_background_also_serves_formats_with_alpha():
    shown = picture(1, alpha=True, bits=16)
    grey = read(encode(shown, SaveOptions(format="png", background=(255, 255, 255))))
    tinted = read(encode(shown, SaveOptions(format="png", background=(255, 0, 0))))
    assert grey.alpha is None and grey.color.shape[2] == 1 and grey.bits == 16
    assert tinted.alpha is None and tinted.color.shape[2] == 3
    np.testing.assert_array_equal(tinted.color[..., :1], grey.color)


def test_notes_before_work():
    notes = check_output(9, 9, False, 16, "jpeg", SaveOptions(), "x.jpg")
    assert len(notes) == 1 and "16 bits per channel become 8" in notes[0]
    assert check_output(9, 9, True, 16, "png", SaveOptions(), "x.png") == []
    assert "become 12" in check_output(9, 9, False, 16, "avif", SaveOptions(), "x.avif")[0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("jpeg", SaveOptions(quality=0), "from 1 to 100"),
        ("webp", SaveOptions(quality=101), "from 1 to 100"),
        ("png", SaveOptions(quality=90), "no quality"),
        ("jpeg", SaveOptions(lossless=True), "never lossless"),
        ("webp", SaveOptions(lossless=True, quality=90), "exclude each other"),
    ],
)
def test_options_that_make_no_sense(name, options, words):
    with pytest.raises(UsageError, match=words):
        check_output(9, 9, False, 8, name, options, "x")


def test_names_of_formats():
    assert format_of("a.b.JPEG").name == format_of(Path("x.jpg")).name == "jpeg"
    assert format_of("png").name == format_of(".png").name == "png"
    assert format_of(Path("dir/.png.tif")).name == "tiff"
    for name in ("x", "x.gif", "", "x.png.exe"):
        with pytest.raises(UsageError, match=r"\.png"):
            format_of(name)
    with pytest.raises(UsageError, match="--format"):
        encode(picture(), SaveOptions())
    assert images.has_picture_suffix("A.TIFF") and not images.has_picture_suffix("notes.txt")


def test_every_format_is_told_by_its_bytes():
    for name in FORMATS:
        assert sniff(encode(picture(), SaveOptions(format=name))[:64]) is FORMATS[name]


# JPEG --------------------------------------------------------------------------------------------


def sampling(data):
    """Sampling factors in a JPEG's frame header."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [data[at + 11 + 3 * i] for i in range(data[at + 9])]


@pytest.mark.parametrize(
    ("source", "option", "expected"),
    [
        (None, "keep", 0x11),
        ("4:4:4", "keep", 0x11),
        ("4:2:0", "keep", 0x22),
        ("4:2:2", "keep", 0x11),
        ("4:2:0", "444", 0x11),
        (None, "420", 0x22),
    ],
)
def test_chroma_subsampling(source, option, expected):
    shown = Picture(color=smooth())
    if source is not None:
        shown = read(pillow_bytes(smooth(), "JPEG", subsampling=source))
        assert shown.metadata.subsampling == source
    data = encode(shown, SaveOptions(format="jpeg", subsampling=option))
    assert sampling(data) == [expected, 0x11, 0x11]


def test_jpeg_quality():
    sizes = [
        len(encode(picture(), SaveOptions(format="jpeg", quality=quality)))
        for quality in (30, 80, None, 100)
    ]
    assert sizes == sorted(sizes)
    tables = Image.open(io.BytesIO(encode(picture(), SaveOptions(format="jpeg")))).quantization
    expected = Image.open(io.BytesIO(pillow_bytes(smooth(), "JPEG", quality=95))).quantization
    assert tables == expected, "95 unless told otherwise"
