"""What one step makes small, for each family: from random numbers to a loss, all on one device.

An objective cuts its patches from a `Store`, damages them, restores them with the network that is
trained and compares. Nothing in it depends on values that the host would have to know, so a step
can be recorded in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from srcli.models.asdn.fixed import Fsdn
from srcli.models.asdn.network import Asdn
from srcli.models.awsrn.network import Awsrn
from srcli.models.dcls.network import Dcls
from srcli.models.hpinet.network import HpiNet
from srcli.models.lapar.network import Lapar

from .any_scale import AnyScaleObjective
from .bfloat16 import keep_picture
from .blind import BlindObjective
from .dense import fixed
from .draws import Draws
from .losses import LOSSES
from .patches import Store
from .photo import pairs
from .recipe import Recipe
from .tokens import HpiNetTraining

Form = Callable[[Tensor], Tensor]
"""A network's function, n x 3 x p x p in [0, 1] -> n x 3 x H x W, by the published parameters."""


class Objective(Protocol):
    """What a step of training makes small."""

    @property
    def order(self) -> tuple[int, ...]:
        """The kinds of steps that follow each other, again and again.

        What a kind computes has one shape.
        """
        ...

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        """The loss of the batch that the numbers draw."""
        ...


def objective(net: nn.Module, recipe: Recipe, store: Store, device: torch.device) -> Objective:
    """The objective of a published network, which is on the device; its parameters are trained.

    Raises:
        SystemExit: The network is of a family that has none.
    """
    if isinstance(net, Asdn):
        return AnyScaleObjective(net, recipe, store, device)
    if isinstance(net, Dcls):
        return BlindObjective(net, recipe, store, device)
    return RestoringObjective(_form(net, recipe, device), recipe, store, device)


def _form(net: nn.Module, recipe: Recipe, device: torch.device) -> Form:
    """What computes the network's function most cheaply."""
    if isinstance(net, Lapar | Awsrn):
        return _folded(net, device)
    if isinstance(net, HpiNet):
        return HpiNetTraining(net, recipe.patch, device)
    if isinstance(net, Fsdn):
        return fixed(net, device)
    raise SystemExit(f"{recipe.model}: there is no objective for its family.")


def _folded(net: Lapar | Awsrn, device: torch.device) -> Form:
    fused = net.fuse().to(device)
    keep_picture(fused, device)

    def forward(low: Tensor) -> Tensor:
        weights = net.fused_weights(fused)  # type: ignore[arg-type]
        restored: Tensor = functional_call(fused, weights, (low,))
        return restored

    return forward


class RestoringObjective:
    """Restore what the recipe's task damages: reduction, noise, compression."""

    order = (0,)

    def __init__(self, form: Form, recipe: Recipe, store: Store, device: torch.device) -> None:
        self._form, self._recipe, self._store, self._device = form, recipe, store, device
        self._pairs = pairs(recipe, device)

    def __call__(self, draws: Draws, kind: int) -> Tensor:
        low, high = self._pairs(draws, self._store)
        # Weights that are cast once and kept would be those of the first step.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._recipe.bf16, cache_enabled=False
        ):
            restored = self._form((low / 255).contiguous(memory_format=torch.channels_last))
        return LOSSES[self._recipe.loss](restored.float() - high / 255)
