"""Convolutions for training on a CPU, by the compiled kernels of the `native` backend.

PyTorch's sum over all taps; Winograd's filtering needs a fourth of the multiplications for 3 x 3
and less than a sixth for 5 x 5, in all three directions: the output, the gradient by the input (a
convolution too), and the gradient by the weights (products of tiles with tiles).

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from srcli.backends.native.compiled import compiled, obstacle
from srcli.backends.native.network import TILE, Rectangle
from srcli.backends.native.weights import ALIGNMENT, Array, aligned, evaluation, filled

Portion = list[tuple[int, int, int]]
"""Rows of some pictures: the picture, its first row, and the one after the last."""

Work = Callable[[int, int, Rectangle, Array], object]
"""Does rows of a picture, given the numbers of portion and picture, the rows, and scratch."""


def use_compiled(network: nn.Module, threads: int) -> str:
    """Let the compiled kernels do all convolutions of a network on the CPU that they fit.

    Args:
        network: Its convolutions are replaced under their names, with their parameters.
        threads: How many to use.

    Returns:
        What does the convolutions, and why if it is not the compiled code.
    """
    problem = obstacle()
    if problem is not None:
        return f"PyTorch ({problem.problem})"
    convolver = Convolver(threads)
    plain = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    fitting = [(name, module) for name, module in plain if _fits(module)]
    for name, module in fitting:
        network.set_submodule(name, CompiledConvolution(module, convolver))
    return f"compiled ({len(fitting)} of {len(plain)})"


def _fits(module: nn.Conv2d) -> bool:
    side = module.kernel_size[0]
    return (
        type(module) is nn.Conv2d
        and module.in_channels % compiled().GROUP == 0
        and module.kernel_size in ((3, 3), (5, 5))
        and module.padding == (side // 2, side // 2)
        and module.padding_mode == "zeros"
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.bias is not None
        and module.weight.dtype == torch.float32
    )


class CompiledConvolution(nn.Module):
    """A convolution with its parameters, n x I x h x w -> n x O x h x w; I is a multiple of 16."""

    def __init__(self, plain: nn.Conv2d, convolver: Convolver) -> None:
        super().__init__()
        self.out_channels = plain.out_channels
        self.weight, self.bias = plain.weight, plain.bias
        self._convolver = convolver

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        weight, bias = self.weight, self.bias
        missing = -self.out_channels % compiled().GROUP
        if missing:
            weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))
            bias = F.pad(bias, (0, missing))
        outputs: Tensor = _Convolution.apply(x, weight, bias, self._convolver)  # type: ignore[no-untyped-call]  # not annotated
        return outputs[:, : self.out_channels]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, convolver: Convolver) -> Tensor:
        x = _laid_out(x)
        ctx.save_for_backward(x, weight)
        ctx.convolver = convolver
        return convolver.outputs(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = _laid_out(gradients[0])
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            rotated = weight.flip(2, 3).transpose(0, 1)
            of_x = ctx.convolver.outputs(gradient, rotated, weight.new_zeros(weight.shape[1]))
        if ctx.needs_input_grad[1]:
            of_weight = ctx.convolver.weight_gradient(x, gradient, weight.shape[2])
        return of_x, of_weight, gradient.sum((0, 2, 3)), None


class Convolver:
    """Convolutions of channels-last float32 tensors, whose channels are multiples of 16.

    The work is always shared out alike, so the last digits depend on the number of threads, but
    not on which of them is faster.
    """

    def __init__(self, threads: int) -> None:
        self._compiled = compiled()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "convolver")
        self._thread = threading.local()

    def outputs(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """n x I x h x w -> n x O x h x w.

        Args:
            x: n x I x h x w.
            weight: O x I x 3 x 3, or O x I x 5 x 5.
            bias: O.
        """
        outputs, inputs, side, _ = weight.shape
        out = torch.empty((len(x), outputs, *x.shape[2:]), memory_format=torch.channels_last)
        kernel = (filled(_packed(weight).numpy()), filled(bias.detach().numpy()))

        def work(portion: int, picture: int, rows: Rectangle, scratch: Array) -> None:
            maps = (_map(x, picture), _map(out, picture))
            self._compiled.convolution(
                maps[0], kernel, side, inputs, outputs, maps[1], rows, scratch
            )

        portions = _portions(len(x), x.shape[2], self._threads)
        floats = self._compiled.convolution_floats(side, inputs)
        self._share(portions, x.shape[3], floats, work)
        return out

    def weight_gradient(self, x: Tensor, gradient: Tensor, side: int) -> Tensor:
        """O x I x side x side, from the inputs n x I x h x w and the gradient of the outputs."""
        inputs, outputs = x.shape[1], gradient.shape[1]
        portions = _portions(len(x), x.shape[2], self._threads)
        sums = [aligned(outputs * _points(side) * inputs) for _ in portions]
        for of_portion in sums:
            of_portion[:] = 0

        def work(portion: int, picture: int, rows: Rectangle, scratch: Array) -> None:
            maps = (_map(x, picture), _map(gradient, picture))
            self._compiled.weight_gradient(
                *maps, side, inputs, outputs, sums[portion], rows, scratch
            )

        floats = self._compiled.gradient_floats(side, inputs)
        self._share(portions, x.shape[3], floats, work)
        total = sums[0]
        for of_portion in sums[1:]:
            total += of_portion
        return _unpacked(torch.from_numpy(total), outputs, inputs, side)

    def _share(self, portions: list[Portion], width: int, floats: int, work: Work) -> None:
        """Do each portion in a thread of its own, with scratch of so many floats."""

        def do(portion: int) -> None:
            scratch = getattr(self._thread, "scratch", None)
            if scratch is None or scratch.size < floats:
                scratch = self._thread.scratch = aligned(floats)
            for picture, top, bottom in portions[portion]:
                work(portion, picture, (top, 0, bottom, width), scratch)

        if len(portions) == 1:
            do(0)
            return
        futures = [self._pool.submit(do, portion) for portion in range(len(portions))]
        wait(futures)  # also for those that go on after one has failed
        for future in futures:
            future.result()


def _portions(count: int, height: int, threads: int) -> list[Portion]:
    """All rows of `count` pictures in equal parts, whole tiles each."""
    bands = -(-height // TILE)  # of a picture
    parts = min(threads, count * bands)
    portions = []
    for part in range(parts):
        first, last = (count * bands * edge // parts for edge in (part, part + 1))
        portions.append(
            [
                (
                    picture,
                    TILE * max(first - picture * bands, 0),
                    min(TILE * min(last - picture * bands, bands), height),
                )
                for picture in range(first // bands, (last - 1) // bands + 1)
            ]
        )
    return portions


def _laid_out(tensor: Tensor) -> Tensor:
    """As the compiled code reads it: pixel by pixel, from a multiple of 64 bytes on."""
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    if tensor.data_ptr() % ALIGNMENT:
        tensor = tensor.clone(memory_format=torch.channels_last)
    return tensor


def _map(batch: Tensor, index: int) -> Array:
    """One picture of a channels-last batch: 1 x h x w x C, without a copy."""
    picture: Array = batch.detach()[index : index + 1].permute(0, 2, 3, 1).numpy()
    return picture


def _packed(weight: Tensor) -> Tensor:
    """Weights at the points of Winograd's filtering: O/16 x points x I x 16."""
    group = compiled().GROUP
    outputs, inputs, side, _ = weight.shape
    points = _evaluation(side) @ weight.detach().reshape(outputs * inputs, side**2).T
    return points.reshape(-1, outputs // group, group, inputs).permute(1, 0, 3, 2)


def _unpacked(points: Tensor, outputs: int, inputs: int, side: int) -> Tensor:
    """The gradient by the weights from that at the points: `_packed` is linear."""
    group = compiled().GROUP
    laid_out = points.reshape(outputs // group, -1, inputs, group).permute(1, 0, 3, 2)
    weight = _evaluation(side).T @ laid_out.reshape(-1, outputs * inputs)
    return weight.T.reshape(outputs, inputs, side, side)


@cache
def _evaluation(side: int) -> Tensor:
    """What takes a kernel to the points: (side + 3)^2 x side^2."""
    along = evaluation(side)
    return torch.from_numpy(np.kron(along, along)).float()


def _points(side: int) -> int:
    return (side + TILE - 1) ** 2
