"""What other codecs read, what is named instead of read, and whose fault it is."""

import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.odd_files import (
    GREY,
    RGB,
    WIDE,
    jpeg,
    png_with,
    tiff_by_tifffile,
)
from support.pictures import pillow_array, pillow_bytes, smooth

from srcli.errors import InputError, SrcliError
from srcli.images import SaveOptions, codecs, encode, probe, read, vips

imagecodecs = pytest.importorskip("imagecodecs")


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
        with pytest.raises(SrcliError, match=r"x: .*pip install 'srcli\[codecs\]'`, or") as caught:
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
    for minimum in (0, 7):  # alpha that is 0 everywhere is none
        alpha = np.full((48, 64, 1), minimum, np.uint8)
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        payload = np.dstack([RGB[::-1, :, ::-1], alpha]).tobytes()
        content = bmp(RGB, kind=32, compression=3, header=108, payload=payload, masks=masks)
        shown = stored(content, "x.bmp")
        np.testing.assert_array_equal(shown.color, RGB)
        assert (shown.alpha is None) == (minimum == 0)
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
