"""DCLS's objective: restore what an unknown blur and subsampling left, and say what blur it was.

Source: Luo et al., "Deep Constrained Least Squares for Blind Image Super-Resolution", CVPR 2022:
kernels and subsampling of section 5.1, equation 7 for the kernel that the estimator should find,
equation 17 for the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.dcls.network import (
    ChannelAttention,
    Dcls,
    DualPathBlock,
    DualPathGroup,
    FusedDcls,
)

from .damage import applied, gaussian_rows, rounded
from .draws import Draws
from .losses import LOSSES
from .patches import Store
from .recipe import Recipe

SIDE = 21  # of the kernels on the large picture
NARROWEST = 0.2  # their width in large pixels; the widest is the scale
CONTEXT = 8  # small pixels around a patch from which its kernel is also found
NOISE = 1e-3  # equation 7's sigma, as a share of the mean power
# Of the kernel's loss, a mean over 441 numbers; as in the paper. 20 makes the picture worse (200
# steps, Set5 blurred by eight widths: 26.88 dB by Muon; with 1, after 150 steps, 27.02).
KERNEL_WEIGHT = 1.0
RENAMED = {
    "restorer.head2.smoothing.": "Restorer.head2.grad_filter.",
    "restorer.head2.mix.": "Restorer.head2.grad_filter.6.",
    "restorer.": "Restorer.",
    "head.": "Estimator.head.",
    "body.": "Estimator.body.0.",
    "tail.": "Estimator.tail.",
    "describe.": "Estimator.tail.4.",
    "compose.layers.": "Estimator.dec.",
}


class BlindObjective:
    """Equation 17: absolute errors of the kernel and of the picture."""

    order = (0,)

    def __init__(self, net: Dcls, recipe: Recipe, store: Store, device: torch.device) -> None:
        self._form, self._recipe, self._store = tied(net, device), recipe, store
        self._form.clamped = False  # beyond the range there would be no gradient
        self._around = CONTEXT * recipe.scale + SIDE // 2

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        recipe, scale, around = self._recipe, self._recipe.scale, self._around
        window = self._store.patches(
            draws,
            recipe.batch,
            recipe.patch * scale,
            around=around,
            grid=scale,
            tries=recipe.candidates,
        )
        high = window[:, :, around:-around, around:-around] / 255
        widths = draws.within(NARROWEST, float(scale), recipe.batch)
        outputs = recipe.patch + 2 * CONTEXT
        rows = gaussian_rows(widths, outputs, scale, SIDE // 2, SIDE)
        seen = applied(rows, window)
        low = rounded(seen[:, :, CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]) / 255
        inner = slice(SIDE // 2, SIDE // 2 + outputs * scale, scale)
        target = small_kernel(window[:, :, inner, inner], seen, self._form.compose.side)
        restored, kernel = self._restored(low)
        error = (kernel - target).abs().sum((1, 2, 3)).mean() / target[0].numel()
        return LOSSES[recipe.loss](restored - high) + KERNEL_WEIGHT * error

    def _restored(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and kernels; what must not be rounded is computed in float32."""
        form, restorer, kind = self._form, self._form.restorer, low.device.type
        exactly = torch.autocast(kind, enabled=False)
        wanted = torch.autocast(
            kind, torch.bfloat16, enabled=self._recipe.bf16, cache_enabled=False
        )
        laid_out = low.contiguous(memory_format=torch.channels_last)
        with wanted:
            features = form.head(laid_out)
            features = form.tail(features + form.body(features))
        with exactly:
            code = form.describe(features.float().mean((2, 3), keepdim=True)).flatten(1)
            kernel: Tensor = form.compose(code)
            first = restorer.conv_first(laid_out)
        with wanted:
            features = restorer.feature_block(first)
        with exactly:
            clear = restorer.head2(features.float(), kernel)
        with wanted:
            paths = clear, restorer.head1(features).float()
            for group in restorer.body:
                assert isinstance(group, DualPathGroup)
                for block in group.body:
                    assert isinstance(block, DualPathBlock)
                    paths = _block(block, *paths)
                paths = paths[0] * 2.0, paths[1] * 2.0
            fused = restorer.fusion(torch.cat([paths[1], paths[0]], dim=1)) + first
        with exactly:
            # Linear, and the picture itself goes through: bfloat16 would leave half a grey level.
            return restorer.upscale(fused.float()), kernel


def _block(block: DualPathBlock, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """`DualPathBlock` with its small convolutions of single numbers as products of matrices."""
    change, other = block.body1(first), block.body2(second)
    activation, mix, attention = block.CA_body1
    both = mix(activation(torch.cat([change, other], dim=1)))  # n 64 h w
    return first + _attended(attention, both), second + _attended(block.CA_body2, other)


def _attended(attention: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(attention, ChannelAttention)
    shares = x.mean((2, 3))  # n C
    for layer in attention.conv_du:
        if isinstance(layer, nn.Conv2d):
            shares = F.linear(shares, layer.weight.flatten(1), layer.bias)
        else:
            shares = layer(shares)
    return x * shares[:, :, None, None]


def tied(net: Dcls, device: torch.device) -> FusedDcls:
    """The fused form with the published network's own parameters, not copies of them."""
    form = net.fuse().to(device).train()
    parameters = dict(net.named_parameters())
    for name, _ in list(form.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        module = form.get_submodule(owner)
        setattr(module, leaf, parameters[published_name(name)])
    return form


def published_name(name: str) -> str:
    """The name under which a parameter of the fused form is published."""
    for ours, theirs in RENAMED.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def small_kernel(clean: Tensor, seen: Tensor, side: int) -> Tensor:
    """Equation 7: the blur at input resolution that makes of a small picture what was seen.

    Args:
        clean: The subsampled picture, n x 3 x h x w.
        seen: The same blurred before it was subsampled.
        side: K of the result, odd.

    Returns:
        n x 1 x K x K, no number below zero, the sum 1. The three planes are put together before
        they are divided, so that frequencies that one lacks are taken from the others.
    """
    # Without a level and with edges faded out, what lies beyond the patch disturbs least.
    fade = _fade(clean.shape[2], clean)[:, None] * _fade(clean.shape[3], clean)
    level = clean.mean((2, 3), keepdim=True)
    source, result = (torch.fft.rfft2((part - level) * fade) for part in (clean, seen))
    power = (source.real**2 + source.imag**2).sum(1, keepdim=True)
    noise = NOISE * power.mean((2, 3), keepdim=True)
    quotient = (source.conj() * result).sum(1, keepdim=True) / (power + noise)
    response = torch.fft.irfft2(quotient, s=clean.shape[2:])
    reach = side // 2
    kernel = response.roll((reach, reach), (2, 3))[:, :, :side, :side].clamp(min=0)
    normalised: Tensor = kernel / kernel.sum((2, 3), keepdim=True)
    return normalised


def _fade(length: int, like: Tensor) -> Tensor:
    window: Tensor = torch.hann_window(length + 2, periodic=False, device=like.device)[1:-1]
    return window
