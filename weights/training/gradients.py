"""The loss of a batch and its gradients; on CUDA recorded once and then replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 3  # runs before the recording: libraries choose their algorithms in the first ones
log = logging.getLogger("train")


class Gradients:
    """Leaves the gradients of a loss with the parameters.

    These networks are small: giving out their operations takes the processor longer than doing them
    takes a GPU. There all of a step, from the batch to the gradients, is one CUDA graph, so every
    batch must have the same shape.

    Args:
        loss_of: The loss of a batch's tensors: the input, what it should become, and what teachers
            make of it if there are any. What it does may not depend on values, for the graph does
            the same each time.
        parameters: What it depends on.
        recorded: Use a CUDA graph.
    """

    def __init__(
        self,
        loss_of: Callable[..., Tensor],
        parameters: Sequence[nn.Parameter],
        *,
        recorded: bool,
    ) -> None:
        self._loss_of, self._parameters, self._recorded = loss_of, parameters, recorded
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: tuple[Tensor, ...]
        self._loss: Tensor

    def __call__(self, *batch: Tensor) -> Tensor:
        """The loss, without its history; of the graph's it is valid until the next call."""
        if self._recorded and self._graph is None:
            self._record(*batch)
        if self._graph is None:
            return self._computed(*batch)
        for own, given in zip(self._batch, batch, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._loss

    def _computed(self, *batch: Tensor) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        loss = self._loss_of(*batch)
        loss.backward()
        return loss.detach()

    def _record(self, *batch: Tensor) -> None:
        self._batch = tuple(tensor.clone() for tensor in batch)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._computed(*self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Without gradients from before, backward() writes those of each replay to one place.
            # Other threads, such as one that pins memory, may call CUDA meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._loss = self._computed(*self._batch)
        except RuntimeError as error:
            log.warning("no CUDA graph (%s); training goes on without", str(error).splitlines()[0])
            self._recorded = False
            return
        self._graph = graph
