"""Measure the greatest speeds of a device, to compare networks with."""

from __future__ import annotations

import torch

from srcli.bench.events import between_events
from srcli.bench.timing import Step, clock, for_a_while

SECONDS = 0.3  # for each ceiling
COPIED = 1 << 30  # bytes on a GPU: so many that its caches have no part in the rate
COPIED_BY_CPU = 1 << 26
SIDE, SIDE_ON_CPU = 8192, 1024  # of matrices
KINDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def ceilings() -> dict[str, float]:
    """Measure bytes copied per second, and multiply-adds per second by precision.

    On the first CUDA device, or else on the CPU, where PyTorch computes in fp32 only.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    rates = {"copy_bytes_per_second": _copy_rate(device)}
    for precision, dtype in KINDS.items():
        if cuda or precision == "fp32":
            rates[f"{precision}_multiply_adds_per_second"] = _matrix_rate(device, dtype)
    return rates


def _copy_rate(device: torch.device) -> float:
    """Return bytes read and written per second."""
    size = COPIED if device.type == "cuda" else COPIED_BY_CPU
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * size / _minimum(lambda: target.copy_(source), device)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return multiply-adds per second, of random numbers: equal ones save power and run faster."""
    side = SIDE if device.type == "cuda" else SIDE_ON_CPU
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return float(side**3 / _minimum(lambda: left @ right, device))


def _minimum(step: Step, device: torch.device) -> float:
    """Return the seconds of the fastest of several runs: a ceiling, not a typical time."""
    time = between_events if device.type == "cuda" else clock
    time(step)
    return min(for_a_while(lambda: time(step), SECONDS)) / 1e3
