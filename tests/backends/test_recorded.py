"""A network on a GPU, with a pretended CUDA: what runs when, what is kept, what is told."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from srcli.backends.base import OutOfMemory, SessionOptions
from srcli.backends.cuda import recorded
from srcli.backends.cuda.recorded import CUDNN, TRITON, CudaNetwork
from srcli.backends.eager import TorchBackend
from srcli.errors import SrcliError
from srcli.images import Picture
from srcli.loading.model import load
from srcli.pipeline.restorer import Restorer

BATCH = np.random.default_rng(0).random((1, 3, 6, 7), np.float32)


class Graph:
    """A recording that says when it is replayed."""

    def __init__(self):
        Graph.made.append(self)
        self.replays = 0

    def replay(self):
        self.replays += 1


class Event:
    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self):
        pass

    synchronize = record

    def elapsed_time(self, other):
        return 1.0


class Pretended:
    """PyTorch on the CPU, which takes itself for a GPU."""

    device = staticmethod(lambda name: torch.device("cpu"))

    def __init__(self):
        @contextmanager
        def stream(one):
            yield

        @contextmanager
        def graph(graph, *, pool, capture_error_mode):
            assert capture_error_mode == "thread_local"
            if self.refusal is not None:
                raise self.refusal
            yield

        self.refusal = None
        one = SimpleNamespace(wait_stream=lambda other: None, synchronize=lambda: None)
        self.cuda = SimpleNamespace(
            CUDAGraph=Graph,
            Event=Event,
            Stream=lambda: one,
            current_stream=lambda: one,
            empty_cache=lambda: None,
            get_device_name=lambda: "a GPU",
            graph=graph,
            graph_pool_handle=object,
            mem_get_info=lambda device: (5 << 30, 8 << 30),
            stream=stream,
            synchronize=lambda: None,
        )

    def empty(self, *size, pin_memory=False, **options):
        return torch.empty(*size, **options)

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The device, which has no kernels of ours."""
    pretended = Pretended()
    Graph.made = []
    monkeypatch.setattr(recorded, "torch", pretended)
    monkeypatch.setattr(recorded, "use_kernel", lambda *given: "Triton")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("srcli.backends.cuda.networks.for_gpu", lambda *given: None)
    return pretended


@pytest.fixture
def network():
    return load("lapar-c", 2).network()


def opened(network, dtype=torch.float32, **options):
    return CudaNetwork(network, dtype, **{"tolerance": 1e-5, "record": True, **options})


def expected(network, batch=BATCH):
    return network(torch.from_numpy(batch)).numpy()


def test_the_second_batch_of_a_shape_is_recorded(gpu, network):
    session = opened(network)
    with torch.inference_mode():
        first, again, third = (session(BATCH) for _ in range(3))
        np.testing.assert_allclose(first, expected(network), atol=1e-6)
        np.testing.assert_allclose(again, expected(network), atol=1e-6)
    assert [graph.replays for graph in Graph.made] == [2]
    assert third.shape == (1, 3, 12, 14)
    assert session.device_memory == 5 << 30
    assert session.facts["cuda_graph"] is True


def test_few_recordings_are_kept(gpu, network):
    session = opened(network)
    heights = range(5, 6 + recorded.MAX_RECORDED)
    with torch.inference_mode():
        for height in [h for h in heights for _ in range(2)]:
            session(np.ascontiguousarray(BATCH[:, :, :1].repeat(height, 2)))
    assert len(Graph.made) == len(heights)
    assert len(session._recorded) == recorded.MAX_RECORDED
    session.free()
    assert not session._recorded


def test_what_cannot_be_recorded_runs_all_the_same(gpu, network):
    gpu.refusal = RuntimeError("operation not permitted when stream is capturing\nmore")
    session = opened(network)
    with torch.inference_mode():
        for _ in range(3):
            np.testing.assert_allclose(session(BATCH), expected(network), atol=1e-6)
    assert session.facts["cuda_graph"] == "operation not permitted when stream is capturing"


def test_one_picture_alone_is_exact_in_half_precision_too(gpu, network, monkeypatch):
    """And all that come before a shape repeats share one copy of the network."""
    placed, made = recorded._placed, []
    monkeypatch.setattr(recorded, "_placed", lambda *given: made.append(given) or placed(*given))
    session = opened(network, torch.bfloat16)
    with torch.inference_mode():
        for width in (5, 6, 7):
            batch = np.ascontiguousarray(BATCH[..., :width])
            np.testing.assert_allclose(session(batch), expected(network, batch), atol=1e-6)
    assert [given[2] for given in made] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize(("milliseconds", "chosen"), [((2.0, 1.0), TRITON), ((1.0, 2.0), CUDNN)])
def test_the_faster_form_is_chosen_and_remembered(gpu, network, monkeypatch, milliseconds, chosen):
    form = load("lapar-c", 2).network()
    monkeypatch.setattr("srcli.backends.cuda.networks.for_gpu", lambda *given: form)
    timed = []

    def time(self, each, x):
        timed.append(each)
        return milliseconds[len(timed) - 1]

    monkeypatch.setattr(CudaNetwork, "_time", time)
    for _ in range(2):  # the second one does not measure
        session = opened(network)
        with torch.inference_mode():
            session.stage(BATCH)
        assert session.facts["convolutions"].startswith(chosen)
        assert len(timed) == 2
    assert session._remembered() == chosen


def test_a_form_that_computes_something_else_is_not_used(gpu, network, monkeypatch):
    monkeypatch.setattr(
        "srcli.backends.cuda.networks.for_gpu", lambda *given: lambda x: network(x) + 0.01
    )
    session = opened(network)
    with torch.inference_mode():
        session.stage(BATCH)
    assert session.facts["convolutions"] == "cuDNN (the kernels differ by 0.01)"


def test_memory_that_ran_out_is_told_and_not_remembered(gpu, network, monkeypatch):
    """It says nothing of which form is faster."""
    monkeypatch.setattr("srcli.backends.cuda.networks.for_gpu", lambda *given: network)
    gpu.refusal = torch.OutOfMemoryError("CUDA out of memory")
    session = opened(network)
    with pytest.raises(torch.OutOfMemoryError), torch.inference_mode():
        session.stage(BATCH)
    assert session._remembered() is None
    assert session.recording


# Integers, which are converted on the device.


@pytest.fixture
def session(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return TorchBackend().open(load("lapar-c", 2), SessionOptions())


def restorer(session):
    return Restorer(session=session, geometry=load("lapar-c", 2).geometry, scale=2)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("out", [None, 8, 16])
def test_pixels_are_those_of_floats(session, monkeypatch, bits, out):
    kind = np.uint8 if bits == 8 else np.uint16
    chance = np.random.default_rng(bits)
    pictures = [Picture(color=chance.integers(0, 2**bits, (9, 11, 3), kind)) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(session, "takes_pixels", False)
        expected = restorer(session).restore_all(pictures, bits=out)
    asked = []
    whole = session.restore_pixels
    monkeypatch.setattr(session, "restore_pixels", lambda *g: asked.append(g) or whole(*g))
    told = []
    found = restorer(session).restore_all(pictures, lambda *given: told.append(given), bits=out)
    assert len(asked) == 1
    assert told == [(99, 99)]
    for one, other in zip(found, expected, strict=True):
        assert one.color.dtype == other.color.dtype
        np.testing.assert_array_equal(one.color, other.color)


COLOR = np.random.default_rng(3).integers(0, 256, (9, 11, 3), np.uint8)


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        (Picture(color=COLOR[:, :, :1]), None),
        (Picture(color=COLOR, alpha=COLOR[:, :, 0]), None),
        (Picture(color=COLOR), (12, 15)),
        (Picture(color=np.float32(COLOR) / 255), None),
    ],
    ids=["grey", "alpha", "resampled", "floats"],
)
def test_other_pictures_go_the_longer_way(session, monkeypatch, picture, size):
    monkeypatch.setattr(session, "restore_pixels", None)
    (found,) = restorer(session).restore_all([picture], size=size)
    assert found.color.shape == (*(size or (18, 22)), picture.color.shape[2])


def test_a_picture_that_does_not_fit_goes_the_longer_way(session, monkeypatch):
    def full(*given):
        raise OutOfMemory

    monkeypatch.setattr(session, "restore_pixels", full)
    (found,) = restorer(session).restore_all([Picture(color=COLOR)])
    assert found.color.shape == (18, 22, 3)


def test_values_that_are_not_finite_are_told(session, monkeypatch):
    monkeypatch.setattr(session._run, "_restored", lambda x: x * torch.nan)
    with pytest.raises(SrcliError, match="not finite"):
        restorer(session).restore_all([Picture(color=COLOR)])
