"""The TensorRT session, with a pretended engine on a pretended GPU."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from support.pretended import HIGH, LOW, SCALE, Engine, Graph, Logger, record, use

from srcli.backends.base import OutOfMemory, SessionOptions
from srcli.backends.trt import session as trt
from srcli.backends.trt.engine import EngineInfo, Gpu
from srcli.backends.trt.session import TensorRtBackend, TensorRtSession
from srcli.errors import BackendError
from srcli.export.engines import write_engine

GPU = Gpu("NVIDIA H200", "9.0")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that every plan is read as."""
    engine = Engine()
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    library = ModuleType("tensorrt")
    vars(library).update(
        __version__="11.4.0",
        Builder=object,
        ILogger=Logger,
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(trt, "current_gpu", lambda: GPU)
    monkeypatch.setattr(trt, "_DEVICE", "cpu")
    stream = SimpleNamespace(cuda_stream=1, synchronize=lambda: None)
    for name, pretended in {
        "init": lambda: None,
        "Stream": lambda: stream,
        "stream": use,
        "graph": record,
        "CUDAGraph": Graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, pretended)
    return engine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _write(tmp_path)


def _write(folder: Path, **changes: object) -> Path:
    """An engine file; `changes` to what its sidecar says."""
    facts = {
        "flavour": "tensorrt",
        "version": "11.4.0",
        "gpu": GPU.name,
        "compute_capability": GPU.compute_capability,
        "precision": "fp32",
        "profile": {},
        "network_types": {},
        "engine_types": {},
        "onnx_sha256": "0",
        "engine_sha256": hashlib.sha256(b"a plan").hexdigest(),
    }
    write_engine(folder / "x.engine", b"a plan", EngineInfo(**facts | changes))
    return folder / "x.engine"


def _batch(height: int, width: int = 16, n: int = 1) -> np.ndarray:
    return np.random.default_rng(height).random((n, 3, height, width), np.float32)


def _enlarged(batch: np.ndarray) -> np.ndarray:
    return batch.repeat(SCALE, axis=2).repeat(SCALE, axis=3)


def test_runs_then_captures_then_replays(engine: Engine, path: Path) -> None:
    session = TensorRtSession(path)
    for seed in range(4):
        batch = _batch(24) + seed
        np.testing.assert_array_equal(session(batch), _enlarged(batch))
    assert engine.journal == ["context", "run", "capture"]


def test_rtx_records_by_itself(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = sys.modules["tensorrt"]
    library.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    library.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    session = TensorRtSession(_write(tmp_path))
    session.info = replace(session.info, flavour="tensorrt_rtx")
    for _ in range(3):
        session(_batch(24))
    session(_batch(32))
    assert engine.journal == ["context", "run", "run", "run", "context", "run"]
    first, second = engine.configured
    for config in (first, second):
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert config.cuda_graph_strategy == "whole"
    assert first.cache is second.cache is not None


def test_every_shape_has_a_context_and_few_are_kept(engine: Engine, path: Path) -> None:
    session = TensorRtSession(path)
    heights = range(8, 8 + trt.MAX_PREPARED + 1)
    for height in heights:
        np.testing.assert_array_equal(session(_batch(height)), _enlarged(_batch(height)))
    assert engine.journal == ["context", "run"] * len(heights)
    engine.journal.clear()
    session(_batch(heights[-1]))
    session(_batch(heights[0]))  # made room for the last
    assert engine.journal == ["capture", "context", "run"]


def test_arrays_of_any_layout(engine: Engine, path: Path) -> None:
    batch = np.ascontiguousarray(_batch(24).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    batch.flags.writeable = False
    np.testing.assert_array_equal(TensorRtSession(path)(batch), _enlarged(batch))


def test_limits(engine: Engine, path: Path) -> None:
    session = TensorRtSession(path)
    assert (session.min_shape, session.max_shape) == (LOW, HIGH)
    session(_batch(64, 96, 4))
    for shape in [(7, 16, 1), (65, 16, 1), (8, 97, 1), (8, 8, 5)]:
        with pytest.raises(
            BackendError, match="outside the engine's profile, 1x3x8x8 to 4x3x64x96"
        ):
            session(_batch(*shape))


def test_out_of_memory_leaves_the_session_usable(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = TensorRtSession(path)
    session(_batch(24))

    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        with pytest.raises(OutOfMemory):
            session(_batch(48))
    np.testing.assert_array_equal(session(_batch(24)), _enlarged(_batch(24)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "10.16.1"}, "built by tensorrt 10.16.1, this is tensorrt 11.4.0"),
        ({"flavour": "tensorrt_rtx"}, "built by tensorrt_rtx 11.4.0, this is tensorrt"),
        ({"gpu": "NVIDIA A10", "compute_capability": "8.6"}, "built for NVIDIA A10"),
        ({"engine_sha256": "0"}, "not the one that"),
    ],
)
def test_stale_engines_are_refused(
    engine: Engine, tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        TensorRtSession(_write(tmp_path, **changes))
    assert engine.journal == []


def test_refused_by_tensorrt(engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = SimpleNamespace(deserialize_cuda_engine=lambda plan: None)
    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", lambda logger: refusing)
    with pytest.raises(BackendError, match=r"TensorRT cannot load .* \(it gave no reason\)"):
        TensorRtSession(path)


def test_host_code_only_where_the_engine_needs_it(engine: Engine, tmp_path: Path) -> None:
    assert TensorRtSession(_write(tmp_path))._runtime.engine_host_code_allowed is False
    compatible = _write(tmp_path, options={"version_compatible": True})
    assert TensorRtSession(compatible)._runtime.engine_host_code_allowed is True


def test_close(engine: Engine, path: Path) -> None:
    session = TensorRtSession(path)
    session(_batch(24))
    session.close()
    session.close()
    assert not session._prepared


def test_backend_needs_a_gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TensorRtBackend()
    assert backend.unavailable() is None
    monkeypatch.setattr(trt, "current_gpu", lambda: None)
    assert "NVIDIA GPU" in str(backend.unavailable())
    with pytest.raises(BackendError, match="NVIDIA GPU"):
        backend.open(SimpleNamespace(), SessionOptions())


def test_backend_opens_the_cached_engine(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object]] = []
    model = SimpleNamespace(engine=lambda *given: asked.append(given) or path)
    options = SessionOptions(precision="fp16", shape=(1, 3, 24, 16))
    session = TensorRtBackend().open(model, options)
    np.testing.assert_array_equal(session(_batch(24)), _enlarged(_batch(24)))
    assert asked == [("fp16", (1, 3, 24, 16))]


def test_a_staged_batch_is_run_without_copies(path: Path, engine: Engine) -> None:
    session = TensorRtSession(path)
    batch = _batch(16)
    step = session.stage(batch)
    for _ in range(3):
        step()
    ready = session._prepared[batch.shape]
    assert np.array_equal(ready.output.numpy(), session(batch))
    assert session.facts["device"] == GPU.name
    assert session.cuda_stream.cuda_stream == 1
