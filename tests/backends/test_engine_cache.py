"""Engines that are built on first use, with a builder that builds nothing."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from srcli.backends.trt.engine import EngineInfo, Gpu
from srcli.errors import BackendError, OutputError
from srcli.export import engine_cache
from srcli.export.engine_cache import cached_engine
from srcli.export.engines import EngineOptions
from srcli.export.to_onnx import to_onnx
from srcli.loading.model import load

PLAN = b"a plan"
GPU = Gpu("NVIDIA H200", "9.0")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[EngineOptions]:
    """What was built so far, into an empty cache."""
    options_of_builds: list[EngineOptions] = []

    def build(onnx: bytes, options: EngineOptions, *rest: object) -> tuple[bytes, EngineInfo]:
        options_of_builds.append(options)
        time.sleep(0.1)
        info = EngineInfo(
            flavour="tensorrt",
            version="11.4.0",
            gpu=GPU.name,
            compute_capability=GPU.compute_capability,
            precision=options.precision,
            profile={},
            network_types={},
            engine_types={},
            onnx_sha256="",
            engine_sha256=hashlib.sha256(PLAN).hexdigest(),
        )
        return PLAN, info

    trt = SimpleNamespace(__name__="tensorrt", __version__="11.4.0")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_cache, "build_engine", build)
    monkeypatch.setattr(engine_cache, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(engine_cache, "current_gpu", lambda: GPU)
    return options_of_builds


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    file = tmp_path / "lapar-c-x4.onnx"
    file.write_bytes(to_onnx(load("lapar-c", 4)).SerializeToString())
    return file


def test_built_once(built: list[EngineOptions], graph: Path) -> None:
    engine = cached_engine(graph, "fp32")
    assert cached_engine(graph, "fp32") == engine
    assert engine.read_bytes() == PLAN
    side = load("lapar-c", 4).geometry.minimum
    assert [options.min_shape for options in built] == [(1, 3, side, side)]


def test_everything_that_matters_is_in_the_name(built: list[EngineOptions], graph: Path) -> None:
    names = {cached_engine(graph, precision).name for precision in ("fp32", "fp16")}
    graph.write_bytes(to_onnx(load("lapar-c", 2)).SerializeToString())
    names.add(cached_engine(graph, "fp32").name)
    assert len(names) == len(built) == 3


def test_it_is_fastest_at_the_shape_that_will_run(built: list[EngineOptions], graph: Path) -> None:
    usual = cached_engine(graph, "fp32")
    for shape in ((1, 3, 180, 320), (16, 3, 2000, 320), (1, 3, 4, 5)):
        assert cached_engine(graph, "fp32", shape=shape) != usual
        assert built[-1].opt_shape == shape
        assert all(map(int.__le__, built[-1].min_shape, shape))
        assert all(map(int.__le__, built[0].max_shape, built[-1].max_shape))
    assert built[1].min_shape == built[0].min_shape
    assert cached_engine(graph, "fp32") == usual
    assert len(built) == 4


def test_damaged_engine_is_built_anew(built: list[EngineOptions], graph: Path) -> None:
    cached_engine(graph, "fp32").write_bytes(b"damaged")
    assert cached_engine(graph, "fp32").read_bytes() == PLAN
    assert len(built) == 2


def test_one_builds_while_the_others_wait(built: list[EngineOptions], graph: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        engines = set(pool.map(cached_engine, [graph] * 4, ["fp32"] * 4))
    assert len(engines) == len(built) == 1


def test_other_precisions(built: list[EngineOptions], graph: Path) -> None:
    with pytest.raises(BackendError, match="not bf16"):
        cached_engine(graph, "bf16")


def test_unusable_cache(
    built: list[EngineOptions], graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRCLI_CACHE", str(graph))
    with pytest.raises(OutputError, match="Set SRCLI_CACHE"):
        cached_engine(graph, "fp32")
    assert built == []


@pytest.mark.parametrize("part", ["", ".json", ".sha256", ".json.sha256"])
def test_a_flipped_bit_anywhere_builds_anew(built, graph, part):
    """faults.md 33: in the engine, in the facts beside it, in what seals either."""
    path = cached_engine(graph, "fp32")
    file = path.with_name(path.name + part)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert cached_engine(graph, "fp32") == path
    assert len(built) == 2
    assert cached_engine(graph, "fp32") == path
    assert len(built) == 2


def test_a_pipe_in_the_place_of_an_engine_holds_nobody(built, graph):
    """faults.md 33."""
    import os

    path = cached_engine(graph, "fp32")
    path.unlink()
    os.mkfifo(path)
    assert cached_engine(graph, "fp32").read_bytes() == PLAN
