"""Training pairs on a device: what a network gets, and what it should make of that.

The same shares and ranges as in `srcli.quality.degradations` and `pictures.py`, but for lossy WebP,
which has no short description: JPEG takes its place. Pictures are n x 3 x h x w in [0, 255],
float32.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.quality import degradations

from . import pictures
from .damage import AROUND, applied, reduction, rounded
from .draws import Draws
from .jpeg import GRID, KINDS, Jpeg
from .patches import Store
from .recipe import Recipe

REACH = math.ceil(3 * degradations.MAX_BLUR)  # of the largest blur
MIN_BLUR = 0.1
FILTERS = ("bicubic", "area", "bilinear", "lanczos")


class Pairs(Protocol):
    """Draws a batch: the input n x 3 x p x p and the original n x 3 x H x W, in [0, 255]."""

    def __call__(self, draws: Draws, store: Store) -> tuple[Tensor, Tensor]: ...


def pairs(recipe: Recipe, device: torch.device) -> Pairs:
    """What a recipe's task and kind of input want."""
    if recipe.task == "denoise":
        return Noisy(recipe)
    if recipe.task == "deblock":
        return Blocked(recipe, device)
    if recipe.kind == "photo":
        return Photographed(recipe, device)
    return Reduced(recipe, device)


class Reduced:
    """Bicubically, as test pictures are."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._around = recipe, AROUND * recipe.scale
        self._rows = reduction(recipe.patch, recipe.scale, self._around).to(device)

    def __call__(self, draws: Draws, store: Store) -> tuple[Tensor, Tensor]:
        recipe, around = self._recipe, self._around
        side = recipe.patch * recipe.scale
        window = store.patches(
            draws, recipe.batch, side, around=around, grid=recipe.scale, tries=recipe.candidates
        )
        low = rounded(applied(self._rows, window))
        return low, window[:, :, around:-around, around:-around]


class Noisy:
    """White noise of any strength up to `MAX_NOISE`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, draws: Draws, store: Store) -> tuple[Tensor, Tensor]:
        recipe = self._recipe
        high = store.patches(draws, recipe.batch, recipe.patch, tries=recipe.candidates)
        sigma = draws.within(0.0, pictures.MAX_NOISE, recipe.batch, 1, 1, 1)
        return rounded(high + sigma * draws.normal(*high.shape)), high


class Blocked:
    """Through JPEG, now and then not."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._jpeg = recipe, Jpeg(device)
        self._kinds = _shares(pictures.SUBSAMPLINGS, device)

    def __call__(self, draws: Draws, store: Store) -> tuple[Tensor, Tensor]:
        recipe, count = self._recipe, self._recipe.batch
        high = store.patches(draws, count, around_blocks(recipe.patch), tries=recipe.candidates)
        good, all_of_them = pictures.GOOD_QUALITIES, pictures.QUALITIES
        quality = torch.where(
            draws.uniform(count) < pictures.GOOD,
            draws.within(good.start, good.stop, count).floor(),
            draws.within(all_of_them.start, all_of_them.stop, count).floor(),
        )
        decoded = self._jpeg(high, quality, draws.chosen(self._kinds, count))
        low = _mixed(draws.uniform(count) < pictures.UNCOMPRESSED, high, decoded)
        return shifted(draws, low, high, recipe.patch, 1)


class Photographed:
    """Blur, reduction by one of several filters, noise, JPEG once or twice; each now and then."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._recipe, self._jpeg = recipe, Jpeg(device)
        self._side = around_blocks(recipe.patch)
        self._around = AROUND * recipe.scale
        filters = [_filter(name, self._side, recipe.scale, self._around) for name in FILTERS]
        self._filters = torch.stack(filters).to(device)
        by_name = {str(name): share for name, share in degradations.FILTERS}
        self._shares = torch.tensor([by_name[name] for name in FILTERS], device=device)
        self._kinds = _shares(degradations.SUBSAMPLINGS, device)

    def __call__(self, draws: Draws, store: Store) -> tuple[Tensor, Tensor]:
        recipe, scale, count = self._recipe, self._recipe.scale, self._recipe.batch
        around = self._around + REACH
        side = self._side * scale
        window = store.patches(
            draws, count, side, around=around, grid=scale, tries=recipe.candidates
        )
        high = window[:, :, around:-around, around:-around]
        inner = window[:, :, REACH:-REACH, REACH:-REACH]
        clean = rounded(applied(self._filters[0], inner))
        blur = draws.uniform(count) < degradations.BLURRED
        seen = _mixed(blur, blurred(window, _drawn_kernels(draws, count)), inner)
        low = rounded(applied(self._filters[draws.chosen(self._shares, count)], seen))
        noisy = draws.uniform(count) < degradations.NOISY
        low = _mixed(noisy, self._noisy(draws, low), low)
        low = self._compressed(draws, low)
        low = _mixed(draws.uniform(count) < degradations.CLEAN, clean, low)
        return shifted(draws, low, high, recipe.patch, scale)

    def _noisy(self, draws: Draws, low: Tensor) -> Tensor:
        count = len(low)
        coloured, grey = draws.normal(*low.shape), draws.normal(count, 1, *low.shape[2:])
        noise = _mixed(draws.uniform(count) < degradations.GREY_NOISE, grey, coloured)
        sigma = draws.within(0.0, degradations.MAX_NOISE, count, 1, 1, 1)
        return rounded(low + sigma * noise)

    def _compressed(self, draws: Draws, low: Tensor) -> Tensor:
        """The first compression's blocks lie elsewhere than the second's."""
        count = len(low)
        down, right = (draws.bits(count, 1) % GRID for _ in "yx")
        moved = self._once(draws, _moved(low, down, right))
        twice = draws.uniform(count) < degradations.TWICE
        before = _mixed(twice, _moved(moved, -down, -right), low)
        compressed = draws.uniform(count) < degradations.COMPRESSED
        return _mixed(compressed, self._once(draws, before), low)

    def _once(self, draws: Draws, low: Tensor) -> Tensor:
        quality = draws.within(degradations.MIN_QUALITY, 101, len(low)).floor()
        return self._jpeg(low, quality, draws.chosen(self._kinds, len(low)))


def around_blocks(patch: int) -> int:
    """Side of whole blocks in which a patch has room wherever among them it begins."""
    return -(-(patch + GRID - 1) // GRID) * GRID


def shifted(
    draws: Draws, low: Tensor, high: Tensor, patch: int, scale: int
) -> tuple[Tensor, Tensor]:
    """Cut both from a random place on: where blocks begin must not be known."""
    top, left = (draws.bits(len(low), 1) % GRID for _ in "yx")

    def cut(x: Tensor, by: int) -> Tensor:
        line = torch.arange(patch * by, device=x.device)
        return _gathered(x, top * by + line, left * by + line)

    return cut(low, 1), cut(high, scale)


def blurred(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter each picture by its own kernel, n x K x K; the result is K - 1 pixels smaller."""
    count, planes = x.shape[:2]
    flat = x.reshape(1, count * planes, *x.shape[2:])
    weights = kernels.repeat_interleave(planes, 0)[:, None]
    return F.conv2d(flat, weights, groups=count * planes).view(count, planes, *_smaller(x))


def _smaller(x: Tensor) -> tuple[int, int]:
    return x.shape[2] - 2 * REACH, x.shape[3] - 2 * REACH


def _drawn_kernels(draws: Draws, count: int) -> Tensor:
    """Gaussians of unit sum, round or not; n x K x K."""
    line = torch.arange(-REACH, REACH + 1, device=draws.device)
    wide, other = (draws.within(MIN_BLUR, degradations.MAX_BLUR, count, 1, 1) for _ in "ab")
    narrow = torch.where(draws.uniform(count, 1, 1) < 0.5, wide, other)
    angle = draws.within(0.0, math.pi, count, 1, 1)
    along = line * torch.cos(angle) + line[:, None] * torch.sin(angle)
    across = line[:, None] * torch.cos(angle) - line * torch.sin(angle)
    weights = torch.exp(-0.5 * ((along / wide) ** 2 + (across / narrow) ** 2))
    return weights / weights.sum((1, 2), keepdim=True)


def _filter(name: str, outputs: int, scale: int, around: int) -> Tensor:
    """The matrix of an antialiased reduction: outputs x (outputs * scale + 2 * around)."""
    if name == "bicubic":
        return reduction(outputs, scale, around)
    centers = around + (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale - 0.5
    samples = torch.arange(outputs * scale + 2 * around, dtype=torch.float64)
    x = (samples - centers[:, None]).abs() / scale
    if name == "area":
        weights = (x < 0.5).double()
    elif name == "bilinear":
        weights = (1 - x).clamp(min=0)
    else:
        weights = torch.sinc(x) * torch.sinc(x / 3) * (x < 3)
    return (weights / weights.sum(1, keepdim=True)).float()


def _moved(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device) + down) % height
    columns = (torch.arange(width, device=x.device) + right) % width
    return _gathered(x, rows, columns)


def _gathered(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns of each picture: indices n x h and n x w."""
    lines = x.gather(2, rows[:, None, :, None].expand(-1, 3, -1, x.shape[3]))
    return lines.gather(3, columns[:, None, None, :].expand(-1, 3, lines.shape[2], -1))


def _mixed(which: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The first of the pictures that are chosen, the second of all others."""
    return torch.where(which[:, None, None, None], first, second)


def _shares(
    subsamplings: tuple[tuple[degradations.Subsampling, float], ...], device: torch.device
) -> Tensor:
    by_name = {str(name): share for name, share in subsamplings}
    return torch.tensor([by_name[kind] for kind in KINDS], device=device)
