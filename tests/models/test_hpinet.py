"""HPINet against the published networks, and all patches at once against one after the other."""

from __future__ import annotations

import importlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.reference import check_published_tensors, fill, golden

from srcli.backends.base import Session
from srcli.checkpoints.reading import load_weights
from srcli.models.hpinet import SPECS, network
from srcli.models.hpinet.network import Grid, HpiNet, divide, divide_all, merge, merge_all
from srcli.models.registry import get_model
from srcli.models.spec import Geometry
from srcli.pipeline.restorer import Restorer

graph = importlib.import_module("srcli.export.graph")
limits = importlib.import_module("srcli.export.limits")
CONFIGURATIONS = [f"{spec.name}-x{scale}" for spec in SPECS for scale in spec.scales]
# Of the published weights, these are at hand; the other vectors are of the filling rule.
PUBLISHED = {"hpinet-s-x4": "S-x4", "hpinet-m-x2": "M-x2", "hpinet-m-x4": "M-x4"}
SIDES = (12, 14, 16, 20, 24)


def build(name: str) -> HpiNet:
    model, _, scale = name.rpartition("-x")
    built = get_model(model).build(int(scale))
    assert isinstance(built, HpiNet)
    return built.eval()


def with_reference_weights(name, shared):
    built = build(name)
    if name in PUBLISHED:
        load_weights(built, shared / f"reference/checkpoints/HPINet-{PUBLISHED[name]}.pth")
    else:
        fill(built)
    return built.requires_grad_(False)


def small(scale: int = 2, sides: tuple[int, ...] = (12, 16)) -> HpiNet:
    """A network of the same build and few numbers, with weights that are neither 0 nor 1."""
    torch.manual_seed(3)
    built = HpiNet(8, 5, 12, sides, scale).eval().requires_grad_(False)
    for name, value in built.named_parameters():
        if "norm" in name:
            value += 0.2 * torch.randn_like(value)
    return built


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_matches_the_published_network(name, shared):
    x, expected = golden(shared, name, "input", "output")
    published = with_reference_weights(name, shared)
    limit = 1e-3 * expected.abs().max()
    assert (published(x) - expected).abs().max() < limit
    assert (published.fuse()(x) - expected).abs().max() < limit


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_has_the_published_tensors(name, shared):
    check_published_tensors(shared, name, build(name))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (43, 31)])
def test_all_patches_at_once_give_the_same(scale, size):
    published = small(scale)
    x = torch.rand(2, 3, *size)
    expected = published(x)
    assert expected.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert (published.fuse()(x) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("side", SIDES)
def test_gathers_cut_and_put_together_as_the_loops_do(side):
    """For every way in which the last patch may lie over the one before."""
    for length in range(side, 3 * side):
        maps = torch.rand(2, 3, length, side + 5)
        rows = Grid.along(length, side, maps)
        columns = Grid.along(side + 5, side, maps)
        patches = divide_all(maps, rows, columns, 3)
        assert torch.equal(patches, torch.cat([divide(picture, side) for picture in maps]))
        changed = patches * torch.rand_like(patches)
        merged = merge_all(changed, rows, columns, 3)
        for picture, group in zip(merged, changed.chunk(2), strict=True):
            expected = merge(group, length, side + 5, side)
            assert torch.allclose(picture, expected, atol=1e-6)


def test_overlaps_are_averaged_as_published():
    """Strips of two lines are halved; a line of three patches is quartered, not divided by 3."""
    length, side = 12 + 10 + 1, 12  # the last patch begins one line after the second
    shares = merge(divide(torch.ones(1, length, side), side), length, side, side)[0, :, 0]
    assert shares[:10].eq(1).all()
    assert shares[10] == 1  # patches 1 and 2, one strip
    assert shares[11] == 0.75  # all three, two strips
    assert shares[12:].eq(1).all()


def test_a_patch_matches_its_copy_and_never_itself():
    """Two patches that are nearly equal find each other, in each picture of a batch."""
    side, channels = 12, 8
    torch.manual_seed(0)
    match = network.PatchMatch(channels)
    tokens = torch.randn(1, side * side, channels) + 3 * torch.randn(6, 1, channels)
    tokens[4] = tokens[1] + 0.1 * torch.randn_like(tokens[1])
    expected = match(tokens)
    assert (expected[1], expected[4]) == (4, 1)
    assert not expected.eq(torch.arange(6)).any()
    block = small(sides=(side,)).fuse().blocks[0]
    block.norm = match.norm
    both = block.match(torch.cat([tokens, tokens.flip(0)]), 6)
    assert torch.equal(both[:6], expected)
    assert torch.equal(both[6:], 6 + match(tokens.flip(0)))


def test_what_is_too_small_for_a_patch_is_refused():
    with pytest.raises(ValueError, match="patches of 24"):
        network.patch_starts(23, 24)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_one_graph_serves_every_size(scale):
    fused = small(scale).fuse()
    written = graph.write_graph(fused, scale=scale, opset=20)
    onnx.checker.check_model(written, full_check=True)
    content = written.SerializeToString()
    assert limits.unsupported_operators(content) == []
    session = onnxruntime.InferenceSession(content)
    for count, height, width in [(1, 16, 16), (2, 27, 16), (1, 43, 58)]:
        x = torch.rand(count, 3, height, width)
        (actual,) = session.run(None, {"input": x.numpy()})
        assert np.abs(actual - fused(x).numpy()).max() < 1e-5


def test_older_opsets_have_no_gelu():
    fused = small().fuse()
    written = graph.write_graph(fused, scale=2, opset=18)
    assert "Gelu" not in {node.op_type for node in written.graph.node}
    x = torch.rand(1, 3, 20, 33)
    (actual,) = onnxruntime.InferenceSession(written.SerializeToString()).run(
        None, {"input": x.numpy()}
    )
    assert np.abs(actual - fused(x).numpy()).max() < 1e-5


class Network(Session):
    """A session of a network in PyTorch that notes the sizes it was given."""

    def __init__(self, module):
        self.module, self.sizes = module, []

    def __call__(self, batch):
        self.sizes.append(batch.shape[2:])
        return self.module(torch.from_numpy(batch)).numpy()

    def close(self):
        """Nothing is held."""


def test_tiles_are_announced_once_and_only_where_there_are_tiles():
    session, said = Network(small().fuse()), []
    geometry = Geometry(margin=16, minimum=16, tiling="approximate")
    restorer = Restorer(session=session, geometry=geometry, scale=2, tile=16, note=said.append)
    restorer.restore(np.zeros((1, 3, 40, 30), np.float32))
    assert said == []
    for _ in range(2):
        out = restorer.restore(np.random.default_rng(0).random((1, 3, 50, 60), np.float32))
    assert out.shape == (1, 3, 100, 120)
    assert max(max(size) for size in session.sizes) <= 48
    assert [("approximate" in line, "48 x 48" in line) for line in said] == [(True, True)]


def test_memory_bounds_the_match_matrix():
    """A picture of 12 megapixels has over 100,000 patches; no tile has more than a few thousand."""
    for spec in SPECS:
        geometry = spec.geometry(4)
        restorer = Restorer(session=Network(None), geometry=geometry, scale=4, memory=8 << 30)
        height, width = restorer._tiles.window(3000, 4000, 1)
        assert min(height, width) > 2 * geometry.margin
        assert (height // 10 + 1) * (width // 10 + 1) < 10_000


def test_scores_of_the_published_weights(srcli, shared):
    """What the published algorithm gives on these very pictures; the paper rounds Y first."""
    weights = shared / "reference/checkpoints/HPINet-S-x4.pth"
    command = ["eval", "-m", "hpinet-s", "-s", 4, "--weights", weights, "--backend", "torch"]
    code, out, err = srcli(*command, shared / "data/eval/Set5", "--json")
    assert code == 0, err
    assert json.loads(out)["datasets"][0]["psnr"] == pytest.approx(32.496, abs=0.005)
