"""The library behind the command line."""

from __future__ import annotations

import numpy as np
import pytest

import srcli
from srcli.backends import get_backend
from srcli.errors import BackendError, UsageError
from srcli.registry import get_model, model_names

RUINED = [name for name in model_names() if get_model(name).half_tolerance is None]


@pytest.fixture(scope="module")
def network():
    with srcli.load("lapar-c", 2) as network:
        yield network


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy's, of its matrices
def test_other_kinds_of_arrays_are_arrays(network, photograph):
    grey = np.ascontiguousarray(photograph[:20, :30, 0])
    expected = network(grey)
    for other in (np.matrix(grey), np.ma.masked_less(grey, 100), np.asfortranarray(grey)):
        found = network(other)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pixels", [[[1, 2], [3, 4]], "picture", None, np.zeros((4, 4, 5), "u1")])
def test_what_is_no_picture(network, pixels):
    with pytest.raises(UsageError, match="is no picture"):
        network(pixels)


def test_after_closing(photograph):
    network = srcli.load("lapar-c", 2)
    network.close()
    with pytest.raises(UsageError, match="closed"):
        network(photograph[:9, :9])


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(threads):
    with pytest.raises(UsageError, match="threads"):
        srcli.load("lapar-c", 2, threads=threads)


@pytest.mark.parametrize("name", RUINED)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_half_precision_is_refused_where_it_ruins_the_result(name, precision, backend):
    with pytest.raises(BackendError, match=f"^{name}: half precision ruins .* Leave out"):
        get_backend(backend, get_model(name), precision)
