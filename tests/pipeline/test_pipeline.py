"""Restoring pictures: tiles, strips, batches, grey, alpha, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from srcli.backends.base import OutOfMemory, Session, SessionOptions
from srcli.backends.eager import TorchSession
from srcli.backends.ensemble import SelfEnsemble
from srcli.errors import MemoryExhaustedError, SrcliError, UsageError
from srcli.images import Picture
from srcli.loading.model import load
from srcli.models.registry import get_model
from srcli.models.spec import Geometry
from srcli.pipeline.restorer import Restorer

IDENTITY = Geometry(margin=0, floats_per_pixel=1)


class Identity(Session):
    """A session that gives back what it gets."""

    def __call__(self, batch):
        return batch.copy()

    def close(self):
        pass


class Cramped(Identity):
    """A session that takes no more than so many pixels."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self, batch):
        if batch[0, 0].size > self.pixels:
            raise OutOfMemory("full")
        return super().__call__(batch)


def restorer(scale: int, **options) -> Restorer:
    """LAPAR-C with our weights; scale 1 has none yet and is filled at random."""
    if scale == 1:
        torch.manual_seed(1)
        network = get_model("lapar-c").build(1).eval().requires_grad_(False).fuse()
    else:
        network = load("lapar-c", scale).network()
    geometry = get_model("lapar-c").geometry(scale)
    session = TorchSession(network, SessionOptions())
    return Restorer(session=session, geometry=geometry, scale=scale, **options)


@pytest.fixture(scope="module")
def restorers():
    return {scale: restorer(scale) for scale in (1, 2, 3, 4)}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    scale=st.sampled_from([1, 2, 3, 4]),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_tiled_equals_untiled(restorers, photograph, scale, height, width, tile, seed):
    assume(height * width <= 150 * tile**2)  # thousands of tiles of a pixel prove no more
    top, left = np.random.default_rng(seed).integers(0, 70, 2)
    crop = photograph[top : top + height, left : left + width]
    batch = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32) / 255
    whole = restorers[scale]
    tiled = Restorer(session=whole.session, geometry=whole.geometry, scale=scale, tile=tile)
    difference = np.abs(tiled.restore(batch) - whole.restore(batch)).max()
    assert difference < 1e-5


@pytest.mark.parametrize("scale", [2, 3])
def test_strips_equal_the_whole(restorers, photograph, scale):
    """Colour and alpha of a picture that is restored a few rows at a time."""
    alpha = np.full(photograph.shape[:2], 255, np.uint8)
    alpha[40:120, 30:90] = 0
    picture = Picture(color=photograph, alpha=alpha)
    whole = restorers[scale](picture)
    small = Restorer(
        session=restorers[scale].session,
        geometry=restorers[scale].geometry,
        scale=scale,
        memory=scale**2 << 18,
    )
    parts = list(
        small.restore_strips(
            lambda top, bottom: (photograph[top:bottom], alpha[top:bottom]),
            *photograph.shape[:2],
            has_alpha=True,
        )
    )
    assert len(parts) > 2
    color = np.concatenate([color for color, _ in parts]).astype(int)
    assert np.abs(color - whole.color).max() <= 1
    assert np.mean(color != whole.color) < 1e-3
    assert np.array_equal(np.concatenate([a for _, a in parts]), whole.alpha)


def test_a_batch_equals_its_pictures(restorers, photograph):
    pictures = [
        Picture(color=np.ascontiguousarray(photograph[k : k + 40, :50])) for k in (0, 30, 60)
    ]
    together = restorers[2].restore_all(pictures)
    for picture, result in zip(pictures, together, strict=True):
        assert np.abs(restorers[2](picture).color.astype(int) - result.color).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_smallest_pictures_work(restorers, scale, height, width):
    picture = Picture(color=np.full((height, width, 3), 120, np.uint8))
    restored = restorers[scale](picture)
    assert restored.color.shape == (height * scale, width * scale, 3)


def test_grey_stays_grey(restorers, photograph):
    grey = np.ascontiguousarray(photograph[:40, :40, :1])
    restored = restorers[2](Picture(color=grey)).color
    assert restored.shape == (80, 80, 1)
    colored = restorers[2](Picture(color=np.repeat(grey, 3, axis=2))).color
    assert np.abs(colored.mean(axis=2) - restored[:, :, 0]).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_level_survives_an_identity(kind):
    levels = np.arange(np.iinfo(kind).max + 1, dtype=kind).reshape(-1, 64, 1)
    picture = Picture(color=np.repeat(levels, 3, axis=2), alpha=levels[::-1, :, 0].copy())
    visible = picture.alpha > 0  # colour under transparent pixels is redrawn
    same = Restorer(session=Identity(), geometry=IDENTITY, scale=1)(picture)
    assert np.array_equal(same.color[visible], picture.color[visible])
    assert np.array_equal(same.alpha, picture.alpha)


def test_sixteen_bits_pass_through_the_network(restorers):
    ramp = np.linspace(20000, 24000, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    restored = restorers[2](Picture(color=np.repeat(ramp, 3, axis=2)))
    assert restored.color.dtype == np.uint16
    assert len(np.unique(restored.color)) > 256


def test_what_is_opaque_stays_opaque(restorers, photograph):
    alpha = np.zeros(photograph.shape[:2], np.uint8)
    alpha[:, 80:] = 255
    restored = restorers[4](Picture(color=photograph, alpha=alpha)).alpha
    assert (restored[:, : 77 * 4] == 0).all()
    assert (restored[:, 83 * 4 :] == 255).all()


@pytest.mark.parametrize("hidden", [0, 255])
def test_transparent_pixels_leave_no_fringe(restorers, hidden):
    """A flat colour whose transparent part hides black or white stays flat where it is visible."""
    color = np.full((64, 64, 3), 100, np.uint8)
    alpha = np.full((64, 64), 255, np.uint8)
    color[:, :32], alpha[:, :32] = hidden, 0
    restored = restorers[4](Picture(color=color, alpha=alpha))
    visible = restored.color[restored.alpha > 0].astype(int)
    assert np.abs(visible - 100).max() <= 2


@pytest.mark.parametrize("concurrency", [1, 3])
def test_out_of_memory_makes_the_tiles_smaller(photograph, concurrency):
    said: list[str] = []
    cramped = Restorer(
        session=Cramped(2000), geometry=IDENTITY, scale=1, concurrency=concurrency, note=said.append
    )
    picture = Picture(color=photograph)
    assert np.array_equal(cramped(picture).color, photograph)
    assert "smaller" in said[0] or "tiles of" in said[0]


def test_no_memory_at_all_is_an_error(photograph):
    with pytest.raises(MemoryExhaustedError, match="smallest tile"):
        Restorer(session=Cramped(0), geometry=IDENTITY, scale=1)(Picture(color=photograph[:40]))


def test_values_that_are_not_finite_are_an_error(photograph):
    class Broken(Identity):
        def __call__(self, batch):
            return batch * np.nan

    with pytest.raises(SrcliError, match="not finite"):
        Restorer(session=Broken(), geometry=IDENTITY, scale=1)(Picture(color=photograph))


def test_a_tile_of_no_pixels_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        Restorer(session=Identity(), geometry=IDENTITY, scale=1, tile=0)


def test_sides_are_padded_to_a_multiple(photograph):
    class Picky(Identity):
        def __call__(self, batch):
            assert all(side % 8 == 0 for side in batch.shape[2:])
            return super().__call__(batch)

    geometry = Geometry(margin=0, multiple_of=8)
    picture = Picture(color=np.ascontiguousarray(photograph[:37, :53]))
    same = Restorer(session=Picky(), geometry=geometry, scale=1)(picture)
    assert np.array_equal(same.color, picture.color)


class Narrow(Session):
    """A session that takes only batches within a profile, as a TensorRT engine does."""

    min_shape, max_shape = (1, 3, 12, 12), (2, 3, 40, 32)

    def __init__(self):
        self.shapes = set()

    def __call__(self, batch):
        shape = batch.shape
        assert all(
            a <= n <= b for a, n, b in zip(self.min_shape, shape, self.max_shape, strict=True)
        )
        self.shapes.add(shape)
        return batch.repeat(2, axis=2).repeat(2, axis=3)

    def close(self):
        pass


@pytest.mark.parametrize("size", [(5, 7), (12, 12), (40, 33), (90, 200)])
def test_every_picture_fits_a_session_with_limits(size):
    restorer = Restorer(session=Narrow(), geometry=Geometry(margin=3), scale=2)
    batch = np.random.default_rng(0).random((5, 3, *size), np.float32)
    assert np.array_equal(restorer.restore(batch), batch.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize("tiling", ["exact", "approximate"])
def test_on_a_gpu_tiles_are_as_large_as_its_own_memory_allows(monkeypatch, tiling):
    class OnGpu(Identity):
        device_memory = 80 << 30

    monkeypatch.setattr("srcli.pipeline.budget.free_memory", lambda: 1 << 30)
    geometry = Geometry(margin=3, floats_per_pixel=100, tiling=tiling)

    def largest(session, **options):
        restorer = Restorer(session=session, geometry=geometry, scale=1, **options)
        height, width = restorer._tiles.window(100_000, 100_000, 1)
        return 400 * height * width

    assert largest(Identity()) < 1 << 30
    allowed = (4 if tiling == "exact" else 40) << 30
    assert 0.9 * allowed < largest(OnGpu()) <= allowed
    assert largest(SelfEnsemble(OnGpu())) == largest(OnGpu())
    # What the user says holds.
    assert largest(OnGpu(), memory=256 << 20) < 256 << 20
