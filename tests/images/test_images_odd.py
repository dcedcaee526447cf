"""Oddities that touch no pixel are notes; damage of pixels is an error."""

import struct

import numpy as np
import pytest
from PIL import Image
from support.odd_files import (
    RGB,
    jpeg,
    longs,
    odd_jpegs,
    png_with,
    shorts,
    tiff_by_tifffile,
    tiff_of,
)
from support.pictures import pillow_array, pillow_bytes

from srcli.errors import InputError
from srcli.images import StripReader, read

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
