"""What a file states decides: colour, transparency, oddities that are none, and what is not read.

Values are compared with what was stored, or with a reader that shares no code with ours.
"""

import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from odd_files import (
    GREY,
    RGB,
    RGBA,
    WIDE,
    as_bytes,
    jpeg,
    longs,
    odd_jpegs,
    png_with,
    shorts,
    tiff_by_hand,
    tiff_by_tifffile,
    tiff_of,
    ycbcr,
)
from pictures import pillow_array, pillow_bytes, smooth, stacked
from PIL import Image, ImageCms

from srcli.errors import InputError, SrcliError
from srcli.images import SaveOptions, StripReader, codecs, encode, probe, read, vips

imagecodecs = pytest.importorskip("imagecodecs")


def same_everywhere(path):
    """What `read` gives, after checking that header and strips agree with it."""
    shown, header = read(path), probe(path)
    assert (header.height, header.width, header.channels) == shown.color.shape
    assert (header.bits, header.has_alpha) == (shown.bits, shown.alpha is not None)
    with StripReader(path) as reader:
        strips = [color for _, color, _ in reader.strips(7)]
    np.testing.assert_array_equal(np.concatenate(strips), shown.color)
    return shown


@pytest.fixture
def stored(tmp_path):
    """Reads bytes from a file, not from memory."""

    def put(content, name="x.tif"):
        path = tmp_path / name
        path.write_bytes(content)
        return same_everywhere(path)

    return put


# Colour -------------------------------------------------------------------------------------------


def test_ycbcr_without_jpeg(stored):
    """faults.md 3."""
    tags = {262: shorts(6), 530: shorts(1, 1)}
    shown = stored(tiff_of(as_bytes(ycbcr(RGB)), tags))
    assert np.abs(shown.color.astype(int) - RGB).max() <= 2


def test_ycbcr_in_the_range_of_television(stored):
    """faults.md 3: the file states other codes of black and white."""
    full = ycbcr(RGB)
    narrow = 128 + (full - 128) * 112 / 127.5
    narrow[..., 0] = 16 + full[..., 0] * 219 / 255
    reference = struct.pack("<12I", 16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)
    tags = {262: shorts(6), 530: shorts(1, 1), 532: (5, 6, reference)}
    shown = stored(tiff_of(as_bytes(narrow), tags))
    assert np.abs(shown.color.astype(int) - RGB).max() <= 4


@pytest.mark.parametrize("rows", [48, 16])
def test_ycbcr_in_blocks(stored, rows):
    """faults.md 3: two by two pixels of luma share their chroma."""
    full = ycbcr(np.repeat(np.repeat(RGB[::2, ::2], 2, 0), 2, 1))
    luma = full[..., 0].reshape(24, 2, 32, 2).swapaxes(1, 2).reshape(24, 32, 4)
    blocks = as_bytes(np.concatenate([luma, full[::2, ::2, 1:]], -1))
    strips = [blocks[top : top + rows // 2].size for top in range(0, 24, rows // 2)]
    tags = {
        256: shorts(64), 257: shorts(48), 258: shorts(8, 8, 8), 259: shorts(1), 262: shorts(6),
        273: longs(*(8 + sum(strips[:i]) for i in range(len(strips)))), 277: shorts(3),
        278: shorts(rows), 279: longs(*strips), 530: shorts(2, 2),
    }  # fmt: skip
    shown = stored(tiff_by_hand(blocks.tobytes(), tags))
    expected = np.repeat(np.repeat(RGB[::2, ::2], 2, 0), 2, 1)
    assert np.abs(shown.color.astype(int) - expected).max() <= 2


def test_old_style_jpeg(stored):
    """faults.md 17: a whole JPEG file inside the TIFF file."""
    data = jpeg(subsampling=0)
    tags = {
        256: shorts(64), 257: shorts(48), 258: shorts(8, 8, 8), 259: shorts(6), 262: shorts(6),
        273: longs(8), 277: shorts(3), 278: shorts(48), 279: longs(len(data)), 512: shorts(1),
        513: longs(8), 514: longs(len(data)), 530: shorts(1, 1),
    }  # fmt: skip
    np.testing.assert_array_equal(stored(tiff_by_hand(data, tags)).color, pillow_array(data))


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_grey_with_alpha(stored, planar):
    """faults.md 3: libvips reads two planes as one."""
    samples = np.dstack([GREY, 255 - GREY])
    data = samples if planar == "contig" else np.moveaxis(samples, -1, 0).copy()
    content = tiff_by_tifffile(
        data, photometric="minisblack", planarconfig=planar, extrasamples=[2], rowsperstrip=10
    )
    np.testing.assert_array_equal(stacked(stored(content)), samples)


def test_cielab(stored):
    """faults.md 17: through the white of print (D50), as LittleCMS has it."""
    lab = ImageCms.createProfile("LAB", 5000)
    srgb = ImageCms.createProfile("sRGB")
    samples = ImageCms.profileToProfile(Image.fromarray(RGB), srgb, lab, outputMode="LAB")
    shown = stored(tiff_of(np.asarray(samples), {262: shorts(8)}))
    assert np.abs(shown.color.astype(int) - RGB).mean() < 2
    assert shown.metadata.icc is None
    assert "CIELab became RGB" in shown.notes[0]


def test_inks_are_said_to_become_rgb():
    """faults.md 7."""
    for format in ("TIFF", "JPEG"):
        data = pillow_bytes(Image.fromarray(RGB).convert("CMYK"), format)
        assert "CMYK became RGB" in read(data, name="x").notes[0]


def test_sixteen_bits_of_ink(stored):
    """faults.md 17."""
    inks = np.dstack([WIDE, WIDE[..., 0]])
    wide = stored(tiff_by_tifffile(inks, photometric="separated"))
    narrow = read(tiff_by_tifffile((inks // 257).astype(np.uint8), photometric="separated"))
    assert wide.bits == 16
    assert np.abs(wide.color / 257 - narrow.color).max() < 1


def avif_of(pixels, tmp_path, **codes):
    """A grey AVIF file by Pillow's encoder, its colours said to be others."""
    return pillow_bytes(Image.fromarray(pixels), "AVIF", quality=100, subsampling="4:0:0", **codes)


@pytest.mark.parametrize("range", ["full", "limited"])
@pytest.mark.parametrize("box", [True, False])
def test_grey_avif(tmp_path, range, box):
    """faults.md 3: what is stored as 16 to 235 is not washed out; libavif's word, in Pillow."""
    data = avif_of(RGB, tmp_path, range=range)
    if not box:  # only the stream itself says which range it is
        data = data.replace(b"colrnclx", b"freenclx")
    shown = read(data)
    theirs = pillow_array(data)
    assert np.abs(shown.color[..., :1].astype(int) - theirs[..., :1]).max() <= 2
    assert shown.color.min() < 16
    assert shown.color.max() > 230


# Transparency -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [None, 0])
def test_a_channel_not_said_to_be_alpha(stored, extra):
    """faults.md 4 and 16: colour under it must not change."""
    tags = {} if extra is None else {338: shorts(extra)}
    shown = stored(tiff_of(RGBA, tags))
    np.testing.assert_array_equal(shown.color, RGB)
    assert shown.alpha is None
    assert "left out" in " ".join(shown.notes)


@pytest.mark.parametrize("extras", [[2, 0], [0, 2], [0, 0, 2]])
def test_alpha_among_other_channels(stored, extras):
    """faults.md 4."""
    channels = [RGBA[..., 3:] if extra == 2 else GREY // 2 for extra in extras]
    content = tiff_by_tifffile(np.dstack([RGB, *channels]), photometric="rgb", extrasamples=extras)
    np.testing.assert_array_equal(stacked(stored(content)), RGBA)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_tiff(stored, planar, compression, channels):
    """faults.md 4: whoever decodes it, colour is divided by alpha."""
    full = RGB if channels == 4 else GREY
    half = np.dstack([full // 2, np.full((48, 64), 128, np.uint8)])
    data = half if planar == "contig" else np.moveaxis(half, -1, 0).copy()
    meaning = "rgb" if channels == 4 else "minisblack"
    content = tiff_by_tifffile(
        data, photometric=meaning, planarconfig=planar, extrasamples=[1], compression=compression
    )
    shown = stored(content)
    assert np.abs(shown.color.astype(int) - full).max() <= 2
    assert (shown.alpha == 128).all()


def premultiplied(data):
    """An AVIF file by libheif, its colour (item 1) said to be multiplied by its alpha (item 2)."""
    size = 14
    entry = struct.pack(">I4sHHH", size, b"prem", 1, 1, 2)
    iref, meta, iloc = (data.index(name) - 4 for name in (b"iref", b"meta", b"iloc"))
    made = bytearray(data)
    for box in (iref, meta):
        made[box : box + 4] = struct.pack(">I", struct.unpack(">I", data[box : box + 4])[0] + size)
    items = struct.unpack(">H", data[iloc + 14 : iloc + 16])[0]
    for item in range(items):  # number, nothing, base of offsets, 1 extent of offset and size
        at = iloc + 16 + 18 * item + 4
        made[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + size)
    end = iref + struct.unpack(">I", data[iref : iref + 4])[0]
    return bytes(made[:end]) + entry + bytes(made[end:])


def test_premultiplied_avif():
    """faults.md 4: as libavif has it, in Pillow."""
    half = np.dstack([RGB // 2, np.full((48, 64), 128, np.uint8)])
    plain = encode(read(pillow_bytes(half, "PNG")), SaveOptions(format="avif", lossless=True))
    data = premultiplied(plain)
    np.testing.assert_array_equal(stacked(read(plain)), half)
    expected = pillow_array(data).astype(int)
    assert np.abs(stacked(read(data)) - expected).max() <= 1
    assert np.abs(expected[..., :3] - RGB).max() <= 3


def test_premultiplied_heic():
    from srcli.images.heif import divided

    half = np.dstack([RGB // 2, np.full((48, 64), 128, np.uint8)])
    assert np.abs(divided(half)[..., :3].astype(int) - RGB).max() <= 2
    assert not divided(np.zeros((2, 2, 4), np.uint8)).any()


# Oddities -----------------------------------------------------------------------------------------

ODD_TIFFS = {
    "text without an end": tiff_of(RGB, {305: (2, 8, b"Scanner1")}),
    "an orientation of 0": tiff_of(RGB, {274: shorts(0)}),
    "an orientation of 9": tiff_of(RGB, {274: shorts(9)}),
    "sizes of strips are 0": tiff_of(RGB, {279: longs(0)}),
    "sizes of strips are missing": tiff_of(RGB, drop=[279]),
    "tags out of order": tiff_of(RGB, backwards=True),
    "bits of one sample": tiff_of(RGB, {258: shorts(8)}),
    "no meaning": tiff_of(RGB, drop=[262]),
    "a wrong type": tiff_of(RGB, {277: (1, 1, b"\3")}),
    "signed numbers of bits": tiff_of(RGB, {258: (8, 3, struct.pack("<3h", 8, 8, 8))}),
    "strips of no rows": tiff_of(RGB, {278: longs(0)}),
    "strips beyond the end": tiff_of(RGB, {279: longs(99_999)}),
    "no order of planes": tiff_of(RGB, {284: shorts(0)}),
    "no type of samples": tiff_of(RGB, {339: shorts(0, 0, 0)}),
}
# Of no matter at all, but libtiff would warn.
HARMLESS_TIFFS = {
    "ordinary": {305: (2, 8, b"Scanner\0"), 274: shorts(1), 65000: shorts(1)},
    "no unit": {296: shorts(0)},
    "a short date": {306: (2, 5, b"2020\0")},
    "several names": {315: (2, 8, b"a\0b\0c\0d\0")},
    "a profile of no bytes": {34675: (7, 0, b"")},
    "a colour map": {320: shorts(1, 2, 3)},
    "a broken pointer": {34665: longs(2**31)},
    "a resolution of 0/0": {282: (5, 1, bytes(8))},
}


@pytest.mark.parametrize("what", ODD_TIFFS)
def test_odd_tiff(stored, what):
    """faults.md 16: a note, and the pixels."""
    shown = stored(ODD_TIFFS[what])
    np.testing.assert_array_equal(shown.color, RGB)
    assert len(shown.notes) == 1
    assert "odd" in shown.notes[0]


@pytest.mark.parametrize("what", HARMLESS_TIFFS)
def test_ordinary_tiff_has_no_notes(stored, what):
    """faults.md 16."""
    shown = stored(tiff_of(RGB, HARMLESS_TIFFS[what]))
    np.testing.assert_array_equal(shown.color, RGB)
    assert shown.notes == ()


@pytest.mark.parametrize("size", [-30, 300])
def test_a_webp_of_another_size_than_it_says(stored, size):
    """faults.md 16: all its chunks are whole."""
    data = pillow_bytes(RGB, "WEBP", lossless=True)
    stated = struct.pack("<I", len(data) - 8 + size)
    shown = stored(data[:4] + stated + data[8:], "x.webp")
    np.testing.assert_array_equal(shown.color, RGB)
    assert "odd" in shown.notes[0]
    with pytest.raises(InputError, match="damaged"):
        read(data[:-20])


ODD_PNGS = {
    "text without a checksum": [(b"tEXt", b"a\0b")],
    "a broken profile": [(b"iCCP", b"x\0\0junk")],
    "a broken gamma": [(b"gAMA", bytes(4))],
    "short chunks": [(b"cHRM", bytes(3)), (b"pHYs", bytes(3)), (b"tIME", b"x")],
    "text of nothing": [(b"tEXt", b""), (b"iTXt", b"a"), (b"zTXt", b"a\0\0junk")],
}


@pytest.mark.parametrize("what", ODD_PNGS)
def test_odd_png(stored, what):
    """faults.md 16: chunks beside the pixels may be anything."""
    data = bytearray(png_with(ODD_PNGS[what]))
    if "checksum" in what:
        data[data.index(b"tEXt") + 7] ^= 1
    np.testing.assert_array_equal(stored(bytes(data), "x.png").color, RGB)


def test_a_png_with_an_unknown_critical_chunk():
    """faults.md 17: named, not called damaged."""
    with pytest.raises(InputError, match=r"x: .*not known here \(ABCD\); save it again"):
        read(png_with([(b"ABCD", b"x")]), name="x")


@pytest.mark.parametrize("what", odd_jpegs())
def test_odd_jpeg(stored, what):
    """faults.md 16: a note, and the pixels."""
    shown = stored(odd_jpegs()[what], "x.jpg")
    np.testing.assert_array_equal(shown.color, pillow_array(jpeg()))
    noted = what not in ("fill bytes", "junk before the end", "junk after the end")
    assert ["odd" in note for note in shown.notes] == [True] * noted


def test_what_lies_behind_stray_bytes_is_found():
    """faults.md 16: the profile and EXIF are not lost with the oddity."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(exif=exif)
    at = data.index(b"\xff\xe1")
    assert read(data[:at] + bytes(7) + data[at:]).color.shape == (64, 48, 3)


@pytest.mark.parametrize("lost", [1, 40, 400])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_jpeg_scan_that_ends_early(lost, end, tmp_path):
    """faults.md 16: damage of pixels, also of the last rows, with or without an end marker."""
    data = jpeg(subsampling=0)[: -2 - lost] + end
    for options in ({"restart_marker_rows": 1}, {}):
        data = jpeg(subsampling=0, **options)[: -2 - lost] + end
        with pytest.raises(InputError, match="damaged or incomplete"):
            read(data)
        with pytest.raises(InputError, match="damaged or incomplete"), StripReader(data) as reader:
            list(reader.strips(16))


def test_damaged_strips_of_an_odd_tiff():
    """faults.md 16: the clean directory does not hide damage."""
    content = bytearray(tiff_by_tifffile(RGB, photometric="rgb", compression="zlib"))
    content[200:260] = bytes(60)
    odd = tiff_of(RGB, {274: shorts(0)})
    for data in (bytes(content), odd[:4000]):
        with pytest.raises(InputError, match="damaged or incomplete"):
            read(data)


# What is read by other codecs, or named -----------------------------------------------------------

COMPRESSIONS = ["zstd", "lzma", "jpeg2000", "jpegxl", "lerc", "png", "lzw", "packbits"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions_of_tiff(stored, compression):
    """faults.md 17."""
    content = tiff_by_tifffile(RGB, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(stored(content).color, RGB)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_bits_of_tiff(stored, bits):
    """faults.md 17: fewer than 8 become 8, others 16, of full range."""
    kind = np.uint8 if bits <= 8 else np.uint16
    levels = (WIDE[..., 0] >> (16 - bits)).astype(kind)
    content = tiff_by_tifffile(levels, photometric="minisblack", bitspersample=bits)
    shown = stored(content)
    expected = np.rint(levels / (2**bits - 1) * (255 if bits <= 8 else 65535))
    np.testing.assert_array_equal(shown.color[..., 0], expected)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floating_point_tiff(stored, kind):
    """faults.md 17."""
    shown = stored(tiff_by_tifffile((RGB / 255).astype(kind), photometric="rgb"))
    assert shown.bits == 16
    assert np.abs(shown.color / 65535 - RGB / 255).max() < (1e-3 if kind == np.float16 else 1e-5)
    assert "floating-point" in shown.notes[0]


BEYOND = {
    "floating-point samples reach from 0 to 10": ((RGB / 25).astype(np.float32), {}),
    "not numbers": (np.full((8, 8, 3), np.nan, np.float32), {}),
    "16-bit signed integers": (RGB.astype(np.int16), {}),
    "32-bit integers": (RGB.astype(np.uint32), {}),
    "complex numbers": (GREY[..., 0].astype(np.complex64), {"photometric": "minisblack"}),
    "6 channels": (np.dstack([RGB, RGB]), {"photometric": "minisblack", "planarconfig": "contig"}),
    "raw samples": (GREY[..., 0], {"photometric": "cfa"}),
}


@pytest.mark.parametrize("words", BEYOND)
def test_what_is_not_read_is_named(words):
    """faults.md 17: what it is, and what to do; not "damaged"."""
    samples, options = BEYOND[words]
    content = tiff_by_tifffile(samples, **({"photometric": "rgb"} | options))
    with pytest.raises(InputError, match=rf"x\.tif: .*{words}.*(16-bit|16 bits|fill)") as caught:
        read(content, name="x.tif")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("missing", ["tiff", "jpeg"])
def test_without_the_codecs_the_package_is_named(monkeypatch, missing):
    """faults.md 17."""
    monkeypatch.setattr(codecs, "available", lambda *modules: False)
    content = {
        "tiff": tiff_by_tifffile(RGB, photometric="rgb", compression="zstd"),
        "jpeg": imagecodecs.jpeg_encode(WIDE >> 4, bitspersample=12),
    }[missing]
    for action in (read, probe):
        with pytest.raises(SrcliError, match=r"x: .*pip install 'srcli\[codecs\]'.*; or") as caught:
            action(content, name="x")
        assert "damaged" not in str(caught.value)


def test_rare_kinds_of_jpeg(stored):
    """faults.md 17: 12 bits, lossless; arithmetic coding is libjpeg-turbo's."""
    shown = stored(imagecodecs.jpeg_encode(WIDE >> 4, level=100, bitspersample=12), "x.jpg")
    assert shown.bits == 16
    assert np.abs(shown.color / 65535 - RGB / 255).mean() < 0.005
    content = imagecodecs.jpeg_encode(RGB, lossless=True)
    np.testing.assert_array_equal(stored(content, "x.jpg").color, RGB)
    content = imagecodecs.jpeg_encode(WIDE, lossless=True, bitspersample=16)
    np.testing.assert_array_equal(stored(content, "x.jpg").color, WIDE)
    with pytest.raises(InputError, match="x: is a JPEG-LS file, which is not read here; convert"):
        read(imagecodecs.jpegls_encode(RGB), name="x")


def bmp(pixels, kind=24, compression=0, masks=b"", header=40, payload=None):
    """A BMP file by hand."""
    height, width = pixels.shape[:2]
    if payload is None:
        rows = np.ascontiguousarray(pixels[::-1, :, ::-1]).reshape(height, -1)
        payload = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, kind, compression, len(payload),
                       0, 0, 0, 0)  # fmt: skip
    info = (info + masks).ljust(header, b"\0") if header > 64 else info.ljust(header, b"\0") + masks
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(payload), 0, 0, start) + info + payload


def test_rare_kinds_of_bmp(stored):
    """faults.md 17."""
    np.testing.assert_array_equal(stored(bmp(RGB, header=64), "x.bmp").color, RGB)
    png = pillow_bytes(RGB, "PNG")
    inside = bmp(RGB, kind=0, compression=5, payload=png)
    np.testing.assert_array_equal(stored(inside, "x.bmp").color, RGB)
    inside = bmp(RGB, kind=0, compression=4, payload=jpeg())
    np.testing.assert_array_equal(stored(inside, "x.bmp").color, pillow_array(jpeg()))
    for least in (0, 7):  # alpha that is 0 everywhere is none
        alpha = np.full((48, 64, 1), least, np.uint8)
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        payload = np.dstack([RGB[::-1, :, ::-1], alpha]).tobytes()
        content = bmp(RGB, kind=32, compression=3, header=108, payload=payload, masks=masks)
        shown = stored(content, "x.bmp")
        np.testing.assert_array_equal(shown.color, RGB)
        assert (shown.alpha is None) == (least == 0)
    odd = bmp(RGB, kind=16, compression=3, masks=struct.pack("<3I", 0xF00, 0xF0, 7), header=40)
    with pytest.raises(InputError, match=r"BMP file of a rare kind .*ordinary BMP") as caught:
        read(odd, name="x.bmp")
    assert "damaged" not in str(caught.value)


def test_a_png_of_xcode():
    """faults.md 18: the first chunk is no header."""
    plain = pillow_bytes(RGB, "PNG")
    chunk = struct.pack(">I", 4) + b"CgBI" + b"\x50\0\x20\2" + b"\x2b\xd5\xb3\x7f"
    for action in (read, probe):
        with pytest.raises(InputError, match=r"x: .*Xcode.*pngcrush"):
            action(plain[:8] + chunk + plain[8:], name="x")
        with pytest.raises(InputError, match="damaged"):
            action(plain[:8] + plain[33:], name="x")


def test_ten_bits_are_not_called_sixteen():
    """faults.md 18: nothing is lost when 10 or 12 bits become AVIF's 12."""
    from srcli.images import check_output

    wide = encode(read(pillow_bytes(WIDE[..., 0], "PNG")), SaveOptions(format="avif"))
    for data, lost in ((wide, False), (pillow_bytes(WIDE[..., 0], "PNG"), True)):
        metadata = read(data).metadata
        notes = check_output(9, 9, False, 16, "avif", SaveOptions(), "x", metadata=metadata)
        assert any("become 12" in note for note in notes) == lost
    ten = png_with([(b"sBIT", bytes((10, 10, 10)))])
    assert read(ten).metadata.depth == 10


def test_gif(stored):
    """faults.md 17: as Pillow shows it, transparency included."""
    image = Image.fromarray(smooth()).quantize(60)
    for options in ({}, {"transparency": 3}):
        data = pillow_bytes(image, "GIF", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
        shown = stored(data, "x.gif")
        opacity = np.full(expected.shape[:2], 255) if shown.alpha is None else shown.alpha
        np.testing.assert_array_equal(opacity, expected[..., 3])
        visible = expected[..., 3] > 0
        np.testing.assert_array_equal(shown.color[visible], expected[..., :3][visible])


def test_heic(stored):
    """faults.md 17: as libheif shows it."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = pillow_heif.from_pillow(Image.fromarray(RGB))
    file = io.BytesIO()
    image.save(file, quality=95)
    theirs = np.asarray(pillow_heif.open_heif(file.getvalue()))
    np.testing.assert_array_equal(stored(file.getvalue(), "x.heic").color, theirs)
    assert np.abs(theirs.astype(int) - RGB).mean() < 5
    with pytest.raises(InputError, match="damaged"):
        read(file.getvalue()[:700])


def test_heic_without_the_codecs(monkeypatch):
    """faults.md 17."""
    monkeypatch.setattr(codecs, "available", lambda *modules: False)
    with pytest.raises(SrcliError, match=r"x: is a HEIC picture.*pip install 'srcli\[codecs\]'"):
        read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", name="x")


# Whose fault it is --------------------------------------------------------------------------------

CROWD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from srcli.errors import InputError
from srcli.images import read
def reason(path):
    try:
        read(path)
    except InputError as error:
        return str(error).removeprefix(str(path))
    return "read"
paths = sorted(Path().glob("*.*"))
alone = [reason(path) for path in paths]
for _ in range(4):
    with ThreadPoolExecutor(8) as pool:
        beside = list(pool.map(reason, paths))
    for path, one, other in zip(paths, alone, beside):
        if one != other:
            sys.exit(f"{path}: {one!r} became {other!r}")
print(len(set(alone)))
"""


def test_a_files_reason_is_its_own(tmp_path):
    """faults.md 9: many bad files at once."""
    png = bytearray(pillow_bytes(RGB, "PNG"))
    png[-60] ^= 0x10
    kinds = {
        "jpg": jpeg()[:-300] + b"\xff\xd9", "png": bytes(png),
        "webp": pillow_bytes(RGB, "WEBP")[:200],
        "avif": pillow_bytes(RGB, "AVIF")[:400], "gif": pillow_bytes(RGB, "GIF")[:1500],
        "tif": tiff_by_tifffile(RGB, photometric="rgb", compression="zlib")[:-900],
        "good.jpg": jpeg(),
    }  # fmt: skip
    for suffix, content in kinds.items():
        for number in range(5):
            (tmp_path / f"{number}.{suffix}").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", CROWD], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert done.stderr == ""
    assert int(done.stdout) >= 6


def test_turns_exclude_each_other():
    """faults.md 9: whoever is alone is alone, and nobody waits for ever."""
    import threading
    import time

    inside, seen = set(), []

    def together(number):
        for _ in range(20):
            with vips.TURNS.together(), vips.TURNS.together():
                inside.add(number)
                time.sleep(0.0005)
                inside.discard(number)

    def alone():
        for _ in range(10):
            with vips.TURNS.alone():
                seen.append(set(inside))

    threads = [threading.Thread(target=together, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=alone) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert seen == [set()] * 20


def test_messages_of_decoders_are_printable():
    """faults.md 42: whatever a file holds, the terminal gets text."""
    with pytest.raises(InputError) as caught:
        read(b"no picture", name="a\x1b[31m\nb")
    assert str(caught.value).isprintable()
    assert tifffile.__name__
