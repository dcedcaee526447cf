"""What a file tells about loss: whether it was compressed with any, and at which quality."""

import io

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, JpegPresets
from support.pictures import pillow_bytes

from srcli.images import encode, jpeg, probe_all, read
from srcli.images.picture import Picture, SaveOptions
from srcli.images.quantisation import quality_of
from srcli.quality.metrics import luma, psnr

# What mozjpeg takes by default, here of quality 50.
MOZJPEG = (
    *(16, 16, 16, 18, 25, 37, 56, 85, 16, 17, 20, 27, 34, 40, 53, 75),
    *(16, 20, 24, 31, 43, 62, 91, 135, 18, 27, 31, 40, 53, 74, 106, 156),
    *(25, 34, 43, 53, 69, 94, 131, 189, 37, 40, 62, 74, 94, 124, 169, 238),
    *(56, 53, 91, 106, 131, 169, 226, 255, 85, 75, 135, 156, 189, 238, 255, 255),
)
OTHERS = {
    **{name: preset["quantization"] for name, preset in JpegPresets.presets.items()},
    **{f"flat {step}": [[step] * 64] * 2 for step in (1, 3, 8, 24)},
    **{f"mozjpeg {by}": [[max(1, int(s * by)) for s in MOZJPEG]] * 2 for by in (0.2, 0.5, 1)},
}


def about(content):
    metadata = probe_all(content)[1]
    return metadata.lossless, metadata.quality


@pytest.fixture(scope="module")
def small(photograph):
    return np.ascontiguousarray(photograph[:24, :32])


@pytest.mark.parametrize("quality", range(1, 101))
def test_the_quality_of_a_jpeg_file(small, quality):
    """As Pillow writes it, which is libjpeg-turbo."""
    assert about(pillow_bytes(small, "JPEG", quality=quality)) == (False, quality)


@pytest.mark.parametrize(
    "how", [{"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"keep_rgb": True}]
)
def test_the_quality_of_jpeg_files_of_all_kinds(small, how):
    assert about(pillow_bytes(small, "JPEG", quality=83, **how)) == (False, 83)
    assert about(pillow_bytes(Image.fromarray(small).convert("L"), "JPEG", quality=83))[1] == 83


def test_tables_of_16_bits(small):
    content = pillow_bytes(small, "JPEG", quality=83)
    at = content.index(b"\xff\xdb\0\x43\0")
    steps = b"".join(b"\0%c" % step for step in content[at + 5 : at + 69])
    wide = b"\xff\xdb\0\x83\x10" + steps
    assert about(content[:at] + wide + content[at + 69 :])[1] == 83


@pytest.mark.parametrize("name", OTHERS)
def test_other_tables_have_the_quality_that_loses_as_much(photograph, name):
    content = pillow_bytes(photograph, "JPEG", qtables=OTHERS[name])
    _, quality = about(content)
    with Image.open(io.BytesIO(content)) as opened:
        assert quality == quality_of(tuple(opened.quantization[0]))
    likewise = pillow_bytes(photograph, "JPEG", quality=quality)
    plane = luma(photograph)
    lost, expected = (psnr(plane, luma(read(data).color)) for data in (content, likewise))
    assert lost == pytest.approx(expected, abs=2)


def test_without_tables_the_quality_is_not_known(small):
    content = pillow_bytes(small, "JPEG", quality=83).replace(b"\xff\xdb", b"\xff\xef")
    assert jpeg.facts(io.BytesIO(content)).quality is None
    cut = content[: content.index(b"\xff\xef")] + b"\xff\xdb\0\x10\0" + bytes(13)
    assert jpeg.facts(io.BytesIO(cut)).quality is None


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_what_may_be_compressed_with_loss_or_without(small, format, lossless):
    image = pyvips.Image.new_from_memory(small.tobytes(), 32, 24, 3, "uchar")
    image = image.copy(interpretation="srgb")
    content = image.write_to_buffer(f".{format.lower()}", lossless=lossless)
    assert about(content) == (lossless, None)
    assert (read(content).color == small).all() == lossless
    if not lossless:
        assert about(pillow_bytes(small, format)) == (False, None)


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_what_came_without_loss_is_written_without(small, format):
    first = encode(Picture(color=small), SaveOptions(format=format, lossless=True))
    again = encode(read(first), SaveOptions(format=format))
    np.testing.assert_array_equal(read(again).color, small)


def test_heic_is_taken_to_be_compressed_with_loss(small):
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(small)).save(file)
    assert about(file.getvalue()) == (False, None)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF"])
def test_what_loses_nothing(small, format):
    assert about(pillow_bytes(small, format)) == (True, None)


def test_jpeg_without_loss(small):
    codecs = pytest.importorskip("imagecodecs")
    content = codecs.ljpeg_encode(small[..., 0])
    assert about(bytes(content)) == (True, None)


def test_jpeg_within_tiff(small):
    assert about(pillow_bytes(small, "TIFF", compression="jpeg", quality=70)) == (False, 70)
    pytest.importorskip("imagecodecs")
    file = io.BytesIO()
    tifffile.imwrite(file, small, photometric="rgb", compression="jpeg")
    assert about(file.getvalue()) == (False, None)  # its tables stand in each strip
