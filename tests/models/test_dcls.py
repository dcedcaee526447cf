"""DCLS against the published networks: kernels, transforms, tiles that share a kernel, exports."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from support.reference import check_published_tensors, fill, golden
from torch.nn import functional as F

from srcli.backends.base import SessionOptions, as_blind
from srcli.backends.eager import TorchSession
from srcli.models.dcls import SPECS, network
from srcli.models.dcls.network import Dcls, Estimator, KernelComposer
from srcli.models.layers import gaussian_kernel
from srcli.models.registry import get_model
from srcli.models.spec import Geometry
from srcli.pipeline.restorer import Restorer

graph = importlib.import_module("srcli.export.graph")
limits = importlib.import_module("srcli.export.limits")
CONFIGURATIONS = [f"{spec.name}-x{scale}" for spec in SPECS for scale in spec.scales]


def build(name: str) -> Dcls:
    model, _, scale = name.rpartition("-x")
    built = get_model(model).build(int(scale))
    assert isinstance(built, Dcls)
    return built.eval()


@pytest.fixture
def small(monkeypatch):
    """A network of the same build with 2 groups of 1 block, kernels of 9x9, and random weights."""
    monkeypatch.setattr(network, "GROUPS", 2)
    monkeypatch.setattr(network, "BLOCKS", 1)

    def make(scale=2):
        torch.manual_seed(1)
        return Dcls((5, 3, 3, 1), scale).eval().requires_grad_(False)

    return make


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_matches_the_published_network(name, shared):
    """The vectors' weights are random: before the clamp, values reach thousands.

    999 of 1000 numbers of the vectors are 0 or 1 for that reason; the others hold rounding errors
    of the values before the clamp, which are what the limits are relative to. The vectors were made
    in single precision, and are up to 5.1e-5 from what the same network gives in double precision:
    how far two runs in single precision are apart depends on the processor.
    """
    x, expected, kernel = golden(shared, name, "input", "output", "kernel")
    published = build(name).requires_grad_(False)
    fill(published)
    exact = copy.deepcopy(published).double().Restorer(x.double(), kernel.double())
    largest = exact.abs().max()
    assert largest > 1000
    assert (exact.clamp(0, 1) - expected).abs().max() < 6e-5 * largest
    fused = published.fuse()
    for form, restorer in ((published, published.Restorer), (fused, fused.restorer)):
        estimated = form.estimate_kernel(x)
        assert (estimated - kernel).abs().max() < 1e-5 * kernel.abs().max()
        restored = restorer(x, kernel)
        assert (restored - exact).abs().max() < 1e-4 * largest
        assert torch.equal(form.restore(x, kernel), restored.clamp(0, 1))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_has_the_published_tensors(name, shared):
    check_published_tensors(shared, name, build(name))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_cheaper_forms_give_the_same(small, scale):
    published = small(scale)
    fused = published.fuse()
    for count, height, width in [(1, 8, 8), (2, 20, 31), (1, 33, 12)]:
        x = torch.rand(count, 3, height, width)
        kernel = published.estimate_kernel(x)
        expected = published.Restorer(x, kernel)
        limit = 1e-4 * expected.abs().max()
        assert expected.shape == (count, 3, height * scale, width * scale)
        assert (fused.estimate_kernel(x) - kernel).abs().max() < 1e-5 * kernel.abs().max()
        for form in (fused, fused.for_export()):
            assert (form.restorer(x, kernel) - expected).abs().max() < limit


@pytest.mark.parametrize("sides", [(11, 7, 5, 1), (7, 3, 3, 1), (11, 9, 7, 5, 3)])
def test_kernels_sum_to_1(sides):
    torch.manual_seed(2)
    estimator = Estimator(sides).eval().requires_grad_(False)
    codes = torch.randn(3, 256)
    kernels = KernelComposer(estimator)(codes)
    assert kernels.shape[1:] == (1, network.kernel_side(sides), network.kernel_side(sides))
    assert torch.allclose(kernels.sum((1, 2, 3)), torch.ones(3), atol=1e-4)
    one_by_one = torch.stack([estimator.compose(code) for code in codes])
    assert (kernels - one_by_one).abs().max() < 1e-5 * one_by_one.abs().max()


@pytest.mark.parametrize("method", ["deconvolve", "deconvolve_real", "deconvolve_by_products"])
@pytest.mark.parametrize("size", [(40, 37), (37, 40)])
def test_deconvolution_undoes_a_known_blur(method, size):
    """A blur on a torus, hardly smoothed: the picture comes back."""
    torch.manual_seed(0)
    clear = torch.rand(2, 3, *size)
    kernel = gaussian_kernel(7, 0.5, 0.8, angle=30).float().view(1, 1, 7, 7)
    wrapped = F.pad(clear, [3] * 4, mode="circular").flatten(0, 1).unsqueeze(1)
    blurred = F.conv2d(wrapped, kernel.flip(2, 3)).view_as(clear)
    smoothing = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(2, 3, 3, 3) * 1e-5
    restored = getattr(network, method)(blurred, kernel.expand(2, 1, 7, 7), smoothing)
    assert (blurred - clear).abs().max() > 0.1
    assert (restored - clear).abs().max() < 1e-3


def test_pools_as_pytorch_does():
    for size in [(3, 3), (7, 8), (20, 31), (1, 2)]:
        maps = torch.rand(2, 4, *size)
        assert torch.allclose(network.pool(maps, 3), F.adaptive_avg_pool2d(maps, 3), atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_one_graph_serves_every_size(small, scale):
    published = small(scale)
    written = graph.write_graph(published.fuse(), scale=scale, opset=20)
    onnx.checker.check_model(written, full_check=True)
    content = written.SerializeToString()
    assert limits.unsupported_operators(content) == []
    session = onnxruntime.InferenceSession(content)
    for count, height, width in [(1, 8, 8), (2, 21, 30), (1, 40, 17)]:
        x = torch.rand(count, 3, height, width)
        (actual,) = session.run(None, {"input": x.numpy()})
        assert np.abs(actual - published(x).numpy()).max() < 1e-3


@pytest.fixture
def blind(small):
    """A session, and a restorer that cuts pictures into tiles of 40 pixels."""
    session = TorchSession(small().fuse(), SessionOptions())
    geometry = Geometry(margin=20, minimum=8, tiling="approximate")
    return session, Restorer(session=session, geometry=geometry, scale=2, tile=40)


def test_tiles_share_the_kernel_of_their_picture(blind, photograph):
    session, restorer = blind
    batch = np.ascontiguousarray(photograph[:100, :90].transpose(2, 0, 1)[None], np.float32) / 255
    kernel = np.zeros((1, 1, 9, 9), np.float32)
    kernel[0, 0] = gaussian_kernel(9, 0.6, 0.6)  # no zeros in its spectrum, so it can be undone
    whole = session.restore(batch, kernel)
    used = []
    restore = session.restore
    session.restore = lambda tile, given: used.append((tile.shape, given)) or restore(tile, given)

    tiled = restorer.restore(batch, kernel=kernel)
    assert len(used) >= 4
    assert all(np.array_equal(given, kernel) for _, given in used)
    assert np.abs(tiled - whole).max() < 1e-3
    used.clear()
    restorer.restore(batch)
    assert len({given.tobytes() for _, given in used}) == 1
    assert np.array_equal(used[0][1], restorer.kernel)


def test_strips_share_the_kernel_of_their_picture(blind, photograph):
    session, restorer = blind
    estimated = []
    estimate = session.estimate_kernel
    session.estimate_kernel = lambda batch: estimated.append(batch.shape) or estimate(batch)

    parts = restorer.restore_strips(
        lambda top, bottom: (photograph[top:bottom], None), *photograph.shape[:2], has_alpha=False
    )
    assert sum(len(color) for color, _ in parts) == 2 * len(photograph)
    assert len(estimated) == 1


def test_other_networks_have_no_kernel():
    session = TorchSession(torch.nn.Identity(), SessionOptions())
    assert as_blind(session) is None
    restorer = Restorer(session=session, geometry=Geometry(margin=1), scale=1)
    assert restorer.estimate_kernel(np.zeros((1, 3, 9, 9), np.float32)) is None


@pytest.fixture
def untrained(small, tmp_path):
    """The command line's DCLS, made small, with random weights in a file."""
    torch.manual_seed(5)
    file = tmp_path / "random.pth"
    torch.save(get_model("dcls-aniso").build(2).state_dict(), file)
    picture = tmp_path / "in.png"
    for file_of in (picture, tmp_path / "other.png"):
        Image.new("RGB", (24, 20), (90, 140, 30)).save(file_of)
    return ["upscale", picture, "-m", "dcls-aniso", "-s", 2, "--weights", file]


def test_the_kernel_is_saved_as_picture_and_numbers(srcli, untrained, tmp_path):
    kernel = tmp_path / "kernel.png"
    code, _, err = srcli(*untrained, "--save-kernel", kernel)
    assert code == 0, err
    numbers = np.load(tmp_path / "kernel.npy")
    assert numbers.shape == (11, 11)
    assert numbers.sum() == pytest.approx(1, abs=1e-4)
    with Image.open(kernel) as opened:
        pixels = np.asarray(opened)
    assert pixels.min() == 0 if numbers.min() < 0 else pixels.max() == 255
    square = len(pixels) // 11
    assert square * 11 == len(pixels) >= 420
    assert np.argmax(pixels[square // 2 :: square, square // 2 :: square]) == np.argmax(numbers)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda c: [*c, "--save-kernel", "kernel.jpg"], 2, ".png"),
        (lambda c: [*c, "other.png", "--save-kernel", "kernel.png"], 2, "one input"),
        (lambda c: [*c, "-o", "k.png", "--save-kernel", "k.png"], 2, "is the input or the output"),
        (lambda c: [*c, "--save-kernel", "kernel.png", "--backend", "ort"], 2, "--backend torch"),
        (lambda c: [*c, "--save-kernel", "kernel.png", "--check"], 2, "neither"),
        (lambda c: [*c[:3], "lapar-c", "-s", 2, "--save-kernel", "kernel.png"], 2, "dcls-iso"),
    ],
)
def test_kernels_that_cannot_be_saved(srcli, untrained, monkeypatch, tmp_path, change, code, says):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    actual, _, err = srcli(*change(untrained))
    assert (actual, says in err) == (code, True), err
    assert sorted(tmp_path.iterdir()) == before


def test_a_kernel_that_is_there_is_kept(srcli, untrained, tmp_path):
    (tmp_path / "kernel.npy").write_text("mine")
    code, _, err = srcli(*untrained, "--save-kernel", tmp_path / "kernel.png")
    assert code == 2
    assert "kernel.npy" in err
    assert (tmp_path / "kernel.npy").read_text() == "mine"
