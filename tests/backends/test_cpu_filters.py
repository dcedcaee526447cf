"""LAPAR's filters in compiled code: the same as PyTorch's, however the numbers lie in memory."""

from __future__ import annotations

import importlib
import itertools
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.backends import get_backend
from srcli.backends.base import OutOfMemory, SessionOptions
from srcli.backends.filters.cpu import COMPILED, STRIP, CpuFilters, shortest_graph, unavailable
from srcli.backends.filters.fused import use_compiled
from srcli.backends.filters.tensor import for_tensors
from srcli.health.backends import compiled_part
from srcli.loading.model import load
from srcli.models.lapar.network import apply_filters
from srcli.models.registry import get_model

without_filtering = importlib.import_module("srcli.export.taps").without_filtering
needs_compiled = pytest.mark.skipif(unavailable() is not None, reason="built without a compiler")
BACKENDS = ("torch", "ort", "openvino")
SHAPES = [(1, 24, 31), (2, 4, 3), (1, 183, 180)]  # small ones, and one for OpenVINO


@pytest.fixture
def not_built(monkeypatch):
    monkeypatch.setitem(sys.modules, COMPILED, None)


def taps_and_picture(n, planes, height, width):
    rng = np.random.default_rng(height * width)
    picture = rng.random((n, planes, height, width), np.float32)
    return picture, rng.random((n, 13, height, width), np.float32) - np.float32(0.5)


def in_memory(array, layout):
    """The same numbers in another order."""
    if layout == "channels last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "part of more":
        larger = np.zeros([side + 3 for side in array.shape], np.float32)
        larger[1:-2, 2:-1, 3:, 1:-2] = array
        return larger[1:-2, 2:-1, 3:, 1:-2]
    return array


layouts = st.sampled_from(["planes", "channels last", "part of more"])


@needs_compiled
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 2), st.integers(1, 4), st.integers(3, 150), st.integers(3, 300),
    layouts, layouts, st.sampled_from([1, 3]),
)  # fmt: skip
def test_same_as_pytorch(n, planes, height, width, of_picture, of_taps, threads):
    picture, taps = taps_and_picture(n, planes, height, width)
    expected = apply_filters(torch.from_numpy(picture), torch.from_numpy(taps), 13).numpy()
    filters = CpuFilters(threads)
    found = filters(in_memory(picture, of_picture), in_memory(taps, of_taps))
    filters.close()
    np.testing.assert_allclose(found, expected, atol=4e-6, rtol=0)


@needs_compiled
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 2), st.integers(3, 150), st.integers(3, 300), layouts, st.sampled_from([1, 3])
)  # fmt: skip
def test_gradients_are_those_of_pytorch(n, height, width, of_taps, threads):
    picture, taps = taps_and_picture(n, 3, height, width)
    change = torch.from_numpy(picture[:, ::-1].copy()).to(memory_format=torch.channels_last)
    found = []
    for way in (for_tensors(threads), apply_filters):
        wanted = torch.from_numpy(in_memory(taps, of_taps)).requires_grad_()
        way(torch.from_numpy(picture), wanted, 13).backward(change)
        found.append(wanted.grad)
    torch.testing.assert_close(*found)


@needs_compiled
def test_a_gradient_that_is_not_there_is_refused():
    picture, taps = (torch.from_numpy(part) for part in taps_and_picture(1, 3, 5, 6))
    with pytest.raises(NotImplementedError, match="by the picture"):
        for_tensors(1)(picture.requires_grad_(), taps, 13)


@needs_compiled
def test_a_pixel_does_not_depend_on_where_it_lies():
    """Neither on the strip, nor on the block, nor on how many threads there are."""
    picture, taps = taps_and_picture(1, 3, 2 * STRIP + 5, 301)
    alone, shared = CpuFilters(1), CpuFilters(4)
    whole = alone(picture, taps)
    np.testing.assert_array_equal(shared(picture, taps), whole)
    cropped = shared(picture[:, :, 9:, 7:], taps[:, :, 9:, 7:])
    np.testing.assert_array_equal(cropped[:, :, 2:, 2:], whole[:, :, 11:, 9:])
    shared.close()


@needs_compiled
def test_concurrent_calls_do_not_disturb_each_other():
    filters = CpuFilters(2, concurrency=3)
    works = [taps_and_picture(1, 3, 2 * STRIP + side, 40) for side in range(6)]
    with ThreadPoolExecutor(3) as callers:
        found = list(callers.map(lambda work: filters(*work), works))
    for work, result in zip(works, found, strict=True):
        np.testing.assert_array_equal(result, filters(*work))
    filters.close()


def arrays(**changes):
    picture, taps = taps_and_picture(1, 3, 5, 6)
    filtered = np.empty_like(picture)
    given = {"picture": picture, "taps": taps, "filtered": filtered, "top": 0, "bottom": 5}
    return [*{**given, **changes}.values()]


@needs_compiled
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"picture": np.zeros((1, 3, 5, 6))}, "float32"),
        ({"picture": np.zeros((3, 5, 6), np.float32)}, "four dimensions"),
        ({"taps": np.zeros((1, 13, 5, 7), np.float32)}, "another size"),
        ({"taps": np.zeros((1, 25, 5, 6), np.float32)}, "13 taps"),
        ({"filtered": np.zeros((1, 3, 4, 6), np.float32)}, "another shape"),
        ({"filtered": np.zeros((1, 3, 6, 5), np.float32).swapaxes(2, 3)}, "contiguous"),
        ({"top": -1}, "no such rows"),
        ({"top": 3, "bottom": 2}, "no such rows"),
        ({"bottom": 6}, "no such rows"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        importlib.import_module(COMPILED).filter(*arrays(**changes))


@needs_compiled
@pytest.mark.parametrize("sides", [(2, 9), (9, 2)])
def test_pictures_too_small_to_be_reflected_are_refused(sides):
    with pytest.raises(ValueError, match="at least 3"):
        CpuFilters(1)(*taps_and_picture(1, 3, *sides))


@needs_compiled
def test_what_may_not_be_written_is_not():
    compiled = importlib.import_module(COMPILED)
    for name, function in (("filtered", compiled.filter), ("taps", compiled.gradient)):
        frozen = np.zeros((1, 13 if name == "taps" else 3, 5, 6), np.float32)
        frozen.flags.writeable = False
        with pytest.raises((ValueError, BufferError)):
            function(*arrays(**{name: frozen}))
        assert not frozen.any()


HEADER = Path(sysconfig.get_path("include")) / "Python.h"


@pytest.mark.skipif(shutil.which("cc") is None or not HEADER.exists(), reason="cannot be built")
def test_it_was_built_here():
    """Or else all of this would be skipped."""
    assert unavailable() is None


_results = {}  # of published networks, by the checksum of their weights


def published_results(model):
    """Pictures of each shape, and what the published network makes of them."""
    if model.weights.sha256 not in _results:
        network = model.published_network()
        batches = [np.random.default_rng(n).random((c, 3, n, m), np.float32) for c, n, m in SHAPES]
        with torch.inference_mode():
            _results[model.weights.sha256] = [
                (batch, network(torch.from_numpy(batch)).numpy()) for batch in batches
            ]
    return _results[model.weights.sha256]


def close_to_published(model, options, backend):
    """The session's facts, after its results were compared."""
    session = get_backend(backend).open(model, options)
    for batch, expected in published_results(model):
        tolerance = model.spec.tolerance_for(options.precision)
        assert np.abs(session(batch) - expected).max() < tolerance
    session.close()
    return session.facts


@needs_compiled
@pytest.mark.parametrize(
    ("backend", "precision"),
    [*itertools.product(BACKENDS, ["fp32"]), ("ort", "int8"), ("openvino", "int8")],
)
@pytest.mark.parametrize(("scale", "task"), [(1, "denoise"), (2, "upscale")])
def test_backends_use_it(scale, task, backend, precision):
    if backend == "openvino":
        pytest.importorskip("openvino")
    model = load("lapar-c", scale, task=task)
    facts = close_to_published(model, SessionOptions(precision=precision), backend)
    assert facts["filters"] == "compiled"


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_do_without_it(not_built, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    facts = close_to_published(load("lapar-c", 2), SessionOptions(), backend)
    if backend == "torch":
        assert facts["filters"].startswith("PyTorch (srcli was installed without")
    else:
        assert facts["filters"] is None


@needs_compiled
def test_out_of_memory_is_told_as_such(monkeypatch):
    session = get_backend("ort").open(load("lapar-c", 2), SessionOptions())

    def fail(picture, taps):
        raise MemoryError

    monkeypatch.setattr(session, "_filters", fail)
    with pytest.raises(OutOfMemory):
        session(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.usefixtures("not_built")
def test_what_is_missing_is_said():
    assert "C compiler" in str(unavailable())
    (finding,) = compiled_part()
    assert (finding.status, "C compiler" in finding.remedy) == ("note", True)


@needs_compiled
def test_a_graph_ends_at_the_taps():
    model = load("lapar-c", 4)
    ends = {}
    for scale, task in ((4, "upscale"), (1, "deblock")):
        graph = onnx.load(load("lapar-c", scale, task=task).tap_graph())
        onnx.checker.check_model(graph, full_check=True)
        ends[scale] = [output.name for output in graph.graph.output]
        assert not {"Gather", "Slice"} & {node.op_type for node in graph.graph.node}
    assert ends == {4: ["filter.taps", "filter.picture"], 1: ["filter.taps"]}
    facts = {entry.key for entry in onnx.load(model.tap_graph()).metadata_props}
    assert "srcli.weights_sha256" in facts


@needs_compiled
def test_other_models_keep_their_graph(tmp_path):
    network = get_model("awsrn-sd").build(2)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    model = load("awsrn-sd", 2, weights=tmp_path / "net.pth")
    assert shortest_graph(model, "fp32") == model.graph()
    assert use_compiled(network, 1) is None


@needs_compiled
@pytest.mark.parametrize("backend", BACKENDS)
def test_asymmetric_filters_stay_in_the_graph(tmp_path, backend):
    """Of a dictionary of the user's own; there are 25 taps of those."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    state = load("lapar-c", 2).published_network().state_dict()
    state["decom_conv.weight"][:, 0, :, 4] *= 0.9
    torch.save(state, tmp_path / "net.pth")
    model = load("lapar-c", 2, weights=tmp_path / "net.pth")
    facts = close_to_published(model, SessionOptions(), backend)
    assert facts["filters"] != "compiled"
    with pytest.raises(ValueError, match="no symmetric filters"):
        without_filtering(onnx.load(model.graph()))


@pytest.mark.usefixtures("not_built")
def test_without_it_the_whole_graph_is_run():
    model = load("lapar-c", 2)
    assert shortest_graph(model, "fp32") == model.graph()


def test_a_size_that_cannot_be_counted_is_refused():
    """faults.md 39: strides of 0 make a shape whose scratch memory would wrap to a few bytes."""
    planes = 2**64 // (5 * 7 * 4) + 1
    picture, filtered = (
        np.lib.stride_tricks.as_strided(
            np.zeros(9, np.float32), (1, planes, 3, 3), (0, 0, 12, 4), writeable=True
        )
        for _ in range(2)
    )
    taps = np.zeros((1, 13, 3, 3), np.float32)
    compiled = pytest.importorskip(COMPILED, exc_type=ImportError)
    with pytest.raises(MemoryError):
        compiled.filter(picture, taps, filtered, 0, 3)
