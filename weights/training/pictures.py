"""Training pictures, and the batches that are cut from them."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srcli.pipeline.resample import reduce, resize
from srcli.quality.degradations import Subsampling, add_noise, compress, photographed
from srcli.quality.metrics import luma

from .recipe import Recipe

Pixels = NDArray[np.uint8]
Taught = NDArray[np.float16]  # what teachers make of a picture, in [0, 255]
Errors = NDArray[np.float32]  # h x w x 2, squared: of bicubic enlargement, and of teachers
Patch = TypeVar("Patch", Pixels, Taught, Errors)

# Photographs are soft at full size, pictures that people enlarge have mostly been reduced before:
# the network sees the training pictures at each of these sizes equally often.
SHRINK = (1.0, 2 / 3, 1 / 2)
MAX_NOISE = 55.0  # standard deviation, of 255
QUALITIES = range(5, 101)  # of JPEG
GOOD_QUALITIES, GOOD = (
    range(80, 98),
    0.3,
)  # drawn more often: there is least to gain, and most to lose
UNCOMPRESSED = 0.04  # share of deblocking's patches: what was never compressed must stay as it is
SUBSAMPLINGS: tuple[tuple[Subsampling, float], ...] = (("420", 0.6), ("444", 0.3), ("422", 0.1))
JPEG_GRID = 16  # side of the blocks in which JPEG repeats itself, with halved colour planes
AROUND = 8  # pixels around a patch that blur, reduction and compression look at
NO_ERROR = 0.1  # squared, of luma: less is no worse than what rounding leaves
PICTURE_TYPES = {".png", ".webp", ".bmp", ".tif", ".tiff"}  # lossless: JPEG teaches JPEG


class Pictures:
    """Training pictures in memory, with their reduced versions, and patches drawn from them."""

    def __init__(self, folder: Path, scale: int) -> None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_TYPES)
        if not files:
            raise SystemExit(f"{folder}: no lossless pictures ({', '.join(sorted(PICTURE_TYPES))})")
        self.scale = scale
        originals = [_decode(file) for file in files]
        levels = [[_shrunk(picture, factor) for picture in originals] for factor in SHRINK]
        self.high = [_cropped(picture, scale) for level in levels for picture in level]
        self.low = [reduce(picture, scale) if scale > 1 else picture for picture in self.high]
        self.taught: Sequence[Taught] = ()
        self._errors: list[Errors] = []
        areas = np.array([picture.shape[0] * picture.shape[1] for picture in self.low], float)
        by_level = areas.reshape(len(SHRINK), -1)
        self.chances = (by_level / by_level.sum(axis=1, keepdims=True)).ravel() / len(SHRINK)

    def teach(self, lessons: Sequence[Taught]) -> None:
        """Give a second target to each picture of `low`.

        Of a recipe's candidates that patch is then kept on which teachers gain most over bicubic
        enlargement. Most of what a network can do for a picture it does at few places, its strong
        edges; texture has more detail, which no network knows.
        """
        self.taught = lessons
        self._errors = [
            _squared_errors(low, high, taught, self.scale)
            for low, high, taught in zip(self.low, self.high, lessons, strict=True)
        ]

    def batch(self, recipe: Recipe, step: int) -> tuple[Tensor, ...]:
        """LR (n 3 p p) and HR (n 3 s*p s*p) patches in [0, 255], the same for the same step.

        Where there are teachers, what they make of LR comes third.
        """
        rng = np.random.default_rng((recipe.seed, step))
        patches = [self._patch(recipe, rng) for _ in range(recipe.batch)]
        return tuple(map(tensor, zip(*patches, strict=True)))

    def _patch(self, recipe: Recipe, rng: np.random.Generator) -> list[Pixels | Taught]:
        drawn = [self._place(recipe.patch, rng) for _ in range(recipe.candidates)]
        worth = self._gain if self.taught else self._detail
        index, top, left = max(drawn, key=lambda place: worth(place, recipe.patch))
        low = self._damaged(recipe, index, top, left, rng)
        s = self.scale
        place, side = (top * s, left * s), recipe.patch * s
        patches: list[Pixels | Taught] = [low, _window(self.high[index], *place, side)]
        if self.taught:
            patches.append(_window(self.taught[index], *place, side))
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        return [_turned(patch, turns, mirror) for patch in patches]

    def _damaged(
        self, recipe: Recipe, index: int, top: int, left: int, rng: np.random.Generator
    ) -> Pixels:
        """What the network gets: the reduced, noisy or compressed patch."""
        picture, side = self.low[index], recipe.patch
        if recipe.kind == "photo":
            return self._photographed(index, top, left, side, rng)
        if recipe.task == "denoise":
            patch = _window(picture, top, left, side)
            return add_noise(patch, float(rng.uniform(0, MAX_NOISE)), rng)
        if recipe.task == "deblock":
            # JPEG's blocks begin at the corner of the picture, so compress from one of them: the
            # network must not learn where in a patch they lie.
            if rng.random() < UNCOMPRESSED:
                return _window(picture, top, left, side)
            y, x = top - top % JPEG_GRID, left - left % JPEG_GRID
            around = picture[y : top + side + JPEG_GRID, x : left + side + JPEG_GRID]
            names, shares = zip(*SUBSAMPLINGS, strict=True)
            subsampling: Subsampling = names[int(rng.choice(len(names), p=shares))]
            decoded = compress(np.ascontiguousarray(around), _quality(rng), subsampling)
            return _window(decoded, top - y, left - x, side)
        return _window(picture, top, left, side)

    def _photographed(
        self, index: int, top: int, left: int, side: int, rng: np.random.Generator
    ) -> Pixels:
        """Damage the large picture around a patch, from the corner of a block of JPEG on."""
        s, high = self.scale, self.high[index]
        height, width = self.low[index].shape[:2]
        y, x = (max(0, edge - AROUND) for edge in (top, left))
        y, x = y - y % JPEG_GRID, x - x % JPEG_GRID
        below, right = min(height, top + side + AROUND), min(width, left + side + AROUND)
        around = high[y * s : below * s, x * s : right * s]
        return _window(photographed(around, s, rng), top - y, left - x, side)

    def _place(self, patch: int, rng: np.random.Generator) -> tuple[int, int, int]:
        index = int(rng.choice(len(self.low), p=self.chances))
        height, width = self.low[index].shape[:2]
        if min(height, width) < patch:
            raise SystemExit(f"a picture of {width} x {height} is too small for --patch {patch}.")
        return index, int(rng.integers(height - patch + 1)), int(rng.integers(width - patch + 1))

    def _detail(self, place: tuple[int, int, int], patch: int) -> float:
        index, top, left = place
        green = _window(self.low[index], top, left, patch)[:, :, 1].astype(np.int16)
        return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())

    def _gain(self, place: tuple[int, int, int], patch: int) -> float:
        index, top, left = place
        errors = _window(self._errors[index], top, left, patch)
        enlarged, taught = errors.mean(axis=(0, 1)) + NO_ERROR
        return float(enlarged / taught)


class Batches(Dataset[tuple[Tensor, ...]]):
    """A batch for each step."""

    def __init__(self, pictures: Pictures, recipe: Recipe) -> None:
        self._pictures, self._recipe = pictures, recipe

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        return self._pictures.batch(self._recipe, step)


def batches(
    pictures: Pictures, recipe: Recipe, first: int, *, workers: int, pinned: bool
) -> Iterator[tuple[Tensor, ...]]:
    """The batches of all steps from `first` on, without end.

    Args:
        pictures: Shared with the workers, not copied.
        recipe: What to cut from them.
        first: Step.
        workers: Processes that prepare batches ahead; 0: each is made when it is asked for.
        pinned: Lay them into memory that a GPU reads by itself.
    """
    loader = DataLoader(
        Batches(pictures, recipe),
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=workers,
        pin_memory=pinned,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_interruptions,
    )
    return iter(loader)


def _leave_interruptions(worker: int) -> None:
    """Ctrl-C goes to all processes; the one that trains saves first, and needs the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_pairs(dataset: Path, recipe: Recipe) -> Iterator[tuple[Pixels, Pixels]]:
    """The input and the original of each picture of a test set."""
    for file in sorted((dataset / "HR").iterdir()):
        high = _decode(file)
        if recipe.task == "denoise":
            yield add_noise(high, 25, np.random.default_rng(0)), high
        elif recipe.task == "deblock":
            yield compress(high, 20), high
        else:
            low = _decode(dataset / f"LRx{recipe.scale}" / file.name)
            height, width = (side * recipe.scale for side in low.shape[:2])
            yield low, high[:height, :width]


def _decode(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _quality(rng: np.random.Generator) -> int:
    """Draw the quality of a JPEG file that is to be deblocked."""
    return int(rng.choice(GOOD_QUALITIES if rng.random() < GOOD else QUALITIES))


def _shrunk(picture: Pixels, factor: float) -> Pixels:
    if factor == 1.0:
        return picture
    height, width = (round(side * factor) for side in picture.shape[:2])
    small = resize(picture.astype(np.float32), height, width)
    rounded: Pixels = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    return rounded


def _cropped(picture: Pixels, multiple: int) -> Pixels:
    height, width = (side - side % multiple for side in picture.shape[:2])
    return picture[:height, :width]


def _squared_errors(low: Pixels, high: Pixels, taught: Taught, scale: int) -> Errors:
    """Of luma, the mean of those that belong to one pixel of the input."""
    height, width = low.shape[:2]
    enlarged = np.clip(resize(low.astype(np.float32), *high.shape[:2]), 0, 255)
    original = luma(high)
    squared = np.stack([(luma(picture) - original) ** 2 for picture in (enlarged, taught)], axis=-1)
    means: Errors = squared.reshape(height, scale, width, scale, 2).mean(
        axis=(1, 3), dtype=np.float32
    )
    return means


def _window(picture: Patch, top: int, left: int, side: int) -> Patch:
    return picture[top : top + side, left : left + side]


def _turned(patch: Pixels | Taught, turns: int, mirror: bool) -> Pixels | Taught:
    turned = np.rot90(patch, turns)
    return turned[:, ::-1] if mirror else turned


def tensor(patches: Sequence[Pixels | Taught]) -> Tensor:
    """h x w x 3 each, as n x 3 x h x w."""
    stacked = np.stack([np.ascontiguousarray(patch) for patch in patches])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)
