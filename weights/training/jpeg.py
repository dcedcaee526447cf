"""JPEG on a device: what decoding a file would give, without the file.

Everything that loses something is here: rounding, halved colour planes, quantised cosines. Sources:
ITU-T T.81 (the transform, the tables of annex K), JFIF 1.02 (colours), and for what these leave
open the choices of the Independent JPEG Group's library: how qualities scale the tables, how colour
planes are halved (means) and doubled (three quarters of the nearer sample, one of the farther).
Pictures are n x 3 x h x w, whole numbers in [0, 255] as float32; sides are multiples of 16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.images.quantisation import LUMINANCE

BLOCK = 8
GRID = 16  # side in which blocks repeat themselves where planes are halved
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
TO_COLOURS = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
FROM_COLOURS = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
KINDS = ("444", "422", "420")


class Jpeg:
    """Compression with constants on a device."""

    def __init__(self, device: torch.device) -> None:
        u, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        waves = torch.cos((2 * x + 1) * u * math.pi / 16) / 2
        waves[0] *= math.sqrt(0.5)
        self._waves = waves.to(device)
        tables = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE]).float()
        self._tables = tables.view(3, BLOCK, BLOCK).to(device)
        self._to = torch.tensor(TO_COLOURS, device=device)
        self._from = torch.tensor(FROM_COLOURS, device=device)

    def __call__(self, pictures: Tensor, quality: Tensor, kind: Tensor) -> Tensor:
        """Compress and decode.

        Args:
            pictures: n x 3 x h x w.
            quality: n numbers from 1 to 100.
            kind: n indices of `KINDS`.
        """
        planes = torch.einsum("cd,ndyx->ncyx", self._to, pictures)
        luma, colours = planes[:, :1].round(), (planes[:, 1:] + 128).round()
        tables = self._scaled(quality)
        luma = self._quantised(luma, tables[:, :1])
        of_kind = [_whole, _half_width, _quarter]
        found = [part(self, colours, tables[:, 1:]) for part in of_kind]
        which = kind[:, None, None, None]
        colours = torch.where(which == 0, found[0], torch.where(which == 1, found[1], found[2]))
        planes = torch.cat([luma, colours - 128], dim=1)
        return torch.einsum("cd,ndyx->ncyx", self._from, planes).round().clamp(0, 255)

    def _scaled(self, quality: Tensor) -> Tensor:
        """The tables of each picture, n x 3 x 8 x 8."""
        percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
        scaled = (self._tables * percent[:, None, None, None] + 50) / 100
        return scaled.floor().clamp(1, 255)

    def _quantised(self, planes: Tensor, tables: Tensor) -> Tensor:
        """Through the cosines and back, n x C x h x w with tables n x C x 8 x 8."""
        count, channels, height, width = planes.shape
        shape = (count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        blocks = (planes - 128).view(shape).transpose(3, 4)  # n C h/8 w/8 8 8
        steps = tables[:, :, None, None]
        cosines = (self._waves @ blocks @ self._waves.mT / steps).round() * steps
        pixels = (self._waves.mT @ cosines @ self._waves + 128).round().clamp(0, 255)
        return pixels.transpose(3, 4).reshape(planes.shape)


def _whole(jpeg: Jpeg, colours: Tensor, tables: Tensor) -> Tensor:
    return jpeg._quantised(colours, tables)


def _half_width(jpeg: Jpeg, colours: Tensor, tables: Tensor) -> Tensor:
    small = _mean(colours, 1, 2)
    return _wider(jpeg._quantised(small, tables)).round()


def _quarter(jpeg: Jpeg, colours: Tensor, tables: Tensor) -> Tensor:
    small = _mean(colours, 2, 2)
    return _wider(_wider(jpeg._quantised(small, tables).mT).mT).round()


def _mean(planes: Tensor, down: int, across: int) -> Tensor:
    """Of neighbours, rounded up and down at halves in turn, as the library does."""
    count, channels, height, width = planes.shape
    shape = (count, channels, height // down, down, width // across, across)
    size = down * across
    turns = torch.arange(width // across, device=planes.device) % 2
    bias = turns + size // 2 - 1 if size > 2 else turns
    return ((planes.reshape(shape).sum((3, 5)) + bias) / size).floor()


def _wider(planes: Tensor) -> Tensor:
    """Twice as wide: three quarters of the nearer sample and one of the farther."""
    padded = F.pad(planes, (1, 1, 0, 0), mode="replicate")
    centre = 0.75 * planes
    left, right = centre + 0.25 * padded[..., :-2], centre + 0.25 * padded[..., 2:]
    return torch.stack([left, right], dim=-1).flatten(-2)
