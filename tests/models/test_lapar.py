"""LAPAR against the published networks, and its fused form against its published form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.reference import check_published_tensors, fill, golden

from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeBackend
from srcli.loading.model import load
from srcli.models.lapar.network import FusedLapar, Lapar, dictionary
from srcli.models.registry import MODELS, get_model

GOLDENS = [f"lapar-{size}-x{scale}" for size in "abc" for scale in (2, 3, 4)]
SHIPPED = (2, 3, 4)  # scales of LAPAR-C


def build(name: str) -> Lapar:
    model, _, scale = name.rpartition("-x")
    network = get_model(model).build(int(scale))
    assert isinstance(network, Lapar)
    return network.eval().requires_grad_(False)


def test_published_form_takes_batches_in_any_memory_format():
    network = get_model("lapar-c").build(2).eval()
    batch = torch.rand(2, 3, 9, 11)
    with torch.inference_mode():
        expected = torch.cat([network(picture[None]) for picture in batch])
        actual = network(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", GOLDENS)
def test_matches_the_published_network(name, shared):
    x, expected = golden(shared, name, "input", "output")
    network = build(name)
    fill(network)
    limit = 1e-4 * expected.abs().max()
    assert (network(x) - expected).abs().max() < limit
    assert (network.fuse()(x) - expected).abs().max() < limit


@pytest.mark.parametrize("name", GOLDENS)
def test_has_the_published_tensors(name, shared):
    check_published_tensors(shared, name, build(name))


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_facts_agree_with_the_network(spec):
    for scale in spec.scales:
        trained = [p for p in spec.build(scale).parameters() if p.requires_grad]
        assert spec.parameters(scale) == sum(p.numel() for p in trained)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("lapar-a", {2: 171, 3: 114, 4: 94}),
        ("lapar-b", {2: 85, 3: 61, 4: 53}),
        ("lapar-c", {2: 35, 3: 28, 4: 25}),
    ],
)
def test_counts_multiply_adds_as_the_paper_does(model, billions):
    for scale, expected in billions.items():
        counted = get_model(model).multiply_adds(scale).published_form * 1280 * 720 / 1e9
        assert counted == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_counts_multiply_adds_of_the_fused_network(scale):
    """The formula against the convolutions that really run."""
    network = build(f"lapar-c-x{scale}").fuse()
    side, counted = 24, 0.0

    def count(module, inputs, output):
        nonlocal counted
        counted += output[0, 0].numel() * module.weight.numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.rand(1, 3, side, side))
    filtering = 13 * 3 + 25 * 3  # no modules: applying the filters and enlarging
    per_pixel = counted / (side * scale) ** 2 + filtering
    assert get_model("lapar-c").multiply_adds(scale).fused_form == pytest.approx(per_pixel)


@pytest.mark.parametrize("scale", SHIPPED)
def test_fused_is_exact_on_photographs(scale, shared):
    model = load("lapar-c", scale)
    published, fused = model.published_network(), model.network()
    session = OnnxRuntimeBackend().open(model, SessionOptions())
    for file in sorted((shared / "data/eval/Set5" / f"LRx{scale}").iterdir()):
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32)[:96, -96:] / 255
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        with torch.inference_mode():
            expected = published(x)
            assert (fused(x) - expected).abs().max() < 1e-5
        assert np.abs(session(x.numpy()) - expected.numpy()).max() < 1e-5


def test_predicts_thirteen_taps_only():
    fused = load("lapar-c", 4).network()
    assert isinstance(fused, FusedLapar)
    assert fused.taps.out_channels == 13


def test_an_asymmetric_dictionary_needs_all_taps():
    network = build("lapar-c-x2")
    network.decom_conv.weight[0, 0, 0, 1] += 0.5
    fused = network.fuse()
    assert fused.taps.out_channels == 25
    x = torch.rand(1, 3, 12, 15)
    assert (fused(x) - network(x)).abs().max() < 1e-5


@pytest.mark.parametrize("factor", [0.0, 1e-5, -0.7])
def test_any_skip_factor_is_folded_or_kept(factor):
    """Dividing by a learned factor near zero would lose the picture."""
    network = build("lapar-c-x2")
    block = network.w_conv.blocks()[0]
    block.units()[1].x_scale.scale.fill_(factor)
    block.x_scale.scale.fill_(factor)
    x = torch.rand(1, 3, 14, 11)
    assert (network.fuse()(x) - network(x)).abs().max() < 1e-5


def test_fuses_without_an_upsampling_stage():
    network = build("lapar-c-x1")
    x = torch.rand(2, 3, 17, 13)
    assert network(x).shape == x.shape
    assert (network.fuse()(x) - network(x)).abs().max() < 1e-5


def test_dictionary_is_the_papers():
    atoms = dictionary().double().flatten(1)
    assert atoms.shape == (72, 25)
    assert torch.allclose(atoms.sum(1), torch.ones(72).double(), atol=1e-6)
    assert torch.equal(atoms, atoms.flip(1))
    assert torch.linalg.matrix_rank(atoms, rtol=1e-7) == 13


@pytest.mark.parametrize("size", "abc")
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_margin_is_the_receptive_field(size, scale):
    """A change one pixel beyond the margin changes nothing; within it, something can change."""
    spec = get_model(f"lapar-{size}")
    margin = spec.geometry(scale).margin
    torch.manual_seed(0)
    network = spec.build(scale).eval().requires_grad_(False).fuse()
    # One row is enough: the reach is the same along both axes.
    x = torch.rand(1, 3, 3, 2 * margin + 3)
    base = network(x)
    changed = x.clone()
    changed[..., 0] += 1.0
    differs = (network(changed) - base).abs().amax(dim=(0, 1, 2)) > 0
    first_safe = (margin + 1) * scale
    assert not differs[first_safe:].any()
    # Untrained weights do not carry the change all the way, but it gets far.
    assert differs[: first_safe // 2].all()
