"""Where training begins: what each network's published form is filled with.

A run of minutes has no steps to spare. Each network begins as plain enlargement of its input, by
its own skip connection or by convolutions that pass the picture through, and what is learned is
added to it, small at first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from srcli.models.asdn.fixed import Fsdn
from srcli.models.asdn.network import Asdn, FeatureBranch, ReconstructionBranch
from srcli.models.awsrn.network import Awsrn
from srcli.models.dcls.network import Dcls, DualPathBlock, Estimator, LeastSquares
from srcli.models.hpinet.network import HpiNet
from srcli.models.layers import WeightNormConv2d, bilinear_phases

from .growth import grown
from .growth_tokens import grown_tokens
from .phases import at_scale
from .settings import SIBLINGS

SMALL = 0.1  # what the last layer of a residual branch is multiplied by
LAST = 0.03  # and what the layer that adds to the picture is
SMOOTHING = 3.0  # what DCLS's last layer for smoothing filters is multiplied by
SCALES = (2, 3, 4, 8)
FIRST_BLUR = 0.8  # width in small pixels of the kernel that DCLS guesses at first


@torch.no_grad()
def start(net: nn.Module) -> None:
    """Fill a new network for training; others than those below stay as they were built."""
    if isinstance(net, Asdn):
        _start_features(net.feature_mapping_branch)
        for branch in net.image_reconstruction_branches:
            _start_head(branch)
    elif isinstance(net, Fsdn):
        _start_features(net.feature_mapping_branch)
        _start_head(net.image_reconstruction_branch)
    elif isinstance(net, Awsrn):
        _pass_bilinear(net)
    elif isinstance(net, HpiNet):
        for layer in (net.first_conv, *net.ups()):
            nn.init.kaiming_normal_(layer.weight)
        _shrink(net.mid_convs)
        _shrink([net.last_conv], LAST)
    elif isinstance(net, Dcls):
        _start_dcls(net)


def _start_features(branch: FeatureBranch) -> None:
    for block in branch.dabs:
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):
                gain: Literal["relu", "linear"] = "relu" if layer.kernel_size[0] == 3 else "linear"
                nn.init.kaiming_normal_(layer.weight, nonlinearity=gain)
                _silence(layer)


def _start_head(branch: nn.Module) -> None:
    assert isinstance(branch, ReconstructionBranch)
    _shrink([branch.transform_into_image], LAST)


def _pass_bilinear(net: Awsrn) -> None:
    """Let the skip connection enlarge, and the branches beside it begin small."""
    skip = net.skip[0]
    assert isinstance(skip, WeightNormConv2d)
    phases = bilinear_phases(net.scale)  # s*s 1 3 3
    kernel = torch.zeros_like(skip.weight_v).view(3, -1, 3, 3, 3)
    for plane in range(3):
        kernel[plane, :, plane] = phases[:, 0]
    skip.weight_v.copy_(kernel.flatten(0, 1))
    skip.weight_g.copy_(torch.linalg.vector_norm(skip.weight_v, dim=(1, 2, 3), keepdim=True))
    skip.bias.zero_()
    for layer in net.tail.modules():
        if isinstance(layer, WeightNormConv2d):
            layer.weight_g.mul_(LAST)
            layer.bias.zero_()


def _start_dcls(net: Dcls) -> None:
    restorer = net.Restorer
    for block in restorer.body.modules():
        if isinstance(block, DualPathBlock):
            _shrink([_conv(block.CA_body1[1]), _conv(block.body2[2])])
    # Each of the groups doubles what goes through it.
    _shrink([restorer.fusion], SMALL / 2 ** len(restorer.body))
    assert isinstance(restorer.head2, LeastSquares), "the published form"
    _start_smoothing(restorer.head2)
    _pass_through(restorer.conv_first, [_conv(m) for m in restorer.upscale if _is_conv(m)])
    _start_estimator(net.Estimator)


def _start_smoothing(part: LeastSquares) -> None:
    """Let the predicted filters differ from place to place.

    Without their mean, filters that are alike everywhere are nothing, and what is divided by next
    to nothing is noise.
    """
    for layer in part.grad_filter:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.1)
            _silence(layer)
    _conv(part.grad_filter[6]).weight.mul_(SMOOTHING)


def _pass_through(opening: nn.Conv2d, closing: list[nn.Conv2d]) -> None:
    """Let three features hold the picture, and the linear layers at the end enlarge it."""
    _centre(opening, 3)
    *ups, last = closing
    for up in ups:
        scale = math.isqrt(up.out_channels // up.in_channels)
        phases = bilinear_phases(scale)[:, 0]
        for plane in range(3):
            rows = slice(plane * scale**2, (plane + 1) * scale**2)
            up.weight[rows] = 0
            up.weight[rows, plane] = phases
            assert up.bias is not None
            up.bias[rows] = 0
    _centre(last, 3)


def _centre(layer: nn.Conv2d, planes: int) -> None:
    """Let the first outputs be the first inputs, and no other."""
    layer.weight[:planes] = 0
    _silence(layer, planes)
    for plane in range(planes):
        layer.weight[plane, plane, 1, 1] = 1


def _start_estimator(estimator: Estimator) -> None:
    """Guess one round kernel for all pictures, so that its sum is far from zero."""
    variance = FIRST_BLUR**2 / sum((side > 1) for side in estimator.sides)
    for layer, shape in zip(estimator.dec, estimator.shapes, strict=True):
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(SMALL)
        outputs, inputs, side, _ = shape
        line = torch.arange(side) - side // 2
        along = torch.exp(-0.5 * line**2 / variance)
        kernel = along[:, None] * along
        kernel = kernel / kernel.sum() / inputs
        layer.bias.copy_(kernel.expand(outputs, inputs, side, side).flatten())


def _shrink(layers: Iterable[nn.Module], factor: float = SMALL) -> None:
    for layer in layers:
        weights = _conv(layer)
        weights.weight.mul_(factor)
        _silence(weights)


def _silence(layer: nn.Conv2d, count: int | None = None) -> None:
    bias: Tensor | None = layer.bias
    assert bias is not None
    bias[:count] = 0


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def siblings(model: str, purpose: str, scale: int, folders: Sequence[Path]) -> Iterator[Path]:
    """Weights that a model may begin with, the nearest first.

    A smaller model of the same scale comes before the model itself at another scale: it can grow
    into the model, which is then as good from the first step on.

    Args:
        model: In the registry.
        purpose: `clean`, `photo`, or a task.
        scale: Of enlargement.
        folders: With `lapar-c-x2.safetensors`, `hpinet-s-x4/weights.safetensors` and the like.
    """
    tail = "" if scale == 1 else f"-x{scale}"
    family = (model, *SIBLINGS.get(model, ()))
    names = [] if purpose == "clean" else [f"{name}-{purpose}{tail}" for name in family]
    names += [f"{name}-x{scale}" for name in family]
    others = sorted(SCALES, key=lambda other: abs(other - max(scale, 2)))
    for name in family:
        names += [*(f"{name}-x{other}" for other in others if other != scale), name]
    for name in names:
        for folder in folders:
            for file in (folder / name / "weights.safetensors", folder / f"{name}.safetensors"):
                if file.exists():
                    yield file


@torch.no_grad()
def begin_from(net: nn.Module, file: Path) -> int:
    """Take what serves from a file; how many tensors that is.

    A smaller model of the family is taken whole: the network then computes what that one does. Of
    any other file, every tensor of the same name and shape, and the up-sampling of another scale
    changed to this one.
    """
    state, held = net.state_dict(), load_file(file)
    try:
        held = grown_tokens(held, net) if isinstance(net, HpiNet) else grown(held, state)
    except ValueError:
        scale = getattr(net, "scale", None)
        held = at_scale(held, state, scale) if isinstance(scale, int) else held
    fitting = {
        name: value
        for name, value in held.items()
        if name in state and value.shape == state[name].shape
    }
    net.load_state_dict(fitting, strict=False)
    return len(fitting)
