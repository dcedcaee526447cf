"""Whether pixels went through JPEG, when the file that holds them does not tell."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, JpegPresets
from support.pictures import noise, pillow_array, pillow_bytes, smooth

from srcli.images import StripReader, read, traces
from srcli.images.traces import quality_in_strips, quality_seen


@pytest.fixture(scope="module")
def reduced(photograph):
    """What an original was reduced to has no traces of what it went through."""
    return np.asarray(Image.fromarray(photograph).resize((120, 128), Image.Resampling.LANCZOS))


def through_jpeg(picture, **how):
    return pillow_array(pillow_bytes(picture, "JPEG", **how))


@pytest.mark.parametrize("quality", [30, 60, 75, 85, 90])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_leaves_traces(reduced, quality, subsampling):
    found = quality_seen(through_jpeg(reduced, quality=quality, subsampling=subsampling))
    assert found == pytest.approx(quality, abs=1)


def test_grey_pictures_too(reduced):
    grey = Image.fromarray(reduced).convert("L")
    assert quality_seen(through_jpeg(grey, quality=70)) == 70
    assert quality_seen(np.asarray(grey)[..., None]) is None


@pytest.mark.parametrize("name", ["web_medium", "web_high", "medium", "high"])
def test_other_programs_leave_traces_too(reduced, name):
    tables = JpegPresets.presets[name]["quantization"]
    assert quality_seen(through_jpeg(reduced, qtables=tables)) is not None


def drawn():
    image = Image.new("RGB", (200, 120), "white")
    draw = ImageDraw.Draw(image)
    for row in range(0, 120, 12):
        draw.text((3, row), "the quick brown fox jumps over lazy dogs", fill=(20, 40, 160))
    draw.ellipse((40, 10, 150, 100), fill=(200, 30, 40))
    return np.asarray(image)


CLEAN = {
    "noise": lambda: noise(96, 96, 3),
    "a gradient": lambda: smooth(80, 60),
    "flat": lambda: np.full((64, 64, 3), 77, np.uint8),
    "drawn": drawn,
    "squares of 8": lambda: (
        (np.indices((96, 96)) // 8 % 2 * 200).astype(np.uint8).transpose(1, 2, 0)[..., :1]
    ),
    "16 bits": lambda: noise(64, 64, 3, bits=16),
    "tiny": lambda: noise(7, 90, 3),
    "one block": lambda: noise(8, 8, 3),
}


@pytest.mark.parametrize("name", CLEAN)
def test_what_never_was_jpeg(name):
    assert quality_seen(CLEAN[name]()) is None


def test_a_photograph_that_was_reduced(reduced):
    assert quality_seen(reduced) is None


def test_what_was_cut_or_resampled_since_has_lost_its_traces(reduced):
    whole = through_jpeg(reduced, quality=60)
    assert quality_seen(whole[3:, 2:]) is None
    assert quality_seen(whole[8:, 16:]) == 60  # cut where a block begins
    smaller = Image.fromarray(whole).resize((100, 100))
    assert quality_seen(np.asarray(smaller)) is None


def test_of_large_pictures_the_middle_is_looked_at(reduced, monkeypatch, tmp_path):
    """The same pixels, whether the picture is held or read in strips."""
    monkeypatch.setattr(traces, "LARGEST", 64)
    around = noise(200, 216, 3)
    middle = through_jpeg(reduced, quality=60)[:64, :64]
    around[64:128, 72:136] = middle
    assert quality_seen(around) == 60
    around[64:128, 72:136] = reduced[:64, :64]
    assert quality_seen(around) is None


@pytest.mark.parametrize("size", [(128, 120), (60, 61), (4, 90)])
@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_files_are_read_in_strips(reduced, monkeypatch, tmp_path, format, size):
    monkeypatch.setattr(traces, "LARGEST", 40)
    for name, pixels in (("jpeg", through_jpeg(reduced, quality=50)), ("clean", reduced)):
        file = tmp_path / f"{name}.{format.lower()}"
        file.write_bytes(pillow_bytes(pixels[: size[0], : size[1]], format))
        with StripReader(file) as reader:
            assert quality_in_strips(reader) == quality_seen(read(file).color)
