"""What is particular to OpenVINO: compiled shapes, and small pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from srcli.backends import get_backend, openvino
from srcli.backends.base import SessionOptions
from srcli.loading import load

SMALL, LARGE = (1, 3, 19, 23), (1, 3, 20, 60)


@pytest.fixture
def session(monkeypatch):
    if reason := get_backend("openvino").unavailable():
        pytest.skip(reason)
    monkeypatch.setattr(openvino, "SMALL", 1000)
    with_shapes = get_backend("openvino").open(load("lapar-c", 2), SessionOptions(threads=1))
    yield with_shapes
    with_shapes.close()


def picture(shape):
    return np.random.default_rng(shape[3]).random(shape, np.float32)


def test_small_pictures_go_to_onnx_runtime(session):
    for shape in (SMALL, (1, 3, 8, 9), (2, 3, 20, 20)):
        assert session(picture(shape)).shape == (shape[0], 3, 2 * shape[2], 2 * shape[3])
    assert not session._compiled
    session(picture(LARGE))
    assert list(session._compiled) == [LARGE]


def test_both_compute_the_same(session, monkeypatch):
    shared = session(picture(SMALL)).copy()
    monkeypatch.setattr(openvino, "SMALL", 0)
    own = session(picture(SMALL))
    assert list(session._compiled) == [SMALL]
    np.testing.assert_allclose(own, shared, atol=1e-5)


def test_a_result_does_not_depend_on_what_came_before(session):
    first = [session(picture(shape)).copy() for shape in (SMALL, LARGE)]
    for width in range(30, 30 + openvino.MAX_COMPILED + 1):
        session(picture((1, 3, 40, width)))
        session(picture((1, 3, 10, width)))
    assert len(session._compiled) == openvino.MAX_COMPILED
    again = [session(picture(shape)) for shape in (SMALL, LARGE)]
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["openvino", "ort"])
def test_calls_at_the_same_time_give_what_single_ones_give(name, monkeypatch):
    """Also where there are more of them than lanes, and shapes drop out and come back."""
    backend, model = get_backend(name), load("lapar-c", 2)
    monkeypatch.setattr(openvino, "SMALL", 1000)
    monkeypatch.setattr(openvino, "MAX_COMPILED", 2)
    batches = [picture(shape) for shape in (SMALL, LARGE, (1, 3, 40, 30), (1, 3, 31, 41)) * 3]
    alone = backend.open(model, SessionOptions(threads=2))
    shared = backend.open(model, SessionOptions(threads=2, lanes=2))
    with ThreadPoolExecutor(3) as callers:
        for batch, result in zip(batches, callers.map(shared, batches), strict=True):
            np.testing.assert_array_equal(result, alone(batch))
    alone.close()
    shared.close()
