"""LAPAR's last step as one CUDA kernel: each pixel's own filter, without intermediate pictures.

PyTorch writes and reads a picture for each of 13 (or 25) taps. Here every number of the taps is
read once and every pixel of the result written once; the neighbours come from the cache.

Importing this needs Triton, which comes with PyTorch's CUDA builds for Linux. Kernels have no type
annotations but `tl.constexpr`, because Triton compiles annotations too.
"""

# mypy: disable-error-code="no-untyped-def, misc, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # pixels of a row that one program makes


@triton.jit
def _reflected(index, last):
    """Mirror indices that lie beyond a border; the border itself is not repeated."""
    index = tl.abs(index)
    return tl.minimum(index, 2 * last - index)


@triton.jit
def _neighbours(picture, y, x, inside, height, width, stride_c, stride_y, stride_x, tap):
    """Load red, green, blue of neighbour `tap` (row by row) in each pixel's 5x5 window; float32."""
    top = _reflected(y + (tap // 5 - 2), height - 1)
    # Lanes beyond the row's end have no neighbours; let them read what exists.
    left = tl.where(inside, _reflected(x + (tap % 5 - 2), width - 1), 0)
    place = picture + top * stride_y + left * stride_x
    red = tl.load(place).to(tl.float32)
    green = tl.load(place + stride_c).to(tl.float32)
    blue = tl.load(place + stride_c + stride_c).to(tl.float32)
    return red, green, blue


# Sizes and strides differ from picture to picture, and a kernel for each would be compiled anew.
VARYING = ("height", "width", "picture_n", "picture_y", "taps_n", "taps_y", "out_n", "out_y")


@triton.jit(do_not_specialize=VARYING)
def _assemble(
    picture,
    taps,
    out,
    height,
    width,
    picture_n,
    picture_c,
    picture_y,
    picture_x,
    taps_n,
    taps_c,
    taps_y,
    taps_x,
    out_n,
    out_c,
    out_y,
    out_x,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Filter BLOCK pixels of one row of one picture, three planes at once; sums are in float32."""
    row = tl.program_id(0)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    # In 64 bits: the taps of a large batch are more than 2^31 numbers.
    n, y = (row // height).to(tl.int64), (row % height).to(tl.int64)
    picture += n * picture_n
    taps += n * taps_n + y * taps_y + x * taps_x
    red = tl.zeros([BLOCK], tl.float32)
    green = tl.zeros([BLOCK], tl.float32)
    blue = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(COUNT):
        weight = tl.load(taps, mask=inside, other=0.0).to(tl.float32)
        taps += taps_c  # as a pointer: the distance itself may not fit in 32 bits
        r, g, b = _neighbours(
            picture, y, x, inside, height, width, picture_c, picture_y, picture_x, tap
        )
        if COUNT == 13:
            if tap < 12:  # and for the place opposite
                r2, g2, b2 = _neighbours(
                    picture, y, x, inside, height, width, picture_c, picture_y, picture_x, 24 - tap
                )
                r, g, b = r + r2, g + g2, b + b2
        red += weight * r
        green += weight * g
        blue += weight * b
    target = out + n * out_n + y * out_y + x * out_x
    kind = out.dtype.element_ty
    tl.store(target, red.to(kind), mask=inside)
    tl.store(target + out_c, green.to(kind), mask=inside)
    tl.store(target + out_c + out_c, blue.to(kind), mask=inside)


def apply_filters(picture: Tensor, taps: Tensor, count: int) -> Tensor:
    """Filter every pixel with its own 5x5 kernel; as `srcli.models.lapar.network.apply_filters`.

    Args:
        picture: n x 3 x H x W, of any strides; H and W at least 3.
        taps: n x 13 x H x W or n x 25 x H x W, of any strides.
        count: 13 or 25.

    Returns:
        n x 3 x H x W, contiguous, in the picture's type; sums are in float32.
    """
    n, _, height, width = picture.shape
    out = torch.empty((n, 3, height, width), dtype=picture.dtype, device=picture.device)
    grid = (n * height, triton.cdiv(width, BLOCK))
    strides = (*picture.stride(), *taps.stride(), *out.stride())
    _assemble[grid](picture, taps, out, height, width, *strides, COUNT=count, BLOCK=BLOCK)
    return out
