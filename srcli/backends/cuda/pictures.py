"""Kernels for the pictures of a LAPAR on a GPU: its input, its bicubic part and its filters.

Importing this needs Triton. Kernels have no type annotations but `tl.constexpr`, because Triton
compiles annotations too.
"""

# mypy: disable-error-code="no-untyped-def, misc, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from srcli.backends.cuda.blocked import Blocked
from srcli.backends.cuda.convolutions import VARYING, grid_of, places, precision_of, products

SIDES = 4  # columns beside an enlarged picture: two that filters see, and its rows stay aligned


@triton.jit
def _halves(x, COUNT: tl.constexpr, P: tl.constexpr):
    """Split columns of P x 2*COUNT by their lowest bit."""
    return tl.split(tl.reshape(x, [P, COUNT, 2]))


@triton.jit
def _weighted(red, green, blue, weight, place, plane):
    """Add a neighbour's three numbers times the weight."""
    red += weight * tl.load(place)
    green += weight * tl.load(place + plane)
    blue += weight * tl.load(place + 2 * plane)
    return red, green, blue


@triton.jit
def _opposite(red, green, blue, weight, centre, line, plane, TAP: tl.constexpr):
    """Add two opposite neighbours of each pixel's 5x5 window times the weight."""
    away = (TAP // 5 - 2) * line + (TAP % 5 - 2)
    red, green, blue = _weighted(red, green, blue, weight, centre + away, plane)
    return _weighted(red, green, blue, weight, centre - away, plane)


@triton.jit(do_not_specialize=VARYING)
def _filter(
    source,
    weights,
    bias,
    enlarged,
    out,
    pictures,
    height,
    width,
    groups_high,
    groups_wide,
    plane,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
    STEP: tl.constexpr,
    GROUP: tl.constexpr,
    N: tl.constexpr,
    SIDES: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute LAPAR's last convolution and apply its filters; see `filter_pixels`."""
    picture, top, across = places(groups_high, groups_wide, pictures, STEP, BLOCK)
    sums = tl.zeros([BLOCK, N], tl.float32)
    sums = products(
        source,
        weights,
        sums,
        picture,
        top - 1,
        across * GROUP - 1,
        height,
        width,
        plane,
        C,
        1,
        ROWS,
        PIECES,
        PIECE,
        N,
        PRECISION,
    )
    sums += tl.load(bias + tl.arange(0, N))[None, :]
    # From here on a row is a pixel, with its 16 taps.
    PIXELS: tl.constexpr = BLOCK * STEP * GROUP
    taps = tl.reshape(sums, [PIXELS, 16])
    even, odd = _halves(taps, 8, PIXELS)
    t0, t2 = _halves(even, 4, PIXELS)  # 0 4 8 12, 2 6 10 14
    t1, t3 = _halves(odd, 4, PIXELS)  # 1 5 9 13, 3 7 11 15
    t0, t4 = _halves(t0, 2, PIXELS)  # 0 8, 4 12
    t2, t6 = _halves(t2, 2, PIXELS)
    t1, t5 = _halves(t1, 2, PIXELS)
    t3, t7 = _halves(t3, 2, PIXELS)
    t0, t8 = tl.split(t0)
    t4, t12 = tl.split(t4)
    t2, t10 = tl.split(t2)
    t6, _ = tl.split(t6)
    t1, t9 = tl.split(t1)
    t5, _ = tl.split(t5)
    t3, t11 = tl.split(t3)
    t7, _ = tl.split(t7)
    pixel = tl.arange(0, PIXELS)
    group = tl.program_id(0) * BLOCK + pixel // (STEP * GROUP)
    x = (group % groups_wide) * GROUP + pixel % GROUP
    down = group // groups_wide
    y = (down % groups_high) * STEP + (pixel // GROUP) % STEP
    n = down // groups_high
    exists = (n < pictures) & (y < height) & (x < width)
    # Pixels that do not exist look at the first one.
    x, y, n = tl.where(exists, x, 0), tl.where(exists, y, 0), tl.where(exists, n, 0)
    line = width + 2 * SIDES
    beyond = (height + 4) * line
    centre = enlarged + (n.to(tl.int64) * (3 * beyond) + ((y + 2) * line + x + SIDES))
    red = tl.zeros([PIXELS], tl.float32)
    green = tl.zeros([PIXELS], tl.float32)
    blue = tl.zeros([PIXELS], tl.float32)
    red, green, blue = _opposite(red, green, blue, t0, centre, line, beyond, 0)
    red, green, blue = _opposite(red, green, blue, t1, centre, line, beyond, 1)
    red, green, blue = _opposite(red, green, blue, t2, centre, line, beyond, 2)
    red, green, blue = _opposite(red, green, blue, t3, centre, line, beyond, 3)
    red, green, blue = _opposite(red, green, blue, t4, centre, line, beyond, 4)
    red, green, blue = _opposite(red, green, blue, t5, centre, line, beyond, 5)
    red, green, blue = _opposite(red, green, blue, t6, centre, line, beyond, 6)
    red, green, blue = _opposite(red, green, blue, t7, centre, line, beyond, 7)
    red, green, blue = _opposite(red, green, blue, t8, centre, line, beyond, 8)
    red, green, blue = _opposite(red, green, blue, t9, centre, line, beyond, 9)
    red, green, blue = _opposite(red, green, blue, t10, centre, line, beyond, 10)
    red, green, blue = _opposite(red, green, blue, t11, centre, line, beyond, 11)
    red, green, blue = _weighted(red, green, blue, t12, centre, beyond)
    size = height * width
    target = out + (n.to(tl.int64) * (3 * size) + (y * width + x))
    kind = out.dtype.element_ty
    tl.store(target, red.to(kind), mask=exists)
    tl.store(target + size, green.to(kind), mask=exists)
    tl.store(target + 2 * size, blue.to(kind), mask=exists)


def filter_pixels(layer: Blocked, source: Tensor, enlarged: Tensor, out: Tensor) -> Tensor:
    """Predict 13 taps for each pixel and filter it with them, without writing the taps.

    Args:
        layer: The 3x3 convolution that predicts taps, 13 padded to 16 channels.
        source: Features, n x H x W x C, dense.
        enlarged: The picture with its mirror image around it, as `enlarge` makes it:
            n x 3 x H+4 x W+8, float32, dense.
        out: n x 3 x H x W, dense, of any type.

    Returns:
        `out`.
    """
    pictures, height, width, channels = source.shape
    tuning = layer.tuning
    (programs, _), sizes = grid_of(layer, pictures, height, width)
    _filter[(programs,)](
        source,
        layer.weights,
        layer.bias,
        enlarged,
        out,
        *sizes,
        0,
        C=channels,
        ROWS=layer.rows,
        PIECES=layer.pieces,
        STEP=tuning.step,
        GROUP=tuning.group,
        N=layer.columns,
        SIDES=SIDES,
        PIECE=tuning.piece,
        BLOCK=tuning.block,
        PRECISION=precision_of(source),
        num_warps=tuning.warps,
        num_stages=tuning.stages,
    )
    return out


@triton.jit(do_not_specialize=("height", "width"))
def _prepare(
    picture,
    mean,
    out,
    height,
    width,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Subtract the mean from one row's pixels and put their channels last, C of them."""
    line = tl.program_id(0)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, C)
    inside = (x < width)[:, None] & (channel < 3)[None, :]
    image = (line // height * 3 + channel) * height + line % height
    place = picture + (image.to(tl.int64)[None, :] * width + x[:, None])
    value = tl.load(place, mask=inside, other=0.0)
    value -= tl.load(mean + channel, mask=channel < 3, other=0.0)[None, :]
    target = out + (line.to(tl.int64) * width + x[:, None]) * C + channel[None, :]
    tl.store(target, value.to(out.dtype.element_ty), mask=(x < width)[:, None])


def prepare(picture: Tensor, mean: Tensor, out: Tensor) -> Tensor:
    """Subtract the mean and put channels last, padded with zeros.

    Args:
        picture: n x 3 x h x w, float32, dense.
        mean: Three numbers, float32.
        out: n x h x w x C, dense.

    Returns:
        `out`.
    """
    pictures, _, height, width = picture.shape
    grid = (pictures * height, triton.cdiv(width, 128))
    _prepare[grid](picture, mean, out, height, width, C=out.shape[-1], BLOCK=128)
    return out


@triton.jit(do_not_specialize=("height", "width"))
def _enlarge(
    picture,
    taps,
    out,
    height,
    width,
    SCALE: tl.constexpr,
    PHASES: tl.constexpr,
    SIDES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute one row of one plane of the output, all phases of BLOCK input pixels."""
    line = tl.program_id(0)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    last = height * SCALE - 1
    row = tl.abs(line % (height * SCALE + 4) - 2)  # rows beyond the border as their mirror image
    row = tl.minimum(row, 2 * last - row)
    plane = picture + (line // (height * SCALE + 4)).to(tl.int64) * (height * width)
    down = taps + (row % SCALE) * 5
    far = tl.maximum(x - 2, 0)
    near = tl.maximum(x - 1, 0)
    next_ = tl.minimum(x + 1, width - 1)
    after = tl.minimum(x + 2, width - 1)
    a = tl.zeros([BLOCK], tl.float32)
    b = tl.zeros([BLOCK], tl.float32)
    c = tl.zeros([BLOCK], tl.float32)
    d = tl.zeros([BLOCK], tl.float32)
    e = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(5):
        y = tl.minimum(tl.maximum(row // SCALE + (tap - 2), 0), height - 1)
        weight = tl.load(down + tap)
        source = plane + y * width
        a += weight * tl.load(source + tl.minimum(far, width - 1))
        b += weight * tl.load(source + tl.minimum(near, width - 1))
        c += weight * tl.load(source + tl.minimum(x, width - 1))
        d += weight * tl.load(source + next_)
        e += weight * tl.load(source + after)
    # All phases of a pixel at once: they lie side by side.
    phase = tl.arange(0, PHASES)
    across = taps + tl.minimum(phase, SCALE - 1) * 5
    total = tl.load(across)[None, :] * a[:, None] + tl.load(across + 1)[None, :] * b[:, None]
    total += tl.load(across + 2)[None, :] * c[:, None] + tl.load(across + 3)[None, :] * d[:, None]
    total += tl.load(across + 4)[None, :] * e[:, None]
    column = (x * SCALE)[:, None] + phase[None, :]
    exists = inside[:, None] & (phase < SCALE)[None, :]
    target = out + line.to(tl.int64) * (width * SCALE + 2 * SIDES) + SIDES
    tl.store(target + column, total, mask=exists)
    # Columns beyond the border: the border itself is not repeated.
    tl.store(target - column, total, mask=exists & (column > 0) & (column <= 2))
    end = width * SCALE - 1
    mirrored = 2 * end - column
    tl.store(target + mirrored, total, mask=exists & (mirrored > end) & (mirrored <= end + 2))


def enlarge(picture: Tensor, taps: Tensor, scale: int, out: Tensor) -> Tensor:
    """Enlarge by separable filters of five taps, and add two mirrored pixels on each side.

    Args:
        picture: n x 3 x h x w, float32, dense; borders are repeated.
        taps: scale x 5, float32, dense, as `separable` makes them.
        scale: 1 to 4; s*h and s*w at least 3.
        out: n x 3 x s*h+4 x s*w+8, float32, dense; of the four columns on each side the inner
            two are written.

    Returns:
        `out`.
    """
    pictures, _, height, width = picture.shape
    grid = (pictures * 3 * (height * scale + 4), triton.cdiv(width, 128))
    phases = triton.next_power_of_2(scale)
    _enlarge[grid](
        picture, taps, out, height, width, SCALE=scale, PHASES=phases, SIDES=SIDES, BLOCK=128
    )
    return out
