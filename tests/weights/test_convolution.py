"""Convolutions for training: what PyTorch computes, forwards and backwards."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from srcli.backends.native.compiled import COMPILED, obstacle
from srcli.backends.native.weights import aligned, packed
from srcli.weights.training.convolution import (
    CompiledConvolution,
    Convolver,
    _portions,
    use_compiled,
)

compiled = pytest.importorskip(COMPILED, exc_type=ImportError)
needs_wide_vectors = pytest.mark.skipif(obstacle() is not None, reason="narrow vectors")

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
        assert (one - other).abs().max() <= tolerance * other.abs().max()


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


@needs_wide_vectors
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
    assert use_compiled(changed, 1) == "compiled (1 of 2)"
    assert [type(part) for part in changed] == [nn.Conv2d, CompiledConvolution]
    assert_close(gradients(changed), gradients(network()), 1e-5)


@needs_wide_vectors
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"padding": 0},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 1, "groups": 2},
        {"padding": 1, "bias": False},
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(options):
    network = nn.Sequential(nn.Conv2d(32, 32, **{"kernel_size": 3} | options))
    assert use_compiled(network, 1) == "compiled (0 of 1)"
    assert type(network[0]) is nn.Conv2d


def test_what_needs_no_gradient_gets_none():
    x, plain, gradient = tensors(16, 16, 3, 9, 10)
    plain.weight.requires_grad_(False)
    outputs = CompiledConvolution(plain, Convolver(1))(x.detach())
    outputs.backward(gradient)
    assert plain.weight.grad is None
    assert torch.allclose(plain.bias.grad, gradient.sum((0, 2, 3)), atol=1e-4)


def test_second_derivatives_are_refused():
    x, plain, _ = tensors(16, 16, 3, 9, 10)
    outputs = CompiledConvolution(plain, Convolver(1))(x)
    (slope,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_tensors_that_begin_anywhere():
    _, plain, _ = tensors(16, 16, 3, 9, 10)
    flat = torch.randn(16 * 9 * 10 + 1)
    x = flat[1:].view(1, 9, 10, 16).permute(0, 3, 1, 2)
    assert x.data_ptr() % 64
    outputs = CompiledConvolution(plain, Convolver(1))(x)
    torch.testing.assert_close(outputs, plain(x), atol=1e-5, rtol=0)


def test_several_callers_at_once():
    """Each thread has scratch memory of its own."""
    x, plain, _ = tensors(32, 32, 3, 64, 65)
    convolution = CompiledConvolution(plain, Convolver(1))
    expected = convolution(x)
    with ThreadPoolExecutor(2) as callers:
        for outputs in callers.map(convolution, [x] * 20):
            assert torch.equal(outputs, expected)


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
        kernel = packed(torch.randn(16, 16, 3, 3).numpy(), torch.randn(16).numpy())
        rectangle = (0, 0, 8, 9)
        return {
            "convolution": [maps[0], kernel, 3, 16, 16, maps[1], rectangle, scratch],
            "weight_gradient": [maps[0], maps[1], 3, 16, 16, sums, rectangle, scratch],
        }[name]

    @pytest.mark.parametrize("name", ["convolution", "weight_gradient"])
    @pytest.mark.parametrize(
        ("index", "value", "message"),
        [
            (0, aligned(8 * 8 * 16).reshape(1, 8, 8, 16), "one size"),
            (0, aligned(8 * 9 * 32).reshape(1, 8, 9, 32), "not such maps"),
            (2, 4, "3 x 3 or 5 x 5"),
            (3, 0, "channels"),
            (4, -1, "channels"),
            (4, 64, "weights|sums|not such maps"),
            (0, aligned(8 * 9 * 16 + 1)[1:].reshape(1, 8, 9, 16), "64 bytes"),
            (6, (0, 0, 9, 9), "rectangle"),
            (7, aligned(1000), "too small"),
        ],
    )
    def test_arguments(self, name, index, value, message):
        arguments = self.arguments(name)
        arguments[index] = value
        with pytest.raises(ValueError, match=message):
            getattr(compiled, name)(*arguments)

    def test_weights_that_are_too_few(self):
        arguments = self.arguments("convolution")
        arguments[1] = (aligned(36 * 256 - 1), aligned(16))
        with pytest.raises(ValueError, match="weights"):
            compiled.convolution(*arguments)

    @pytest.mark.parametrize("name", ["convolution", "weight_gradient"])
    def test_what_cannot_be_written(self, name):
        arguments = self.arguments(name)
        arguments[5].flags.writeable = False
        with pytest.raises((ValueError, BufferError)):
            getattr(compiled, name)(*arguments)

    def test_sums_that_are_too_few(self):
        arguments = self.arguments("weight_gradient")
        arguments[5] = aligned(36 * 256 - 1)
        with pytest.raises(ValueError, match="sums"):
            compiled.weight_gradient(*arguments)

    @pytest.mark.parametrize("name", ["convolution", "weight_gradient"])
    def test_what_is_right(self, name):
        getattr(compiled, name)(*self.arguments(name))


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 50), st.integers(1, 20))
def test_portions_are_all_rows_once(count, height, threads):
    portions = _portions(count, height, threads)
    assert len(portions) <= threads
    rows = [
        (picture, y)
        for parts in portions
        for picture, top, bottom in parts
        for y in range(top, bottom)
    ]
    assert rows == [(picture, y) for picture in range(count) for y in range(height)]
    assert all(top % 4 == 0 for parts in portions for _, top, _ in parts)
    shares = [sum(-(-(bottom - top) // 4) for _, top, bottom in parts) for parts in portions]
    assert max(shares) - min(shares) <= 1
