"""LAPAR and AWSRN on a GPU, from kernels that do a whole layer each.

Importing this needs Triton.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srcli.backends.cuda.blocked import Blocked, block
from srcli.backends.cuda.convolutions import convolve
from srcli.backends.cuda.filters import apply_filters
from srcli.backends.cuda.pictures import SIDES, enlarge, filter_pixels, prepare
from srcli.backends.cuda.tunings import Role, tuning_for
from srcli.models.awsrn.network import FusedAwsrn
from srcli.models.lapar.network import FusedLapar
from srcli.models.residual import FusedBlock

PICTURE = 8  # channels of a picture as stored: three, and zeros up to what is read at once
TAPS = 13  # of filters that equal their own half-turn
STORED_TAPS = 16
MULTIPLE = 8  # channels of feature maps must be a multiple of this


@dataclass(frozen=True, slots=True)
class _Unit:
    first: Blocked
    second: Blocked
    skip: float


class _Block:
    """A `FusedBlock`: units in a row, whose outputs lie side by side for the reduction."""

    def __init__(self, block_: FusedBlock, dtype: torch.dtype) -> None:
        units = block_.units()
        self._units = [
            _Unit(_layer("body", unit.first, dtype), _layer("body", unit.second, dtype), unit.skip)
            for unit in units
        ]
        self._reduction = _layer("reduction", block_.reduction, dtype, planes=len(units))
        self._skip = block_.skip

    def __call__(self, x: Tensor) -> Tensor:
        outputs = x.new_empty(len(self._units), *x.shape)
        y = x
        for unit, own in zip(self._units, outputs, strict=True):
            between = x.new_empty(*x.shape[:-1], unit.first.outputs)
            convolve(unit.first, y, between, relu=True)
            y = convolve(unit.second, between, own, residual=y, factor=unit.skip)
        return convolve(
            self._reduction, outputs, torch.empty_like(x), residual=x, factor=self._skip
        )


class _OnTriton(nn.Module):
    """A base class of both families: subtracts the mean, and runs head and blocks.

    Raises:
        ValueError: Its layers have widths that these kernels do not know.
    """

    def __init__(self, fused: FusedLapar | FusedAwsrn, dtype: torch.dtype) -> None:
        super().__init__()
        if (channels := fused.head.out_channels) % MULTIPLE:
            raise ValueError(f"feature maps of {channels} channels, no multiple of {MULTIPLE}")
        self._dtype, self._scale = dtype, fused.scale
        self._mean = fused.mean.float().flatten().contiguous()
        self._head = _layer("head", fused.head, dtype, inputs=PICTURE)
        self._body = [_Block(b, dtype) for b in fused.body if isinstance(b, FusedBlock)]

    def _centred(self, picture: Tensor) -> Tensor:
        """Return n x h x w x 8 of n x 3 x h x w: the mean subtracted, zeros behind."""
        n, _, height, width = picture.shape
        size = (n, height, width, PICTURE)
        out = torch.empty(size, dtype=self._dtype, device=picture.device)
        return prepare(picture, self._mean, out)

    def _features(self, centred: Tensor, *, relu: bool) -> Tensor:
        """Run head and blocks; n x h x w x 8 -> n x h x w x C."""
        features = _run(self._head, centred, relu=relu)
        for block_ in self._body:
            features = block_(features)
        return features


class TritonLapar(_OnTriton):
    """A `FusedLapar` in Triton: n x 3 x h x w RGB in [0, 1] -> n x 3 x H x W, float32.

    Feature maps are in `dtype`; sums, taps and the picture in float32.

    Args:
        fused: On the GPU, in float32; its channels a multiple of 8.
        dtype: Of feature maps.

    Raises:
        ValueError: Its layers have widths that these kernels do not know.
    """

    def __init__(self, fused: FusedLapar, dtype: torch.dtype) -> None:
        super().__init__(fused, dtype)
        if fused.scale > 1:
            self._up = _layer("up", fused.up, dtype, scale=fused.scale)
        self._bicubic = _separable(fused)
        self._mix = _layer("high", fused.mix, dtype)
        self._merge = _layer("high", fused.merge, dtype)
        self._symmetric = fused.taps.out_channels == TAPS
        stored = STORED_TAPS if self._symmetric else 2 * STORED_TAPS
        self._count = fused.taps.out_channels
        self._taps = _layer("filter", fused.taps, dtype, outputs=stored)

    def forward(self, x: Tensor) -> Tensor:
        picture = x.float().contiguous()
        n, _, height, width = x.shape
        features = self._features(self._centred(picture), relu=True)  # n h w C
        if self._scale > 1:
            features = _run(self._up, features, relu=True)  # n H W C
        features = _run(self._merge, _run(self._mix, features), relu=True)
        high, wide = height * self._scale, width * self._scale
        # With the mirrored border that filters see.
        bordered = enlarge(
            picture, self._bicubic, self._scale, picture.new_empty(n, 3, high + 4, wide + 2 * SIDES)
        )
        if self._symmetric:
            out = picture.new_empty(n, 3, high, wide)
            return filter_pixels(self._taps, features, bordered, out)
        taps = _run(self._taps, features).permute(0, 3, 1, 2)
        return apply_filters(bordered[:, :, 2:-2, SIDES:-SIDES], taps, self._count)


class TritonAwsrn(_OnTriton):
    """A `FusedAwsrn` in Triton, with the arguments and the types of `TritonLapar`."""

    def __init__(self, fused: FusedAwsrn, dtype: torch.dtype) -> None:
        super().__init__(fused, dtype)
        self._tail = _layer("tail", fused.tail, dtype, scale=fused.scale)
        # It shares the tail's sums, and so must be cut like it.
        self._skip = block(
            fused.skip.weight,
            None,
            self._tail.tuning,
            dtype=dtype,
            scale=fused.scale,
            inputs=PICTURE,
        )

    def forward(self, x: Tensor) -> Tensor:
        picture = x.float().contiguous()
        n, _, height, width = x.shape
        centred = self._centred(picture)
        features = self._features(centred, relu=False)  # n h w C
        out = picture.new_empty(n, 3, height * self._scale, width * self._scale)
        return convolve(self._tail, features, out, second=(self._skip, centred), planar=True)


def for_gpu(fused: nn.Module, dtype: torch.dtype) -> TritonLapar | TritonAwsrn | None:
    """Make the form of a fused network that these kernels run; None for other networks.

    Args:
        fused: On the GPU, in float32.
        dtype: Of feature maps.

    Raises:
        ValueError: Its layers have widths that these kernels do not know.
    """
    if isinstance(fused, FusedLapar):
        return TritonLapar(fused, dtype)
    if isinstance(fused, FusedAwsrn):
        return TritonAwsrn(fused, dtype)
    return None


def _separable(fused: FusedLapar) -> Tensor:
    """Return the bicubic filters along one axis, scale x 5; one for no enlargement at all."""
    if fused.scale == 1:
        return torch.tensor([[0.0, 0, 1, 0, 0]], device=fused.mean.device)
    phases = fused.phases[: fused.scale**2].double()
    along = phases.view(fused.scale, fused.scale, 5, 5)[0].sum(dim=1)  # each axis sums to one
    return along.float().contiguous()


def _layer(
    role: Role,
    convolution: nn.Conv2d,
    dtype: torch.dtype,
    *,
    scale: int = 1,
    planes: int = 1,
    inputs: int | None = None,
    outputs: int | None = None,
) -> Blocked:
    side = convolution.kernel_size[0]
    stored = outputs or convolution.out_channels // scale**2
    channels = inputs or convolution.in_channels // planes
    return block(
        convolution.weight,
        convolution.bias,
        tuning_for(role, channels, stored, side, scale, dtype),
        dtype=dtype,
        scale=scale,
        planes=planes,
        inputs=inputs,
        outputs=outputs,
    )


def _run(layer: Blocked, x: Tensor, *, relu: bool = False) -> Tensor:
    n, height, width, _ = x.shape
    out = x.new_empty(n, height * layer.scale, width * layer.scale, layer.outputs)
    return convolve(layer, x, out, relu=relu)
