"""ASDN at any scale and FSDN: against the published network, against themselves, and in tiles."""

from __future__ import annotations

import importlib
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from support.reference import fill

import srcli
from srcli.backends.base import Session, SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import UnsupportedScaleError
from srcli.images import Picture
from srcli.jobs.sizes import SizeRequest
from srcli.loading.model import load
from srcli.models import asdn
from srcli.models.asdn import BASE, Shape, grid, kernel_side, steps
from srcli.models.asdn.fixed import Fsdn
from srcli.models.asdn.network import Asdn
from srcli.models.registry import check_scale, get_model
from srcli.models.spec import whole
from srcli.pipeline.restorer import Restorer
from srcli.pipeline.tiling import spans

TINY = Shape(blocks=2, channels=16, layers=2)
SCALES = ["1", "1.05", "1.1", "1.27", "1.5", "2", "2.7", "3", "3.7", "5", "8"]


def scale_of(text):
    return whole(Fraction(text))


def build(scale, shape=TINY, kind=Asdn):
    torch.manual_seed(0)
    return kind(shape, scale_of(scale)).eval().requires_grad_(False)


def without_attention(network):
    """Channel attention that does not depend on the picture: all else is local."""
    for block in network.feature_mapping_branch.dabs:
        block.base[1].attention[3].weight.zero_()
    return network


def fitting(scale, shape=TINY):
    """Height and width that this scale makes whole pixels of."""
    multiple = asdn._geometry(shape, scale_of(scale)).multiple_of
    return multiple * -(-7 // multiple), multiple * -(-12 // multiple)


class Direct(Session):
    """A session that runs a network as it is."""

    def __init__(self, network):
        self.network, self.windows = network, []

    def __call__(self, batch):
        self.windows.append(batch.shape[2:])
        return self.network(torch.from_numpy(batch)).numpy()

    def close(self):
        pass


def restorer(scale, tile=None, network=None):
    scale = scale_of(scale)
    session = Direct((network or without_attention(build(scale))).fuse())
    geometry = asdn._geometry(TINY, scale)
    return Restorer(session=session, geometry=geometry, scale=whole(grid(scale)), tile=tile)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("asdn") / "base.pth"
    torch.save(get_model("asdn-base").build(2).state_dict(), file)
    return file


@pytest.mark.parametrize("scale", ["2", "1.27", "3.0", "3.7"])
def test_matches_the_published_network(scale, shared):
    network = build(scale, BASE)
    fill(network)
    with np.load(shared / "reference" / "golden" / "asdn-base.npz") as golden:
        x = torch.from_numpy(golden["input"])
        expected = torch.from_numpy(golden["output" if scale == "2" else f"output_x{scale}"])
    limit = 1e-5 * expected.abs().max()
    assert (network(x) - expected).abs().max() < limit
    assert (network.fuse()(x) - expected).abs().max() < limit


@pytest.mark.parametrize("name", ["asdn-base", "asdn-paper"])
def test_has_the_published_tensors(name, shared):
    manifest = json.loads((shared / "reference" / "manifest.json").read_text())[name]
    network = get_model(name).build(2)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == manifest["tensors"]
    assert get_model(name).parameters(2) == manifest["parameters"]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("1", [(0, 0)]),
        ("1.1", [(1, 0)]),
        ("1.27", [(3, "0.3")]),
        ("2", [(10, 0)]),
        ("2.7", [(10, 0), (4, "0.5")]),
        ("3", [(10, 0), (5, 0)]),
        ("3.7", [(10, 0), (9, "0.5")]),
        ("8", [(10, 0)] * 3),
        ("17", [(10, 0)] * 4 + [(1, "0.375")]),
    ],
)
def test_passes_of_a_scale(scale, expected):
    passes = [(step.level, step.weight) for step in steps(Fraction(scale))]
    assert passes == [(level, Fraction(weight)) for level, weight in expected]


def test_the_grid_is_the_next_level():
    for wanted in (Fraction(n, 37) for n in range(37, 37 * 20)):
        assert wanted <= grid(wanted) <= wanted * Fraction(11, 10)
        assert grid(grid(wanted)) == grid(wanted)


@pytest.mark.parametrize("scale", SCALES)
def test_fused_is_the_published_network(scale):
    network = build(scale)
    x = torch.rand(2, 3, *fitting(scale))
    expected = network(x)
    assert expected.shape[2:] == tuple(side * grid(scale_of(scale)) for side in x.shape[2:])
    assert (network.fuse()(x) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("scale", "passes"), [("2", 1), ("1.3", 1), ("1.27", 2), ("3.7", 3)])
def test_computes_each_level_once(scale, passes):
    fused, calls = build(scale).fuse(), []
    fused.features.register_forward_hook(lambda *_: calls.append(1))
    fused(torch.rand(1, 3, *fitting(scale)))
    assert len(calls) == passes


@pytest.mark.parametrize("scale", ["2", "1.27", "3", "3.7", "8"])
def test_counts_multiply_adds_of_the_fused_network(scale):
    """The formula against the convolutions that really run; attention weighs nothing."""
    network, counted = build(scale).fuse(), 0

    def count(module, inputs, output):
        nonlocal counted
        if isinstance(module, torch.nn.Conv2d):
            counted += output[0, 0].numel() * module.weight.numel()
        elif hasattr(module, "phases"):
            taps = module.phases[0].numel()
            counted += output[0].numel() * taps

    for module in network.modules():
        module.register_forward_hook(count)
    output = network(torch.rand(1, 3, *fitting(scale)))
    per_pixel = counted / output[0, 0].numel()
    formula = asdn._multiply_adds(TINY, scale_of(scale)).fused_form
    assert formula == pytest.approx(per_pixel, rel=5e-3)


@pytest.mark.parametrize("scale", ["1.27", "2", "2.7", "3", "4"])
def test_margin_is_the_receptive_field_apart_from_attention(scale):
    margin = asdn._geometry(TINY, scale_of(scale)).margin
    multiple = asdn._geometry(TINY, scale_of(scale)).multiple_of
    network = without_attention(build(scale)).double().fuse().double()
    width = -(-(2 * margin + 3) // multiple) * multiple
    x = torch.rand(1, 3, multiple * -(-2 // multiple), width, dtype=torch.float64)
    changed = x.clone()
    changed[..., 0] += 1.0
    differs = (network(changed) - network(x)).abs().amax(dim=(0, 1, 2)) > 0
    first_safe = float((margin + 1) * grid(scale_of(scale)))
    assert not differs[int(first_safe + 1) :].any()
    assert differs[: int(first_safe) // 3].all()


@pytest.mark.parametrize("scale", ["1.1", "1.27", "2", "2.5", "3", "3.7"])
def test_tiles_keep_the_phase(scale):
    """Without attention tiles are exact, so the grid of a fraction fits together."""
    batch = np.random.default_rng(1).random((1, 3, 43, 67), np.float32)
    whole_picture = restorer(scale).restore(batch)
    tiled = restorer(scale, tile=8)
    assert np.abs(tiled.restore(batch) - whole_picture).max() < 1e-5
    multiple = tiled.geometry.multiple_of
    assert len(tiled.session.windows) > 1
    assert all(side % multiple == 0 for window in tiled.session.windows for side in window)


def test_attention_makes_tiles_approximate():
    assert asdn._geometry(TINY, 2).tiling == "approximate"
    batch = np.random.default_rng(1).random((1, 3, 43, 67), np.float32)
    whole_picture = restorer("2", network=build("2")).restore(batch)
    tiled = restorer("2", tile=8, network=build("2")).restore(batch)
    assert 1e-6 < np.abs(tiled - whole_picture).max() < 0.1


@pytest.mark.parametrize("scale", ["1.1", "1.27", "2", "2.5", "3", "3.7", "8"])
@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_sizes_are_exact(scale, mode):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (13, 29, len(mode)), np.uint8)
    has_alpha = mode == "LA"
    picture = Picture(
        color=pixels[..., :-1] if has_alpha else pixels,
        alpha=pixels[..., -1] if has_alpha else None,
    )
    size = SizeRequest(scale=Fraction(scale)).resolve(29, 13, (2, 32), grid)
    assert size.network_scale == scale_of(scale)
    assert (size.width, size.height) == (round(29 * Fraction(scale)), round(13 * Fraction(scale)))
    results = [restorer(scale, tile)(picture, size=(size.height, size.width)) for tile in (None, 4)]
    for result in results:
        assert result.color.shape[:2] == (size.height, size.width)
        assert (result.alpha is None) != has_alpha
    # A strip for each few rows, or all at once: the same picture.
    assert np.abs(results[0].color.astype(int) - results[1].color).max() <= 1
    if has_alpha:
        assert np.abs(results[0].alpha.astype(int) - results[1].alpha).max() <= 1


def test_a_wanted_size_takes_the_grid():
    size = SizeRequest(width=70).resolve(30, 20, (2, 32), grid)
    assert (size.network_scale, size.width, size.height) == (Fraction(12, 5), 70, 47)
    assert SizeRequest(width=60).resolve(30, 20, (2, 32), grid).network_scale == 2
    assert SizeRequest(width=15).resolve(30, 20, (2, 32), grid).network_scale == 2
    assert SizeRequest(width=3000).resolve(30, 20, (2, 32), grid).passes == (32, Fraction(16, 5))


def test_command_runs_the_network_at_the_scale_itself(srcli, tmp_path, checkpoint):
    pixels = np.random.default_rng(5).integers(0, 256, (20, 10, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    code, out, err = srcli(
        "upscale", tmp_path / "a.png", "-s", "2.6", "-m", "asdn-base", "--weights", checkpoint,
        "--backend", "torch", "-o", tmp_path / "b.png",
    )  # fmt: skip
    assert code == 0, err
    assert "10x20 -> 26x52" in out
    model = load("asdn-base", Fraction("2.6"), weights=checkpoint)
    # A frame of mirrored pixels as wide as whole output pixels want it.
    multiple = model.geometry.multiple_of
    frame = -(-model.geometry.frame // multiple) * multiple
    around = np.pad(pixels, ((frame, frame), (frame, frame), (0, 0)), mode="symmetric")
    x = torch.from_numpy(around.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    edge = round(frame * 2.6)
    large = model.published_network()(x)[0].numpy().transpose(1, 2, 0).clip(0, 1) * 255
    expected = large[edge:-edge, edge:-edge]
    with Image.open(tmp_path / "b.png") as picture:
        assert np.abs(np.asarray(picture) - expected).max() <= 0.51


def test_plan_says_what_will_be_done(srcli, tmp_path):
    Image.new("RGB", (31, 17)).save(tmp_path / "a.png")
    code, out, _ = srcli("upscale", tmp_path / "a.png", "-s", "2.7", "-m", "asdn-base",
                         "--dry-run", "--json")  # fmt: skip
    entry = json.loads(out)["files"][0]
    assert (code, entry["scale"], entry["output_size"]) == (0, 2.7, [84, 46])


def test_library_takes_fractions(checkpoint):
    pixels = np.zeros((9, 14, 3), np.uint8)
    with srcli.load("asdn-base", Fraction("1.7"), weights=checkpoint, backend="torch") as network:
        assert network.scale == Fraction("1.7")
        assert network(pixels).shape == (15, 24, 3)


@pytest.mark.parametrize(("name", "scale"), [("asdn-base", "33"), ("lapar-c", "2.5")])
def test_other_scales_are_refused(name, scale):
    with pytest.raises(UnsupportedScaleError, match="scale"):
        check_scale(get_model(name), scale_of(scale))


@pytest.mark.parametrize("scale", ["1.27", "2.7"])
def test_fractions_are_exported_too(scale, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("srcli.export.verify"), "AFFORDABLE", 1e9)
    model = load("asdn-base", Fraction(scale), weights=checkpoint)
    importlib.import_module("srcli.export.to_onnx").export_verified(model, tmp_path / "net.onnx")
    session = OnnxRuntimeSession(tmp_path / "net.onnx", SessionOptions())
    side = model.geometry.multiple_of
    batch = np.random.default_rng(0).random((2, 3, side, 2 * side), np.float32)
    expected = model.published_network()(torch.from_numpy(batch)).numpy()
    assert np.abs(session(batch) - expected).max() < model.spec.tolerance


@pytest.mark.parametrize("length", [1, 7, 30, 31, 97])
@pytest.mark.parametrize("multiple", [1, 5, 10])
def test_tiles_begin_at_multiples(length, multiple):
    cut = spans(length, window=27, margin=6, multiple=multiple)
    assert [span.first for span in cut] == [0, *(span.last for span in cut[:-1])]
    assert cut[-1].last == length
    for span in cut:
        assert span.start % multiple == span.first % multiple == 0
        assert span.first - span.start >= (6 if span.start else 0)
        assert span.stop - span.last >= (6 if span.stop < length else 0)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_fsdn_is_one_small_convolution_at_the_end(scale):
    network = build(scale, kind=Fsdn)
    x = torch.rand(2, 3, 7, 12)
    expected = network(x)
    assert expected.shape == (2, 3, 7 * scale, 12 * scale)
    fused = network.fuse()
    assert (fused(x) - expected).abs().max() < 1e-5
    assert fused.planes.weight.shape == (3 * scale**2, TINY.features, 3, 3)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_fsdn_kernel_keeps_the_size(scale):
    assert (kernel_side(scale) - scale) % 2 == 0


@pytest.mark.parametrize("scale", [2, 3])
def test_fsdn_margin_is_the_receptive_field_apart_from_attention(scale):
    margin = asdn._geometry_fixed(TINY, scale).margin
    network = without_attention(build(scale, kind=Fsdn)).double().fuse().double()
    x = torch.rand(1, 3, 2, 2 * margin + 3, dtype=torch.float64)
    changed = x.clone()
    changed[..., 0] += 1.0
    differs = (network(changed) - network(x)).abs().amax(dim=(0, 1, 2)) > 0
    assert not differs[(margin + 1) * scale :].any()
    assert differs[: margin * scale // 2].all()
