"""Bytes of the service are those of the command, whatever the file and the order."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from support.corpus import SRGB, XMP, described
from support.pictures import pillow_bytes

from srcli.backends.base import StoppedError
from srcli.errors import InputError, UsageError
from srcli.loading.restorer import RunOptions
from srcli.serving.orders import order_of
from srcli.serving.problems import Problem
from srcli.serving.restoring import Networks, restore
from srcli.serving.settings import Settings

SETTINGS = Settings(models=("lapar-c", "awsrn-sd"), options=RunOptions(), lanes=2, queue=1)


@pytest.fixture(scope="module")
def networks():
    with Networks(SETTINGS, print) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(photograph):
    """Content of files, by name."""
    picture = Image.fromarray(photograph[30:62, 40:80])
    about = {"icc_profile": SRGB, "exif": described(size=(40, 32)), "xmp": XMP}
    deep = photograph[30:62, 40:80].astype(np.uint16) * 257
    return {
        "plain.png": pillow_bytes(picture, "PNG"),
        "photo.jpg": pillow_bytes(picture, "JPEG", quality=40, **about),
        "fine.jpeg": pillow_bytes(picture, "JPEG", quality=97),
        "logo.webp": pillow_bytes(picture.convert("RGBA"), "WEBP", lossless=True),
        "deep.tif": tiff(deep),
    }


def tiff(samples):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", metadata=None)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "task", "query", "options", "output"),
    [
        ("plain.png", "upscale", {"scale": "2"}, ["-s", "2"], "plain_x2.png"),
        ("plain.png", "upscale", {"scale": "2.5", "model": "awsrn-sd"},
         ["-s", "2.5", "-m", "awsrn-sd"], "plain_x2.5.png"),
        ("photo.jpg", "upscale", {"scale": "2"}, ["-s", "2"], "photo_x2.jpg"),
        ("photo.jpg", "upscale", {"scale": "2", "deblock": "1", "input": "clean"},
         ["-s", "2", "--deblock", "--input", "clean"], "photo_x2.jpg"),
        ("photo.jpg", "deblock", {"format": "png"}, ["-f", "png"], "photo_deblocked.png"),
        ("fine.jpeg", "deblock", {}, [], "fine_deblocked.jpeg"),
        ("logo.webp", "denoise", {}, [], "logo_denoised.webp"),
        ("logo.webp", "upscale", {"scale": "2", "format": "jpeg", "quality": "70"},
         ["-s", "2", "-f", "jpeg", "--quality", "70"], "logo_x2.jpg"),
        ("deep.tif", "upscale", {"scale": "3", "strip": "1"}, ["-s", "3", "--strip"],
         "deep_x3.tif"),
    ],
)  # fmt: skip
def test_bytes_are_those_of_the_command(
    srcli, networks, files, tmp_path, name, task, query, options, output
):
    (tmp_path / name).write_bytes(files[name])
    code, _, err = srcli(task, tmp_path / name, *options, "-o", f"{tmp_path}/out/")
    assert code == 0, err
    (made,) = (tmp_path / "out").glob("*.*")
    order = order_of(task, {**query, "name": name}, SETTINGS.models)
    seen = []
    answer = restore(order, files[name], networks, 10**6, lambda *done: seen.append(done))
    assert answer.content == made.read_bytes()
    assert answer.name == output
    assert Image.open(io.BytesIO(answer.content)).size == (answer.width, answer.height)
    assert seen or not answer.steps
    for note in answer.notes:
        assert note.partition(": ")[2] in " ".join(err.split()), err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.png: the file is empty"),
        (b"<html><body>", "x.png: a web page, not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "x.png: "),
    ],
)
def test_errors_are_worded_as_by_the_command(networks, content, words):
    order = order_of("upscale", {"name": "x.png"}, SETTINGS.models)
    with pytest.raises(InputError) as raised:
        restore(order, content, networks, 10**6, lambda *done: None)
    assert str(raised.value).startswith(words)


def test_transparency_that_a_format_lacks_is_told_of_the_file(networks, photograph):
    pixels = np.dstack([photograph[:16, :16], np.arange(256, dtype=np.uint8).reshape(16, 16)])
    order = order_of("upscale", {"name": "logo.png", "format": "jpeg"}, SETTINGS.models)
    with pytest.raises(UsageError, match=r"^logo.png: JPEG has no transparency"):
        restore(order, pillow_bytes(pixels, "PNG"), networks, 10**6, lambda *done: None)


def test_too_many_pixels_are_refused_before_decoding(networks, files):
    order = order_of("upscale", {"scale": "4"}, SETTINGS.models)
    with pytest.raises(Problem) as raised:
        restore(order, files["plain.png"], networks, 20_000, lambda *done: None)
    assert raised.value.status == 413
    with pytest.raises(InputError, match="more than the limit of 1,000"):
        restore(order, files["plain.png"], networks, 1000, lambda *done: None)


def test_stopped_work_leaves_the_network_whole(networks, photograph):
    content = pillow_bytes(photograph, "PNG")
    order = order_of("upscale", {"scale": "2"}, SETTINGS.models)
    whole = restore(order, content, networks, 10**6, lambda *done: None).content
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == stopping:
            raise StoppedError

    for stopping in (1, 2, 3):
        calls.clear()
        with suppress(StoppedError):
            restore(order, content, networks, 10**6, stop)
        assert len(calls) >= min(stopping, 2)
    assert restore(order, content, networks, 10**6, lambda *done: None).content == whole
