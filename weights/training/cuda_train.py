"""Train a queue of models for seconds each, on a CUDA device; on a CPU the same, slowly.

    python -m srcli.weights.training.packed --data PICTURES --out PARTS --most 32
    python -m srcli.weights.training.cuda_train \\
        --plan asdn-base:any:150,dcls-iso:x4:150,hpinet-s:x4:90 --data PARTS --out runs

Pictures are decoded once and stay on the device, where patches are cut, turned and damaged; a step,
from the random numbers to the moving average, is one CUDA graph. Each model gets its seconds, its
start included; the learning rate follows the clock and ends at zero. One that fails, or that was
done before, leaves its place to the next.

`--out` receives a folder for each: `weights.safetensors` (the moving average, under the published
names), `checkpoint.pt` (to go on from, on a CPU as on a GPU: the same command does), `log.csv`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from srcli.errors import SrcliError, first_line
from srcli.models.registry import get_model
from srcli.models.spec import Task

from .bring import bring
from .objectives import objective
from .packed import read
from .patches import Store
from .settings import recipe
from .starts import begin_from, siblings, start
from .stepping import Stepper
from .stopping import Interruption, Stopwatch

FORMAT = 1  # of checkpoints
SAVED_EVERY = 30.0  # seconds
LOGGED_EVERY = 4.0
LAST = 1.5  # seconds before the end in which the rate is zero already, and results are written
FIRST_STEPS = 60  # in which the rate rises: a GPU's first take longer than all that follow
MIN_FACTOR = 0.01  # of the rate, after which a model that diverges is given up
log = logging.getLogger("train")


@dataclass(frozen=True, slots=True)
class Item:
    """A model of the plan."""

    model: str
    scale: int
    seconds: float
    purpose: str = "clean"
    """What it learns: to enlarge pictures (`clean`, `photo`), or a task at scale 1."""

    @property
    def any_scale(self) -> bool:
        """Whether it is one network for all scales."""
        return get_model(self.model).any_scale is not None

    @property
    def name(self) -> str:
        """Of its folder, like that of its weights."""
        parts = [] if self.purpose == "clean" else [self.purpose]
        if not self.any_scale and self.scale > 1:
            parts.append(f"x{self.scale}")
        return "-".join([self.model, *parts])

    @property
    def task(self) -> Task:
        """In the sense of a recipe."""
        return "upscale" if self.purpose in ("clean", "photo") else cast(Task, self.purpose)

    def __str__(self) -> str:
        """As in a plan."""
        purpose = "" if self.purpose == "clean" else f"@{self.purpose}"
        scale = "any" if self.any_scale else f"x{self.scale}"
        return f"{self.model}{purpose}:{scale}:{self.seconds:g}"


def plan(text: str) -> list[Item]:
    """Read `model:scale:seconds,...`.

    A scale is `x4`, or `any` for models that have one network. `model@photo` learns to enlarge what
    was compressed; `model@denoise` and `model@deblock` have the scale `x1`.

    Raises:
        SystemExit: It cannot be read, or a model has not that scale.
    """
    return [_item(part.strip()) for part in text.split(",")]


def _item(text: str) -> Item:
    form = r"([a-z0-9-]+)(?:@(photo|denoise|deblock))?:(any|x(\d)(?:-\d)?):(\d+(?:\.\d+)?)"
    found = re.fullmatch(form, text)
    if found is None:
        raise SystemExit(f"--plan {text}: is not like hpinet-s:x4:90 or asdn-base:any:120.")
    name, purpose, kind, scale, seconds = found.groups()
    item = Item(name, int(scale or 2), float(seconds), purpose or "clean")
    try:
        spec = get_model(name)
    except SrcliError as error:
        raise SystemExit(f"--plan {text}: {error}") from error
    if item.any_scale:
        return Item(name, 2, float(seconds))
    if kind == "any" or not spec.takes(item.scale, item.task):
        scales = ", ".join(f"x{scale}" for scale in spec.scales_for(item.task))
        able = f"has the scales {scales}" if scales else f"cannot {item.task}"
        raise SystemExit(f"--plan {text}: {name} {able}.")
    return item


@dataclass(slots=True)
class Session:
    """What all models of a queue share."""

    store: Store
    out: Path
    device: torch.device
    recorded: bool
    steps: int | None = None
    brought: Path | None = None
    starts: Sequence[Path] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    interruption: Interruption = field(default_factory=Interruption)


class Training:
    """One model of a plan, from its start or its checkpoint on."""

    def __init__(self, item: Item, session: Session) -> None:
        self.item, self.session, self.device = item, session, session.device
        changes = {"steps": session.steps, "minutes": item.seconds / 60} | session.changes
        if session.steps:
            changes["minutes"] = None
        kind = "photo" if item.purpose == "photo" else "clean"
        self.recipe = recipe(item.model, item.scale, item.task, kind=kind, **changes)
        self.folder = session.out / item.name
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.recipe.seed)
        self.net = get_model(item.model).build(item.scale)
        start(self.net)
        self._begin()
        self.net.to(self.device)
        if self.device.type == "cuda":
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.seconds, self.factor = 0.0, 1.0
        aim = objective(self.net, self.recipe, session.store, self.device)
        self.stepper = Stepper(self.net, aim, self.recipe, recorded=session.recorded)
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        if self.checkpoint.exists():
            self._restore()
        self._good = self.stepper.state(self.device)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(self, began: float) -> None:
        """Train until the seconds or steps of the recipe are over, or it is interrupted.

        Args:
            began: When the model's turn began, by `time.monotonic`.
        """
        watch = Stopwatch(began)
        logged = saved = began
        steps = self.stepper.step
        while True:
            self.seconds += watch.lap()
            if self._progress() >= 1 or self.session.interruption.signal is not None:
                break
            self.stepper.advance(self._rate())
            now = time.monotonic()
            due = now - saved >= SAVED_EVERY
            if due or now - logged >= LOGGED_EVERY:  # what is saved has been looked at
                self._report(self.stepper.step - steps, now - logged)
                logged, steps = now, self.stepper.step
            if due:
                self.save()
                saved = now
        self._report(self.stepper.step - steps, time.monotonic() - logged)
        self.save()
        self._finish_writing()

    def save(self) -> None:
        """Write checkpoint and weights beside the training, each whole or not at all."""
        self._finish_writing()
        state = self.stepper.state(torch.device("cpu"))
        self._good = self.stepper.state(self.device)
        weights = {name: t.cpu() for name, t in self.net.state_dict().items()}
        weights |= state["average"]
        held = {
            "format": FORMAT,
            "recipe": asdict(self.recipe),
            "seconds": self.seconds,
            "factor": self.factor,
            "state": state,
        }
        self._written = self._writer.submit(self._write, held, weights)

    def _write(self, held: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        partial = self.folder / "partial"
        save_file({name: t.contiguous() for name, t in weights.items()}, partial)
        os.replace(partial, self.folder / "weights.safetensors")
        if self.session.brought is not None:
            bring(self.session.out, self.session.brought)
        torch.save(held, partial)
        os.replace(partial, self.checkpoint)

    def _finish_writing(self) -> None:
        if self._written is not None:
            self._written.result()
            self._written = None

    def _restore(self) -> None:
        held = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        if held.get("format") != FORMAT or held["recipe"]["model"] != self.item.model:
            raise SystemExit(f"{self.checkpoint}: is of something else. Give another --out.")
        self.stepper.restore(held["state"])
        self.seconds, self.factor = held["seconds"], held["factor"]
        log.info("%s: resumed at step %d", self.item.name, self.stepper.step)

    def _begin(self) -> None:
        folders = [*self.session.starts, self.session.out]
        item = self.item
        for file in siblings(item.model, item.purpose, item.scale, folders):
            if taken := begin_from(self.net, file):
                log.info("%s: begins with %d tensors of %s", item.name, taken, file)
                return

    def _progress(self) -> float:
        seconds = self.seconds
        if self.recipe.minutes:
            whole = 60 * self.recipe.minutes
            seconds *= whole / max(whole - LAST, 0.1)
        return self.recipe.progress(self.stepper.step, seconds)

    def _rate(self) -> float:
        rising = min(1.0, (self.stepper.step + 1) / FIRST_STEPS) if self.recipe.minutes else 1.0
        return self.factor * rising * self.recipe.rate(self._progress())

    def _report(self, steps: int, seconds: float) -> None:
        if not steps:
            return
        loss = self.stepper.mean_loss()
        speed = steps / max(seconds, 1e-6)
        row = [
            f"{self.seconds:.1f}",
            str(self.stepper.step),
            f"{loss:.6f}",
            f"{self._rate():.2e}",
            f"{speed:.2f}",
            f"{speed * self.recipe.batch:.1f}",
        ]
        log.info(
            "%s: %s s, step %s, loss %s, rate %s, %s steps/s, %s patches/s", self.item.name, *row
        )
        file = self.folder / "log.csv"
        header = "" if file.exists() else "seconds,step,loss,rate,steps_per_s,patches_per_s\n"
        with file.open("a") as stream:
            stream.write(header + ",".join(row) + "\n")
        if math.isnan(loss):
            self._step_back()

    def _step_back(self) -> None:
        self.factor /= 2
        if self.factor < MIN_FACTOR:
            raise RuntimeError("diverges at every rate")
        self.stepper.restore(self._good)
        log.warning(
            "%s: the loss is no number; back to step %d at half the rate",
            self.item.name,
            self.stepper.step,
        )


def train(items: list[Item], session: Session) -> Iterator[str]:
    """Train one model after the other, each for its seconds; yields how each went.

    The first interruption ends it after a step, with what was learned saved.
    """
    for item in items:
        began = time.monotonic()
        try:
            training = Training(item, session)
            training.run(began)
            told = f"done in {time.monotonic() - began:.1f} s"
            if session.interruption.signal is not None:
                told = f"stopped after step {training.stepper.step}; the same command goes on"
        except (RuntimeError, OSError, ValueError, SystemExit) as error:
            log.exception("%s: failed after %.0f s", item.name, time.monotonic() - began)
            told = f"failed: {first_line(error)}"
        gc.collect()  # what a failure held, graphs first
        yield f"{item.name}: {told}"
        if session.interruption.signal is not None:
            return


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.cuda_train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plan", type=plan, required=True, help="model:scale:seconds,...")
    parser.add_argument(
        "--data", type=Path, required=True, help="lossless pictures, or tars of them"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder with one for each model")
    parser.add_argument(
        "--init", type=Path, nargs="*", default=[], help="folders of weights to begin with"
    )
    parser.add_argument("--bring", type=Path, help="folder of all weights in pieces of 15 MiB")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that decode")
    parser.add_argument("--no-cuda-graph", action="store_true", help="each operation by itself")
    parser.add_argument("--dry", action="store_true", help="two steps of each, tiny")
    parser.add_argument("--steps", type=int, help="instead of the plan's seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=None)
    for name, kind in (("batch", int), ("patch", int), ("learning-rate", float), ("loss", str)):
        parser.add_argument(f"--{name}", type=kind, help="instead of the table's")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = _arguments(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.backends.cudnn.benchmark = True
    names = ("batch", "patch", "learning_rate", "loss", "bf16", "seed")
    changes = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    steps = arguments.steps
    if device.type == "cpu":
        changes = {"bf16": False} | changes
    if arguments.dry:
        steps, changes = steps or 2, changes | {"batch": 2, "patch": 24}
    began = time.monotonic()
    pictures = read(arguments.data, arguments.processes)
    store = Store(pictures, device)
    log.info("%d pictures after %.1f s", len(pictures), time.monotonic() - began)
    recorded = device.type == "cuda" and not arguments.no_cuda_graph
    session = Session(
        store, arguments.out, device, recorded, steps, arguments.bring, arguments.init, changes
    )
    failed = False
    with session.interruption as interruption:
        for place, told in enumerate(train(arguments.plan, session), start=1):
            log.info("%s", told)
            failed |= "failed" in told
            if failed and not _works(device):
                _start_again(arguments.plan[place:], sys.argv[1:] if words is None else words)
    if interruption.signal is not None:
        raise interruption.exit()
    sys.exit(1 if failed else 0)


def _works(device: torch.device) -> bool:
    """Whether the device still does anything: after some errors it does not in this process."""
    try:
        return bool(torch.ones(1, device=device).sum().item() == 1)
    except RuntimeError:
        return False


def _start_again(items: list[Item], words: list[str]) -> None:
    """Put a new process in the place of this one, for what is left of the plan."""
    if not items:
        return
    left = ",".join(map(str, items))
    command = [sys.executable, "-m", "srcli.weights.training.cuda_train", *words, "--plan", left]
    log.warning("the device is of no use any more; begins anew for %s", left)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
