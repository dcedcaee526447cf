"""DCLS against the published networks: kernels, transforms, tiles that share a kernel, exports."""

from __future__ import annotations

import copy
import importlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from support.reference import check_published_tensors, fill, golden
from torch.nn import functional as F

import srcli as api
from srcli.backends.base import SessionOptions, as_blind
from srcli.backends.eager import TorchSession
from srcli.images import read
from srcli.loading.model import load
from srcli.loading.restorer import RunOptions, open_restorer
from srcli.models.dcls import SPECS, network
from srcli.models.dcls.network import Dcls, Estimator, KernelComposer
from srcli.models.dcls.reduction import reduced
from srcli.models.layers import gaussian_kernel
from srcli.models.registry import get_model
from srcli.models.spec import Geometry
from srcli.pipeline.resample import resize
from srcli.pipeline.restorer import Restorer
from srcli.quality.blurs import seen
from srcli.quality.degradations import gaussian
from srcli.quality.metrics import luma, psnr

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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "dcls-iso-x3" else ())
        for name in CONFIGURATIONS
    ],
)
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


@pytest.fixture
def blur(tmp_path):
    """A blur in pixels of the large picture, in a file."""
    kernel = gaussian((1.6, 0.9), 0.5, side=15)
    np.save(tmp_path / "blur.npy", kernel)
    return tmp_path / "blur.npy", kernel


def test_a_known_blur_takes_the_place_of_the_estimated_one(srcli, untrained, blur, tmp_path):
    file, kernel = blur
    name = tmp_path / "seen.png"
    code, _, err = srcli(*untrained, "--kernel", file, "--save-kernel", name)
    assert code == 0, err
    small = reduced(kernel, 2, 11)
    np.testing.assert_allclose(np.load(tmp_path / "seen.npy"), small, atol=1e-7)
    made = read(tmp_path / "in_x2.png").color
    model = load("dcls-aniso", 2, weights=untrained[-1])
    with open_restorer(model, RunOptions(backend="torch"), scale=2, blur=kernel) as restorer:
        picture = read(tmp_path / "in.png")
        np.testing.assert_array_equal(restorer(picture, size=(40, 48)).color, made)
        batch = np.zeros((2, 3, 24, 20), np.float32) + np.float32(0.4)
        np.testing.assert_array_equal(
            restorer.restore(batch),
            restorer.session.restore(batch, np.repeat(small[None, None], 2, 0)),
        )
    options = {"weights": untrained[-1], "kernel": file}
    with api.load("dcls-aniso", 2, **options) as network:
        np.testing.assert_array_equal(network(picture.color), made)


def test_resuming_knows_the_blur(srcli, untrained, blur, tmp_path):
    file, kernel = blur
    command = [*untrained, "--kernel", file, "-o", f"{tmp_path}/out/", "--json"]

    def status(*more):
        code, out, err = srcli(*command, *more)
        assert code == 0, err
        return json.loads(out)["files"][0]["status"]

    assert [status(), status("--resume")] == ["done", "skipped"]
    np.save(file, kernel.T)
    assert status("--resume") == "done"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["-m", "lapar-c"], "takes no blur kernel"),
        (["--backend", "ort"], "--backend torch"),
        (["--check"], "Leave out --kernel"),
        (["-s", "4"], "at most 4"),
        (["--kernel", "away.npy"], "away.npy"),
        (["--kernel", "wide.npy"], "can undo"),
        (["--tta"], "Leave out --tta"),
    ],
)
def test_known_blurs_that_cannot_be_used(
    srcli, untrained, blur, monkeypatch, tmp_path, change, says
):
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.ones((61, 61)))
    command = [*untrained, "--kernel", blur[0]]
    if change == ["-m", "lapar-c"]:
        command = [*command[:2], "-s", 2, "--kernel", blur[0]]
    if change == ["-s", "4"]:
        monkeypatch.setattr("srcli.models.spec.ModelSpec.reached", lambda self, task: (2,))
    code, _, err = srcli(*command, *change)
    assert code in (1, 2), err
    assert says in err
    assert not (tmp_path / "in_x2.png").exists()


def test_the_blur_that_ships_can_be_known(srcli, tmp_path, photograph, blur):
    """With the blur known the picture is nearer to the original than without DCLS."""
    kernel = gaussian((3.0, 1.2), 0.5, side=21)
    np.save(tmp_path / "k.npy", kernel)
    low = np.clip(np.rint(seen(photograph[:144, :144], kernel, 4)), 0, 255).astype(np.uint8)
    Image.fromarray(low).save(tmp_path / "low.png")
    command = ("upscale", tmp_path / "low.png", "-m", "dcls-iso", "-s", 4)
    code, _, err = srcli(*command, "--kernel", tmp_path / "k.npy", "-o", tmp_path / "high.png")
    assert code == 0, err
    planes = [luma(photograph[:144, :144])[8:-8, 8:-8]]
    planes += [
        luma(p)[8:-8, 8:-8]
        for p in (read(tmp_path / "high.png").color, resize(low * 1.0, 144, 144))
    ]
    assert psnr(planes[0], planes[1]) > psnr(planes[0], planes[2]) + 2


def test_eval_says_how_well_the_blur_was_found(srcli, tmp_path, photograph):
    (tmp_path / "own").mkdir()
    Image.fromarray(photograph[:96, :96]).save(tmp_path / "own" / "a.png")
    np.save(tmp_path / "k.npy", gaussian(2.2, side=21))
    command = ("eval", "-m", "dcls-iso", "-s", 4, "--kernel", tmp_path / "k.npy", tmp_path / "own")
    code, out, err = srcli(*command, "--json")
    assert code == 0, err
    result = json.loads(out)
    (row,) = result["datasets"]
    assert result["backend"] == "torch"
    assert 0 < row["kernel_error"] < 1.5
    assert row["lr_psnr"] > row["psnr"]
    assert "kernel error" in srcli(*command)[1]


def test_frames_of_video_share_the_kernel_of_their_picture(srcli, tmp_path):
    """As everywhere, `auto` takes the backend that gives out the kernel."""
    source, target = tmp_path / "in.y4m", tmp_path / "out.y4m"
    frames = np.random.default_rng(0).integers(16, 235, (2, 24 * 16 * 3 // 2), np.uint8)
    source.write_bytes(
        b"YUV4MPEG2 W24 H16 F25:1 C420mpeg2\n"
        + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames)
    )
    code, _, err = srcli("video", source, "-o", target, "-s", 4, "-m", "dcls-iso")
    assert code == 0, err
    assert "dcls-iso x4 with torch" in err
    assert len(target.read_bytes()) > 2 * 16 * frames[0].size
