"""SOAP: Adam in the directions in which a layer's gradients vary.

Adam gives each weight its own step size. In a convolution the weights depend on each other: what
varies by itself are sums of them, along the eigenvectors of the gradients' second moments over
inputs and over outputs. SOAP keeps running means of both (Shampoo's), turns the gradient into
their eigenvectors, and does there what Adam does.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024 (arXiv 2409.11321),
algorithm 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

EPS = 1e-8


class Soap(torch.optim.Optimizer):
    """Matrices and convolutions by SOAP, everything else by Adam.

    Args:
        parameters: What to optimise; the same of them must have gradients at every step. A
            convolution o x i x k x k counts as a matrix o x ikk.
        lr: As for Adam.
        betas: Decay of the gradient's mean, and of its second moments in both senses.
        every: Steps after which the eigenvectors are brought up to date.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        every: int = 10,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "every": every})

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
        gradient = torch.stack([_as_matrix(p.grad) for p in parameters if p.grad is not None])
        turns = min(gradient.shape[1:]) > 1
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if turns:
                # Both with the weight that every later gradient has.
                state["moments"] = [(1 - slow) * _square(g) for g in (gradient, gradient.mT)]
                state["axes"] = [_eigenvectors(moment) for moment in state["moments"]]
                return
        state["step"] += 1
        mean, square, count = state["mean"], state["square"], state["step"]
        mean.lerp_(gradient, 1 - fast)
        direction = mean
        if turns:
            rows, columns = state["axes"]
            state["moments"][0].lerp_(_square(gradient), 1 - slow)
            state["moments"][1].lerp_(_square(gradient.mT), 1 - slow)
            direction, gradient = (rows.mT @ turned @ columns for turned in (mean, gradient))
        square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        scale = (square / (1 - slow**count)).sqrt_().add_(EPS)
        change = direction / (1 - fast**count) / scale
        if turns:
            change = rows @ change @ columns.mT
            if count % group["every"] == 0:
                _bring_up_to_date(state)
        changes = [own.view_as(p) for own, p in zip(change, parameters, strict=True)]
        torch._foreach_sub_(parameters, changes, alpha=group["lr"])


def _by_shape(parameters: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Many networks repeat one layer: each operation then does all of its copies."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        alike.setdefault(parameter.shape, []).append(parameter)
    return alike.values()


def _as_matrix(gradient: Tensor) -> Tensor:
    return gradient.reshape(len(gradient), -1) if gradient.ndim > 1 else gradient.reshape(-1, 1)


def _square(matrices: Tensor) -> Tensor:
    return matrices @ matrices.mT


def _eigenvectors(moments: Tensor) -> Tensor:
    """As columns, of the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors
    return vectors.flip(-1)


def _bring_up_to_date(state: dict[str, Any]) -> None:
    """One step of the power iteration from the old eigenvectors (algorithm 4)."""
    for side, (moments, axes) in enumerate(zip(state["moments"], state["axes"], strict=True)):
        turned = moments @ axes
        # QR keeps the order of the columns, which must be that of the eigenvalues; what belongs to
        # an axis moves with it.
        order = (axes * turned).sum(dim=-2).argsort(dim=-1, descending=True)
        index = order.unsqueeze(1) if side else order.unsqueeze(2)
        state["square"] = state["square"].take_along_dim(index, dim=1 + side)
        state["axes"][side] = torch.linalg.qr(turned.take_along_dim(order.unsqueeze(1), dim=2)).Q
