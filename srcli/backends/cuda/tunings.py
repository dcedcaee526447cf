"""Sizes by which layers are cut into programs of a GPU: measured ones, else by a rule.

`tunings.json` holds what `benchmarks/tune_convolutions.py` found fastest, by the names that `key`
makes.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Literal

import torch

from srcli.backends.cuda.blocked import Tuning

Role = Literal["head", "body", "reduction", "up", "high", "filter", "tail"]
"""Place of a layer in its network. `high`: at the resolution of the result."""

FILE = "tunings.json"
WIDE = 64  # channels from which a layer fills tensor cores by itself
COLUMNS = 64  # numbers that a program should make of a block of pixels, about


def tuning_for(
    role: Role, inputs: int, outputs: int, side: int, scale: int, dtype: torch.dtype
) -> Tuning:
    """Return the sizes by which a layer is cut.

    Args:
        role: Place of the layer in its network.
        inputs: Channels of one plane of its source.
        outputs: Channels of its result, after the pixel shuffle if there is one.
        side: Of its kernel.
        scale: Of the pixel shuffle after it; 1 for none.
        dtype: Of its source.
    """
    measured = _measured().get(key(role, inputs, outputs, side, scale, dtype))
    return Tuning(**measured) if measured else _by_rule(inputs, outputs, side, scale)


def key(role: Role, inputs: int, outputs: int, side: int, scale: int, dtype: torch.dtype) -> str:
    """Return the name of a layer in the file: `high 16-16 5x5 x1 2 bytes`."""
    return f"{role} {inputs}-{outputs} {side}x{side} x{scale} {dtype.itemsize} bytes"


@cache
def _measured() -> dict[str, dict[str, int]]:
    file = files("srcli.backends.cuda").joinpath(FILE)
    if not file.is_file():
        return {}
    found: dict[str, dict[str, int]] = json.loads(file.read_text("utf-8"))
    return found


def _by_rule(inputs: int, outputs: int, side: int, scale: int) -> Tuning:
    if scale > 1:
        wide = scale * outputs
        part = max(1, min(scale, COLUMNS // wide)) if scale % 2 == 0 else 1
        return Tuning(group=1, part=part, piece=_piece(inputs * side))
    if outputs >= WIDE:
        return Tuning(group=1, piece=_piece(inputs * side))
    group = 2 if inputs < WIDE else 1
    step = 2 if inputs <= 16 and outputs <= 16 else 1
    return Tuning(step=step, group=group, piece=_piece((group + side - 1) * inputs))


def _piece(run: int) -> int:
    """Return the largest piece up to 64 that leaves little over at the end of a row."""
    return min((16, 32, 64), key=lambda piece: (-(-run // piece) * piece * 8 // run, -piece))
