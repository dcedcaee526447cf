"""Train a LAPAR or an AWSRN on a folder of pictures.

    python -m srcli.weights.training.train lapar-c -s 4 \\
        --data PICTURES --minutes 60 --out runs/lapar-c-x4
    python -m srcli.weights.training.train lapar-c --task denoise \\
        --data PICTURES --minutes 60 --out runs/d

The run can be stopped at any time, by Ctrl-C or a polite kill, and goes on where it stopped when
the same command is given again. `--out` receives `checkpoint.pt` (everything needed to go on),
`weights.safetensors` (the moving average of the weights, under the published tensor names: what is
shipped) and `log.csv`.

Three things make an hour of CPU count. The published parameters are optimised through the fused
network (see `Lapar.fused_weights`), which costs a third of the published one with LAPAR. Its
convolutions and filters are done by compiled code where that fits them, forwards and backwards
(`convolution.py`).
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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from srcli.backends.filters.fused import use_compiled as use_compiled_filters
from srcli.models.awsrn.network import Awsrn, FusedAwsrn
from srcli.models.lapar.network import FusedLapar, Lapar
from srcli.models.registry import get_model
from srcli.models.spec import INPUT_KINDS, TASKS
from srcli.quality.metrics import crop_border, luma, psnr

from .bfloat16 import keep_picture
from .convolution import use_compiled as use_compiled_convolutions
from .gradients import Gradients
from .losses import LOSSES, taught_decibels
from .pictures import Pictures, batches, tensor, test_pairs
from .recipe import Recipe
from .soap import Soap
from .starts import begin_from
from .stopping import Interruption, Stopwatch
from .teachers import load_lessons
from .variants import VARIANTS, ConditionedLapar

log = logging.getLogger("train")

Network = Lapar | Awsrn | ConditionedLapar
"""What this recipe trains."""

OPTIMISERS = ("soap", "adam")
BETAS = (0.9, 0.99)  # of either
GPU_WORKERS = 3
FORMAT = 2  # of SOAP's state in checkpoints


class Run:
    """A network, its optimiser and its moving average; saved and restored as one."""

    def __init__(
        self, recipe: Recipe, folder: Path, device: torch.device, *, cuda_graph: bool = True
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        torch.manual_seed(recipe.seed)
        self.net = _build(recipe).to(device)
        self.fused = self.net.fuse().to(device)
        if device.type == "cpu":
            threads = torch.get_num_threads()
            if not recipe.bf16:
                log.info("convolutions: %s", use_compiled_convolutions(self.fused, threads))
            if isinstance(self.fused, FusedLapar):
                log.info("filters: %s", use_compiled_filters(self.fused, threads))
        if recipe.bf16:
            keep_picture(self.fused, device)
        if isinstance(self.net, ConditionedLapar) and isinstance(self.fused, FusedLapar):
            self.fused.assemble = self.net.conditioned(self.fused.assemble)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = _optimiser(recipe, parameters)
        recorded = cuda_graph and device.type == "cuda"
        self._gradients = Gradients(self._loss, parameters, recorded=recorded)
        self.step, self.seconds = 0, 0.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def start_from(self, file: Path) -> None:
        """Begin with what serves of a file; see `begin_from`.

        Raises:
            SystemExit: Nothing does.
        """
        net = _published(self.recipe)
        taken = begin_from(net, file)
        if not taken:
            raise SystemExit(f"{file}: no tensor in it fits {self.recipe.model}.")
        self.net.load_state_dict(_variant(net, self.recipe).state_dict())
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        log.info("started from %s: %d of %d tensors", file, taken, len(net.state_dict()))

    def update(self, *batch: Tensor) -> Tensor:
        """One step of the optimiser, by a batch of `Pictures`; returns the loss, on its device."""
        moved = (t.to(self.device, non_blocking=True).float().div_(255) for t in batch)
        ready = [t.contiguous(memory_format=torch.channels_last) for t in moved]
        rate = self.recipe.rate(self.recipe.progress(self.step, self.seconds))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._gradients(*ready).clone()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        return loss

    def _loss(self, low: Tensor, high: Tensor, taught: Tensor | None = None) -> Tensor:
        bf16 = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.recipe.bf16, cache_enabled=False
        )
        with bf16:
            restored = functional_call(self.fused, self._weights(), (low,))
        if taught is None:
            return LOSSES[self.recipe.loss](restored - high)
        target = torch.lerp(high, taught, self.recipe.taught)
        return taught_decibels(restored - high, restored - target)

    def _weights(self) -> dict[str, Tensor]:
        if isinstance(self.net, Lapar | ConditionedLapar) and isinstance(self.fused, FusedLapar):
            return self.net.fused_weights(self.fused)
        if isinstance(self.net, Awsrn) and isinstance(self.fused, FusedAwsrn):
            return self.net.fused_weights(self.fused)
        return self.net.fused_weights()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        state = self.net.state_dict()
        averages = [self.average[name] for name in state]
        torch._foreach_lerp_(averages, list(state.values()), 1 - decay)

    def averaged(self) -> Network:
        net = _build(self.recipe)
        net.load_state_dict(self.average)
        return net

    def save(self) -> None:
        """Write the checkpoint and the weights, each whole or not at all."""
        state = {
            "format": FORMAT,
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
        average = self.averaged()
        if isinstance(average, ConditionedLapar):
            average = average.published_network()
        save_file({k: v.cpu().contiguous() for k, v in average.state_dict().items()}, partial)
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
        if used == "soap" and state.get("format") != FORMAT:
            raise SystemExit(
                f"{self.checkpoint}: is of another version of this program. Begin a new run from "
                f"its weights: --init {self.folder / 'weights.safetensors'} and another --out."
            )
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            # For SOAP; not what they were when this was saved.
            group |= {"every": self.recipe.refresh, "power": self.recipe.power}
        self.step, self.seconds = state["step"], state["seconds"]
        log.info("resumed at step %d after %.1f minutes", self.step, self.seconds / 60)


def train(run: Run, batches: Iterator[tuple[Tensor, ...]], test: Path | None, every: float) -> None:
    """Go on with `run` until its recipe is fulfilled; evaluate and save every `every` minutes.

    Raises:
        SystemExit: It was interrupted, and saved.
    """
    recipe = run.recipe
    losses: list[Tensor] = []
    watch, due = Stopwatch(), run.seconds + 60 * every
    with Interruption() as interruption:
        while recipe.progress(run.step, run.seconds) < 1 and interruption.signal is None:
            losses.append(run.update(*next(batches)))
            run.seconds += watch.lap()
            if run.seconds > due:
                _report(run, losses, test)
                losses, due = [], run.seconds + 60 * every
                watch = Stopwatch()  # evaluation does not count as training time
        if interruption.signal is None:
            _report(run, losses, test)
    if interruption.signal is not None:
        run.save()
        log.info("stopped after step %d; the same command goes on from there", run.step)
        raise interruption.exit()


def _report(run: Run, losses: list[Tensor], test: Path | None) -> None:
    run.save()
    loss = float(torch.stack(losses).mean()) if losses else math.nan
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
def validate(net: Network, dataset: Path, recipe: Recipe) -> float:
    """Mean PSNR of the fused network on a test set, in dB; of all planes for noise, else of Y."""
    fused = net.fuse()
    scores = []
    for low, high in test_pairs(dataset, recipe):
        restored = fused(tensor([low]).float() / 255)[0].permute(1, 2, 0).numpy()
        pair: list[Any] = [np.clip(np.rint(restored * 255), 0, 255), high]
        if recipe.task != "denoise":
            pair = [luma(picture) for picture in pair]
        border = recipe.scale if recipe.scale > 1 else 0
        scores.append(psnr(*(crop_border(picture, border) for picture in pair)))
    return float(np.mean(scores))


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimiser == "adam":
        return torch.optim.Adam(parameters, betas=BETAS, fused=True)
    return Soap(parameters, betas=BETAS, every=recipe.refresh, power=recipe.power)


def _build(recipe: Recipe) -> Network:
    return _variant(_published(recipe), recipe)


def _variant(net: Lapar | Awsrn, recipe: Recipe) -> Network:
    if recipe.variant == "published":
        return net
    if not isinstance(net, Lapar):
        raise SystemExit(f"--variant {recipe.variant}: only LAPAR models have it.")
    return ConditionedLapar(net)


def _published(recipe: Recipe) -> Lapar | Awsrn:
    net = get_model(recipe.model).build(recipe.scale)
    if not isinstance(net, Lapar | Awsrn):
        raise SystemExit(f"{recipe.model}: this recipe trains LAPAR and AWSRN only.")
    return net


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name in the registry, for example lapar-c")
    parser.add_argument("-s", "--scale", type=int, default=1)
    parser.add_argument("--task", choices=TASKS, default="upscale")
    parser.add_argument(
        "--input",
        dest="kind",
        choices=INPUT_KINDS,
        default="clean",
        help="photo: upscale what blur, noise and compression have damaged",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of lossless pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--init", type=Path, help="safetensors to start from, of any scale")
    parser.add_argument("--teachers", type=Path, help="what teachers.py made of the pictures")
    parser.add_argument("--test", type=Path, help="test set with HR and LRx<scale> folders")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--every", type=float, default=5.0, help="minutes between evaluations")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--workers", type=int, help="processes that prepare batches; on a GPU 3, else none"
    )
    parser.add_argument("--no-cuda-graph", action="store_true", help="each operation by itself")
    parser.add_argument("--loss", choices=LOSSES, default="charbonnier")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="soap")
    parser.add_argument("--variant", choices=VARIANTS, default="published", help="see variants.py")
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    defaults = Recipe(model="", scale=1)
    for name in (
        "batch",
        "patch",
        "learning_rate",
        "candidates",
        "average",
        "refresh",
        "power",
        "taught",
        "seed",
    ):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    if arguments.minutes is None and arguments.steps is None:
        parser.error("say how long: --minutes M or --steps N")
    if (arguments.task == "upscale") != (arguments.scale > 1):
        parser.error("upscale needs a --scale above 1; denoise and deblock have none")
    if (arguments.taught > 0) != (arguments.teachers is not None):
        parser.error("--teachers FILE and --taught SHARE go together")
    if arguments.teachers and (arguments.task != "upscale" or arguments.loss != "psnr"):
        parser.error("--teachers serves upscaling with --loss psnr only")
    return arguments


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    fields = Recipe.__dataclass_fields__
    recipe = Recipe(**{k: v for k, v in vars(arguments).items() if k in fields})
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(arguments.data, recipe.scale)
    if arguments.teachers:
        pictures.teach(load_lessons(arguments.teachers, pictures.low))
    device = torch.device(arguments.device)
    run = Run(recipe, arguments.out, device, cuda_graph=not arguments.no_cuda_graph)
    if run.checkpoint.exists():
        run.restore()
    elif arguments.init:
        run.start_from(arguments.init)
    on_gpu = device.type == "cuda"
    workers = arguments.workers if arguments.workers is not None else GPU_WORKERS * on_gpu
    prepared = batches(pictures, recipe, run.step, workers=workers, pinned=on_gpu)
    train(run, prepared, arguments.test, arguments.every)


if __name__ == "__main__":
    main()
