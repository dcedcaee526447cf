"""Time steps on a CUDA device; on a CPU by its clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from srcli.bench.events import between_events
from srcli.bench.timing import clock, for_a_while

CUDA = torch.cuda.is_available()
Step = Callable[[], object]


def timed(step: Step, seconds: float = 0.25, stream: Any = None) -> dict[str, float]:
    """Return `once`, the median of single runs, and `burst`, the mean of many in a row; in ms."""
    if not CUDA:
        return {"once": clock(step), "burst": clock(step)}
    with torch.cuda.stream(stream or torch.cuda.current_stream()):
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        once = statistics.median(for_a_while(lambda: between_events(step), seconds, 300))
        return {
            "once": once,
            "burst": between_events(step, max(3, min(200, int(100 / max(once, 0.01))))),
        }
