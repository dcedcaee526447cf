"""What trained networks together make of the training pictures: a second target for others.

    python -m srcli.weights.training.teachers lapar-a awsrn-sd -s 4 \\
        --data PICTURES --out x4.safetensors
    python -m srcli.weights.training.train lapar-a -s 4 --teachers x4.safetensors --taught 0.9 ...

Most of what a picture differs by from its restoration cannot be known from the reduced one. Each
batch pulls the weights towards its share of that, and small batches never average it away. The mean
of several networks over the eight flips and turns of a picture holds none of it, and is nearer to
the original than any of these networks (Hinton, Vinyals and Dean, "Distilling the knowledge in a
neural network", 2015; self-ensemble: Timofte, Rothe and Van Gool, CVPR 2016, section 3.6). It is
made once for a whole picture: a flip or turn of the picture has the same one, flipped or turned.

Pictures that are done are kept beside `--out` until all are, in a folder whose name ends in
`.partial`: the same command goes on where a stopped one was.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from srcli.backends.base import Images, Session
from srcli.backends.ensemble import SelfEnsemble
from srcli.backends.filters.fused import use_compiled as use_compiled_filters
from srcli.loading.model import load
from srcli.system.files import atomic_path

from .bfloat16 import keep_picture
from .pictures import Pictures, Pixels, Taught, tensor

log = logging.getLogger("teachers")

MARK = "pictures"  # tensor that says which pictures the others belong to
SILENCE = 60.0  # seconds between two lines about progress, where stderr is no terminal


class Teacher(Session):
    """A session of a network whose convolutions may be in bfloat16.

    That puts the mean of its eight results off by 0.05 to 0.1 grey levels (root mean square), far
    less than who learns from it is off.
    """

    def __init__(self, model: str, scale: int, device: torch.device, *, bf16: bool) -> None:
        self._net, self._bf16 = load(model, scale).network().to(device), bf16
        self._device = device
        if device.type == "cpu":
            use_compiled_filters(self._net, torch.get_num_threads())
        if bf16:
            keep_picture(self._net, device)

    @torch.inference_mode()
    def __call__(self, batch: Images) -> Images:
        pictures = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            restored: Images = self._net(pictures).float().cpu().numpy()
        return restored

    def close(self) -> None:
        """Nothing is open."""


def lessons(
    low: Sequence[Pixels],
    models: Sequence[str],
    scale: int,
    device: torch.device,
    *,
    bf16: bool = False,
    kept: Path | None = None,
) -> Iterator[Taught]:
    """What the models make of pictures together, one after the other.

    Those in the folder `kept` are read from there, and those that are made are written there.
    """
    teachers = [SelfEnsemble(Teacher(model, scale, device, bf16=bf16)) for model in models]
    for index, picture in enumerate(low):
        file = kept / f"{index}.npy" if kept else None
        if file and file.exists():
            yield np.load(file)
            continue
        batch = (tensor([picture]).float() / 255).numpy()
        restored = np.mean([np.clip(teacher(batch), 0, 1) for teacher in teachers], axis=0)
        lesson = (restored[0].transpose(1, 2, 0) * 255).astype(np.float16)
        if file:
            with atomic_path(file) as partial:
                np.save(partial, lesson)
        yield lesson


def save_lessons(file: Path, taught: Iterable[Taught], low: Sequence[Pixels]) -> None:
    """Write them, whole or not at all."""
    with atomic_path(file) as partial:  # asked first: what cannot be written is not made
        tensors = {str(index): np.ascontiguousarray(each) for index, each in enumerate(taught)}
        save_file(tensors | {MARK: _mark(low)}, partial)


def load_lessons(file: Path, low: Sequence[Pixels]) -> list[Taught]:
    """What was saved for these pictures.

    Raises:
        SystemExit: It cannot be read, or is of other pictures.
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as problem:
        raise SystemExit(f"{file}: cannot be read ({problem}).") from problem
    if MARK not in tensors or not np.array_equal(tensors[MARK], _mark(low)):
        raise SystemExit(
            f"{file}: is not of these pictures at this scale. Make it anew: "
            "python -m srcli.weights.training.teachers --help"
        )
    return [tensors[str(index)] for index in range(len(low))]


def _mark(low: Sequence[Pixels]) -> Pixels:
    mark = hashlib.sha256()
    for picture in low:
        mark.update(repr(picture.shape).encode())
        mark.update(picture.tobytes())
    return np.frombuffer(mark.digest(), np.uint8)


def _unfinished(
    file: Path, low: Sequence[Pixels], models: Sequence[str], scale: int, *, bf16: bool
) -> Path:
    """The folder for what is done of `file`; another one for other networks or pictures."""
    made_by = hashlib.sha256(repr((scale, bf16)).encode())
    made_by.update(_mark(low).tobytes())
    for model in models:
        made_by.update(load(model, scale).weights.sha256.encode())
    return file.with_name(f"{file.stem}-{made_by.hexdigest()[:12]}.partial")


def _shown(taught: Iterable[Taught], total: int) -> Iterator[Taught]:
    """The same, with progress on stderr: a bar on a terminal, now and then a line elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(taught, "Teaching", total, console=console)
        return
    since = time.monotonic()
    for done, lesson in enumerate(taught, start=1):
        yield lesson
        if done == total or time.monotonic() - since > SILENCE:
            log.info("%d of %d pictures", done, total)
            since = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.teachers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", help="names in the registry, for example lapar-a")
    parser.add_argument("-s", "--scale", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of lossless pictures")
    parser.add_argument("--out", type=Path, required=True, help="safetensors to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    out, models, scale, bf16 = arguments.out, arguments.models, arguments.scale, arguments.bf16
    low = Pictures(arguments.data, scale).low
    kept = _unfinished(out, low, models, scale, bf16=bf16)
    taught = lessons(low, models, scale, torch.device(arguments.device), bf16=bf16, kept=kept)
    save_lessons(out, _shown(taught, len(low)), low)
    shutil.rmtree(kept, ignore_errors=True)


if __name__ == "__main__":
    main()
