"""One step of training in one CUDA graph: patches, loss, gradients, optimiser and moving average.

These networks are small: giving out their operations takes the processor longer than doing them
takes a GPU. Everything that changes from step to step (the number of the step, the learning rate)
is a tensor on the device, so the host only says "again". On a CPU the same code runs as it is
written.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .draws import Draws
from .objectives import Objective
from .orthogonal import is_matrix, orthogonalised
from .recipe import Recipe

BETAS = (0.9, 0.99)
EPS = 1e-8
WARM_UP = 3  # steps of each kind before the recording: libraries choose their algorithms in them
AHEAD = 3  # steps that the host may give out before the device has done them
NORM_DECAY = 0.98  # of the running mean of the gradients' norm
EXCESS = 2.0  # times that mean is the most that a gradient may be
log = logging.getLogger("train")


class Stepper:
    """A network in training, with its optimiser and its moving average.

    Args:
        net: On the device.
        objective: What a step makes small.
        recipe: Optimiser (`adam` or `muon`), seed, decay of the average.
        recorded: Use CUDA graphs.
    """

    def __init__(
        self, net: nn.Module, objective: Objective, recipe: Recipe, *, recorded: bool
    ) -> None:
        self._objective, self._recipe = objective, recipe
        self._parameters = {n: p for n, p in net.named_parameters() if p.requires_grad}
        device = next(iter(self._parameters.values())).device
        self._device, self._recorded = device, recorded
        detached = {name: p.detach() for name, p in self._parameters.items()}
        self._state = {
            "average": {name: p.clone() for name, p in detached.items()},
            "mean": {name: torch.zeros_like(p) for name, p in detached.items()},
            "square": {name: torch.zeros_like(p) for name, p in detached.items()},
        }
        by_muon = recipe.optimiser == "muon"
        self._matrices = {n for n, p in self._parameters.items() if by_muon and is_matrix(p)}
        self.step = 0
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._rate = torch.zeros((), device=device)
        self._norm = torch.zeros((), device=device)
        self._losses = torch.zeros(2, device=device)  # sum and number
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._warm: dict[int, int] = {}
        self._given: deque[torch.cuda.Event] = deque()
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._pool = torch.cuda.graph_pool_handle() if on_gpu and recorded else None
        self.wait()

    def advance(self, rate: float) -> None:
        """Give out one step; on a GPU it may be done later."""
        order = self._objective.order
        kind = order[self.step % len(order)]
        with self._on_stream():
            self._rate.fill_(rate)
            graph = self._graph(kind)
            if graph is None:
                self._compute(kind)
            else:
                graph.replay()
        self.step += 1
        self._keep_close()

    @torch.no_grad()
    def mean_loss(self) -> float:
        """Of all steps since this was asked last; waits for them.

        Those whose loss or gradient was no number do not count. NaN if there is no other, or if
        a parameter is no number.
        """
        self.wait()
        total, count = self._losses.tolist()
        total += 0.0 * float(torch.nn.utils.get_total_norm(self._parameters.values()))
        self._losses.zero_()
        self.wait()
        return total / count if count else float("nan")

    def wait(self) -> None:
        """Until the device has done what was given out."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def averaged(self) -> dict[str, Tensor]:
        """Copies of the moving average of the parameters, on the CPU."""
        self.wait()
        return {name: value.cpu().clone() for name, value in self._state["average"].items()}

    def state(self, device: torch.device) -> dict[str, Any]:
        """Copies of everything that is needed to go on, on a device."""
        self.wait()
        parameters = {name: p.detach() for name, p in self._parameters.items()}
        tensors = {"net": parameters, **self._state, "norm": self._norm}
        copies = {"step": self.step, **_copies(tensors, device)}
        self.wait()  # before a step changes what is copied, on a stream of its own
        return copies

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, wherever it was made; graphs stay, for no tensor is replaced."""
        self.wait()
        self.step = state["step"]
        self._count.fill_(self.step)
        self._norm.copy_(state["norm"])
        self._losses.zero_()
        held: dict[str, dict[str, Any]] = {"net": self._parameters, **self._state}
        for part, tensors in held.items():
            for name, tensor in tensors.items():
                tensor.copy_(state[part][name])
        self.wait()

    def _graph(self, kind: int) -> torch.cuda.CUDAGraph | None:
        """The recording of a kind of step; none before its warm-up, or where there can be none."""
        if not self._recorded or kind in self._graphs:
            return self._graphs.get(kind)
        self._warm[kind] = self._warm.get(kind, 0) + 1
        if self._warm[kind] <= WARM_UP:
            return None
        self.wait()
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        try:
            with recording:
                self._compute(kind)
        except RuntimeError as error:
            log.warning("no CUDA graph (%s); goes on without", str(error).splitlines()[0])
            self._recorded = False
            self._graphs.clear()
            return None
        self._graphs[kind] = graph
        return graph

    def _compute(self, kind: int) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
        loss = self._objective(Draws(self._recipe.seed, self._count), kind)
        loss.backward()
        self._move(loss.detach())

    @torch.no_grad()
    def _move(self, loss: Tensor) -> None:
        moved = [name for name, p in self._parameters.items() if p.grad is not None]
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        sound = self._sound(loss, gradients)
        self._clip(gradients)
        self._count += 1
        torch._foreach_lerp_(self._of("mean", moved), gradients, 1 - BETAS[0])
        by_name = dict(zip(moved, gradients, strict=True))
        matrices = [name for name in moved if name in self._matrices]
        self._equal_steps(matrices, [by_name[name] for name in matrices])
        others = [name for name in moved if name not in self._matrices]
        self._adams_steps(others, [by_name[name] for name in others])
        self._follow(moved)
        counted = torch.stack([loss.float(), torch.ones_like(loss, dtype=torch.float32)])
        self._losses += torch.where(sound, counted, 0.0)

    def _of(self, part: str, names: list[str]) -> list[Tensor]:
        held = self._state.get(part, self._parameters)
        return [held[name] for name in names]

    def _adams_steps(self, names: list[str], gradients: list[Tensor]) -> None:
        if not names:
            return
        fast, slow = BETAS
        mean, square = self._of("mean", names), self._of("square", names)
        torch._foreach_mul_(square, slow)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - slow)
        done = self._count.double()
        scale = torch._foreach_sqrt(square)
        torch._foreach_mul_(scale, ((1 - slow**done) ** -0.5).float())
        torch._foreach_add_(scale, EPS)
        change = list(torch._foreach_div(mean, scale))
        torch._foreach_mul_(change, -self._rate / (1 - fast**done).float())
        torch._foreach_add_(self._of("net", names), change)

    def _equal_steps(self, names: list[str], gradients: list[Tensor]) -> None:
        """Muon's, towards where the running mean will be after the next gradient like this one."""
        if not names:
            return
        ahead = torch._foreach_lerp(self._of("mean", names), gradients, 1 - BETAS[0])
        change = orthogonalised(ahead)
        torch._foreach_mul_(change, -self._rate)
        torch._foreach_add_(self._of("net", names), change)

    def _sound(self, loss: Tensor, gradients: list[Tensor]) -> Tensor:
        """Tell whether loss and gradients are numbers, and make gradients zero if they are not.

        A rare batch makes none, where a network divides by next to nothing (DCLS).
        """
        sound = torch.isfinite(torch.nn.utils.get_total_norm(gradients)) & torch.isfinite(loss)
        for gradient in gradients:
            gradient.copy_(torch.where(sound, gradient, 0.0))
        return sound

    def _clip(self, gradients: list[Tensor]) -> None:
        """Hold a gradient to a multiple of what gradients were so far: no scale has to be known."""
        norm = torch.nn.utils.get_total_norm(gradients)
        known = torch.where(self._norm > 0, self._norm, norm)
        bounded = torch.minimum(norm, EXCESS * known)
        torch._foreach_mul_(gradients, bounded / norm.clamp(min=1e-12))
        followed = torch.lerp(bounded, known, NORM_DECAY)
        self._norm.copy_(torch.where(norm > 0, followed, self._norm))

    def _follow(self, names: list[str]) -> None:
        average = self._of("average", names)
        done = self._count.double()
        decay = torch.clamp((1 + done) / (10 + done), max=self._recipe.average)
        apart = list(torch._foreach_sub(self._of("net", names), average))
        torch._foreach_mul_(apart, (1 - decay).float())
        torch._foreach_add_(average, apart)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        if self._stream is None:
            yield
        else:
            with torch.cuda.stream(self._stream):
                yield

    def _keep_close(self) -> None:
        """The clock sets the rate, so the host must not run ahead of the device."""
        if self._stream is None:
            return
        event = torch.cuda.Event()
        event.record(self._stream)
        self._given.append(event)
        if len(self._given) > AHEAD:
            self._given.popleft().synchronize()


def _copies(tensors: Any, device: torch.device) -> Any:
    if isinstance(tensors, dict):
        return {name: _copies(value, device) for name, value in tensors.items()}
    return tensors.to(device, copy=True)
