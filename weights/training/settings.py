"""How each family is trained where minutes count: one table."""

from __future__ import annotations

from typing import Any

from .recipe import Recipe

# Patches are small pixels, half of the output for ASDN. A few thousand steps want small batches,
# high rates and a moving average that forgets within a twentieth of them. From equal starts, in dB
# on Set5 after 300 steps (HPINet 200) of 4 patches of 24 x 24: FSDN x2 36.01 by Adam at 1e-3, 36.52
# by Muon at 5e-3 (in bfloat16 36.53); AWSRN-S x4 29.38 by Adam at 2e-3, 29.60 by Muon; HPINet-S x4
# 29.11 by Adam at 1e-3, 29.58 and 29.20 by Muon at 3e-3 and 8e-3.
COMMON: dict[str, Any] = {
    "optimiser": "muon",
    "batch": 16,
    "patch": 48,
    "candidates": 1,
    "warmup": 0.03,
    "average": 0.995,
    "learning_rate": 5e-3,
    "loss": "charbonnier",
    "bf16": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "lapar": {"learning_rate": 3e-3, "batch": 32, "loss": "psnr"},
    "awsrn": {"loss": "psnr"},
    "hpinet": {"learning_rate": 3e-3},
    "asdn": {"batch": 12},
    "fsdn": {},
    "dcls": {"learning_rate": 1.5e-3, "batch": 12},
}
TASKS: dict[str, dict[str, Any]] = {
    "upscale": {},
    "denoise": {"patch": 80, "batch": 16, "loss": "psnr-rgb"},
    "deblock": {"patch": 80, "batch": 16, "loss": "psnr"},
}
# Who comes before, the nearest first: one that can grow into the model, or whose tensors of the
# same name and shape serve. FSDN from ASDN is the paper's way; the others save minutes.
SIBLINGS: dict[str, tuple[str, ...]] = {
    "lapar-b": ("lapar-c",),
    "lapar-a": ("lapar-b", "lapar-c"),
    "fsdn-base": ("asdn-base",),
    "fsdn-paper": ("asdn-paper",),
    "dcls-aniso": ("dcls-iso",),
    "awsrn-m": ("awsrn-s",),
    "awsrn": ("awsrn-m", "awsrn-s"),
    "hpinet-m": ("hpinet-s",),
    "hpinet-l": ("hpinet-m", "hpinet-s"),
}


def family(model: str) -> str:
    """Of a model's name in the registry."""
    return model.partition("-")[0]


def recipe(model: str, scale: int, task: str = "upscale", **changes: Any) -> Recipe:
    """The recipe of a model at a scale, with changes where something else is wanted.

    Raises:
        SystemExit: The family is not in the table.
    """
    if family(model) not in FAMILIES:
        raise SystemExit(f"{model}: not in the table of families ({', '.join(FAMILIES)}).")
    fields = COMMON | FAMILIES[family(model)] | TASKS[task] | changes
    return Recipe(model=model, scale=scale, task=task, **fields)
