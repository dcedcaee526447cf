"""Train one of srcli's own models on a folder of pictures.

    python -m srcli.weights.train lapar-c -s 4 --data PICTURES --minutes 60 --out runs/lapar-c-x4
    python -m srcli.weights.train lapar-c --task denoise --data PICTURES --minutes 60 --out runs/d

The run can be stopped at any time and goes on where it stopped when the same command is given
again. `--out` receives `checkpoint.pt` (everything needed to go on), `weights.safetensors` (the
moving average of the weights, under the published tensor names: what is shipped) and `log.csv`.
(Those of a `--variant` have names of their own, and serve for comparison only.)

Three things make an hour of CPU count. The published parameters are optimised through the fused
network (see `Lapar.fused_weights`), which costs a third of the published one. Its convolutions and
filters are done by compiled code where that fits them, forwards and backwards (`convolution.py`).
And every random choice is drawn from a generator seeded by (seed, step), so a resumed run sees
exactly what an uninterrupted one sees. On one machine and with as many threads, the result of
`--steps` depends on the seed alone; with `--minutes` the learning rate follows the clock.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from srcli.backends.fused_filters import use_compiled as use_compiled_filters
from srcli.degradations import Subsampling, add_noise, compress
from srcli.metrics import crop_border, luma, psnr
from srcli.models.lapar.network import Lapar
from srcli.registry import get_model
from srcli.resample import reduce, resize
from srcli.spec import TASKS

from .convolution import use_compiled as use_compiled_convolutions
from .growth import grown
from .soap import Soap
from .variants import VARIANTS, FreeLapar

Pixels = NDArray[np.uint8]
log = logging.getLogger("train")

CHARBONNIER = 1e-3  # the loss is quadratic below this difference, linear above
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # what PSNR-Y weighs the planes by
# Photographs are soft at full size, pictures that people enlarge have mostly been reduced before:
# the network sees the training pictures at each of these sizes equally often.
SHRINK = (1.0, 2 / 3, 1 / 2)
MOST_NOISE = 55.0  # standard deviation, of 255
QUALITIES = range(10, 51)  # of JPEG
LONGEST_STEP = 10.0  # seconds; what takes longer was a stopped process, not training
JPEG_GRID = 16  # side of the blocks in which JPEG repeats itself, with halved colour planes
PICTURE_TYPES = {".png", ".webp", ".bmp", ".tif", ".tiff"}  # lossless: JPEG teaches JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What determines a run. Patches are `patch` x `patch` pixels at input resolution."""

    model: str
    scale: int
    task: str = "upscale"  # or "denoise", "deblock", at scale 1
    batch: int = 8
    patch: int = 48
    learning_rate: float = 1e-3
    warmup: float = 0.02  # share of the run in which the learning rate rises
    candidates: int = 2  # patches drawn for each one kept: the one with the most detail
    average: float = 0.999  # decay of the moving average of the weights
    clip: float = 0.5  # largest norm of the gradient
    loss: str = "charbonnier"  # or another of LOSSES
    optimiser: str = "soap"  # or another of OPTIMISERS
    variant: str = "published"  # or another of VARIANTS
    bf16: bool = False  # convolutions in bfloat16; pays on GPUs, not on CPUs without AMX
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is behind us, 0 to 1 and beyond."""
        by_step = step / self.steps if self.steps else 0.0
        by_clock = seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_step, by_clock)

    def rate(self, progress: float) -> float:
        """Linear warm-up, then a cosine to zero."""
        if progress < self.warmup:
            return self.learning_rate * (progress / self.warmup)
        share = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


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
        areas = np.array([picture.shape[0] * picture.shape[1] for picture in self.low], float)
        by_level = areas.reshape(len(SHRINK), -1)
        self.chances = (by_level / by_level.sum(axis=1, keepdims=True)).ravel() / len(SHRINK)

    def batch(self, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
        """LR (n 3 p p) and HR (n 3 s*p s*p) patches in [0, 1], the same for the same step."""
        rng = np.random.default_rng((recipe.seed, step))
        pairs = [self._patch(recipe, rng) for _ in range(recipe.batch)]
        low, high = zip(*pairs, strict=True)
        return _tensor(low), _tensor(high)

    def _patch(self, recipe: Recipe, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        drawn = [self._place(recipe.patch, rng) for _ in range(recipe.candidates)]
        index, top, left = max(drawn, key=lambda place: self._detail(place, recipe.patch))
        low = self._damaged(recipe, index, top, left, rng)
        s = self.scale
        high = _window(self.high[index], top * s, left * s, recipe.patch * s)
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        return _turned(low, turns, mirror), _turned(high, turns, mirror)

    def _damaged(
        self, recipe: Recipe, index: int, top: int, left: int, rng: np.random.Generator
    ) -> Pixels:
        """What the network gets: the reduced, noisy or compressed patch."""
        picture, side = self.low[index], recipe.patch
        if recipe.task == "denoise":
            patch = _window(picture, top, left, side)
            return add_noise(patch, float(rng.uniform(0, MOST_NOISE)), rng)
        if recipe.task == "deblock":
            # JPEG's blocks begin at the corner of the picture, so compress from one of them: the
            # network must not learn where in a patch they lie.
            y, x = top - top % JPEG_GRID, left - left % JPEG_GRID
            around = picture[y : top + side + JPEG_GRID, x : left + side + JPEG_GRID]
            subsampling: Subsampling = "420" if rng.integers(2) else "444"
            decoded = compress(
                np.ascontiguousarray(around), int(rng.choice(QUALITIES)), subsampling
            )
            return _window(decoded, top - y, left - x, side)
        return _window(picture, top, left, side)

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


def charbonnier(difference: Tensor) -> Tensor:
    """A smooth absolute error: learns fast and does not dwell on outliers."""
    return torch.sqrt(difference**2 + CHARBONNIER**2).mean()


def squared(difference: Tensor) -> Tensor:
    """Squared error of the luma, and a little of each plane; about as large as `charbonnier`."""
    weights = difference.new_tensor(LUMA).view(1, 3, 1, 1)
    luma_error = ((difference * weights).sum(dim=1) ** 2).mean()
    return 20 * (luma_error + 0.3 * (difference**2).mean())


def decibels(difference: Tensor) -> Tensor:
    """Logarithm of each patch's squared error: its PSNR, in which smooth patches weigh as much as
    rough ones, as in the mean over a test set. Scaled to gradients like those of `squared`.
    """
    weights = difference.new_tensor(LUMA).view(1, 3, 1, 1)
    luma_error = ((difference * weights).sum(dim=1) ** 2).mean(dim=(1, 2))
    colour_error = (difference**2).mean(dim=(1, 2, 3))
    return 0.015 * torch.log(luma_error + 0.1 * colour_error + 1e-7).mean()


def decibels_rgb(difference: Tensor) -> Tensor:
    """As `decibels`, all planes alike: for noise, which is scored on them."""
    return 0.015 * torch.log((difference**2).mean(dim=(1, 2, 3)) + 1e-7).mean()


LOSSES = {
    "charbonnier": charbonnier,
    "mse": squared,
    "psnr": decibels,
    "psnr-rgb": decibels_rgb,
}


OPTIMISERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, betas=(0.9, 0.99), fused=True),
    "soap": partial(Soap, betas=(0.9, 0.99)),
}


class Run:
    """A network, its optimiser and its moving average; saved and restored as one."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        torch.manual_seed(recipe.seed)
        self.net = _build(recipe).to(device)
        self.fused = self.net.fuse().to(device)
        if device.type == "cpu" and not recipe.bf16:
            threads = torch.get_num_threads()
            log.info("convolutions: %s", use_compiled_convolutions(self.fused, threads))
            log.info("filters: %s", use_compiled_filters(self.fused, threads))
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = OPTIMISERS[recipe.optimiser](parameters)
        self.step, self.seconds = 0, 0.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def start_from(self, file: Path) -> None:
        """Take what serves: a smaller sibling of the same scale whole, and of any other file
        every tensor of the same name and shape, such as a sibling's body for another scale.
        """
        net = _published(self.recipe)
        state = net.state_dict()
        tensors = load_file(file)
        try:
            tensors = grown(tensors, state)
        except ValueError:
            log.info("%s is no smaller sibling; taking what fits", file)
        fitting = {k: v for k, v in tensors.items() if k in state and v.shape == state[k].shape}
        if not fitting:
            raise SystemExit(f"{file}: no tensor in it fits {self.recipe.model}.")
        net.load_state_dict(fitting, strict=False)
        self.net.load_state_dict(_variant(net, self.recipe).state_dict())
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        log.info("started from %s: %d of %d tensors", file, len(fitting), len(state))

    def update(self, low: Tensor, high: Tensor) -> float:
        """One step of the optimiser; returns the loss."""
        low, high = (t.to(self.device, memory_format=torch.channels_last) for t in (low, high))
        rate = self.recipe.rate(self.recipe.progress(self.step, self.seconds))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            restored = functional_call(self.fused, self.net.fused_weights(), (low,))
        loss = LOSSES[self.recipe.loss](restored - high)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def averaged(self) -> Lapar | FreeLapar:
        net = _build(self.recipe)
        net.load_state_dict(self.average)
        return net

    def save(self) -> None:
        """Write the checkpoint and the weights, each whole or not at all."""
        state = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)
        partial = self.folder / "weights.partial"
        save_file({k: v.cpu().contiguous() for k, v in self.average.items()}, partial)
        os.replace(partial, self.folder / "weights.safetensors")

    def restore(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        self.net.load_state_dict(state["net"])
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        used = state["recipe"].get("optimiser", "adam")
        if used != self.recipe.optimiser:
            raise SystemExit(
                f"{self.checkpoint}: was trained with {used}. Add --optimiser {used}, or give "
                "another --out."
            )
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        log.info("resumed at step %d after %.1f minutes", self.step, self.seconds / 60)


def train(run: Run, pictures: Pictures, test: Path | None, every: float) -> None:
    """Go on with `run` until its recipe is fulfilled; evaluate and save every `every` minutes."""
    recipe = run.recipe
    last, losses = time.monotonic(), [0.0]
    since = last
    while recipe.progress(run.step, run.seconds) < 1:
        losses.append(run.update(*pictures.batch(recipe, run.step)))
        now = time.monotonic()
        run.seconds += min(now - last, LONGEST_STEP)
        last = now
        if now - since > 60 * every:
            _report(run, float(np.mean(losses[1:])), test)
            losses, since = [0.0], time.monotonic()
            last = since  # evaluation does not count as training time
    _report(run, float(np.mean(losses)), test)


def _report(run: Run, loss: float, test: Path | None) -> None:
    run.save()
    score = validate(run.averaged(), test, run.recipe) if test else math.nan
    progress = run.recipe.progress(run.step, run.seconds)
    row = [run.step, f"{run.seconds / 60:.1f}", f"{run.recipe.rate(progress):.2e}", f"{loss:.6f}"]
    file = run.folder / "log.csv"
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["step", "minutes", "rate", "loss", "psnr"])
        writer.writerow([*row, f"{score:.3f}"])
    log.info("%5.1f%%  step %s  %s min  rate %s  loss %s  PSNR %.3f", 100 * progress, *row, score)


@torch.no_grad()
def validate(net: Lapar | FreeLapar, dataset: Path, recipe: Recipe) -> float:
    """Mean PSNR of the fused network on a test set, in dB; of all planes for noise, else of Y."""
    fused = net.fuse()
    scores = []
    for low, high in _test_pairs(dataset, recipe):
        restored = fused(_tensor([low]))[0].permute(1, 2, 0).numpy()
        pair: list[Any] = [np.clip(np.rint(restored * 255), 0, 255), high]
        if recipe.task != "denoise":
            pair = [luma(picture) for picture in pair]
        border = recipe.scale if recipe.scale > 1 else 0
        scores.append(psnr(*(crop_border(picture, border) for picture in pair)))
    return float(np.mean(scores))


def _test_pairs(dataset: Path, recipe: Recipe) -> Iterator[tuple[Pixels, Pixels]]:
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


def _build(recipe: Recipe) -> Lapar | FreeLapar:
    return _variant(_published(recipe), recipe)


def _variant(net: Lapar, recipe: Recipe) -> Lapar | FreeLapar:
    return net if recipe.variant == "published" else FreeLapar(net, recipe.variant)


def _published(recipe: Recipe) -> Lapar:
    net = get_model(recipe.model).build(recipe.scale)
    if not isinstance(net, Lapar):
        raise SystemExit(f"{recipe.model}: this recipe trains LAPAR models only")
    return net


def _decode(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


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


def _window(picture: Pixels, top: int, left: int, side: int) -> Pixels:
    return picture[top : top + side, left : left + side]


def _turned(patch: Pixels, turns: int, mirror: bool) -> Pixels:
    turned = np.rot90(patch, turns)
    return turned[:, ::-1] if mirror else turned


def _tensor(patches: Sequence[Pixels]) -> Tensor:
    stacked = np.stack([np.ascontiguousarray(patch) for patch in patches])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name in the registry, for example lapar-c")
    parser.add_argument("-s", "--scale", type=int, default=1)
    parser.add_argument("--task", choices=TASKS, default="upscale")
    parser.add_argument("--data", type=Path, required=True, help="folder of lossless pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--init", type=Path, help="safetensors to start from, of any scale")
    parser.add_argument("--test", type=Path, help="test set with HR and LRx<scale> folders")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--every", type=float, default=5.0, help="minutes between evaluations")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--loss", choices=LOSSES, default="charbonnier")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="soap")
    parser.add_argument("--variant", choices=VARIANTS, default="published", help="see variants.py")
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    defaults = Recipe(model="", scale=1)
    for name in ("batch", "patch", "learning_rate", "candidates", "average", "seed"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    if arguments.minutes is None and arguments.steps is None:
        parser.error("say how long: --minutes M or --steps N")
    if (arguments.task == "upscale") != (arguments.scale > 1):
        parser.error("upscale needs a --scale above 1; denoise and deblock have none")
    return arguments


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    fields = Recipe.__dataclass_fields__
    recipe = Recipe(**{k: v for k, v in vars(arguments).items() if k in fields})
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, arguments.out, torch.device(arguments.device))
    if run.checkpoint.exists():
        run.restore()
    elif arguments.init:
        run.start_from(arguments.init)
    train(run, Pictures(arguments.data, recipe.scale), arguments.test, arguments.every)


if __name__ == "__main__":
    main()
