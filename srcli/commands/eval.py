"""`srcli eval`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from srcli.commands import options
from srcli.commands.sections import SectionedCommand, section
from srcli.errors import UsageError
from srcli.models.spec import InputKind, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.backends.base import Precision
    from srcli.quality.evaluation import Conditions, Damage, Enlarge, Pixels8, Score

BICUBIC, NONE = "bicubic", "none"


class RunningOptions(TypedDict):
    """The options of `srcli eval` for the model and how it runs, as parsed."""

    kind: InputKind
    weights: Path | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None


TITLES = {
    "psnr": "PSNR-Y (dB)",
    "ssim": "SSIM-Y",
    "psnr_rgb": "PSNR-RGB (dB)",
    "psnr_b": "PSNR-B (dB)",
}
# What papers on each task print; JSON holds all.
COLUMNS: dict[Task, tuple[str, ...]] = {
    "upscale": ("psnr", "ssim"),
    "denoise": ("psnr_rgb", "psnr", "ssim"),
    "deblock": ("psnr", "ssim", "psnr_b", "psnr_rgb"),
}


@click.command("eval", cls=SectionedCommand)
@click.argument("datasets", nargs=-1, required=True, type=options.PLACE, metavar="DATASET...")
@section(
    "Damage to undo",
    click.option("-s", "--scale", type=int, metavar="N", help="Enlargement."),
    click.option(
        "--sigma",
        "sigmas",
        multiple=True,
        type=options.Range(0, 255),
        metavar="S",
        help="Denoise pictures with noise of this standard deviation, of 255. May be repeated.",
    ),
    click.option(
        "--quality",
        "qualities",
        multiple=True,
        type=click.IntRange(1, 100),
        metavar="Q",
        help="Deblock JPEG pictures of this quality. May be repeated.",
    ),
)
@section("Model", options.model, options.input_kind, options.weights)
@section(
    "Running",
    options.backend,
    options.precision,
    options.tta,
    options.threads,
    options.tile,
    options.memory,
)
@section(
    "Damage before enlargement",
    click.option(
        "--blur",
        "blurs",
        multiple=True,
        type=options.Range(0.05, 20),
        metavar="SIGMA",
        help="Blur the picture before it is reduced, by a Gaussian of this sigma in its pixels. "
        "May be repeated.",
    ),
    click.option(
        "--noise",
        "noises",
        multiple=True,
        type=options.Range(0, 255),
        metavar="SIGMA",
        help="Add noise of this standard deviation, of 255. May be repeated.",
    ),
    click.option(
        "--jpeg",
        "jpegs",
        multiple=True,
        type=click.IntRange(1, 100),
        metavar="Q",
        help="Compress the picture as a JPEG file of this quality. May be repeated.",
    ),
)
@section(
    "Results",
    click.option(
        "--protocol",
        type=click.Choice(("paper", "whole")),
        default="paper",
        show_default=True,
        help="paper: as papers measure, without a border; whole: all pixels, enlarged as `srcli "
        "upscale` does.",
    ),
    click.option(
        "--y-rounded",
        is_flag=True,
        help="Round Y to 8 bits before comparing, as some papers do (HPINet's among them).",
    ),
    click.option("--each", is_flag=True, help="Show every picture, not only the mean."),
    options.as_json,
)
def evaluate(
    datasets: tuple[Path, ...],
    model: str,
    scale: int | None,
    sigmas: tuple[float, ...],
    qualities: tuple[int, ...],
    blurs: tuple[float, ...],
    noises: tuple[float, ...],
    jpegs: tuple[int, ...],
    protocol: str,
    y_rounded: bool,
    each: bool,
    as_json: bool,
    **running: Unpack[RunningOptions],
) -> None:
    """Measure PSNR and SSIM on test sets.

    A DATASET is a folder of pictures, or a folder with HR and LRx<scale> in it. The model
    `bicubic` is plain bicubic enlargement; `none` leaves noise and JPEG blocks as they are.

    \b
    Examples:
        srcli eval -m lapar-c -s 4 Set5 Set14
        srcli eval -m lapar-c --sigma 15 --sigma 25 B100
        srcli eval -m lapar-c --quality 10 LIVE1
        srcli eval -m lapar-c -s 2 --input photo --jpeg 50 --jpeg 75 B100
    """
    from srcli import console
    from srcli.quality.evaluation import dataset_files
    from srcli.quality.evaluation import evaluate as scores_of

    task = _task(scale, sigmas, qualities)
    names = Counter(folder.name for folder in datasets)
    files = {
        folder.name if names[folder.name] == 1 and folder.name else str(folder): dataset_files(
            folder
        )
        for folder in datasets
    }
    if task != "upscale" and (blurs or noises or jpegs):
        raise UsageError(
            "--blur, --noise and --jpeg damage pictures that are to be enlarged",
            "Give --scale with them, or leave them out.",
        )
    whole = protocol == "whole"
    enlarge, facts, close = _enlarger(model, scale or 1, task, whole=whole, **running)
    results: dict[tuple[str, str], list[Score]] = {}
    try:
        with console.progress() as bar:
            for name, originals in files.items():
                for level, damage, conditions in [
                    *_levels(sigmas, qualities, blurs, noises, jpegs)
                ]:
                    advance = bar.start(f"{name} {level}")
                    scores = results[name, level] = []
                    for score in scores_of(
                        originals,
                        scale or 1,
                        enlarge,
                        y_rounded=y_rounded,
                        damage=damage,
                        conditions=conditions,
                        whole=whole,
                    ):
                        scores.append(score)
                        advance(len(scores), len(originals))
    finally:
        close()
    if as_json:
        facts |= {"task": task, "y_rounded": y_rounded}
        console.print_json({**facts, "datasets": [_as_dict(*k, s) for k, s in results.items()]})
    else:
        console.table(
            ("data set", "pictures", *(TITLES[name] for name in COLUMNS[task])),
            [r for key, scores in results.items() for r in _rows(*key, scores, each, task)],
            title=f"{model} x{scale}" if scale else f"{model} {task}",
        )


def _task(scale: int | None, sigmas: tuple[float, ...], qualities: tuple[int, ...]) -> Task:
    if bool(scale) + bool(sigmas) + bool(qualities) != 1:
        raise UsageError(
            "it is not clear what is to be undone", "Give one of --scale, --sigma and --quality."
        )
    return "denoise" if sigmas else "deblock" if qualities else "upscale"


def _levels(
    sigmas: tuple[float, ...],
    qualities: tuple[int, ...],
    blurs: tuple[float, ...],
    noises: tuple[float, ...],
    jpegs: tuple[int, ...],
) -> Iterator[tuple[str, Damage | None, Conditions | None]]:
    """Yield the measurements on each data set: a name, and the damage done to the pictures."""
    from srcli.quality.evaluation import Conditions, compressed, noisy

    for sigma in sigmas:
        yield f"sigma {float(sigma)!r}".removesuffix(".0"), noisy(sigma), None
    for quality in qualities:
        yield f"quality {quality}", compressed(quality), None
    if sigmas or qualities:
        return
    for blur, noise, jpeg in product(blurs or [None], noises or [None], jpegs or [None]):
        conditions = Conditions(blur=blur, noise=noise, jpeg=jpeg)
        yield str(conditions), None, conditions if str(conditions) else None


def _enlarger(
    model: str,
    scale: int,
    task: Task,
    whole: bool,
    **running: Unpack[RunningOptions],
) -> tuple[Enlarge, dict[str, object], Callable[[], None]]:
    """Return the function that enlarges, facts about it, and the function that closes it."""
    from srcli import console
    from srcli.quality.evaluation import bicubic

    if model == NONE and task != "upscale":
        return _as_it_is, {"model": model}, lambda: None
    if model == BICUBIC:
        if scale < 2:
            raise UsageError(
                f"-s {scale}: bicubic enlarges by 2 or more",
                "Give -s 2 or more, or choose a model.",
            )
        return bicubic(scale), {"model": model, "scale": scale}, lambda: None

    import numpy as np

    from srcli.images import Picture, to_float
    from srcli.loading.model import load
    from srcli.loading.restorer import RunOptions, open_restorer
    from srcli.pipeline.resample import resize

    kind, weights = running["kind"], running["weights"]
    loaded = load(model, scale, task=task, kind=kind, weights=weights, note=console.note)
    chosen = RunOptions(
        backend=running["backend"],
        precision=running["precision"],
        tta=running["tta"],
        threads=running["threads"],
        tile=running["tile"],
        memory=running["memory"],
    )
    restorer = open_restorer(loaded, chosen, scale=loaded.grid)

    def enlarge(low: Pixels8) -> NDArray[np.floating]:
        size = low.shape[0] * scale, low.shape[1] * scale
        if whole:
            return to_float(restorer(Picture(color=low), size=size).color)
        batch = np.ascontiguousarray(low.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        restored = restorer.restore(batch)[0].transpose(1, 2, 0)
        return restored if loaded.grid == scale else resize(restored, *size)

    facts: dict[str, object] = {
        "model": loaded.spec.name,
        "scale": scale,
        "backend": restorer.backend,
        "input": loaded.weights.kind,
        "protocol": "whole" if whole else "paper",
        "precision": chosen.precision,
        "tta": chosen.tta,
        "weights_sha256": loaded.weights.sha256,
    }
    return enlarge, facts, restorer.close


def _as_it_is(low: Pixels8) -> NDArray[np.floating]:
    return low / 255


def _measured(score: Score) -> dict[str, float]:
    return {name: getattr(score, name) for name in TITLES}


def _mean(scores: list[Score]) -> dict[str, float]:
    every = [_measured(score) for score in scores]
    return {name: sum(one[name] for one in every) / len(every) for name in every[0]}


def _cells(found: dict[str, float], task: Task) -> tuple[str, ...]:
    return tuple(
        f"{found[name]:.4f}" if name == "ssim" else f"{found[name]:.2f}" for name in COLUMNS[task]
    )


def _rows(
    name: str, level: str, scores: list[Score], each: bool, task: Task
) -> list[tuple[str, ...]]:
    shown = [(f"  {s.name}", "", *_cells(_measured(s), task)) for s in scores if each]
    return [*shown, (f"{name} {level}".rstrip(), str(len(scores)), *_cells(_mean(scores), task))]


def _as_dict(name: str, level: str, scores: list[Score]) -> dict[str, object]:
    pictures = [{"name": score.name, **_measured(score)} for score in scores]
    return {"name": name, "level": level or None, **_mean(scores), "pictures": pictures}
