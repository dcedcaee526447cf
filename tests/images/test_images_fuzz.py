"""Damaged and hostile files: each gives a picture or one clear line, soon, and nothing else.

`python tests/images/test_images_fuzz.py SEED COUNT` runs as many as wanted, and keeps what fails.
"""

import functools
import io
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from support.odd_files import (
    RGB,
    WIDE,
    as_bytes,
    jpeg,
    shorts,
    tiff_by_tifffile,
    tiff_of,
    with_segment,
    xmp,
    ycbcr,
)
from support.pictures import noise, pillow_bytes, smooth

from srcli.errors import InputError
from srcli.images import (
    Picture,
    SaveOptions,
    StripReader,
    encode,
    probe,
    read,
)
from srcli.images.formats import MAGIC_BYTES, READABLE

MAX_PIXELS = 20_000_000
SECONDS = 5  # for one file; honest ones take a hundredth


@functools.cache
def corpus():
    """A small picture of each kind that has code of its own."""
    color = smooth(40, 56)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769).update({0xA002: 56, 0xA003: 40, 0x927C: b"note" * 9})
    blob = exif.tobytes()
    image = Image.fromarray(color)
    found = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        found[f"png {mode}"] = pillow_bytes(image.convert(mode), "PNG", icc_profile=icc, exif=blob)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        found[f"bmp {mode}"] = pillow_bytes(image.convert(mode), "BMP")
    for compression in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        options = {"compression": compression, "icc_profile": icc}
        found[f"tiff {compression}"] = pillow_bytes(image, "TIFF", **options)
    found["tiff fax"] = pillow_bytes(image.convert("1"), "TIFF", compression="group4")
    found["tiff cmyk"] = pillow_bytes(image.convert("CMYK"), "TIFF")
    for name, options in (("tiles", {"tile": (16, 16)}), ("big", {"bigtiff": True})):
        file = io.BytesIO()
        tifffile.imwrite(file, color, photometric="rgb", byteorder=">", **options)
        found[f"tiff {name}"] = file.getvalue()
    found["jpeg"] = pillow_bytes(image, "JPEG", icc_profile=icc, exif=blob, dpi=(300, 300))
    found["jpeg progressive"] = pillow_bytes(image, "JPEG", progressive=True)
    found["jpeg grey"] = pillow_bytes(image.convert("L"), "JPEG")
    found["jpeg cmyk"] = pillow_bytes(image.convert("CMYK"), "JPEG")
    found["webp"] = pillow_bytes(image, "WEBP")
    found["webp lossless"] = pillow_bytes(
        image.convert("RGBA"), "WEBP", lossless=True, icc_profile=icc, exif=blob, xmp=b"<x/>"
    )
    found["avif"] = pillow_bytes(image.convert("RGBA"), "AVIF", icc_profile=icc, exif=blob)
    wide = Picture(color=noise(20, 30, 3, 16), alpha=noise(20, 30, 1, 16)[..., 0])
    for name in ("png", "tiff"):
        found[f"{name} 16"] = encode(wide, SaveOptions(format=name))
    for name in ("PNG", "TIFF", "WEBP", "AVIF", "GIF"):
        found[f"{name} frames"] = pillow_bytes(image, name, save_all=True, append_images=[image])
    return found | rare()


def rare():
    """Kinds that take other ways than most: other codecs, our own look at the directory."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pillow_heif = pytest.importorskip("pillow_heif")
    grey = np.dstack([RGB[..., 0], RGB[..., 1]])
    lab = tiff_of(RGB, {262: shorts(8)})
    found = {
        "tiff odd": tiff_of(RGB, {274: shorts(0), 305: (2, 8, b"Scanner1")}),
        "tiff ycbcr": tiff_of(as_bytes(ycbcr(RGB)), {262: shorts(6), 530: shorts(1, 1)}),
        "tiff blocks": tiff_of(RGB, {262: shorts(6), 530: shorts(1, 2)}),
        "tiff lab": lab,
        "tiff planes": tiff_by_tifffile(
            np.moveaxis(grey, -1, 0).copy(), photometric="minisblack", planarconfig="separate",
            extrasamples=[2],
        ),
        "tiff float": tiff_by_tifffile((RGB / 255).astype(np.float32), photometric="rgb"),
        "tiff 12": tiff_by_tifffile(
            WIDE[..., 0] >> 4, photometric="minisblack", bitspersample=12
        ),
        "jpeg 12": imagecodecs.jpeg_encode(WIDE >> 4, bitspersample=12),
        "jpeg mpo": pillow_bytes(
            Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(RGB)]
        ),
        "jpeg xmp": with_segment(jpeg(), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp('a:b="c"')),
        "gif": pillow_bytes(Image.fromarray(RGB).quantize(60), "GIF", transparency=3),
        "avif grey": pillow_bytes(Image.fromarray(RGB), "AVIF", subsampling="4:0:0"),
    }  # fmt: skip
    for compression in ("zstd", "lzma", "jpeg2000", "jpegxl", "lerc", "png"):
        found[f"tiff {compression}"] = tiff_by_tifffile(
            RGB, photometric="rgb", compression=compression
        )
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(file, quality=60)
    return found | {"heic": file.getvalue()}


def mutated(data, chance):
    """Cut, flip, overwrite, exaggerate a number, splice with another file, repeat or insert."""
    data = bytearray(data)
    at = chance.randrange(len(data))
    way = chance.randrange(9)
    if way == 0:
        del data[at:]
    elif way == 1:
        data[at] ^= 1 << chance.randrange(8)
    elif way == 2:
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif way == 3:
        size = min(chance.randrange(1, 64), len(data) - at)
        data[at : at + size] = bytes([chance.choice((0, 255))]) * size
    elif way == 4:
        at = chance.randrange(min(200, len(data) - 4))
        numbers = (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\1\0\0", b"\x10\0\0\0")
        data[at : at + 4] = chance.choice(numbers)
    elif way == 5:
        other = chance.choice(list(corpus().values()))
        data[at:] = other[chance.randrange(len(other)) :]
    elif way == 6:
        data[at:at] = data[at : at + chance.randrange(1, 300)]
    elif way == 7:
        data[at:at] = chance.randbytes(chance.randrange(1, 20))
    else:
        data[chance.randrange(min(MAGIC_BYTES, len(data)))] = chance.randrange(256)
    return bytes(data)


def outcome(data, number):
    """Read a file in one of the ways there are; returns whether it was a picture."""
    page = None if number % 5 else 1
    try:
        if number % 3 == 2:
            with StripReader(data, name="x", max_pixels=MAX_PIXELS, page=page) as reader:
                assert sum(len(color) for _, color, _ in reader.strips(16)) == reader.header.height
            return True
        header = probe(data, name="x", max_pixels=MAX_PIXELS, page=page)
        shown = read(data, name="x", max_pixels=MAX_PIXELS, page=page)
    except InputError as error:
        text = str(error)
        assert text.startswith("x: ") and text.isprintable() and len(text) < 400, text
        return False
    assert header.pixels <= MAX_PIXELS
    assert (header.height, header.width, header.channels) == shown.color.shape
    assert (header.bits, header.has_alpha) == (shown.bits, shown.alpha is not None)
    if number % 2 and max(header.width, header.height) < 10_000:  # it can be written, all of it
        for name in ("png", "tiff", "jpeg", "webp"):
            encode(shown, SaveOptions(format=name, background=(0, 0, 0)))
    return True


@pytest.mark.parametrize("kind", sorted({name.split()[0].lower() for name in corpus()}))
def test_mutated_files(kind, capfd):
    files = {name: data for name, data in corpus().items() if name.lower().startswith(kind)}
    chance = random.Random(kind)
    read_well = 0
    for number in range(60):
        data = mutated(chance.choice(list(files.values())), chance)
        start = time.monotonic()
        read_well += outcome(data, number)
        assert time.monotonic() - start < SECONDS
    assert 0 < read_well < 60, "neither everything nor nothing was harmed"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("head", READABLE)
def test_one_format_under_the_magic_bytes_of_another(head):
    start = next(data for name, data in corpus().items() if name.startswith(head))[:16]
    for data in corpus().values():
        for size in (4, 16):
            outcome(start[:size] + data[size:], 0)
    outcome(start, 0)
    outcome(start + bytes(5000), 0)
    outcome(start + np.random.default_rng(0).bytes(5000), 0)


def test_libvips_may_quote_a_damaged_file():
    """Its message holds the bytes of the file; pyvips took them for UTF-8, at each later error."""
    turned = Image.Exif()
    turned[0x0112] = 6
    whole = pillow_bytes(smooth(), "AVIF", exif=turned.tobytes())
    assert whole.count(b"irot") == 1
    with pytest.raises(InputError, match="damaged or incomplete"):
        read(whole.replace(b"irot", b"ir\x91t"))
    assert read(whole).color.shape == (56, 40, 3)


def main(seed, count):
    chance = random.Random(seed)
    files = list(corpus().items())
    pictures, slowest = 0, (0.0, "")
    for number in range(count):
        name, data = chance.choice(files)
        data = mutated(data, chance)
        Path("fuzz-last").write_bytes(data)  # remains if the process dies
        start = time.monotonic()
        try:
            pictures += outcome(data, number)
        except Exception:
            Path(f"fuzz-{seed}-{number}").write_bytes(data)
            print(f"{name}, file {number}, is kept", flush=True)  # noqa: T201
            raise
        slowest = max(slowest, (time.monotonic() - start, name))
    print(f"{count} files, {pictures} pictures, slowest {slowest}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
