"""AWSRN against the published networks, and its fused form against its published form."""

from __future__ import annotations

import onnx
import pytest
import torch
from PIL import Image
from support.reference import check_published_tensors, fill, golden

from srcli.loading.model import load
from srcli.models.awsrn import SPECS
from srcli.models.awsrn.network import Awsrn
from srcli.models.registry import get_model
from srcli.pipeline.tiling import plan

VARIANTS = [f"{spec.name}-x{scale}" for spec in SPECS for scale in spec.scales]


def build(name: str) -> Awsrn:
    model, _, scale = name.rpartition("-x")
    torch.manual_seed(0)
    network = get_model(model).build(int(scale))
    assert isinstance(network, Awsrn)
    return network.eval().requires_grad_(False)


def weigh(network: Awsrn, *weights: float) -> None:
    """Give the branches of the reconstruction these learned factors."""
    for kernel, weight in zip((3, 5, 7, 9), weights, strict=True):
        network.tail.branch(kernel)[1].scale.fill_(weight)


@pytest.mark.parametrize("name", VARIANTS)
def test_matches_the_published_network(name, shared):
    x, expected = (values / 255 for values in golden(shared, name, "input", "output"))
    network = build(name)
    fill(network)
    limit = 1e-5 * expected.abs().max()
    assert (network(x) - expected).abs().max() < limit
    assert (network.fuse()(x) - expected).abs().max() < limit


@pytest.mark.parametrize("name", VARIANTS)
def test_has_the_published_tensors(name, shared):
    check_published_tensors(shared, name, build(name))


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("awsrn", {2: 320.5, 3: 150.6, 4: 91.1, 8: 33.7}),
        ("awsrn-m", {2: 244.1, 3: 116.6, 4: 72.0}),
        ("awsrn-s", {2: 91.2, 3: 48.6}),
        ("awsrn-sd", {2: 79.6, 3: 39.5, 4: 25.4}),
    ],
)
def test_counts_multiply_adds_as_the_paper_does(model, billions):
    for scale, expected in billions.items():
        counted = get_model(model).multiply_adds(scale).published_form * 1280 * 720 / 1e9
        assert counted == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", ["awsrn-x8", "awsrn-sd-x3"])
def test_counts_multiply_adds_of_the_fused_network(name):
    """The formula against the convolutions that really run."""
    network = build(name).fuse()
    counted, side = 0.0, 8

    def count(module, inputs, output):
        nonlocal counted
        counted += output[0, 0].numel() * module.weight.numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.rand(1, 3, side, side))
    model, _, scale = name.rpartition("-x")
    per_pixel = counted / (side * int(scale)) ** 2
    assert get_model(model).multiply_adds(int(scale)).fused_form == pytest.approx(per_pixel)


def test_the_branches_are_one_convolution():
    fused = build("awsrn-s-x2").fuse()
    large = [m for m in fused.modules() if getattr(m, "kernel_size", (0,))[0] > 3]
    assert [m.kernel_size for m in large] == [(9, 9)]


@pytest.mark.parametrize("factor", [0.0, 1e-5, -0.7])
def test_any_skip_factor_is_folded_or_kept(factor):
    """Dividing by a learned factor near zero would lose the picture."""
    network = build("awsrn-sd-x2")
    block = network.blocks()[0]
    block.units()[6].x_scale.scale.fill_(factor)
    block.x_scale.scale.fill_(factor)
    x = torch.rand(1, 3, 14, 11)
    assert (network.fuse()(x) - network(x)).abs().max() < 1e-5


def test_weak_branches_are_taken_out():
    network = build("awsrn-s-x3")
    weigh(network, 0.3, -0.02, 0.25, 0.04)
    x = torch.rand(1, 3, 12, 17)
    before = network(x)
    removed = network.prune_branches(0.1)
    assert [(b.kernel, round(b.weight, 6)) for b in removed] == [(5, -0.02), (9, 0.04)]
    after = network(x)
    assert (after - before).abs().max() > 1e-4
    fused = network.fuse()
    assert fused.tail.kernel_size == (7, 7)
    for name, value in network.fused_weights(fused).items():  # as training folds
        assert torch.equal(value, fused.state_dict()[name]), name
    assert (fused(x) - after).abs().max() < 1e-5
    assert network.prune_branches(0.1) == []


def test_the_strongest_branch_stays():
    network = build("awsrn-s-x2")
    weigh(network, 0.1, -0.4, 0.2, 0.3)
    assert {branch.kernel for branch in network.prune_branches(10)} == {3, 7, 9}
    assert network.fuse().tail.kernel_size == (5, 5)


def test_a_low_threshold_removes_nothing():
    network = build("awsrn-s-x2")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.prune_branches(0.2) == []  # all start as 0.25
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["awsrn-s-x2", "awsrn-sd-x3", "awsrn-m-x4", "awsrn-x8"])
def test_margin_is_the_receptive_field(name):
    """A change one pixel beyond the margin changes nothing; at the margin it changes something."""
    model, _, digits = name.rpartition("-x")
    scale = int(digits)
    margin = get_model(model).geometry(scale).margin
    network = build(name).double().fuse().double()
    x = torch.rand(1, 3, 3, 2 * margin + 3, dtype=torch.float64)
    changed = x.clone()
    changed[..., 0] += 1e6  # far away little is left of it
    differs = (network(changed) - network(x)).abs().amax(dim=(0, 1, 2)) > 0
    assert not differs[(margin + 1) * scale :].any()
    assert differs[: (margin + 1) * scale].view(margin + 1, scale).any(dim=1).all()


def test_tiles_give_what_the_whole_picture_gives():
    scale, spec = 4, get_model("awsrn-s")
    network = build("awsrn-s-x4").fuse()
    margin = spec.geometry(scale).margin
    x = torch.rand(1, 3, 47, 61)
    whole = network(x)
    for tile in plan(47, 61, (2 * margin + 9, 2 * margin + 12), margin):
        rows, columns = tile.rows, tile.columns
        part = network(x[:, :, rows.start : rows.stop, columns.start : columns.stop])
        inner = part[:, :, rows.inner(scale), columns.inner(scale)]
        outer = whole[:, :, rows.outer(scale), columns.outer(scale)]
        assert (inner - outer).abs().max() < 1e-5


@pytest.fixture
def checkpoint(tmp_path):
    """AWSRN-S x2 whose 5x5 and 9x9 branches hardly count."""
    network = build("awsrn-s-x2")
    weigh(network, 0.3, -0.02, 0.25, 0.04)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    return file


def test_pruned_networks_are_told_apart(checkpoint):
    whole, pruned = (
        load("awsrn-s", 2, weights=checkpoint, prune_below=threshold) for threshold in (None, 0.1)
    )
    assert whole.weights.sha256 != pruned.weights.sha256
    assert whole.network().tail.kernel_size == (9, 9)
    assert pruned.network().tail.kernel_size == (7, 7)


def test_pruning_from_the_command_line(srcli, tmp_path, checkpoint):
    Image.new("RGB", (9, 7), "teal").save(tmp_path / "a.png")
    arguments = ["-m", "awsrn-s", "-s", 2, "--weights", checkpoint, "--prune-branches", 0.1]
    code, _, err = srcli("upscale", tmp_path / "a.png", *arguments, "--backend", "torch")
    assert code == 0, err
    assert "5x5 branch of weight -0.02" in err
    assert "9x9 branch of weight 0.04" in err
    code, _, err = srcli("export", *arguments, "-o", tmp_path / "net.onnx")
    assert (code, "without the 9x9 branch" in err) == (0, True), err
    sides = {t.dims[-1] for t in onnx.load(tmp_path / "net.onnx").graph.initializer if t.dims}
    assert max(side for side in sides if side % 2) == 7


def test_other_models_have_no_branches(srcli, tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    code, _, err = srcli("upscale", tmp_path / "a.png", "--prune-branches", 0.1)
    assert (code, "lapar-c has no branches" in err) == (2, True), err
