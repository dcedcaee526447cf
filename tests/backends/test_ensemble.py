"""The mean over eight flips and turns."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from srcli.backends.base import BlindSession, Session
from srcli.backends.ensemble import SelfEnsemble
from srcli.errors import UsageError

RNG = np.random.default_rng(4)


class Lopsided(Session):
    """Enlarges by 2, and adds what depends on where a pixel lies."""

    memory_share = 0.5
    min_shape, max_shape = (1, 3, 8, 16), (2, 3, 64, 48)
    closed = False

    @property
    def facts(self):
        return {"device": "cpu"}

    def __call__(self, batch):
        self.shape = batch.shape
        large = batch.repeat(2, 2).repeat(2, 3)
        return large + np.linspace(0, 1, large.shape[3], dtype=np.float32)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (2, 3, 4, 9)])
def test_turning_the_input_turns_the_output(shape):
    ensemble = SelfEnsemble(Lopsided())
    batch = RNG.random(shape, np.float32)
    result = ensemble(batch)
    assert result.shape == (*shape[:2], 2 * shape[2], 2 * shape[3])
    for turns in range(4):
        turned = ensemble(np.ascontiguousarray(np.rot90(batch, turns, (2, 3))))
        np.testing.assert_allclose(turned, np.rot90(result, turns, (2, 3)), atol=1e-6)
    np.testing.assert_allclose(ensemble(batch[..., ::-1]), result[..., ::-1], atol=1e-6)


def test_what_is_added_everywhere_alike_stays():
    class Brighter(Lopsided):
        def __call__(self, batch):
            return batch + np.float32(0.25)

    batch = RNG.random((1, 3, 6, 7), np.float32)
    np.testing.assert_allclose(SelfEnsemble(Brighter())(batch), batch + 0.25, atol=1e-6)


def test_limits_hold_for_turned_pictures():
    inner = Lopsided()
    ensemble = SelfEnsemble(inner)
    assert ensemble.min_shape == (1, 3, 16, 16)
    assert ensemble.max_shape == (2, 3, 48, 48)
    assert ensemble.memory_share == 0.5
    assert ensemble.facts == {"device": "cpu", "tta": True}
    ensemble.close()
    assert inner.closed


def test_a_fixed_size_that_cannot_be_turned_is_refused():
    fixed = Lopsided()
    fixed.min_shape = fixed.max_shape = (1, 3, 16, 24)
    with pytest.raises(UsageError, match=r"24 x 16 pixels.*Leave out --tta"):
        SelfEnsemble(fixed)


class Blind(BlindSession):
    is_blind = True


def test_blind_networks_are_refused():
    with pytest.raises(UsageError, match="Leave out --tta"):
        SelfEnsemble(Blind())


def test_the_command(srcli, photograph, tmp_path):
    """Nearer to the original than one pass, through tiles as well."""
    from srcli.pipeline.resample import reduce
    from srcli.quality.metrics import psnr

    original = photograph[:96, :120]
    Image.fromarray(reduce(original, 4)).save(tmp_path / "in.png")
    scores = {}
    for name, more in {"once": (), "eight": ("--tta",), "tiles": ("--tta", "--tile", 16)}.items():
        code, _, err = srcli(
            "upscale", tmp_path / "in.png", "-s", 4, "-o", tmp_path / f"{name}.png", *more
        )
        assert code == 0, err
        scores[name] = psnr(np.asarray(Image.open(tmp_path / f"{name}.png")), original)
    assert scores["eight"] > scores["once"]
    assert scores["tiles"] == pytest.approx(scores["eight"], abs=0.01)
