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
        parameters: What to optimise. A convolution o x i x k x k counts as a matrix o x ikk.
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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state: dict[str, Any] = self.state[parameter]
        fast, slow = group["betas"]
        gradient = (
            gradient.reshape(len(gradient), -1) if gradient.ndim > 1 else gradient.reshape(-1, 1)
        )
        turns = min(gradient.shape) > 1
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if turns:
                # Both with the weight that every later gradient has.
                state["moments"] = [(1 - slow) * _square(g) for g in (gradient, gradient.T)]
                state["axes"] = [_eigenvectors(moment) for moment in state["moments"]]
                return
        state["step"] += 1
        mean, square, count = state["mean"], state["square"], state["step"]
        mean.lerp_(gradient, 1 - fast)
        direction = mean
        if turns:
            rows, columns = state["axes"]
            state["moments"][0].lerp_(_square(gradient), 1 - slow)
            state["moments"][1].lerp_(_square(gradient.T), 1 - slow)
            direction, gradient = (rows.T @ turned @ columns for turned in (mean, gradient))
        square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        scale = (square / (1 - slow**count)).sqrt_().add_(EPS)
        change = direction / (1 - fast**count) / scale
        if turns:
            change = rows @ change @ columns.T
            if count % group["every"] == 0:
                _bring_up_to_date(state)
        parameter.sub_(group["lr"] * change.view_as(parameter))


def _square(matrix: Tensor) -> Tensor:
    return matrix @ matrix.T


def _eigenvectors(moment: Tensor) -> Tensor:
    """As columns, of the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(moment).eigenvectors
    return vectors.flip(1)


def _bring_up_to_date(state: dict[str, Any]) -> None:
    """One step of the power iteration from the old eigenvectors (algorithm 4)."""
    for side, (moment, axes) in enumerate(zip(state["moments"], state["axes"], strict=True)):
        turned = moment @ axes
        # QR keeps the order of the columns, which must be that of the eigenvalues; what belongs to
        # an axis moves with it.
        order = (axes * turned).sum(dim=0).argsort(descending=True)
        state["square"] = state["square"].index_select(side, order)
        state["axes"][side] = torch.linalg.qr(turned[:, order]).Q
