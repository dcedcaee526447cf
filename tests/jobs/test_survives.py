"""What survives `srcli upscale`: the whole corpus in one call, read back by other readers.

PNG is unpacked by hand, TIFF read by tifffile, BMP by hand, JPEG, WebP and AVIF by Pillow; none of
them wrote what they read.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.corpus import CUTOUT, MAKER, NORTH, OWNER, TAKEN, corpus
from support.pictures import png_samples

from srcli.cli import run

SCALE = 2
CORPUS = corpus()


def samples(chosen=lambda sample: True):
    return pytest.mark.parametrize(
        "sample", [pytest.param(s, id=s.name) for s in CORPUS.values() if chosen(s)]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An output as another reader sees it; pixels as H x W x C."""

    format: str
    pixels: np.ndarray
    icc: bytes | None
    exif: Image.Exif
    xmp: bytes | None
    dpi: tuple[float, float] | None


def look(path: Path) -> Seen:
    pixels, *about = _tiff(path) if path.suffix == ".tif" else _other(path)
    format, icc, exif, xmp, dpi = about
    layered = pixels if pixels.ndim == 3 else pixels[..., None]
    return Seen(format=format, pixels=layered, icc=icc, exif=exif, xmp=xmp, dpi=dpi)


def _tiff(path):
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        tags = {tag.code: tag.value for tag in file.pages[0].tags}
        pixels = file.pages[0].asarray()
    if pixels.shape[2:] in ((2,), (4,)):
        assert tags[338] == (2,)  # alpha, not premultiplied
    exif = Image.Exif()
    exif.load_from_fp(io.BytesIO(path.read_bytes()))
    inch = tags.get(296) == 2
    dpi = tuple(above / below for above, below in (tags[282], tags[283])) if inch else None
    return pixels, "tiff", tags.get(34675), exif, tags.get(700), dpi


def _other(path):
    with Image.open(path) as image:
        image.load()
    made = {"PNG": lambda: png_samples(path.read_bytes()), "BMP": lambda: _bmp_pixels(path)}
    pixels = made.get(image.format, lambda: np.asarray(image))()
    info = image.info
    text = info.get("XML:com.adobe.xmp")
    xmp = info.get("xmp") if text is None else text.encode()
    exif = image.getexif()
    about = info.get("icc_profile"), exif, xmp, _resolution(info, exif)
    return pixels, image.format.lower(), *about


def _resolution(info, exif):
    """Where the format says it: Pillow makes one up for JPEG files with EXIF data."""
    if "jfif_unit" in info:
        return info["jfif_density"] if info["jfif_unit"] == 1 else None
    stated = (exif.get(0x011A), exif.get(0x011B)) if exif.get(0x0128, 2) == 2 else (0, 0)
    dpi = info.get("dpi", stated)
    return dpi if all(dpi) else None


def _bmp_pixels(path):
    """Rows of a BMP file of 8 or 24 bits; a palette has to be the grey one."""
    data = path.read_bytes()
    start, width, height, bits = (
        *struct.unpack_from("<I", data, 10),
        *struct.unpack_from("<ii", data, 18),
        *struct.unpack_from("<H", data, 28),
    )
    bands = bits // 8
    if bands == 1:
        greys = np.arange(256).repeat(3).reshape(256, 3)
        table = np.frombuffer(data[54:start], np.uint8).reshape(-1, 4)[:, :3]
        np.testing.assert_array_equal(table, greys)
    step = -(-width * bands // 4) * 4
    rows = np.frombuffer(data[start:], np.uint8).reshape(height, step)[::-1, : width * bands]
    return rows.reshape(height, width, bands)[..., ::-1]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What one call says of the whole corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for sample in CORPUS.values():
        (folder / sample.name).write_bytes(sample.content)
    said = io.StringIO()
    files = [str(folder / name) for name in CORPUS]
    with contextlib.redirect_stdout(said):
        code = run(["upscale", *files, "-s", str(SCALE), "-o", f"{folder}/out/", "--json"])
    return code, json.loads(said.getvalue()), folder / "out"


@pytest.fixture(scope="module")
def outputs(report):
    """Every output as it is seen."""
    folder = report[2]
    seen = {}
    for name in CORPUS:
        path = Path(name)
        seen[name] = look(folder / f"{path.stem}_x{SCALE}{path.suffix}")
    return seen


def test_the_corpus_is_large():
    assert len(CORPUS) >= 60


def test_every_picture_is_done(report):
    code, said, folder = report
    assert [entry for entry in said["files"] if entry["status"] != "done"] == []
    assert (code, len(said["files"])) == (0, len(CORPUS))
    assert sum(not path.name.startswith(".") for path in folder.iterdir()) == len(CORPUS)


@samples()
def test_format_size_channels_and_bits(outputs, sample):
    seen = outputs[sample.name]
    height, width, channels = sample.shows.shape
    assert seen.format == sample.name.partition("-")[0]
    assert seen.pixels.shape == (height * SCALE, width * SCALE, channels)
    assert seen.pixels.dtype.itemsize == sample.shows.dtype.itemsize


@samples()
def test_it_shows_the_same(outputs, sample):
    """Upright, with the same colours and the same alpha."""
    large = levels(outputs[sample.name].pixels)
    height, width, channels = sample.shows.shape
    small = large.reshape(height, SCALE, width, SCALE, channels).mean((1, 3))
    difference = np.abs(small - levels(sample.shows))
    if sample.alpha:  # what is hidden may change
        difference[..., :-1] *= levels(sample.shows)[..., -1:] / 255
    assert difference.mean((0, 1)).max() <= sample.tolerance


def levels(pixels):
    """In 0 to 255, with fractions."""
    return pixels / (np.iinfo(pixels.dtype).max / 255)


@samples(lambda sample: "ramp" in sample.name)
def test_sixteen_bits_are_more_than_eight(outputs, sample):
    pixels = outputs[sample.name].pixels
    for channel in range(pixels.shape[2]):
        used = np.unique(pixels[..., channel])
        assert used.size > 1000
        assert (used % 257 != 0).mean() > 0.9


@samples(lambda sample: "cutout" in sample.name)
def test_no_fringes_where_it_is_transparent(outputs, sample):
    pixels = levels(outputs[sample.name].pixels)
    color, alpha = pixels[..., :3], pixels[..., 3]
    assert alpha.min() == 0
    assert alpha.max() == 255
    fringe = np.abs(color - np.array(CUTOUT) * 255).max(-1)
    assert fringe[alpha > 0].max() <= 3


@samples(lambda sample: "cutout-black" in sample.name)
def test_what_is_hidden_does_not_matter(outputs, sample):
    first, *others = (
        outputs[sample.name.replace("black", hidden)].pixels.astype(int)
        for hidden in ("black", "white", "loud")
    )
    for other in others:
        np.testing.assert_array_equal(first[..., 3], other[..., 3])
        visible = first[..., 3] > 0
        assert np.array_equal(first[visible], other[visible])


@samples()
def test_the_profile_is_unchanged(outputs, sample):
    assert outputs[sample.name].icc == sample.icc


@samples(lambda sample: sample.described)
def test_exif_is_kept_and_brought_up_to_date(outputs, sample):
    seen = outputs[sample.name]
    details, place = seen.exif.get_ifd(0x8769), seen.exif.get_ifd(0x8825)
    assert (seen.exif[0x010F], seen.exif[0x8298]) == (MAKER, OWNER)
    assert seen.exif.get(0x0112, 1) == 1
    assert details[0x9003] == TAKEN
    assert (details[0xA003], details[0xA002]) == seen.pixels.shape[:2]
    assert (place[1], place[2]) == ("N", NORTH)


@samples(lambda sample: not sample.described and not sample.name.startswith("tiff"))
def test_no_exif_is_made_up(outputs, sample):
    assert dict(outputs[sample.name].exif) == {}


@samples()
def test_xmp_is_kept_and_brought_up_to_date(outputs, sample):
    seen = outputs[sample.name]
    assert (seen.xmp is None) == (sample.xmp is None)
    if seen.xmp is not None:
        height, width = seen.pixels.shape[:2]
        text = seen.xmp.decode()
        assert "<dc:creator>grüße</dc:creator>" in text
        sizes = re.findall(r'(?:ImageWidth|PixelXDimension|PixelYDimension)="(\d+)"', text)
        assert [int(size) for size in sizes] == [width, width, height]


@samples(lambda sample: sample.dpi is not None)
def test_the_resolution_is_kept(outputs, sample):
    assert outputs[sample.name].dpi == pytest.approx(sample.dpi, abs=0.1)


@samples(lambda sample: sample.dpi is None)
def test_no_resolution_is_made_up(outputs, sample):
    assert outputs[sample.name].dpi is None


@pytest.mark.parametrize("suffix", [".bmp", ".jpg"])
def test_alpha_is_not_dropped_in_silence(srcli, tmp_path, suffix):
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    source.write_bytes(CORPUS["png-4x8.png"].content)
    code, _, err = srcli("upscale", source, "-s", SCALE, "-o", target)
    assert code == 2
    assert "--background" in err
    assert not target.exists()
    assert srcli("upscale", source, "-s", SCALE, "-o", target, "--background", "white")[0] == 0
    assert look(target).pixels.shape[2] == 3


def test_inks_look_the_same_in_every_container(outputs):
    names = ("jpeg-cmyk.jpg", "jpeg-ycck.jpg", "tiff-cmyk.tif")
    first, *others = (levels(outputs[name].pixels) for name in names)
    for other in others:
        assert np.abs(first - other).mean() < 4


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool, which is not here")
def test_exiftool_finds_nothing_wrong(report, outputs):
    done = subprocess.run(
        ["exiftool", "-json", "-warning", "-error", "-n", "-ImageSize", "-Orientation", report[2]],
        capture_output=True,
        check=True,
    )
    entries = json.loads(done.stdout)
    assert len(entries) == len(outputs)
    assert [e for e in entries if "Warning" in e or "Error" in e] == []
    assert {e.get("Orientation", 1) for e in entries} == {1}
