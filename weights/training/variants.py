"""Another way to train the network that LAPAR's inference graph is.

That graph needs no dictionary, no normalised weights and no scalars: what it computes with are
convolutions, and they can be trained as such. The variant begins and ends as a published network.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.lapar import DISTINCT_TAPS, SIDE
from srcli.models.lapar.network import Filters, FusedLapar, Lapar

VARIANTS = ("published", "conditioned")
BRIGHTENING = 0.3  # what conditioned filters count the sum of their taps by
CURVATURE = 7.0  # and their second derivatives, for each unit of scale


class ConditionedLapar(nn.Module):
    """A LAPAR whose last convolution gives what filters change, in units of about equal effect.

    Neighbours in an enlarged picture hardly differ. Taps that together brighten a pixel therefore
    change it a hundred times as much as taps that sharpen it, and an optimiser that gives all of
    them the same step does too much of the one or too little of the other. Here they are a matrix
    times what is learned, which is symmetric: it multiplies what brightens by `BRIGHTENING`, the
    three second derivatives by `CURVATURE` times the scale, and nothing else. (At x4 root mean
    squares over training pictures are 3.7 for the first, 0.035 to 0.05 for the others; at x2 3.7
    and 0.07 to 0.1.) What remains changes pictures by a fifth of that at x2 and a tenth at x4, or
    less: multiplied too, it grew until the published form lost digits.

    Args:
        start: What it computes at first. Its dictionary stays; its last convolution is only read.
    """

    def __init__(self, start: Lapar) -> None:
        super().__init__()
        self._lapar = start
        start.w_conv.tail.w_conv.requires_grad_(False)
        weights = start.fused_weights()
        taps, bias = (weights[f"taps.{name}"].detach().double() for name in ("weight", "bias"))
        matrix = _conditioning(len(taps), start.scale)
        self.matrix = nn.Buffer(matrix.float())
        inverse = torch.linalg.inv(matrix)
        self.weight = nn.Parameter(torch.einsum("vt,tcyx->vcyx", inverse, taps).float())
        self.bias = nn.Parameter((inverse @ bias).float())

    def fused_weights(self, form: FusedLapar | None = None) -> dict[str, Tensor]:
        """The weights of a `FusedLapar` that filters by `conditioned`."""
        learned = {"taps.weight": self.weight, "taps.bias": self.bias}
        return self._lapar.fused_weights(form) | learned

    def conditioned(self, assemble: Filters) -> Filters:
        """What filters a picture by what is learned, given what filters it by taps."""

        def filtered(picture: Tensor, learned: Tensor, count: int) -> Tensor:
            # In bfloat16 sums of taps, which are nearly one, would lose what they differ by.
            with torch.autocast(learned.device.type, enabled=False):
                taps = F.conv2d(learned.float(), self.matrix[:, :, None, None])
            return assemble(picture, taps, count)

        return filtered

    @torch.no_grad()
    def published_network(self) -> Lapar:
        """The network that computes the same, with the smallest coefficients that give its taps."""
        matrix = self.matrix.double()
        taps = torch.einsum("tv,vcyx->tcyx", matrix, self.weight.double())
        coefficients = torch.linalg.pinv(self._lapar.basis().double().T)  # 72 taps
        kernels = torch.einsum("lt,tcyx->lcyx", coefficients, taps)
        result = copy.deepcopy(self._lapar)
        last = result.w_conv.tail.w_conv
        last.weight_v.copy_(kernels)
        last.weight_g.copy_(torch.linalg.vector_norm(kernels, dim=(1, 2, 3), keepdim=True))
        last.bias.copy_(coefficients @ (matrix @ self.bias.double()))
        return result

    def fuse(self) -> FusedLapar:
        """The network of this function that is used."""
        return self.published_network().fuse()


def _conditioning(count: int, scale: int) -> Tensor:
    """The matrix of `ConditionedLapar`, taps x taps in double precision.

    Where the picture is a quadratic function of place, the two neighbours at (y, x) and (-y, -x)
    add up to twice the centre and y^2, x^2 and 2xy times its second derivatives.
    """
    place = torch.arange(count, dtype=torch.float64)
    y, x = place.div(SIDE, rounding_mode="floor") - SIDE // 2, place % SIDE - SIDE // 2
    sums = torch.full_like(place, 2.0 if count == DISTINCT_TAPS else 1.0)
    sums[SIDE**2 // 2] = 1
    shapes = torch.stack([sums, sums * x * x, sums * y * y, sums * x * y], dim=1)
    directions = torch.linalg.qr(shapes).Q  # of which the first is that of the sums
    gains = torch.tensor([BRIGHTENING] + [CURVATURE * scale] * 3, dtype=torch.float64)
    matrix: Tensor = torch.eye(count).double() + directions * (gains - 1) @ directions.T
    return matrix
