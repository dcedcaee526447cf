"""Weights of convolutions, arranged for blocks of neighbouring pixels.

A block of r x g output pixels sees one window of (r + k - 1) x (g + k - 1) input pixels. Written as
one matrix, its weights are those of the convolution, shifted from pixel to pixel, and zeros
elsewhere. A convolution before a pixel shuffle is the same with a block of s x s for each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes by which a layer is cut into programs of a GPU; they change speed, not results."""

    step: int = 1
    """Rows of input pixels in a block."""

    group: int = 2
    """Columns of input pixels in a block."""

    part: int = 0
    """Rows of output that one program makes of a block; 0 for all."""

    piece: int = 32
    """Numbers of a window's row that are multiplied at a time; a power of two, at least 16."""

    block: int = 64
    """Blocks of pixels in one program; a power of two, at least 16."""

    warps: int = 4

    stages: int = 3
    """Pieces in flight: the one in use and those that are loaded ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A convolution's weights, ready for `triton_convolutions`."""

    weights: Tensor
    """[parts, planes * rows * pieces * piece, columns]."""

    bias: Tensor
    """[parts, columns], float32."""

    tuning: Tuning

    inputs: int
    """Channels of one plane of the source."""

    outputs: int
    """Channels of the result."""

    planes: int
    """Maps that are read one after the other, as if concatenated."""

    scale: int
    """Factor of the pixel shuffle after the convolution; 1 for none."""

    rows: int
    """Rows of input that one program reads of a block's window."""

    pieces: int
    """Pieces in a row of a window."""

    margin: int
    """Pixels by which a window reaches beyond its block."""

    @property
    def parts(self) -> int:
        """Programs that share a block."""
        return self.weights.shape[0]

    @property
    def columns(self) -> int:
        """Numbers that a program computes of a block, unused ones included."""
        return self.weights.shape[2]

    @property
    def part(self) -> int:
        """Rows of output in one program."""
        return self.tuning.part or self.tuning.step * self.scale


def block(
    weight: Tensor,
    bias: Tensor | None,
    tuning: Tuning,
    *,
    dtype: torch.dtype,
    scale: int = 1,
    planes: int = 1,
    inputs: int | None = None,
    outputs: int | None = None,
) -> Blocked:
    """Arrange a convolution.

    Args:
        weight: s*s*Cout x planes*C x k x k, in the order that `pixel_shuffle` expects.
        bias: s*s*Cout numbers; None for zeros.
        tuning: Sizes by which the layer is cut.
        dtype: Of the arranged weights.
        scale: s.
        planes: Into which the input's channels are divided.
        inputs: Channels of a plane as stored, if more than it has.
        outputs: Channels of the result as stored, if more than it has.

    Raises:
        ValueError: The parts do not divide the block.
    """
    side, channels = weight.shape[-1], weight.shape[1] // planes
    inputs, outputs = inputs or channels, outputs or weight.shape[0] // scale**2
    part = tuning.part or tuning.step * scale
    if (tuning.step * scale) % part or (part % scale and scale % part):
        raise ValueError(f"{part} rows do not divide a block of {tuning.step * scale}")
    window = _window(weight.detach().double(), tuning, scale, planes, inputs, outputs)
    offset = torch.zeros(outputs, scale, scale, dtype=torch.float64, device=weight.device)
    if bias is not None:
        offset[: len(bias) // scale**2] = bias.detach().double().view(-1, scale, scale)
    high, wide = tuning.step * scale, tuning.group * scale
    offsets = offset.permute(1, 2, 0).repeat(tuning.step, tuning.group, 1)  # high wide Cout
    rows = max(1, part // scale) + side - 1
    run = (tuning.group + side - 1) * inputs
    pieces = -(-run // tuning.piece)
    share = 1 << (wide * outputs - 1).bit_length()
    parts = high // part
    packed = window.new_zeros(parts, planes, rows, pieces * tuning.piece, part, share)
    biases = window.new_zeros(parts, part, share)
    for index in range(parts):
        first = index * part // scale
        own = slice(index * part, (index + 1) * part)
        # planes rows columns C high wide Cout -> planes rows run part share
        seen = window[:, first : first + rows, :, :, own]
        packed[index, :, :, :run, :, : wide * outputs] = seen.reshape(
            planes, rows, run, part, wide * outputs
        )
        biases[index, :, : wide * outputs] = offsets[own].reshape(part, wide * outputs)
    return Blocked(
        weights=packed.reshape(parts, -1, part * share).to(dtype).contiguous(),
        bias=biases.reshape(parts, part * share).float().contiguous(),
        tuning=tuning,
        inputs=inputs,
        outputs=outputs,
        planes=planes,
        scale=scale,
        rows=rows,
        pieces=pieces,
        margin=side // 2,
    )


def _window(
    weight: Tensor, tuning: Tuning, scale: int, planes: int, inputs: int, outputs: int
) -> Tensor:
    """Return a whole block's weights: planes x rows x columns x C x high x wide x Cout."""
    side, channels = weight.shape[-1], weight.shape[1] // planes
    kernel = weight.view(-1, scale, scale, planes, channels, side, side)
    kernel = kernel.permute(3, 5, 6, 4, 1, 2, 0)  # planes k k C sy sx Cout
    rows, columns = tuning.step + side - 1, tuning.group + side - 1
    high, wide = tuning.step * scale, tuning.group * scale
    window = weight.new_zeros(planes, rows, columns, inputs, high, wide, outputs)
    for down in range(tuning.step):
        for across in range(tuning.group):
            window[
                :,
                down : down + side,
                across : across + side,
                :channels,
                down * scale : (down + 1) * scale,
                across * scale : (across + 1) * scale,
                : kernel.shape[-1],
            ] = kernel
    return window
