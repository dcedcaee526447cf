"""Convolutions for training on a CPU, by the compiled kernels of the `native` backend.

PyTorch's sum over all taps; Winograd's filtering needs a fourth of the multiplications for 3 x 3
and less than a sixth for 5 x 5, in all three directions: the output, the gradient by the input (a
convolution too), and the gradient by the weights (products of tiles with tiles).

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.backends.native import (
    COMPILED,
    GROUP,
    TILES,
    Array,
    NativeBackend,
    Rectangle,
    aligned,
    evaluation,
)

SLICE = 4  # as in `_network.c`
TILE = 4  # side of a tile's outputs

Work = Callable[[int, int, Rectangle, Array], object]
"""Does a rectangle: with the numbers of its picture and of its thread, and memory for scratch."""


def use_compiled(network: nn.Module, threads: int) -> str:
    """Let the compiled kernels do all convolutions of a network on the CPU that they fit.

    Args:
        network: Its convolutions pad with zeros to the same size; they are replaced under their
            names, with their parameters.
        threads: How many to use.

    Returns:
        What does the convolutions, and why if it is not the compiled code.
    """
    problem = NativeBackend().unavailable()
    if problem is not None:
        return f"PyTorch ({problem})"
    convolver = Convolver(threads)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.in_channels % GROUP == 0:
            network.set_submodule(name, CompiledConvolution(module, convolver))
    return "compiled"


class CompiledConvolution(nn.Module):
    """A convolution with its parameters, n x I x h x w -> n x O x h x w; I is a multiple of 16."""

    def __init__(self, plain: nn.Conv2d, convolver: Convolver) -> None:
        super().__init__()
        self.out_channels = plain.out_channels
        self.weight, self.bias = plain.weight, plain.bias
        self._convolver = convolver

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        missing = -self.out_channels % GROUP
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, missing))
        bias = F.pad(self.bias, (0, missing))
        outputs: Tensor = _Convolution.apply(x, weight, bias, self._convolver)  # type: ignore[no-untyped-call]
        return outputs[:, : self.out_channels]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, convolver: Convolver) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.convolver = convolver
        return convolver.outputs(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        by_output = gradients[0].contiguous(memory_format=torch.channels_last)
        turned = weight.flip(2, 3).transpose(0, 1)
        by_input = ctx.convolver.outputs(by_output, turned, weight.new_zeros(weight.shape[1]))
        by_weight = ctx.convolver.weight_gradient(x, by_output, weight.shape[2])
        return by_input, by_weight, by_output.sum((0, 2, 3)), None


class Convolver:
    """Convolutions of channels-last float32 tensors, whose channels are multiples of 16.

    Each thread does the same rows in every call, so the last digits depend on the number of
    threads, but not on which is faster.
    """

    def __init__(self, threads: int) -> None:
        self._compiled: Any = importlib.import_module(COMPILED)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "convolver")
        self._scratch = [aligned(0) for _ in range(threads)]

    def outputs(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """n x I x h x w -> n x O x h x w.

        Args:
            x: n x I x h x w.
            weight: O x I x 3 x 3, or O x I x 5 x 5.
            bias: O.
        """
        outputs, inputs, side, _ = weight.shape
        out = torch.empty((len(x), outputs, *x.shape[2:]), memory_format=torch.channels_last)
        kernel = (_flat(_packed(weight)), _flat(bias))

        def work(picture: int, thread: int, rectangle: Rectangle, scratch: Array) -> None:
            maps = (_map(x, picture), _map(out, picture))
            self._compiled.convolution(
                maps[0], kernel, side, inputs, outputs, maps[1], rectangle, scratch
            )

        self._share(x, _points(side) * ((inputs + GROUP) * TILES + 2 * GROUP), work)
        return out

    def weight_gradient(self, x: Tensor, by_output: Tensor, side: int) -> Tensor:
        """O x I x side x side, from n x I x h x w and n x O x h x w."""
        inputs, outputs = x.shape[1], by_output.shape[1]
        sums = [aligned(outputs * _points(side) * inputs) for _ in range(self._threads)]
        for of_thread in sums:
            of_thread[:] = 0

        def work(picture: int, thread: int, rectangle: Rectangle, scratch: Array) -> None:
            maps = (_map(x, picture), _map(by_output, picture))
            self._compiled.correlation(
                *maps, side, inputs, outputs, sums[thread], rectangle, scratch
            )

        self._share(x, _points(side) * ((inputs + SLICE * GROUP) * TILES + 2 * GROUP), work)
        total = sums[0] if self._threads == 1 else np.sum(sums, axis=0)
        return _unpacked(torch.from_numpy(total), outputs, inputs, side)

    def _share(self, x: Tensor, floats: int, work: Work) -> None:
        """Each thread does its rows of all pictures, with memory for so many floats."""
        count, _, height, width = x.shape
        rows = -(-height // (TILE * self._threads)) * TILE

        def do(thread: int) -> None:
            if self._scratch[thread].size < floats:
                self._scratch[thread] = aligned(floats)
            rectangle = (thread * rows, 0, min(thread * rows + rows, height), width)
            for picture in range(count):
                work(picture, thread, rectangle, self._scratch[thread])

        busy = range(-(-height // rows))
        if len(busy) == 1:
            do(0)
        else:
            list(self._pool.map(do, busy))


def _map(batch: Tensor, index: int) -> Array:
    """One picture of a channels-last batch: 1 x h x w x C, without a copy."""
    picture: Array = batch[index : index + 1].permute(0, 2, 3, 1).detach().numpy()
    return picture


def _packed(weight: Tensor) -> Tensor:
    """Weights at the points of Winograd's filtering: O/16 x points x I x 16."""
    outputs, inputs, side, _ = weight.shape
    points = _evaluation(side) @ weight.detach().reshape(outputs * inputs, side**2).T
    return points.reshape(-1, outputs // GROUP, GROUP, inputs).permute(1, 0, 3, 2)


def _unpacked(points: Tensor, outputs: int, inputs: int, side: int) -> Tensor:
    """The gradient by the weights from that at the points: `_packed` is linear."""
    laid_out = points.reshape(outputs // GROUP, -1, inputs, GROUP).permute(1, 0, 3, 2)
    weight = _evaluation(side).T @ laid_out.reshape(-1, outputs * inputs)
    return weight.T.reshape(outputs, inputs, side, side)


@cache
def _evaluation(side: int) -> Tensor:
    """What takes a kernel to the points: (side + 3)^2 x side^2."""
    along = evaluation(side)
    return torch.from_numpy(np.kron(along, along)).float()


def _flat(values: Tensor) -> Array:
    """As the compiled code reads it: from a multiple of 64 bytes on."""
    flat = aligned(values.numel())
    flat[:] = values.detach().reshape(-1).numpy()
    return flat


def _points(side: int) -> int:
    return (side + TILE - 1) ** 2
