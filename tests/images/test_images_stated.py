"""What a file states decides its colour and its transparency.

Values are compared with what was stored, or with a reader that shares no code with ours.
"""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.odd_files import (
    GREY,
    RGB,
    RGBA,
    WIDE,
    as_bytes,
    jpeg,
    longs,
    shorts,
    tiff_by_hand,
    tiff_by_tifffile,
    tiff_of,
    ycbcr,
)
from support.pictures import pillow_array, pillow_bytes, stacked

from srcli.images import SaveOptions, encode, read

pytest.importorskip("imagecodecs")


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
