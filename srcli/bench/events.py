"""Time runs on a GPU by its own events; PyTorch is imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srcli.bench.timing import Step

if TYPE_CHECKING:
    import torch

SPIN = 200_000  # clock cycles, 0.1 ms: longer than it takes to launch a recorded network


def between_events(step: Step, runs: int = 1) -> float:
    """Time runs on the current CUDA stream.

    The device waits until the first launches are queued, so that the gap between a launch and its
    kernel, 10 to 20 microseconds, is no part of the time.

    Args:
        step: Launches one run, and may return before it is done.
        runs: Number of runs launched in a row.

    Returns:
        Milliseconds of a run, as the mean of all.
    """
    import torch

    first, last = _event(), _event()
    torch.cuda._sleep(SPIN)
    first.record()
    for _ in range(runs):
        step()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / runs


def _event() -> torch.cuda.Event:
    import torch

    return torch.cuda.Event(enable_timing=True)
