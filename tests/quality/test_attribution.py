"""Local attribution maps: the path, the score, the sum of it all, and the picture of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.random_weights import untrained_model

from srcli.commands.attribute import OUTLINE, PANEL, SIGMA, STEPS
from srcli.commands.drawing import GAP, LINE
from srcli.errors import MemoryExhaustedError, SrcliError, UsageError
from srcli.loading.model import load
from srcli.models.registry import MODELS, get_model
from srcli.models.spec import Geometry
from srcli.quality import attribution
from srcli.quality.attribution import (
    Window,
    attribute,
    blur_path,
    contribution_area,
    diffusion_index,
    edges,
    integrated_gradients,
    seen_by,
)

# One of each architecture: the others differ in widths only.
FAMILIES = [
    ("lapar-b", 3),
    ("awsrn-sd", 2),
    ("asdn-base", 2),
    ("fsdn-base", 2),
    ("hpinet-s", 3),
    ("dcls-iso", 2),
]
OPTIONS = {"sigma": SIGMA, "memory": 4 << 30}


@pytest.fixture(scope="module")
def picture(photograph):
    """Hair and skin: 70 x 64 x 3 in [0, 1]."""
    return np.float32(photograph[30:100, 40:104]) / 255


def looking_everywhere(model):
    """The same model, not trusted to have a receptive field: nothing is cut."""
    geometry = replace(model.geometry, tiling="approximate")
    return replace(model, spec=replace(model.spec, geometry=lambda scale: geometry))


class InDouble(torch.nn.Module):
    """The same network without its rounding, which depends on the size of what it is given."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, x):
        return self.network(x.double()).float()


def test_all_families_are_here():
    def family(name):
        return type(get_model(name).build(2)).__name__

    assert {family(spec.name) for spec in MODELS} == {family(name) for name, _ in FAMILIES}


# The pieces.


@pytest.mark.parametrize(("sigma", "steps"), [(1.2, 5), (8.0, 3), (0.1, 1)])
def test_the_path_leads_from_blurred_to_sharp(picture, sigma, steps):
    sharp = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    path = list(blur_path(sharp, sigma, steps))
    assert len(path) == steps + 1
    assert torch.equal(path[-1], sharp)
    contrast = [float(point.var()) for point in path]
    assert contrast == sorted(contrast)
    assert all(point.shape == sharp.shape for point in path)
    flat = torch.full((3, 9, 7), 0.3)
    assert all(torch.allclose(point, flat) for point in blur_path(flat, sigma, steps))


def test_the_blur_is_gaussian():
    impulse = torch.zeros(1, 31, 31)
    impulse[0, 15, 15] = 1
    blurred = next(blur_path(impulse, 2.0, 4))[0].double()
    place = torch.arange(31) - 15
    assert math.isclose(blurred.sum(), 1, rel_tol=1e-5)
    assert math.isclose((blurred.sum(0) * place**2).sum(), 4, rel_tol=0.01)
    assert math.isclose((blurred.sum(1) * place**2).sum(), 4, rel_tol=0.01)


@pytest.mark.parametrize(("down", "across"), [(0, 0.5), (0.25, 0), (0.3, 0.4), (-0.3, 0.4)])
def test_edges_are_slopes(down, across):
    """A ramp has the same gradient everywhere within; all three colours count."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    ramp = (down * rows + across * columns).expand(1, 3, 12, 10)
    expected = 3 * 16 * math.hypot(down, across)
    assert math.isclose(edges(ramp, Window(x=3, y=4, size=4)), expected, abs_tol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (6, 8), (6, 0)])
def test_edges_stop_where_the_picture_does(place):
    output = torch.rand(1, 3, 12, 10)
    wide = torch.nn.functional.pad(output, [4] * 4, mode="replicate")
    x, y = place
    at_border = edges(output, Window(x=x, y=y, size=4))
    assert torch.allclose(at_border, edges(wide, Window(x=x + 4, y=y + 4, size=4)))


def test_what_is_flat_has_a_gradient():
    output = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(edges(output, Window(x=2, y=2, size=4)), output)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_gradients_are_integrated():
    """Exactly where the score is quadratic, whatever the path."""
    torch.manual_seed(0)
    path = [torch.rand(3, 4, 5) for _ in range(4)]
    found, change = integrated_gradients(lambda x: (x**2).sum(), iter(path), 3)
    assert torch.allclose(found, (path[-1] ** 2 - path[0] ** 2).double(), atol=1e-6)
    assert math.isclose(found.sum(), change, rel_tol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 50, 100])
def test_the_diffusion_index_of_so_many_equal_pixels(count):
    contributions = np.zeros(100)
    contributions[:count] = -2.5
    contributions = np.random.default_rng(0).permutation(contributions).reshape(4, 25)
    assert math.isclose(diffusion_index(contributions), count)


def test_the_diffusion_index_is_by_definition():
    """Gini's: the mean difference of all pairs over twice the mean."""
    values = np.random.default_rng(1).normal(size=(7, 9))
    flat = np.abs(values).ravel()
    pairs = np.abs(flat[:, None] - flat[None, :]).mean()
    assert math.isclose(diffusion_index(values), 100 * (1 - pairs / (2 * flat.mean())))
    assert diffusion_index(np.zeros((3, 3))) == 0


def test_the_contribution_area_is_the_smallest():
    contributions = np.array([[4.0, -3.0, 2.0], [0.5, 0.5, 0.0]])
    for share, count in [(0.3, 1), (0.7, 2), (0.9, 3), (0.95, 4), (1.0, 5)]:
        area = contribution_area(contributions, share)
        assert area.sum() == count
        assert np.abs(contributions)[area].min() >= np.abs(contributions)[~area].max()
    assert not contribution_area(np.zeros((2, 2))).any()


@pytest.mark.parametrize("x", range(0, 33, 3))
def test_the_part_that_is_seen_holds_what_the_window_needs(x):
    geometry = get_model("awsrn-s").geometry(3)
    box = seen_by(Window(x=x, y=70, size=5), geometry, 3, 60, 200)
    needed = [column // 3 for column in range(max(0, x - 1), x + 6)]
    assert box.left == max(0, min(needed) - geometry.margin)
    assert box.right == max(needed) + geometry.margin + 1
    assert 0 <= box.top < box.bottom <= 60


# The whole.


@pytest.mark.parametrize("place", [(100, 120, 8), (0, 0, 4), (250, 276, 4)])
def test_nothing_beyond_the_receptive_field_contributes(picture, place, monkeypatch):
    model = load("lapar-c", 4)
    fused = type(model).network
    monkeypatch.setattr(type(model), "network", lambda self: InDouble(fused(self)))
    x, y, size = place
    window = Window(x=x, y=y, size=size)
    whole = attribute(looking_everywhere(model), picture, window, steps=1, **OPTIONS)
    box = seen_by(window, model.geometry, 4, *picture.shape[:2])
    outside = np.ones(picture.shape[:2], bool)
    outside[box.slices] = False
    assert outside.any()
    assert not whole.map[outside].any()
    rows, columns = np.nonzero(whole.map)  # and the receptive field is not larger than it is
    assert rows.min() - box.top <= 1
    assert box.bottom - 1 - rows.max() <= 1
    assert columns.min() - box.left <= 1
    assert box.right - 1 - columns.max() <= 1
    cut = attribute(model, picture, window, steps=1, **OPTIONS)
    assert np.allclose(cut.map, whole.map, atol=1e-6 * np.abs(whole.map).max() + 1e-7)
    assert math.isclose(cut.change, whole.change, abs_tol=1e-4)


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_what_is_cut_is_blurred_with_what_is_around_it(picture, sigma):
    """A network that sees nothing but the pixel itself: every pixel of the cut matters."""
    window = Window(x=40, y=50, size=10)
    maps = [
        attribute(
            SimpleNamespace(
                network=lambda: torch.nn.Upsample(scale_factor=2),
                geometry=Geometry(margin=0, tiling=tiling),
                scale=2,
                grid=2,
            ),
            picture,
            window,
            sigma=sigma,
            steps=4,
            memory=1 << 30,
        ).map
        for tiling in ("exact", "approximate")
    ]
    rows, columns = np.nonzero(maps[0])
    assert (rows.min(), rows.max()) == (24, 30)  # the window's edges need a pixel to each side
    assert (columns.min(), columns.max()) == (19, 25)
    assert np.allclose(*maps, atol=1e-6)


def test_contributions_sum_to_the_change(picture):
    """The property that integrated gradients are made for: to 0.5% with the default steps."""
    model, window = load("lapar-c", 4), Window(x=40, y=40, size=8)
    small = picture[20:44, 16:40]
    told: list[tuple[int, int]] = []
    lost = {}
    for steps in (5, STEPS):
        found = attribute(
            model, small, window, steps=steps, progress=lambda *s: told.append(s), **OPTIONS
        )
        lost[steps] = abs(found.map.sum() - found.change) / abs(found.change)
    assert abs(found.change) > 1
    assert lost[STEPS] < 0.005 < lost[5]
    assert told == [(done, steps) for steps in (5, STEPS) for done in range(1, steps + 1)]


@pytest.mark.parametrize(("name", "scale"), FAMILIES)
def test_every_family_has_a_map(picture, tmp_path, name, scale):
    model = untrained_model(name, scale, tmp_path, seed=2)
    small = picture[20:31, 20:33]  # smaller than HPINet takes: padded
    window = Window(x=12, y=10, size=4)
    found = attribute(model, small, window, steps=8, **OPTIONS)
    assert found.map.shape == (11, 13)
    assert np.isfinite(found.map).all()
    # HPINet's patches change their match on the way, all at once; no gradient tells of that.
    tolerance = 0.4 if name.startswith("hpinet") else 0.05
    assert math.isclose(found.map.sum(), found.change, rel_tol=tolerance)
    assert found.change > 0.01
    assert 0 < found.diffusion_index < 100


def test_what_looks_everywhere_gets_everything():
    for name, scale in FAMILIES:
        geometry = get_model(name).geometry(scale)
        box = seen_by(Window(x=400, y=400, size=4), geometry, scale, 500, 600)
        everything = (box.bottom - box.top, box.right - box.left) == (500, 600)
        assert everything == (geometry.tiling == "approximate")


def test_memory_is_bounded(picture):
    model, window = load("lapar-c", 4), Window(x=100, y=120, size=8)
    with pytest.raises(MemoryExhaustedError, match=r"8 MiB.*Crop the picture.*--memory"):
        attribute(model, picture, window, steps=1, sigma=SIGMA, memory=8 << 20)


def test_broken_weights_are_told(picture, monkeypatch):
    monkeypatch.setattr(attribution, "edges", lambda output, window: (output * math.inf).sum())
    with pytest.raises(SrcliError, match="not finite"):
        attribute(load("lapar-c", 4), picture, Window(x=9, y=9, size=4), steps=1, **OPTIONS)


@pytest.mark.parametrize("place", [(250, 0, 8), (0, 275, 8), (0, 0, 0), (0, 0, 300)])
def test_a_window_lies_within_the_output(picture, place):
    x, y, size = place
    with pytest.raises(UsageError, match="256 x 280"):
        attribute(load("lapar-c", 4), picture, Window(x=x, y=y, size=size), steps=1, **OPTIONS)


def test_a_resampled_output_has_no_map(picture, tmp_path):
    model = replace(untrained_model("asdn-base", 2, tmp_path, seed=2), scale=7)
    with pytest.raises(UsageError, match="2, 3, 4, 8"):
        attribute(model, picture, Window(x=0, y=0, size=4), steps=1, **OPTIONS)


# From the command line.


@pytest.fixture
def file(tmp_path, photograph):
    """A PNG of 20 x 16."""
    path = tmp_path / "in.png"
    Image.fromarray(photograph[60:76, 60:80]).save(path)
    return path


def test_a_map_is_drawn(srcli, file, tmp_path, photograph):
    target = tmp_path / "map.png"
    arguments = ("attribute", file, "--window", "40,20,8", "--steps", 2, "-o", target)
    code, out, _ = srcli(*arguments, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["model"], facts["scale"], facts["window"]) == ("lapar-c", 4, [40, 20, 8])
    assert 0 < facts["diffusion_index"] < 100
    assert 0 < facts["area"]["pixels"] < facts["area"]["of"] == 20 * 16
    left, top, right, bottom = facts["area"]["box"]
    assert 0 <= left <= 10 < right <= 20
    assert 0 <= top <= 5 < bottom <= 16
    with Image.open(target) as opened:
        drawn = np.asarray(opened.convert("RGB"))
    factor = -(-PANEL // 20)
    lefts = [GAP + index * (20 * factor + GAP) for index in range(3)]
    panels = [drawn[GAP + LINE :, left:][: 16 * factor, : 20 * factor] for left in lefts]
    for panel in panels:  # the window's outline, input pixels (10, 5) to (12, 7)
        for row in (5 * factor - 1, 7 * factor):
            assert tuple(panel[row, 10 * factor + 5]) == OUTLINE
        for column in (10 * factor - 1, 12 * factor):
            assert tuple(panel[5 * factor + 5, column]) == OUTLINE
    color = photograph[60:76, 60:80]
    # The contribution area has the picture's colours.
    shown = (panels[1][factor // 2 :: factor, factor // 2 :: factor] == color).all(axis=2)
    assert int(shown.sum()) == facts["area"]["pixels"]
    restored = tmp_path / "restored.png"
    assert srcli("upscale", file, "-o", restored, "--backend", "torch")[0] == 0
    with Image.open(restored) as opened:  # which has a frame around it, the panel has none
        expected = np.asarray(opened)[16:-16, 16:-16].astype(float)
    result = Image.fromarray(panels[2]).resize((80, 64), Image.Resampling.NEAREST)
    difference = np.abs(np.asarray(result)[16:-16, 16:-16] - expected)
    assert np.median(difference) <= 1
    assert srcli(*arguments)[0] == 2
    assert "--overwrite" in srcli(*arguments)[2]
    code, out, _ = srcli(*arguments, "--overwrite")
    assert code == 0
    assert out.startswith(f"{target}  diffusion index {facts['diffusion_index']:.2f}, 95% from")


def test_a_large_picture_is_shown_where_it_matters(srcli, tmp_path, photograph):
    file, target = tmp_path / "large.png", tmp_path / "map.png"
    Image.fromarray(np.tile(photograph, (3, 3, 1))).save(file)
    arguments = ("--window", "900,900,8", "--steps", 1, "-o", target)
    assert srcli("attribute", file, *arguments)[0] == 0
    with Image.open(target) as opened:
        assert opened.width < 3 * 2 * PANEL


def test_grey_and_transparent_pictures_have_maps(srcli, file, tmp_path):
    for mode in ("L", "RGBA"):
        with Image.open(file) as opened:
            opened.convert(mode).save(tmp_path / f"{mode}.png")
        target = tmp_path / f"{mode}-map.png"
        arguments = ("--window", "4,4,4", "--steps", 1, "-o", target)
        assert srcli("attribute", tmp_path / f"{mode}.png", *arguments)[0] == 0
        assert target.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--window", "70,60,20"), 2, "80 x 64"),
        (("--window", "1,2"), 2, "X,Y,SIZE"),
        (("--window", "1,-2,3"), 2, "X,Y,SIZE"),
        ((), 2, "--window"),
        (("--window", "0,0,8", "-m", "hpinet-l"), 3, "--weights"),
        (("--window", "0,0,8", "-m", "lapar-c", "-s", 5), 2, "Choose one of its scales"),
        (("--window", "0,0,8", "--memory", "1M"), 4, "--memory"),
        (("--window", "0,0,8", "-o", "map.jpg"), 2, ".png"),
    ],
)
def test_what_makes_no_sense_is_refused(srcli, file, monkeypatch, arguments, code, words):
    monkeypatch.chdir(file.parent)
    found, out, err = srcli("attribute", file, *arguments)
    assert found == code
    assert words in err
    assert out == ""
    assert [path.name for path in file.parent.iterdir()] == ["in.png"]
