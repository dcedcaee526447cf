"""SOAP: Adam in the directions in which a layer's gradients vary.

Adam gives each weight its own step size. In a convolution the weights depend on each other: what
varies by itself are sums of them, along the eigenvectors of the gradients' second moments over
outputs, over inputs and over the places of the kernel. SOAP keeps running means of these moments
(Shampoo's), turns the gradient into their eigenvectors, and does there what Adam does.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024 (arXiv 2409.11321),
algorithm 3. Inputs and places have axes of their own, as Shampoo gives a tensor's modes: together
they would have axes of up to 1152 x 1152 here, which take longer than all else in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

EPS = 1e-8
ADAMS_POWER = 0.5
MAX_GAIN = 10.0  # a direction that hardly has gradients may be one that means nothing


class Soap(torch.optim.Optimizer):
    """Matrices and convolutions by SOAP, everything else by Adam.

    Args:
        parameters: What to optimise; the same of them must have gradients at every step. A
            convolution o x i x k x k counts as a tensor o x i x kk.
        lr: As for Adam.
        betas: Decay of the gradient's mean, and of its second moments in both senses.
        every: Steps after which the eigenvectors are brought up to date.
        power: Of the second moments, what a matrix's gradient is divided by. With Adam's 0.5 all
            directions move alike, so that those with large gradients change what the network does,
            and shake it, a hundred times as much as others. Above that, these go up to `MAX_GAIN`
            times as far, and the large ones less: together they change it as much as with 0.5.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        every: int = 10,
        power: float = 0.5,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "every": every, "power": power})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all parameters by their gradients; matrices from the second time on.

        The first gradient of a matrix only says which axes to take.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for alike in _by_shape(p for p in group["params"] if p.grad is not None):
                self._move(alike, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Move parameters of one shape, whose state is kept stacked by the first of them."""
        state: dict[str, Any] = self.state[parameters[0]]
        fast, slow = group["betas"]
        gradient = torch.stack([_in_modes(p.grad) for p in parameters if p.grad is not None])
        modes = _turning_modes(gradient)
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if modes:
                # Each with the weight that every later gradient has.
                state["moments"] = [(1 - slow) * _moments(gradient, mode) for mode in modes]
                state["axes"] = [_eigenvectors(moment) for moment in state["moments"]]
                return
        state["step"] += 1
        mean, square, count = state["mean"], state["square"], state["step"]
        mean.lerp_(gradient, 1 - fast)
        direction = mean
        for mode, moments in zip(modes, state.get("moments", ()), strict=True):
            moments.lerp_(_moments(gradient, mode), 1 - slow)
        axes = list(zip(modes, state.get("axes", ()), strict=True))
        for mode, vectors in axes:
            direction, gradient = (_turned(t, mode, vectors.mT) for t in (direction, gradient))
        square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        scale = (square / (1 - slow**count)).sqrt_().add_(EPS)
        if axes and group["power"] != ADAMS_POWER:
            scale = _for_power(scale, group["power"])
        change = direction / (1 - fast**count) / scale
        for mode, vectors in axes:
            change = _turned(change, mode, vectors)
        if axes and count % group["every"] == 0:
            _bring_up_to_date(state, modes)
        changes = [own.reshape(p.shape) for own, p in zip(change, parameters, strict=True)]
        torch._foreach_sub_(parameters, changes, alpha=group["lr"])


def _for_power(scale: Tensor, power: float) -> Tensor:
    """What to divide n tensors by instead of their roots of second moments."""
    size = _size(scale)
    gain = (size / scale).pow_(2 * power - 1).clamp_(max=MAX_GAIN)
    return scale / gain * (_size(gain * scale) / size)


def _size(stack: Tensor) -> Tensor:
    """Root mean square of each of n tensors, n x 1 x ... x 1."""
    return stack.square().mean(dim=tuple(range(1, stack.ndim)), keepdim=True).sqrt_()


def _by_shape(parameters: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Many networks repeat one layer: each operation then does all of its copies."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        alike.setdefault(parameter.shape, []).append(parameter)
    return alike.values()


def _in_modes(gradient: Tensor) -> Tensor:
    return gradient.flatten(2) if gradient.ndim > 2 else gradient


def _turning_modes(stack: Tensor) -> list[int]:
    """The dimensions of a stack of tensors that have axes; a tensor of one dimension has none."""
    modes = [mode for mode in range(1, stack.ndim) if stack.shape[mode] > 1]
    return modes if len(modes) > 1 else []


def _moments(stack: Tensor, mode: int) -> Tensor:
    """Second moments of n tensors along one of their dimensions, n x size x size."""
    matrices = stack.movedim(mode, 1).flatten(2)
    return matrices @ matrices.mT


def _turned(stack: Tensor, mode: int, matrices: Tensor) -> Tensor:
    """n tensors, one dimension of each multiplied by a matrix."""
    moved = stack.movedim(mode, 1)
    return (matrices @ moved.flatten(2)).view(moved.shape).movedim(1, mode)


def _eigenvectors(moments: Tensor) -> Tensor:
    """As columns, of the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors
    return vectors.flip(-1)


def _bring_up_to_date(state: dict[str, Any], modes: list[int]) -> None:
    """One step of the power iteration from the old eigenvectors (algorithm 4)."""
    for place, mode in enumerate(modes):
        moments, axes = state["moments"][place], state["axes"][place]
        turned = moments @ axes
        # QR keeps the order of the columns, which must be that of the eigenvalues; what belongs to
        # an axis moves with it.
        order = (axes * turned).sum(dim=-2).argsort(dim=-1, descending=True)
        square = state["square"].movedim(mode, -1)
        index = order.view(len(order), *[1] * (square.ndim - 2), -1)
        state["square"] = square.take_along_dim(index, dim=-1).movedim(-1, mode)
        state["axes"][place] = torch.linalg.qr(turned.take_along_dim(order.unsqueeze(1), dim=2)).Q
