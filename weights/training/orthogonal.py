"""Muon: steps of equal size in all directions of a layer's weights.

The running mean of a layer's gradients is replaced by the nearest matrix whose singular values are
all one, so that no direction of large gradients decides how far the others go. What SOAP reaches by
decompositions is here a polynomial in matrix products, applied five times: a GPU is fast at them,
and they can be recorded in a CUDA graph.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the size of
a step after Liu et al., "Muon is Scalable for LLM Training", 2025 (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: steep at zero, near one at one
TURNS = 5
MAX_OUTPUTS = 8  # for each input
LIKE_ADAM = 0.2  # root mean square of a step of rate one: rates of Adam serve


def is_matrix(parameter: Tensor) -> bool:
    """Whether steps can be made equal: it has outputs and inputs, more than one of both.

    Layers that predict whole filters from few numbers (DCLS's) have so many more outputs than
    inputs that they would take most of a step, and are left out.
    """
    if parameter.ndim < 2:
        return False
    outputs, inputs = parameter.shape[0], parameter[0].numel()
    return outputs > 1 and inputs > 1 and outputs <= MAX_OUTPUTS * inputs


def orthogonalised(means: Sequence[Tensor]) -> list[Tensor]:
    """The steps of matrices o x i, or convolutions o x i x k x k, each in the shape of its own.

    Args:
        means: Of the gradients; those of one shape are computed together.
    """
    alike: dict[torch.Size, list[int]] = {}
    for place, mean in enumerate(means):
        alike.setdefault(mean.shape, []).append(place)
    steps: list[Tensor] = list(means)
    for shape, places in alike.items():
        stack = torch.stack([_as_matrix(means[place]) for place in places])
        size = LIKE_ADAM * max(stack.shape[1:]) ** 0.5
        for place, step in zip(places, (_equalised(stack) * size).unbind(0), strict=True):
            steps[place] = _as_before(step, shape)
    return steps


def _as_matrix(tensor: Tensor) -> Tensor:
    """Inputs last, as convolutions on a GPU have them: the order of columns makes no difference."""
    if tensor.ndim == 2:
        return tensor
    return tensor.movedim(1, -1).flatten(1)


def _as_before(matrix: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) == 2:
        return matrix
    outputs, inputs, *kernel = shape
    return matrix.view(outputs, *kernel, inputs).movedim(-1, 1)


def _equalised(stack: Tensor) -> Tensor:
    """Bring the singular values of n matrices near one; n x o x i."""
    if stack.shape[1] > stack.shape[2]:
        turned: Tensor = _equalised(stack.mT).mT
        return turned
    x = stack / (stack.flatten(1).norm(dim=1)[:, None, None] + 1e-12)
    first, third, fifth = COEFFICIENTS
    for _ in range(TURNS):
        square = x @ x.mT
        x = first * x + (third * square + fifth * (square @ square)) @ x
    equalised: Tensor = x
    return equalised
