"""DCLS: blind super-resolution by constrained least squares on feature maps.

Source: Luo, Huang, Yu, Li, Fan and Liu, "Deep Constrained Least Squares for Blind Image
Super-Resolution", CVPR 2022.

`Dcls` is the network in the paper's order, with the tensor names of the published checkpoints.
`FusedDcls` computes the same function with one batched real transform; `Dcls.fuse()` makes it. Both
have two entry points, `estimate_kernel` and `restore`, so that a picture that is restored in tiles
has one kernel. Shapes in comments: n pictures, h x w at input resolution, H x W at output
resolution, K side of the blur kernel, h' x w' the padded map, f = w'/2 + 1 frequencies.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from srcli.models.base import Network, PublishedNetwork
from srcli.models.dcls import (
    BLOCKS,
    CODE,
    DEBLURRED,
    FEATURES,
    GROUPS,
    filter_shapes,
    kernel_side,
)
from srcli.models.layers import as_numbers, count_up, quotient

fx.wrap("as_numbers")  # stays one operation in a traced graph
fx.wrap("count_up")
fx.wrap("quotient")

SLOPE = 0.1  # of every leaky ReLU
SMOOTHING_SIDE = 3


class Dcls(PublishedNetwork):
    """The published network: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W in [0, 1].

    Args:
        sides: Sides of the filters whose convolution is the blur kernel.
        scale: 2, 3 or 4.
    """

    def __init__(self, sides: Sequence[int], scale: int) -> None:
        super().__init__()
        self.Restorer = DeblurringNetwork(kernel_side(sides), scale)
        self.Estimator = Estimator(sides)
        self.clamped = True

    def forward(self, x: Tensor) -> Tensor:
        return self.restore(x, self.estimate_kernel(x))

    def estimate_kernel(self, x: Tensor) -> Tensor:
        """Estimate blur kernels of sum 1 at input resolution: n x 3 x h x w -> n x 1 x K x K."""
        kernel: Tensor = self.Estimator(x)
        return kernel

    def restore(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Enlarge and deblur with a known kernel."""
        return _clamped(self.Restorer(x, kernel), self.clamped)

    def fuse(self) -> FusedDcls:
        """Return the cheaper network of the same function; it shares no tensors with this one."""
        return FusedDcls(self).eval().requires_grad_(False)


class Estimator(nn.Module):
    """The dynamic deep linear kernel: predicts filters and composes them to one."""

    def __init__(self, sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.shapes = filter_shapes(sides)
        self.head = nn.Sequential(nn.Conv2d(3, FEATURES, 7, padding=3))
        self.body = nn.Sequential(
            nn.Sequential(*(ResidualBlock(nn.LeakyReLU(SLOPE)) for _ in "abc"))
        )
        self.tail = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(FEATURES, CODE, 1),
            nn.Flatten(),
        )
        self.dec = nn.ModuleList(nn.Linear(CODE, math.prod(shape)) for shape in self.shapes)

    def forward(self, x: Tensor) -> Tensor:
        kernels = [self.compose(code) for code in self.describe(x)]
        return torch.stack(kernels)  # n 1 K K

    def describe(self, x: Tensor) -> Tensor:
        """Return the code of the blur that predicts the filters: n x 3 x h x w -> n x 256."""
        features = self.head(x)  # n 64 h w
        features = features + self.body(features)
        return self.tail(features)

    def compose(self, code: Tensor) -> Tensor:
        """Compose one picture's kernel: filter an impulse by the predicted filters in turn."""
        side = kernel_side(self.sides)
        response = torch.zeros(1, 3, 2 * side - 1, 2 * side - 1, dtype=code.dtype)
        response[:, :, side - 1, side - 1] = 1
        response = response.to(code.device)
        for layer, shape in zip(self.dec, self.shapes, strict=True):
            response = F.conv2d(response, layer(code).view(shape))
        # Cross-correlation turns the impulse's response by half a turn.
        kernel = response.flip(2, 3).mean(dim=1)  # 1 K K
        return kernel / kernel.sum()


class ResidualBlock(nn.Module):
    """A residual block: `x + conv(activation(conv(x)))`."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = _conv(FEATURES, FEATURES)
        self.conv2 = _conv(FEATURES, FEATURES)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.activation(self.conv1(x)))


class DeblurringNetwork(nn.Module):
    """A network that deblurs feature maps and restores from these and from the blurred ones."""

    def __init__(self, kernel_side: int, scale: int) -> None:
        super().__init__()
        self.conv_first = _conv(3, FEATURES)
        self.feature_block = nn.Sequential(*(ResidualBlock(nn.LeakyReLU(SLOPE)) for _ in "abc"))
        self.head1 = _conv(FEATURES, DEBLURRED)
        self.head2: LeastSquares | FusedLeastSquares = LeastSquares(kernel_side)
        self.body = nn.Sequential(*(DualPathGroup() for _ in range(GROUPS)))
        self.fusion = _conv(FEATURES + DEBLURRED, FEATURES)
        factors = (2, 2) if scale == 4 else (scale,)
        stages = [
            layer
            for factor in factors
            for layer in (_conv(FEATURES, FEATURES * factor**2), nn.PixelShuffle(factor))
        ]
        self.upscale = nn.Sequential(*stages, _conv(FEATURES, 3))

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        first = self.conv_first(x)  # n 64 h w
        features = self.feature_block(first)  # n 64 h w
        paths = self.head2(features, kernel), self.head1(features)  # n 64 h w, n 16 h w
        for group in self.body:
            paths = group(*paths)
        fused = self.fusion(torch.cat([paths[1], paths[0]], dim=1)) + first  # n 64 h w
        return self.upscale(fused)  # n 3 H W


class LeastSquares(nn.Module):
    """Deconvolution of 16 feature maps, each with a smoothness of its own."""

    def __init__(self, kernel_side: int) -> None:
        super().__init__()
        self.kernel_side = kernel_side
        self.reduce_feature = nn.Conv2d(FEATURES, DEBLURRED, 1)
        self.grad_filter = nn.Sequential(
            nn.Conv2d(DEBLURRED, DEBLURRED, 3),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(DEBLURRED, DEBLURRED, 3),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(DEBLURRED, DEBLURRED, 3),
            nn.AdaptiveAvgPool2d(SMOOTHING_SIDE),
            nn.Conv2d(DEBLURRED, DEBLURRED, 1),
        )
        self.expand_feature = nn.Conv2d(DEBLURRED, FEATURES, 1)

    def forward(self, features: Tensor, kernel: Tensor) -> Tensor:
        blurred = self.reduce_feature(features)  # n 16 h w
        smoothing = normalised_smoothing(self.grad_filter(blurred))  # n 16 3 3
        edge = self.kernel_side
        padded = F.pad(blurred, [edge] * 4, mode="replicate")  # n 16 h' w'
        channels = [
            deconvolve(channel, kernel, smooth)
            for channel, smooth in zip(
                torch.split(padded, 1, 1), torch.split(smoothing, 1, 1), strict=True
            )
        ]
        clear = torch.cat(channels, dim=1)[:, :, edge:-edge, edge:-edge]  # n 16 h w
        return self.expand_feature(clear)  # n 64 h w


class DualPathGroup(nn.Module):
    """Ten dual-path blocks. Their output is doubled.

    In the published code the skip around the group adds a list to itself that the blocks have
    changed in place: what is added is not the group's input but its output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(DualPathBlock() for _ in range(BLOCKS)))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.body:
            first, second = block(first, second)
        return first * 2.0, second * 2.0


class DualPathBlock(nn.Module):
    """Two residual paths, n x 64 x h x w and n x 16 x h x w; the first also reads the second."""

    def __init__(self) -> None:
        super().__init__()
        self.body1 = _double_conv(FEATURES)
        self.body2 = _double_conv(DEBLURRED)
        self.CA_body1 = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            _conv(FEATURES + DEBLURRED, FEATURES),
            ChannelAttention(FEATURES),
        )
        self.CA_body2 = ChannelAttention(DEBLURRED)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        change, other = self.body1(first), self.body2(second)
        both = torch.cat([change, other], dim=1)  # n 80 h w
        return first + self.CA_body1(both), second + self.CA_body2(other)


class ChannelAttention(nn.Module):
    """Channel attention: scales channels by weights from their means over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(torch.mean(x, (2, 3), keepdim=True))


def normalised_smoothing(raw: Tensor) -> Tensor:
    """Subtract their mean from positive 3x3 filters, so that these respond to change only."""
    positive = torch.exp(raw)
    return positive - torch.mean(positive, (2, 3), keepdim=True)


def deconvolve(blurred: Tensor, kernel: Tensor, smoothing: Tensor) -> Tensor:
    """Solve constrained least squares on periodic maps: conj(K) Y / (|K|^2 + |P|^2).

    Args:
        blurred: n x c x h' x w', Y.
        kernel: n x 1 x K x K, centred.
        smoothing: n x c x 3 x 3, P: where it answers strongly, noise is held down.

    Source: the filter of the paper's title, long known for pictures (Hunt, "The Application of
    Constrained Least Squares Estimation to Image Restoration", 1973).
    """
    size = blurred.shape[-2:]
    blur, smooth = transfer(kernel, size), transfer(smoothing, size)
    spectrum = blur.conj() * torch.fft.fft2(blurred) / (blur.abs() ** 2 + smooth.abs() ** 2)
    clear: Tensor = torch.fft.ifft2(spectrum).real
    return clear


def transfer(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """Return the complex transfer function, on h' x w' frequencies, of a centred kernel."""
    frequencies: Tensor = torch.fft.fft2(_centred(kernel, size))
    return frequencies


def _centred(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """Put the kernel in a map of `size`: centre at the first pixel, the rest wrapped around."""
    height, width = kernel.shape[-2:]
    padded = F.pad(kernel, [0, size[1] - width, 0, size[0] - height])
    return torch.roll(padded, (-(height // 2), -(width // 2)), dims=(2, 3))


class FusedDcls(Network):
    """A fused form of `Dcls`, which computes all pictures and channels at once.

    The transforms are real ones over all channels; the blur kernel is composed by matrix products
    for all pictures together. Pooling to 3x3 is a product with two small matrices.
    """

    def __init__(self, published: Dcls) -> None:
        super().__init__()
        source = copy.deepcopy(published)
        self.restorer = source.Restorer
        head = source.Restorer.head2
        assert isinstance(head, LeastSquares)
        self.restorer.head2 = FusedLeastSquares(head)
        self.head, self.body = source.Estimator.head, source.Estimator.body[0]
        self.tail = source.Estimator.tail[:3]
        self.describe = source.Estimator.tail[4]
        self.compose = KernelComposer(source.Estimator)
        self.clamped = source.clamped

    def forward(self, x: Tensor) -> Tensor:
        return self.restore(x, self.estimate_kernel(x))

    def estimate_kernel(self, x: Tensor) -> Tensor:
        """Estimate blur kernels of sum 1 at input resolution: n x 3 x h x w -> n x 1 x K x K."""
        features = self.head(x)  # n 64 h w
        features = self.tail(features + self.body(features))  # n 64 h-4 w-4
        code = self.describe(torch.mean(features, (2, 3), keepdim=True))  # n 256 1 1
        return self.compose(torch.reshape(code, (-1, CODE)))

    def restore(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Enlarge and deblur with a known kernel."""
        return _clamped(self.restorer(x, kernel), self.clamped)

    def for_export(self) -> FusedDcls:
        """Return a copy whose Fourier transforms are matrix products, which every runtime has."""
        exportable = copy.deepcopy(self)
        deconvolution = exportable.restorer.head2
        assert isinstance(deconvolution, FusedLeastSquares)
        deconvolution.as_products = True
        return exportable


class KernelComposer(nn.Module):
    """Composes the predicted filters of all pictures: n x 256 -> n x 1 x K x K.

    Filtering an impulse of 3 equal channels is a sum over the first filter's input channels; each
    further filter is a full convolution, written as a product with shifted copies.
    """

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.shapes = estimator.shapes
        self.side = kernel_side(estimator.sides)
        self.layers = estimator.dec
        sizes = [kernel_side(estimator.sides[: count + 1]) for count in range(len(self.shapes))]
        for index, (before, shape) in enumerate(zip(sizes, self.shapes[1:], strict=False), start=1):
            self.register_buffer(f"shifts{index}", _shifts(before, shape[-1]))

    def forward(self, code: Tensor) -> Tensor:
        outputs, inputs, side, _ = self.shapes[0]
        first = torch.reshape(self.layers[0](code), (-1, outputs, inputs, side * side))
        response = torch.sum(first, 2)  # n 16 s*s
        for index, (outputs, inputs, side, _) in enumerate(self.shapes[1:], start=1):
            edge = side - 1
            shape = (-1, inputs, *[self._side(index)] * 2)
            padded = F.pad(torch.reshape(response, shape), [edge] * 4)
            flat = torch.reshape(padded, (-1, inputs, (self._side(index) + 2 * edge) ** 2))
            count = self._side(index + 1) ** 2
            copies = torch.index_select(flat, 2, getattr(self, f"shifts{index}"))
            columns = torch.reshape(copies, (-1, inputs * side * side, count))
            filters = torch.reshape(self.layers[index](code), (-1, outputs, inputs * side * side))
            response = torch.matmul(filters, columns)  # n outputs count
        kernel = torch.mean(response, 1, keepdim=True)  # n 1 K*K
        kernel = kernel / torch.sum(kernel, 2, keepdim=True)
        return torch.reshape(kernel, (-1, 1, self.side, self.side))

    def _side(self, count: int) -> int:
        """Return the kernel side of the convolution of the first `count` filters."""
        return kernel_side([shape[-1] for shape in self.shapes[:count]])


def _shifts(before: int, side: int) -> Tensor:
    """Return the indices that each tap of a full convolution reads in a padded square, tap by tap.

    The square has `before` pixels and a border of `side - 1`; the result `before + side - 1`.
    """
    edge, after = side - 1, before + side - 1
    width = before + 2 * edge
    taps, pixels = torch.arange(side), torch.arange(after)
    lines = pixels + edge - taps[:, None]  # side after
    places = lines[:, None, :, None] * width + lines[None, :, None, :]
    return places.reshape(-1)


class FusedLeastSquares(nn.Module):
    """A fused form of `LeastSquares`, on all channels at once."""

    def __init__(self, published: LeastSquares) -> None:
        super().__init__()
        self.edge = published.kernel_side
        self.reduce_feature = published.reduce_feature
        self.smoothing = published.grad_filter[:5]
        self.mix = published.grad_filter[6]
        self.expand_feature = published.expand_feature
        self.as_products = False

    def forward(self, features: Tensor, kernel: Tensor) -> Tensor:
        blurred = self.reduce_feature(features)  # n 16 h w
        pooled = pool(self.smoothing(blurred), SMOOTHING_SIDE)  # n 16 3 3
        smoothing = normalised_smoothing(self.mix(pooled))
        padded = F.pad(blurred, [self.edge] * 4, mode="replicate")  # n 16 h' w'
        run = deconvolve_by_products if self.as_products else deconvolve_real
        clear = run(padded, kernel, smoothing)
        clear = clear[:, :, self.edge : -self.edge, self.edge : -self.edge]  # n 16 h w
        return self.expand_feature(clear)


def pool(maps: Tensor, bins: int) -> Tensor:
    """Pool by adaptive averages, n x c x h x w -> n x c x bins x bins, by two products."""
    rows = _pooling(maps.shape[2], bins, maps)  # bins h
    columns = _pooling(maps.shape[3], bins, maps)  # bins w
    return torch.matmul(torch.matmul(rows, maps), torch.permute(columns, (1, 0)))


def _pooling(length: int, bins: int, like: Tensor) -> Tensor:
    """Return the shares of l values in b means: bin i spans [i*l // b, ceil((i+1)*l / b))."""
    index = torch.unsqueeze(count_up(bins, like), 1)  # bins 1
    start = index * length // bins
    stop = ((index + 1) * length + (bins - 1)) // bins
    position = count_up(length, like)
    inside = (position >= start) & (position < stop)  # bins length
    return as_numbers(inside, like) / as_numbers(stop - start, like)


def deconvolve_real(blurred: Tensor, kernel: Tensor, smoothing: Tensor) -> Tensor:
    """Compute `deconvolve` by real transforms, which have half the frequencies."""
    size = (blurred.shape[2], blurred.shape[3])
    blur = torch.fft.rfft2(_centred(kernel, size))
    smooth = torch.fft.rfft2(_centred(smoothing, size))
    power = blur.real**2 + blur.imag**2 + smooth.real**2 + smooth.imag**2
    spectrum = blur.conj() * torch.fft.rfft2(blurred) / power
    clear: Tensor = torch.fft.irfft2(spectrum, s=size)
    return clear


def deconvolve_by_products(blurred: Tensor, kernel: Tensor, smoothing: Tensor) -> Tensor:
    """Compute `deconvolve` with each transform as products with matrices of cosines and sines.

    Complex numbers are pairs of tensors. Along the width only the frequencies up to a half are
    computed: the others are their mirror image.
    """
    height, width = blurred.shape[2], blurred.shape[3]
    half = width // 2 + 1
    blur = _small_transform(kernel, height, width, half, blurred)  # each n 1 h' f
    smooth = _small_transform(smoothing, height, width, half, blurred)  # each n 16 h' f
    power = sum_of_squares(blur) + sum_of_squares(smooth)

    rows = _waves(count_up(height, blurred), count_up(height, blurred), height)  # each h' h'
    columns = _waves(count_up(width, blurred), count_up(half, blurred), width)  # each w' f
    across = torch.matmul(blurred, columns[0]), torch.matmul(blurred, columns[1])
    real = torch.matmul(rows[0], across[0]) - torch.matmul(rows[1], across[1])
    imaginary = torch.matmul(rows[0], across[1]) + torch.matmul(rows[1], across[0])
    clear = (
        (blur[0] * real + blur[1] * imaginary) / power,
        (blur[0] * imaginary - blur[1] * real) / power,
    )
    # The inverse has the opposite sign in its sines.
    down = (
        torch.matmul(rows[0], clear[0]) + torch.matmul(rows[1], clear[1]),
        torch.matmul(rows[0], clear[1]) - torch.matmul(rows[1], clear[0]),
    )
    frequency = count_up(half, blurred)
    alone = torch.where(frequency * 2 == width, 1.0, 0.0) + torch.where(frequency == 0, 1.0, 0.0)
    shares = quotient(quotient(2.0 - alone, width), height)
    back = [torch.permute(wave * shares, (1, 0)) for wave in columns]  # each f w'
    return torch.matmul(down[0], back[0]) + torch.matmul(down[1], back[1])


def _small_transform(
    kernel: Tensor, height: int, width: int, half: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of a centred kernel's transfer function."""
    side = kernel.shape[2]
    offsets = count_up(side, like) - side // 2
    rows = _waves(count_up(height, like), offsets, height)  # each h' K
    columns = _waves(offsets, count_up(half, like), width)  # each K f
    across = torch.matmul(kernel, columns[0]), torch.matmul(kernel, columns[1])
    real = torch.matmul(rows[0], across[0]) - torch.matmul(rows[1], across[1])
    return real, torch.matmul(rows[0], across[1]) + torch.matmul(rows[1], across[0])


def _waves(first: Tensor, second: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """Return cosines and negative sines of 2 pi * first * second / period.

    The product is reduced to one period in whole numbers: as floats, large angles lose digits.
    """
    phase = torch.unsqueeze(first, 1) * second % period
    angle = quotient(phase, period) * (2 * math.pi)
    return torch.cos(angle), torch.sin(angle) * -1.0


def sum_of_squares(parts: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared magnitude, from real and imaginary part."""
    return parts[0] * parts[0] + parts[1] * parts[1]


def _clamped(x: Tensor, wanted: bool) -> Tensor:
    """Clamp to the range of pictures; not where a comparison must see what lies beyond it."""
    return torch.clamp(x, min=0.0, max=1.0) if wanted else x


def _double_conv(channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, channels), nn.LeakyReLU(SLOPE), _conv(channels, channels))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
