"""How layers are cut into programs of a GPU."""

from __future__ import annotations

import torch

from srcli.backends.blocked import Tuning

WIDE = 64  # channels from which a layer fills tensor cores by itself
COLUMNS = 64  # numbers that a program should make of a block of pixels, about


def tuning_for(inputs: int, outputs: int, side: int, scale: int, dtype: torch.dtype) -> Tuning:
    """Choose how a layer is cut.

    Args:
        inputs: Channels of one plane of its source.
        outputs: Channels of its result, after the pixel shuffle if there is one.
        side: Of its kernel.
        scale: Of the pixel shuffle after it; 1 for none.
        dtype: Of its source.
    """
    if scale > 1:
        wide = scale * outputs
        part = max(1, min(scale, COLUMNS // wide)) if scale % 2 == 0 else 1
        return Tuning(group=1, part=part, piece=_piece(inputs * side), block=64)
    if outputs >= WIDE:
        return Tuning(group=1, piece=_piece(inputs * side), block=64)
    group = 2 if inputs < WIDE else 1
    step = 2 if inputs <= 16 and outputs <= 16 else 1
    run = (group + side - 1) * inputs
    return Tuning(step=step, group=group, piece=_piece(run), block=64)


def _piece(run: int) -> int:
    """Return the largest piece up to 64 that leaves little over at the end of a row."""
    return min((16, 32, 64), key=lambda piece: (-(-run // piece) * piece * 8 // run, -piece))
