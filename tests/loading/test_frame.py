"""The border of a picture: networks are given mirrored pixels around it, not their zeros."""

from __future__ import annotations

import io
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from srcli.backends.base import Session, SessionOptions
from srcli.backends.eager import TorchSession
from srcli.checkpoints.shipped import shipped_weights
from srcli.images import Picture
from srcli.loading.model import load
from srcli.models.registry import MODELS
from srcli.models.spec import Geometry
from srcli.pipeline.restorer import Restorer
from srcli.pipeline.rows import Framed, rows_of
from srcli.pipeline.tiling import enlarged

COLORS = [
    *((0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    *((255, 255, 0), (200, 150, 120), (30, 60, 90)),
]
MOST = 3  # of 255
WEIGHTS = [
    pytest.param(
        weights,
        id=f"{weights.model}-{weights.task}-x{weights.scale}-{weights.kind}",
        # Where one file serves every scale, the largest takes as long as all others.
        marks=pytest.mark.slow if weights.any_scale and weights.scale > 4 else (),
    )
    for weights in shipped_weights()
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_flat_pictures_stay_flat(weights):
    """faults.md 31: awsrn-sd was off by up to 60 in the outermost rows, lapar-c by 20."""
    model = load(weights.model, weights.scale, task=weights.task, kind=weights.kind)
    with closing(TorchSession(model.network(), SessionOptions())) as session:
        restorer = Restorer(session=session, geometry=model.geometry, scale=model.grid)
        for color in COLORS:
            for height, width in ((5, 7), (1, 1)) if color in COLORS[::4] else ((5, 7),):
                flat = np.broadcast_to(np.uint8(color), (height, width, 3))
                restored = restorer(Picture(color=flat.copy())).color
                sides = enlarged(height, weights.scale), enlarged(width, weights.scale)
                assert restored.shape == (*sides, 3)
                off = np.abs(restored.astype(int) - color).max()
                assert off <= MOST, f"{color}, {width} x {height}"


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_whatever_runs_the_network(srcli, tmp_path, backend):
    """faults.md 31, from the shell; read with Pillow."""
    Image.new("RGB", (11, 7), (255, 0, 0)).save(tmp_path / "flat.png")
    target = tmp_path / "out.png"
    code, _, err = srcli(
        *("upscale", tmp_path / "flat.png", "-s", 2, "-m", "awsrn-sd"),
        *("--backend", backend, "-o", target),
    )
    assert code == 0, err
    with Image.open(target) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    assert shown.shape == (14, 22, 3)
    assert np.abs(shown - (255, 0, 0)).max() <= MOST


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_a_frame(model):
    """faults.md 31: also those that no weights are shipped of."""
    for scale in model.scales:
        geometry = model.geometry(scale)
        assert geometry.frame >= 1
        assert geometry.frame <= geometry.margin or geometry.tiling == "approximate"


class Remembering(Session):
    """A session that repeats pixels, and remembers what it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, batch):
        self.seen.append(batch)
        return batch.repeat(2, axis=2).repeat(2, axis=3)

    def close(self):
        pass


def test_the_frame_is_a_mirror():
    """faults.md 31: the outermost pixels repeated, then those inside them."""
    session = Remembering()
    geometry = Geometry(margin=4, frame=3, floats_per_pixel=1)
    color = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    restored = Restorer(session=session, geometry=geometry, scale=2)(Picture(color=color))
    (given,) = session.seen
    expected = np.pad(color, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(given[0].transpose(1, 2, 0), expected / 255, atol=1e-6)
    assert np.array_equal(restored.color, color.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("height", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("frame", [0, 1, 5])
@pytest.mark.parametrize("strip", [1, 4, 100])
def test_rows_of_the_frame_come_in_order(height, frame, strip):
    """faults.md 31: rows are asked for from top to bottom, each once, also in small pictures."""
    picture = Picture(
        color=np.arange(height * 6, dtype=np.uint16).reshape(height, 6, 1),
        alpha=np.arange(height * 6, dtype=np.uint16).reshape(height, 6),
    )
    asked = []

    def once(top, bottom):
        assert top == (asked[-1] if asked else 0)
        asked.append(bottom)
        return rows_of(picture)(top, bottom)

    framed = Framed(once, height, 6, frame)
    total = height + 2 * frame
    parts = [framed(top, min(top + strip, total)) for top in range(0, total, strip)]
    whole = np.concatenate([color for color, _ in parts])
    expected = np.pad(picture.color, ((frame, frame), (frame, frame), (0, 0)), mode="symmetric")
    assert np.array_equal(whole, expected)
    assert np.array_equal(np.concatenate([alpha for _, alpha in parts]), expected[:, :, 0])
    assert asked[-1] == height


def test_a_photograph_keeps_its_inside(photograph):
    """faults.md 31: only what lies near the border differs from the network without a frame."""
    model = load("lapar-c", 2)
    with closing(TorchSession(model.network(), SessionOptions())) as session:
        restorer = Restorer(session=session, geometry=model.geometry, scale=2)
        color = photograph[:60, :70]
        framed = restorer(Picture(color=color)).color
        bare = session(np.ascontiguousarray(color.transpose(2, 0, 1)[None] / np.float32(255)))[0]
    plain = np.clip(np.rint(bare.transpose(1, 2, 0) * 255), 0, 255)
    inside = slice(2 * model.geometry.margin, -2 * model.geometry.margin)
    assert np.abs(framed.astype(int) - plain)[inside, inside].max() <= 1
    assert np.abs(framed.astype(int) - plain).max() > 1


def test_bytes_of_a_pipe_have_no_frame_either(srcli, tmp_path):
    """faults.md 31: the output has the size that was asked for, in every format."""
    Image.new("L", (5, 3), 99).save(tmp_path / "grey.png")
    for suffix in ("png", "tiff", "webp"):
        target = tmp_path / f"out.{suffix}"
        assert srcli("upscale", tmp_path / "grey.png", "-s", 3, "-o", target, "-q")[0] == 0
        with Image.open(io.BytesIO(target.read_bytes())) as picture:
            assert picture.size == (15, 9)
            assert np.abs(np.asarray(picture.convert("L")).astype(int) - 99).max() <= MOST
