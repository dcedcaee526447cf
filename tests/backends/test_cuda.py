"""What only a machine with an NVIDIA GPU can tell; skipped on all others."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from srcli.backends import get_backend
from srcli.backends.base import SessionOptions
from srcli.checkpoints.shipped import shipped_weights
from srcli.images import Picture
from srcli.loading.model import load
from srcli.models.registry import get_model
from srcli.pipeline.restorer import Restorer

train = importlib.import_module("srcli.weights.training.train")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")
SHIPPED = [(w.model, w.scale, w.task, w.kind) for w in shipped_weights()]


@pytest.fixture
def crops(photograph):
    """Two batches of one shape, which a recorded run must not mix up: n x 3 x h x w."""
    planes = photograph.astype(np.float32).transpose(2, 0, 1) / 255
    return [np.stack([planes[:, y : y + 47, 9:70], planes[:, 40:87, y : y + 61]]) for y in (3, 50)]


def check(session, model, crops, tolerance):
    network = model.published_network().double().to(CUDA)
    with torch.inference_mode():
        expected = [network(torch.from_numpy(b).double().to(CUDA)).cpu().numpy() for b in crops]
    for batch, reference in [*zip(crops, expected, strict=True)] * 2:
        np.testing.assert_allclose(session(batch), reference, atol=tolerance, rtol=0)


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize(("name", "scale", "task", "kind"), SHIPPED)
def test_pytorch_computes_the_published_network(crops, name, scale, task, kind, cuda_graph):
    model = load(name, scale, task=task, kind=kind)
    options = SessionOptions(cuda_graph=cuda_graph)
    session = get_backend("torch", model.spec).open(model, options)
    check(session, model, crops, model.spec.tolerance)
    # Neither was given up on the way.
    assert session.facts["cuda_graph"] == cuda_graph
    if model.spec.distinct_taps is not None:
        assert session.facts["filters"] == "Triton"
    session.close()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("name", "scale", "task", "kind"), SHIPPED)
def test_half_precision_stays_near(crops, name, scale, task, kind, precision):
    model = load(name, scale, task=task, kind=kind)
    session = get_backend("torch", model.spec).open(model, SessionOptions(precision=precision))
    check(session, model, crops, model.spec.tolerance_for(precision))
    session.close()


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_are_converted_on_the_device(photograph, monkeypatch, bits):
    """The pixels are those of the conversion on the host."""
    color = photograph[:60, :70].astype(np.uint8 if bits == 8 else np.uint16)
    picture = Picture(color=color * np.asarray(1 if bits == 8 else 257, color.dtype))
    model = load("lapar-c", 2)
    session = get_backend("torch", model.spec).open(model, SessionOptions())
    assert session.takes_pixels
    with Restorer(session=session, geometry=model.geometry, scale=2) as restorer:
        # The first run may be another form of the network than those that are recorded.
        *_, found = [restorer(picture).color for _ in range(3)]
        monkeypatch.setattr(restorer, "_whole", None)
        np.testing.assert_array_equal(found, restorer(picture).color)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("name", "scale", "task", "kind"), SHIPPED)
def test_onnx_runtime_computes_it_too(crops, name, scale, task, kind, precision):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    model = load(name, scale, task=task, kind=kind)
    session = get_backend("ort", model.spec).open(model, SessionOptions(precision=precision))
    assert session.facts["device"] == "cuda"
    check(session, model, crops, model.spec.tolerance if precision == "fp32" else 1 / 255)
    session.close()


@pytest.mark.parametrize("name", ["awsrn-sd", "hpinet-s", "asdn-base", "fsdn-base", "dcls-iso"])
def test_every_family_runs(tmp_path, crops, name):
    spec = get_model(name)
    scale = spec.scales[0]
    torch.manual_seed(0)
    torch.save(spec.build(scale).state_dict(), tmp_path / "random.pth")
    model = load(name, scale, weights=tmp_path / "random.pth")
    session = get_backend("torch", spec).open(model, SessionOptions())
    check(session, model, crops, 10 * spec.tolerance)
    session.close()


class TestTraining:
    def run(self, folder, device, model="lapar-c", **options):
        wanted = train.Recipe(model=model, scale=2, batch=2, patch=16, steps=30, loss="psnr")
        return train.Run(wanted, folder, torch.device(device), **options)

    def batches(self, count):
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            yield tuple(
                torch.randint(256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
                for side in (16, 32)
            )

    def trained(self, folder, device, model="lapar-c", **options):
        run = self.run(folder, device, model, **options)
        for batch in self.batches(12):  # beyond a turn of SOAP's axes
            run.update(*batch)
        return run

    @pytest.mark.parametrize("model", ["lapar-c", "awsrn-sd"])
    def test_recorded_gradients_are_what_others_are(self, tmp_path, model):
        """Of each batch alone: over some steps, SOAP makes much of the last digits."""
        recorded = self.run(tmp_path, "cuda", model)._gradients
        plain = self.run(tmp_path, "cuda", model, cuda_graph=False)._gradients
        for low, high in self.batches(3):
            pair = [t.to(CUDA).float().div(255) for t in (low, high)]
            losses = [float(way(*pair)) for way in (recorded, plain)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-5)
            for found, expected in zip(recorded._parameters, plain._parameters, strict=True):
                maximum = expected.grad.abs().max()
                assert (found.grad - expected.grad).abs().max() <= 1e-4 * maximum + 1e-9
        assert recorded._graph is not None

    @pytest.mark.parametrize("model", ["lapar-c", "awsrn-sd"])
    def test_recorded_steps_train(self, tmp_path, model):
        run = self.trained(tmp_path, "cuda", model)
        state = run.averaged().state_dict()
        assert all(torch.isfinite(value).all() for value in state.values())

    def test_a_gpu_goes_on_where_a_processor_ended(self, tmp_path):
        run = self.trained(tmp_path, "cpu")
        run.save()
        again = train.Run(run.recipe, tmp_path, torch.device("cuda"))
        again.restore()
        low, high = torch.zeros(2, 3, 16, 16).byte(), torch.zeros(2, 3, 32, 32).byte()
        assert torch.isfinite(again.update(low, high))
        again.save()
        back = train.Run(run.recipe, tmp_path, torch.device("cpu"))
        back.restore()
        assert back.step == 13
        assert torch.isfinite(back.update(low, high))
