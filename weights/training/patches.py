"""Training pictures on a device, and patches cut from them there.

All pictures lie one after the other in one tensor; a batch is one gather from it.
Shapes: n patches, S the side of one with what lies around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .damage import resizing
from .draws import Draws
from .pictures import SHRINK

Pixels = NDArray[np.uint8]


class Store:
    """Pictures and their reduced versions in the memory of a device.

    Args:
        pictures: H x W x 3 each.
        device: Which.
        shrink: Sizes at which each picture is there; patches are cut from each equally often.
    """

    def __init__(
        self, pictures: Sequence[Pixels], device: torch.device, shrink: Sequence[float] = SHRINK
    ) -> None:
        levels = [[_reduced(picture, factor, device) for picture in pictures] for factor in shrink]
        shapes = [picture.shape for level in levels for picture in level]
        sizes = torch.tensor([shape[:2] for shape in shapes])
        areas = sizes.prod(1)
        self.pixels = torch.cat([picture.view(-1, 3) for level in levels for picture in level])
        parts = zip(torch.split(self.pixels, areas.tolist()), shapes, strict=True)
        self.pictures = [part.view(shape) for part, shape in parts]
        self._starts = (areas.cumsum(0) - areas).to(device)
        self._heights, self._widths = sizes.to(device).unbind(1)
        shares = areas.double().view(len(shrink), -1)
        self._shares = (shares / shares.sum(1, keepdim=True)).flatten().float().to(device)
        self._minimum = sizes.amin(1).to(device)
        self._largest = int(sizes.amin(1).max())
        self._by_side: dict[int, Tensor] = {}

    def patches(
        self, draws: Draws, count: int, side: int, *, around: int = 0, grid: int = 1, tries: int = 1
    ) -> Tensor:
        """Cut, turn and mirror patches at random places: n x 3 x S x S in [0, 255], float32.

        Args:
            draws: Of the step.
            count: n.
            side: Of a patch without what lies around it, a multiple of `grid`.
            around: Pixels on each side; beyond the border a picture is mirrored.
            grid: Places are multiples of this, and so is what of a picture is looked at.
            tries: Places drawn for each patch; the one with most detail is kept.

        Raises:
            SystemExit: All pictures are smaller than a patch.
        """
        picture = draws.chosen(self._large_enough(side + grid - 1), tries * count)
        height, width = (
            sizes[picture] - sizes[picture] % grid for sizes in (self._heights, self._widths)
        )
        top, left = (_place(draws, length, side, grid) for length in (height, width))
        places = torch.stack([picture, top, left, height, width])
        if tries > 1:
            places = self._most_detailed(places.view(5, tries, count), side)
        return self._cut(draws, places, side, around)

    def _large_enough(self, side: int) -> Tensor:
        """How often to take each picture: never if it is smaller than that."""
        if side not in self._by_side:
            if side > self._largest:
                raise SystemExit(
                    f"the training pictures have sides of at most {self._largest}: too small for "
                    f"patches of {side}. Give a smaller --patch, or larger pictures."
                )
            self._by_side[side] = self._shares * (self._minimum >= side)
        return self._by_side[side]

    def _cut(self, draws: Draws, places: Tensor, side: int, around: int) -> Tensor:
        picture, top, left, height, width = (row[:, None] for row in places)
        line = torch.arange(-around, side + around, device=places.device)
        rows, columns = _mirrored(top + line, height), _mirrored(left + line, width)  # n S
        flags = draws.bits(3, len(picture), 1) & 1
        rows = torch.where(flags[0] == 1, rows.flip(1), rows)
        columns = torch.where(flags[1] == 1, columns.flip(1), columns)
        row_starts = self._starts[picture] + rows * self._widths[picture]
        straight = row_starts[:, :, None] + columns[:, None, :]  # n S S
        index = torch.where(flags[2][:, :, None] == 1, straight.mT, straight)
        return self.pixels[index].permute(0, 3, 1, 2).float()

    def _most_detailed(self, places: Tensor, side: int) -> Tensor:
        """The best of the tries, by differences of neighbours in green: 5 x tries x n -> 5 x n."""
        picture, top, left, _, _ = (row[:, :, None] for row in places)
        line = torch.arange(0, side, 2, device=places.device)
        row_starts = self._starts[picture] + (top + line) * self._widths[picture]
        index = row_starts[:, :, :, None] + (left + line)[:, :, None, :]  # tries n s s
        green = self.pixels[:, 1][index].float()
        detail = green.diff(dim=2).abs().mean((2, 3)) + green.diff(dim=3).abs().mean((2, 3))
        best = detail.argmax(0)[None, None].expand(5, 1, -1)
        return places.gather(1, best)[:, 0]


def _place(draws: Draws, lengths: Tensor, side: int, grid: int) -> Tensor:
    free = (lengths - side) // grid + 1
    drawn = (draws.uniform(len(lengths)) * free).long()
    return torch.minimum(drawn, free - 1) * grid


def _mirrored(position: Tensor, length: Tensor) -> Tensor:
    """Positions beyond the border mirrored back, the last pixel repeated, as `resample` does it."""
    wrapped = position % (2 * length)
    return torch.where(wrapped < length, wrapped, 2 * length - 1 - wrapped)


def _reduced(picture: Pixels, factor: float, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.array(picture)).to(device)
    if factor == 1.0:
        return pixels
    height, width = (round(side * factor) for side in picture.shape[:2])
    rows, columns = (
        _resizing(source, size, device)
        for source, size in zip(picture.shape, (height, width), strict=False)
    )
    small = rows @ pixels.permute(2, 0, 1).float() @ columns.mT
    return small.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()


@cache
def _resizing(source: int, size: int, device: torch.device) -> Tensor:
    return resizing(source, size).to(device)
