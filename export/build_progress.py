"""Progress of a TensorRT build."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from srcli.backends.trt.engine import TensorRt

if TYPE_CHECKING:
    import tensorrt

Progress = Callable[[str, float], None]
"""A function that is called with a phase's name and the fraction of the build that is done."""


def watch(
    trt: TensorRt, progress: Progress | None
) -> tuple[tensorrt.IProgressMonitor, list[BaseException]]:
    """Return a monitor for a builder's configuration, and the list of exceptions in its calls.

    TensorRT swallows exceptions, a Ctrl-C among them. So they are kept for the caller to raise,
    and the build is told to stop.
    """
    phases, lock = Phases(), threading.Lock()  # several threads build
    raised: list[BaseException] = []
    base: Any = trt.IProgressMonitor

    def attempt(action: Callable[[], None]) -> bool:
        try:
            with lock:
                action()
        except BaseException as error:
            raised.append(error)
        return not raised

    def report(phase: str, done: float) -> None:
        if progress is not None:
            progress(phase, done)

    class Monitor(base):  # type: ignore[misc]  # the base exists once TensorRT is loaded
        def __init__(self) -> None:
            base.__init__(self)  # the bindings demand it by this name

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            attempt(lambda: phases.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return attempt(lambda: report(phase_name, phases.step(phase_name, step)))

        def phase_finish(self, phase_name: str) -> None:
            attempt(lambda: report(phase_name, phases.finish(phase_name)))

    return Monitor(), raised


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Nested phases, each of which counts for one step of the phase around it."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        if not self._open:
            self._furthest = 0.0
        self._open[name] = _Phase(parent, steps)

    def step(self, name: str, step: int) -> float:
        """Note that a phase's step (from 0) is done; return the fraction of the whole."""
        if name in self._open:
            self._open[name].done = step + 1
            self._advance(name, 0.0)
        return self._furthest

    def finish(self, name: str) -> float:
        """Note that a phase is over; return the fraction of the whole."""
        finished = self._open.pop(name, None)
        if finished is not None:
            self._advance(finished.parent, 1.0)
        return self._furthest

    def _advance(self, name: str | None, fraction: float) -> None:
        """Note that `fraction` of the current step of a phase is done; None is the whole."""
        while name is not None and name in self._open:
            phase = self._open[name]
            fraction = min(1.0, (phase.done + fraction) / phase.steps)
            name = phase.parent
        # A step may hold several phases one after the other: do not go back for the second.
        self._furthest = max(self._furthest, fraction)
