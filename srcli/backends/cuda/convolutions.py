"""Convolutions of small networks on a GPU, as products of matrices that fill its tensor cores.

A layer of 16 channels is too narrow for tensor cores, and a library's convolution reads its input
9 or 25 times and adds bias, ReLU and skip connection in separate passes. Here one program makes
a block of neighbouring pixels at once: their windows overlap, so less is read, and the matrix is
wider (its zeros cost less than narrowness does). Everything that follows a convolution happens
before its result is written.

Feature maps are channels-last and dense: [planes, pictures, height, width, channels], where planes
are maps side by side, as a concatenation reads them. Sums are in float32.

Importing this needs Triton, which comes with PyTorch's CUDA builds for Linux. Kernels have no type
annotations but `tl.constexpr`, because Triton compiles annotations too.
"""

# mypy: disable-error-code="no-untyped-def, misc, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from srcli.backends.cuda.blocked import Blocked

_NEVER = tl.constexpr(-(1 << 24))  # a row above every picture


@triton.jit
def places(groups_high, groups_wide, pictures, ROWS_STEP: tl.constexpr, BLOCK: tl.constexpr):
    """Return picture, row and column of each group of this program; a negative row for none."""
    group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    across = group % groups_wide
    down = group // groups_wide
    picture = down // groups_high
    row = tl.where(picture < pictures, (down % groups_high) * ROWS_STEP, _NEVER)
    return tl.minimum(picture, pictures - 1), row, across


@triton.jit
def products(
    source,
    weights,
    sums,
    picture,
    top,
    left,
    height,
    width,
    plane,
    C: tl.constexpr,
    PLANES: tl.constexpr,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
    PIECE: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add to `sums`, groups x N, the products of each group's window and the weights."""
    k = tl.arange(0, PIECE)
    columns = tl.arange(0, N)
    row_length = width * C
    far = tl.cast(plane, tl.int64) * C
    for step in range(PLANES * ROWS * PIECES):
        piece = step % PIECES
        row = top + (step // PIECES) % ROWS
        # A window's row is one run of numbers; beyond the picture's sides there are zeros.
        index = (left * C + piece * PIECE)[:, None] + k[None, :]
        inside = (index >= 0) & (index < row_length) & ((row >= 0) & (row < height))[:, None]
        start = (picture * height + row).to(tl.int64) * row_length
        start += (step // (PIECES * ROWS)) * far
        # Through the first level of the cache: windows overlap, and programs share weights.
        a = tl.load(source + (start[:, None] + index), mask=inside, other=0.0, cache_modifier=".ca")
        b = tl.load(
            weights + ((step * PIECE + k)[:, None] * N + columns[None, :]), cache_modifier=".ca"
        )
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


# Sizes differ from picture to picture, and a kernel for each would be compiled anew.
VARYING = ("pictures", "height", "width", "groups_high", "groups_wide", "plane")


@triton.jit(do_not_specialize=VARYING)
def _convolve(
    source,
    weights,
    bias,
    second,
    second_weights,
    residual,
    out,
    factor,
    pictures,
    height,
    width,
    groups_high,
    groups_wide,
    plane,
    C: tl.constexpr,
    PLANES: tl.constexpr,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
    MARGIN: tl.constexpr,
    C2: tl.constexpr,
    ROWS2: tl.constexpr,
    PIECES2: tl.constexpr,
    MARGIN2: tl.constexpr,
    COUT: tl.constexpr,
    SCALE: tl.constexpr,
    STEP: tl.constexpr,
    GROUP: tl.constexpr,
    PART: tl.constexpr,
    N: tl.constexpr,
    RELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PLANAR: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute one layer, for BLOCK groups of STEP x GROUP input pixels each; see `convolve`.

    A group becomes SCALE*STEP rows of SCALE*GROUP pixels, PART of the rows in one program.
    """
    part = tl.program_id(1)
    picture, top, across = places(groups_high, groups_wide, pictures, STEP, BLOCK)
    left = across * GROUP
    sums = tl.zeros([BLOCK, N], tl.float32)
    here = top + part * PART // SCALE
    sums = products(
        source,
        weights + part * (PLANES * ROWS * PIECES * PIECE * N),
        sums,
        picture,
        here - MARGIN,
        left - MARGIN,
        height,
        width,
        plane,
        C,
        PLANES,
        ROWS,
        PIECES,
        PIECE,
        N,
        PRECISION,
    )
    if C2 > 0:
        sums = products(
            second,
            second_weights + part * (ROWS2 * PIECES2 * PIECE * N),
            sums,
            picture,
            here - MARGIN2,
            left - MARGIN2,
            height,
            width,
            plane,
            C2,
            1,
            ROWS2,
            PIECES2,
            PIECE,
            N,
            PRECISION,
        )
    column = tl.arange(0, N)
    sums += tl.load(bias + part * N + column)[None, :]
    SHARE: tl.constexpr = N // PART  # columns of one row, of which the last may stand for nothing
    row = (top * SCALE + part * PART)[:, None] + (column // SHARE)[None, :]
    run = (column % SHARE)[None, :]
    element = (left * (SCALE * COUT))[:, None] + run
    exists = (row >= 0) & (row < height * SCALE) & (run < SCALE * GROUP * COUT)
    exists &= element < width * (SCALE * COUT)
    if PLANAR:
        image = (picture * COUT)[:, None] + element % COUT
        place = (image * (height * SCALE) + row).to(tl.int64) * (width * SCALE) + element // COUT
    else:
        line = picture[:, None] * (height * SCALE) + row
        place = line.to(tl.int64) * (width * (SCALE * COUT)) + element
    if RESIDUAL:
        sums += factor * tl.load(residual + place, mask=exists, other=0.0).to(tl.float32)
    if RELU:
        sums = tl.maximum(sums, 0.0)
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=exists)


def convolve(
    layer: Blocked,
    source: Tensor,
    out: Tensor,
    *,
    residual: Tensor | None = None,
    factor: float = 1.0,
    relu: bool = False,
    second: tuple[Blocked, Tensor] | None = None,
    planar: bool = False,
) -> Tensor:
    """Run one layer.

    Args:
        layer: Weights, as `blocked.block` arranges them.
        source: [planes,] n x h x w x C, dense.
        out: n x s*h x s*w x Cout, dense; or n x Cout x s*h x s*w if `planar`.
        residual: Is added, multiplied by `factor`; as `out`.
        factor: Of the residual.
        relu: True if a ReLU comes last.
        second: Another layer with its own source, whose result is added to the sums.
        planar: True if channels come first in `out`.

    Returns:
        `out`.
    """
    *_, pictures, height, width, channels = source.shape
    tuning = layer.tuning
    grid, sizes = grid_of(layer, pictures, height, width)
    other, beside = second if second is not None else (None, source)
    _convolve[grid](
        source,
        layer.weights,
        layer.bias,
        beside,
        layer.weights if other is None else other.weights,
        out if residual is None else residual,
        out,
        factor,
        *sizes,
        pictures * height * width,
        C=channels,
        PLANES=layer.planes,
        ROWS=layer.rows,
        PIECES=layer.pieces,
        MARGIN=layer.margin,
        C2=0 if other is None else other.inputs,
        ROWS2=0 if other is None else other.rows,
        PIECES2=0 if other is None else other.pieces,
        MARGIN2=0 if other is None else other.margin,
        COUT=layer.outputs,
        SCALE=layer.scale,
        STEP=tuning.step,
        GROUP=tuning.group,
        PART=layer.part,
        N=layer.columns,
        RELU=relu,
        RESIDUAL=residual is not None,
        PLANAR=planar,
        PIECE=tuning.piece,
        BLOCK=tuning.block,
        PRECISION=precision_of(source),
        num_warps=tuning.warps,
        num_stages=tuning.stages,
    )
    return out


def grid_of(
    layer: Blocked, pictures: int, height: int, width: int
) -> tuple[tuple[int, int], tuple[int, int, int, int, int]]:
    tuning = layer.tuning
    high, wide = triton.cdiv(height, tuning.step), triton.cdiv(width, tuning.group)
    programs = triton.cdiv(pictures * high * wide, tuning.block)
    return (programs, layer.parts), (pictures, height, width, high, wide)


def precision_of(features: Tensor) -> str:
    """Name the way in which products are made: three of TF32 are as good as one in float32."""
    return "tf32x3" if features.dtype == torch.float32 else "ieee"
