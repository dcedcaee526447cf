"""The compiled network over rows, windows and the whole picture: equal to the bit."""

from __future__ import annotations

import importlib
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from srcli.backends.base import SessionOptions
from srcli.backends.native.compiled import COMPILED
from srcli.backends.native.session import NativeSession
from srcli.backends.native.weights import write_weights
from srcli.images import Picture
from srcli.loading.model import load
from srcli.pipeline.restorer import Restorer
from srcli.pipeline.rows import rows_of
from srcli.pipeline.streaming import Streaming

try:
    importlib.import_module(COMPILED)
except ImportError:
    pytestmark = pytest.mark.skip(reason="built without a compiler")

NETWORKS = [
    *(("lapar-c", scale, "upscale") for scale in (2, 3, 4)),
    *(("awsrn-sd", 2, "upscale"), ("awsrn-sd", 3, "upscale")),
    *(("lapar-a", 3, "upscale"), ("lapar-c", 1, "denoise")),
]
MIB = 1 << 20
HOW = [
    *({"memory": size * MIB} for size in (1, 3, 12)),
    *({"tile": side} for side in (1, 13, 32)),
    {"tile": 9, "memory": 2 * MIB},
]
# Without single pixels, each of which is computed with all that it depends on.
FASTER = [HOW[1], HOW[5]]
LEAST = {"memory": 4096 * MIB}


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda n: f"{n[0]}-x{n[1]}")
def network(request, tmp_path_factory):
    """A session, its geometry and its scale."""
    name, scale, task = request.param
    model = load(name, scale, task=task)
    published = model.published_network()
    weights = {key: value.numpy() for key, value in published.fuse().state_dict().items()}
    file = tmp_path_factory.mktemp("native") / "weights"
    write_weights(file, weights, published.scale, published.skips())
    with closing(NativeSession(file, SessionOptions(threads=2), model.geometry)) as session:
        yield session, model.geometry, scale


def restorer(network, **options):
    session, geometry, scale = network
    return Restorer(session=session, geometry=geometry, scale=scale, **options)


def picture(height, width, channels=3, bits=8, alpha=None):
    """Noise; `alpha` is None, "varied", "flat" or "half"."""
    noise = np.random.default_rng((height, width))
    kind, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    color = noise.integers(0, top, (height, width, channels), kind, endpoint=True)
    if alpha is None:
        return Picture(color=color)
    mask = noise.integers(0, top, (height, width), kind, endpoint=True)
    if alpha == "flat":
        mask[:] = top
    if alpha == "half":
        mask[: height // 2] = 0
    return Picture(color=color, alpha=mask)


def same(first, second):
    assert np.array_equal(first.color, second.color)
    assert (first.alpha is None) == (second.alpha is None)
    if first.alpha is not None:
        assert np.array_equal(first.alpha, second.alpha)


def in_strips(restorer, given):
    parts = restorer.restore_strips(
        rows_of(given), given.height, given.width, has_alpha=given.alpha is not None
    )
    colors, alphas = zip(*parts, strict=True)
    alpha = np.concatenate(alphas) if given.alpha is not None else None
    return Picture(color=np.concatenate(colors), alpha=alpha)


PICTURES = [
    *((1, 1), (3, 2), (97, 61), (50, 130)),
    *((33, 64, 1), (64, 33, 3, 16), (41, 90, 3, 8, "varied"), (57, 38, 1, 16, "half")),
    (29, 31, 3, 8, "flat"),
]


@pytest.mark.parametrize("shape", PICTURES, ids=lambda shape: "-".join(map(str, shape)))
def test_bytes_depend_on_neither_tiles_nor_memory(network, shape):
    """faults.md 41: rectangles began elsewhere, and pixels differed by one level.

    faults.md 34: whole, in windows and row by row, each has the right shape.
    """
    given = picture(*shape)
    whole = restorer(network, **LEAST)(given)
    assert whole.color.shape[:2] == (given.height * network[2], given.width * network[2])
    for options in HOW if given.height * given.width < 2150 else FASTER:
        same(restorer(network, **options)(given), whole)
    same(in_strips(restorer(network, **HOW[0]), given), whole)


def test_windows_are_really_used(network, monkeypatch):
    """faults.md 37 and 41: a wide picture in little memory goes in windows, to the same digits."""
    session, _, scale = network
    minimum = 4 * session.exact_margin + session.period
    # Several windows in both directions take a while: of one network.
    height = minimum + 16 if (scale, session.period) == (2, 4) else 20
    given = picture(height, minimum + 150, 3, 8, "varied" if height == 20 else None)
    whole = restorer(network, **LEAST)(given)
    used = []
    original = Streaming._window_rows
    monkeypatch.setattr(
        Streaming, "_window_rows", lambda self, *rest: used.append(1) or original(self, *rest)
    )
    same(restorer(network, memory=1 * MIB)(given), whole)
    assert len(used) > 1


def test_a_group_equals_its_pictures(network):
    """faults.md 41: pictures that go through the network together are what each is alone."""
    group = [picture(40, 52), Picture(color=picture(40, 52).color[::-1].copy())]
    together = restorer(network, memory=2 * MIB).restore_all(group)
    for given, restored in zip(group, together, strict=True):
        same(restored, restorer(network, **LEAST)(given))


def test_concurrency_does_not_matter(network):
    """faults.md 41: concurrent calls share the memory, so each has less."""
    given = picture(50, 60)
    whole = restorer(network, **LEAST)(given)
    same(restorer(network, memory=8 * MIB, concurrency=4)(given), whole)


@pytest.mark.parametrize(
    ("command", "model", "scale"),
    [("upscale", "lapar-c", 2), ("upscale", "awsrn-sd", 3), ("denoise", "lapar-c", None)],
)
def test_so_do_the_files(srcli, tmp_path, command, model, scale):
    """faults.md 41: `--memory` and `--tile` at seven values, from the shell; read with Pillow."""
    noise = np.random.default_rng(3).integers(0, 255, (41, 67, 4), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    seen = set()
    memory = ("1M", "3M", "17M", "64M", "130M", "700M", "2G")
    tiles = ("auto", 1, 16, 31, 64, 100, 500)
    for index, (size, tile) in enumerate(zip(memory, tiles, strict=True)):
        for name, option in (("memory", size), ("tile", tile)):
            target = tmp_path / f"{name}{index}.png"
            factor = ("-s", scale) if scale else ()
            code, _, err = srcli(
                *(command, tmp_path / "in.png", "-m", model, *factor, "-q", "-o", target),
                *("--backend", "native", "--threads", 2, f"--{name}", option),
            )
            assert code == 0, err
            seen.add(target.read_bytes())
    assert len(seen) == 1
    with Image.open(target) as result:
        assert (result.mode, result.size) == ("RGBA", (67 * (scale or 1), 41 * (scale or 1)))
