"""Any factor: passes of a network, then one resampling, in memory and in strips alike."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from srcli.backends.base import SessionOptions
from srcli.backends.eager import TorchSession
from srcli.errors import UsageError
from srcli.images import Picture, from_float, to_float
from srcli.jobs.sizes import SizeRequest, passes_for
from srcli.loading.model import load
from srcli.pipeline.passes import Passes
from srcli.pipeline.resample import resize
from srcli.pipeline.restorer import Restorer
from srcli.pipeline.rows import rows_of


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        *(("0.5", (2,)), ("1", (2,)), ("2", (2,)), ("2.5", (3,)), ("4", (4,))),
        *(("4.5", (3, 2)), ("5", (3, 2)), ("6", (3, 2)), ("7", (4, 2)), ("8", (4, 2))),
        *(("9", (3, 3)), ("12", (4, 3)), ("16", (4, 4)), ("16.5", (3, 3, 2)), ("64", (4, 4, 4))),
    ],
)
def test_as_few_passes_as_reach_a_factor(factor, expected):
    """faults.md 24: `-s 8` was refused. Of equally few, those that exceed it least."""
    assert passes_for(Fraction(factor), (2, 3, 4)) == expected


@pytest.mark.parametrize("scale", [0, -1])
def test_factors_that_are_none(scale):
    """faults.md 24."""
    with pytest.raises(UsageError):
        SizeRequest(scale=Fraction(scale))


@pytest.mark.parametrize(
    ("factor", "size", "note"),
    [
        ("6", (84, 60), "enlarged by 3, then by 2"),
        ("8", (112, 80), "enlarged by 4, then by 2"),
        ("2.5", (35, 25), "enlarged by 3, then resampled to 35 x 25"),
        ("5", (70, 50), "enlarged by 3, then by 2, then resampled to 70 x 50"),
        ("0.5", (7, 5), "enlarged by 2, then resampled to 7 x 5"),
        ("2", (28, 20), None),
    ],
)
def test_any_factor(srcli, tmp_path, photograph, factor, size, note):
    """faults.md 24: it is done, and said; the same in strips. Read with Pillow."""
    Image.fromarray(photograph[:10, :14]).save(tmp_path / "in.png")
    shown = []
    for memory in ("1G", "1M"):
        target = tmp_path / f"{memory}.png"
        code, _, err = srcli(
            *("upscale", tmp_path / "in.png", "-s", factor, "-o", target, "--memory", memory),
            *("--threads", 1),
        )
        assert code == 0, err
        assert (note or "enlarged") in err or note is None
        assert note is not None or "enlarged by" not in err
        with Image.open(target) as picture:
            assert picture.size == size
            shown.append(np.asarray(picture))
    assert np.array_equal(*shown)


@pytest.fixture(scope="module")
def restorers():
    sessions = {s: TorchSession(load("lapar-c", s).network(), SessionOptions()) for s in (2, 3)}
    made = {}
    for scale, session in sessions.items():
        geometry = load("lapar-c", scale).geometry
        made[scale] = Restorer(session=session, geometry=geometry, scale=scale)
    yield made
    for session in sessions.values():
        session.close()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [None, (31, 47)])
def test_strips_equal_the_whole(restorers, photograph, alpha, size):
    """faults.md 24."""
    color = photograph[:20, :17]
    mask = photograph[20:40, :17, 0] if alpha else None
    given = Picture(color=color, alpha=mask)
    passes = Passes([restorers[3], restorers[2]])
    (whole,) = passes.restore_all([given], size=size)
    parts = list(passes.restore_strips(rows_of(given), 20, 17, has_alpha=alpha, bits=8, size=size))
    assert np.array_equal(np.concatenate([part for part, _ in parts]), whole.color)
    assert whole.color.shape == (*(size or (120, 102)), 3)
    assert whole.color.dtype == np.uint8
    if alpha:
        assert np.array_equal(np.concatenate([part for _, part in parts]), whole.alpha)


def test_between_passes_nothing_is_rounded_to_eight_bits(restorers, photograph):
    """faults.md 24: sixteen bits lie between, and the last pass is resampled once."""
    given = Picture(color=photograph[:12, :16])
    (found,) = Passes([restorers[3], restorers[2]]).restore_all([given], size=(60, 80))
    fine = Picture(color=from_float(to_float(given.color), 16))
    twice = restorers[2](restorers[3](fine)).color
    expected = from_float(np.clip(resize(to_float(twice), 60, 80), 0, 1), 8)
    assert np.abs(found.color.astype(int) - expected).max() <= 1


def test_progress_of_passes_rises_to_the_end(restorers, photograph):
    """faults.md 27: the bar neither jumps back nor stays short of the end."""
    told = []
    passes = Passes([restorers[2], restorers[3]])
    passes.restore_all(
        [Picture(color=photograph[:9, :9])], lambda done, total: told.append(done / total)
    )
    assert told == sorted(told)
    assert told[-1] == 1
