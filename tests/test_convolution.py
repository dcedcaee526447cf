"""Convolutions for training: what PyTorch computes, forwards and backwards."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from srcli.backends.native import COMPILED, aligned
from srcli.weights.convolution import CompiledConvolution, Convolver, _flat, _packed, use_compiled

compiled = pytest.importorskip(COMPILED, exc_type=ImportError)

SHAPES = [  # channels in and out, side of the kernel, height and width
    (16, 16, 3, 9, 10),
    (32, 13, 3, 21, 34),
    (16, 80, 3, 12, 13),
    (128, 32, 3, 17, 16),
    (32, 32, 5, 23, 30),
    (16, 16, 5, 1, 2),
]
TOLERANCE = {3: 3e-6, 5: 2e-5}  # of the largest; Winograd's filtering loses more for 5 x 5


def tensors(inputs, outputs, side, height, width):
    """Pictures, a convolution, and a gradient by its outputs."""
    torch.manual_seed(height)
    x = torch.randn(2, inputs, height, width, requires_grad=True)
    return (
        x,
        nn.Conv2d(inputs, outputs, side, padding=side // 2),
        torch.randn(2, outputs, height, width),
    )


def in_double(x, plain, by_output):
    """Outputs and gradients by input, weights and bias."""
    exact = [t.detach().double().requires_grad_() for t in (x, plain.weight, plain.bias)]
    outputs = F.conv2d(*exact, padding=plain.padding)
    return outputs.detach(), *torch.autograd.grad(outputs, exact, by_output.double())


def found(x, plain, by_output, threads=1):
    outputs = CompiledConvolution(plain, Convolver(threads))(x)
    return outputs.detach(), *torch.autograd.grad(outputs, (x, plain.weight, plain.bias), by_output)


def assert_close(results, expected, tolerance):
    for one, other in zip(results, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * max(1, other.abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients(vectors, shape):
    given_ = tensors(*shape)
    assert_close(found(*given_), in_double(*given_), TOLERANCE[shape[2]])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.sampled_from([3, 5]))
def test_any_size_on_any_number_of_threads(height, width, threads, side):
    given_ = tensors(16, 16, side, height, width)
    results = found(*given_, threads=threads)
    assert_close(results, in_double(*given_), TOLERANCE[side])
    for one, other in zip(results, found(*given_, threads=threads), strict=True):
        assert torch.equal(one, other)


def test_gradients_add_up_over_a_network():
    """Where one tensor goes several ways, and a convolution is left to PyTorch."""

    def network():
        torch.manual_seed(1)
        return nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)])

    def gradients(network):
        head, body = network
        x = head(torch.linspace(0, 1, 3 * 9 * 8).reshape(1, 3, 9, 8))
        (x + body(F.relu(body(x)))).square().mean().backward()
        return [parameter.grad for parameter in network.parameters()]

    changed = network()
    assert use_compiled(changed, 1) == "compiled"
    assert [type(part) for part in changed] == [nn.Conv2d, CompiledConvolution]
    assert_close(gradients(changed), gradients(network()), 1e-5)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, COMPILED, None)
    network = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1))
    assert use_compiled(network, 1).startswith("PyTorch (srcli was installed without")
    assert type(network[0]) is nn.Conv2d


class TestRefusals:
    """Of what would read or write where it must not."""

    def arguments(self, name):
        maps = aligned(2 * 8 * 9 * 16).reshape(2, 1, 8, 9, 16)
        maps[:] = 0
        sums, scratch = aligned(36 * 256), aligned(1 << 18)
        kernel = (_flat(_packed(torch.randn(16, 16, 3, 3))), _flat(torch.randn(16)))
        rectangle = (0, 0, 8, 9)
        return {
            "convolution": [maps[0], kernel, 3, 16, 16, maps[1], rectangle, scratch],
            "correlation": [maps[0], maps[1], 3, 16, 16, sums, rectangle, scratch],
        }[name]

    @pytest.mark.parametrize("name", ["convolution", "correlation"])
    @pytest.mark.parametrize(
        ("index", "value", "message"),
        [
            (0, aligned(8 * 8 * 16).reshape(1, 8, 8, 16), "one size"),
            (0, aligned(8 * 9 * 32).reshape(1, 8, 9, 32), "not such maps"),
            (2, 4, "3 x 3 or 5 x 5"),
            (3, 0, "channels"),
            (4, -1, "channels"),
            (4, 64, "weights|sums|not such maps"),
            (6, (0, 0, 9, 9), "rectangle"),
            (7, aligned(1000), "too small"),
        ],
    )
    def test_arguments(self, name, index, value, message):
        arguments = self.arguments(name)
        arguments[index] = value
        with pytest.raises(ValueError, match=message):
            getattr(compiled, name)(*arguments)

    def test_sums_that_are_too_few(self):
        arguments = self.arguments("correlation")
        arguments[5] = aligned(36 * 256 - 1)
        with pytest.raises(ValueError, match="sums"):
            compiled.correlation(*arguments)

    @pytest.mark.parametrize("name", ["convolution", "correlation"])
    def test_what_is_right(self, name):
        getattr(compiled, name)(*self.arguments(name))


def test_threads_do_their_own_rows():
    """As many parts as there are threads, whatever the height."""
    convolver = Convolver(3)
    x = torch.randn(1, 16, 13, 5).contiguous(memory_format=torch.channels_last)
    parts = []
    convolver._share(x, 1, lambda picture, thread, rectangle, scratch: parts.append(rectangle))
    assert sorted(parts) == [(0, 0, 8, 5), (8, 0, 13, 5)]
