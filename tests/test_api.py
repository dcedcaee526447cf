"""The library behind the command line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import srcli
from srcli.backends import get_backend
from srcli.errors import BackendError, InputError, OutputExistsError, UsageError
from srcli.models.registry import get_model, model_names

RUINED = [name for name in model_names() if get_model(name).half_tolerance is None]


@pytest.fixture(scope="module")
def network():
    with srcli.load("lapar-c", 2) as network:
        yield network


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy's, of its matrices
def test_other_kinds_of_arrays_are_arrays(network, photograph):
    grey = np.ascontiguousarray(photograph[:20, :30, 0])
    expected = network(grey)
    for other in (np.matrix(grey), np.ma.masked_less(grey, 100), np.asfortranarray(grey)):
        found = network(other)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pixels", [[[1, 2], [3, 4]], "picture", None, np.zeros((4, 4, 5), "u1")])
def test_what_is_no_picture(network, pixels):
    with pytest.raises(UsageError, match="is no picture"):
        network(pixels)


def test_after_closing(photograph):
    network = srcli.load("lapar-c", 2)
    network.close()
    with pytest.raises(UsageError, match="closed"):
        network(photograph[:9, :9])


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(threads):
    with pytest.raises(UsageError, match="threads"):
        srcli.load("lapar-c", 2, threads=threads)


@pytest.mark.parametrize("name", RUINED)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_half_precision_is_refused_where_it_ruins_the_result(name, precision, backend):
    with pytest.raises(BackendError, match=f"^{name}: half precision ruins .* Leave out"):
        get_backend(backend, get_model(name), precision)


def test_floats_are_not_rounded(network, photograph):
    """faults.md 29: float32 in [0, 1] was refused."""
    small = photograph[:20, :30]
    floats = network(small.astype(np.float32) / np.float32(255))
    assert (floats.dtype, floats.shape) == (np.float32, (40, 60, 3))
    assert floats.min() >= 0 and floats.max() <= 1
    np.testing.assert_array_equal(np.rint(floats * 255), network(small))
    assert (np.abs(floats * 255 - np.rint(floats * 255)) > 0.01).mean() > 0.5


def test_floats_with_transparency(network, photograph):
    """faults.md 29."""
    both = np.dstack([photograph[:12, :14], photograph[:12, :14, 0]])
    floats = network(both.astype(np.float32) / np.float32(255))
    assert np.abs(floats * 255 - network(both)).max() <= 0.51


@pytest.mark.parametrize("value", [-0.1, 1.5, 200.0, np.nan])
def test_floats_outside_the_range(network, value):
    """faults.md 29: pictures in 0 to 255 as floats are a mistake that is told."""
    with pytest.raises(UsageError, match=r"outside \[0, 1\]"):
        network(np.full((4, 4, 3), value, np.float32))


def test_several_at_once(network, photograph):
    """faults.md 29: batches were refused."""
    pictures = [photograph[:10, :12], photograph[:14, :9]]
    for found, one in zip(network(pictures), pictures, strict=True):
        np.testing.assert_array_equal(found, network(one))
    stacked = np.stack([photograph[:10, :12], photograph[10:20, :12]])
    found = network(stacked)
    assert found.shape == (2, 20, 24, 3)
    np.testing.assert_array_equal(found[1], network(stacked[1]))


@pytest.mark.parametrize(("scale", "shape"), [(2.5, (50, 75)), ("3/2", (30, 45)), (8, (160, 240))])
def test_any_scale(photograph, scale, shape):
    """faults.md 29: 2.5 was refused."""
    assert srcli.upscale(photograph[:20, :30], scale=scale).shape == (*shape, 3)


@pytest.mark.parametrize("scale", ["much", 0, -2, "1/0"])
def test_no_scale(scale):
    with pytest.raises(UsageError):
        srcli.load("lapar-c", scale)


def test_how_it_is_run(photograph):
    """faults.md 29: precision, tta, tile and memory could not be chosen."""
    small = photograph[:30, :20]
    plain = srcli.upscale(small, scale=2)
    np.testing.assert_array_equal(srcli.upscale(small, scale=2, tile=16, memory=1 << 22), plain)
    assert (srcli.upscale(small, scale=2, tta=True) != plain).any()
    with pytest.raises(UsageError, match="memory"):
        srcli.load("lapar-c", 2, memory=5)


def test_a_path_is_no_array(network):
    """faults.md 29."""
    with pytest.raises(UsageError, match="upscale_file"):
        network("photo.png")


def test_from_file_to_file(tmp_path, photograph):
    """faults.md 29: there was no function from file to file; what the command keeps is kept."""
    source = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a portrait"
    Image.fromarray(photograph[:24, :32]).save(source, quality=95, exif=exif, dpi=(300, 300))
    target = srcli.upscale_file(source, scale=2)
    assert target == tmp_path / "in_x2.jpg"
    with Image.open(target) as large:
        assert large.size == (64, 48)
        assert large.getexif()[0x010E] == "a portrait"
        assert round(large.info["dpi"][0]) == 300
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        srcli.upscale_file(source, scale=2)
    assert srcli.upscale_file(source, scale=2, overwrite=True) == target
    assert srcli.denoise_file(source, tmp_path / "n.png") == tmp_path / "n.png"
    assert srcli.deblock_file(str(source)) == tmp_path / "in_deblocked.jpg"
    with pytest.raises(InputError, match=r"away\.png"):
        srcli.upscale_file(tmp_path / "away.png")
