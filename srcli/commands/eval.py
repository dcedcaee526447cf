"""`srcli eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from srcli.commands import options

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.evaluation import Enlarge, Score

BICUBIC = "bicubic"


@click.command("eval")
@click.argument(
    "datasets", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATASET..."
)
@options.model
@click.option("-s", "--scale", type=int, required=True, help="Enlargement.")
@options.running
@click.option("--each", is_flag=True, help="Show every picture, not only the mean.")
@options.as_json
def evaluate(
    datasets: tuple[Path, ...], model: str, scale: int, each: bool, as_json: bool, **running: Any
) -> None:
    """Measure PSNR and SSIM on test sets.

    A DATASET is a folder of pictures, or a folder with HR and LRx<scale> in it. The model
    `bicubic` is plain bicubic enlargement.

    \b
    Example:
        srcli eval -m lapar-c -s 4 Set5 Set14
    """
    from srcli import console
    from srcli.evaluation import dataset_files
    from srcli.evaluation import evaluate as scores_of

    files = {folder.name or str(folder): dataset_files(folder) for folder in datasets}
    enlarge, facts, close = _enlarger(model, scale, **running)
    results: dict[str, list[Score]] = {}
    try:
        with console.progress() as bar:
            for name, originals in files.items():
                advance = bar.start(name)
                results[name] = []
                for score in scores_of(originals, scale, enlarge):
                    results[name].append(score)
                    advance(len(results[name]), len(originals))
    finally:
        close()
    if as_json:
        console.print_json({**facts, "datasets": [_as_dict(n, s) for n, s in results.items()]})
    else:
        console.table(
            ("data set", "pictures", "PSNR-Y (dB)", "SSIM-Y"),
            [row for name, scores in results.items() for row in _rows(name, scores, each)],
            title=f"{model} x{scale}",
        )


def _enlarger(
    model: str,
    scale: int,
    weights: Path | None,
    backend: str,
    precision: Precision,
    threads: int | None,
    tile: int | None,
    memory: int | None,
) -> tuple[Enlarge, dict[str, Any], Any]:
    """What enlarges, what is known of it, and how to close it."""
    from srcli import console
    from srcli.errors import UsageError
    from srcli.evaluation import bicubic

    if model == BICUBIC:
        if scale < 2:
            raise UsageError(f"bicubic enlarges by 2 or more, not by {scale}.")
        return bicubic(scale), {"model": model, "scale": scale}, lambda: None

    import numpy as np

    from srcli.backends import get_backend
    from srcli.backends.base import SessionOptions
    from srcli.loading import load
    from srcli.pipeline import Restorer
    from srcli.resample import resize

    loaded = load(model, scale, weights=weights, note=console.note)
    runner = get_backend(backend)
    session = runner.open(loaded, SessionOptions(threads=threads, precision=precision))
    restorer = Restorer(
        session=session, geometry=loaded.geometry, scale=loaded.grid, tile=tile, memory=memory
    )

    def enlarge(low: Any) -> Any:
        batch = np.ascontiguousarray(low.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        restored = restorer.restore(batch)[0].transpose(1, 2, 0)
        if loaded.grid == scale:
            return restored
        return resize(restored, low.shape[0] * scale, low.shape[1] * scale)

    facts = {
        "model": loaded.spec.name,
        "scale": scale,
        "backend": runner.name,
        "precision": precision,
        "weights_sha256": loaded.weights.sha256,
    }
    return enlarge, facts, session.close


def _mean(scores: list[Score]) -> tuple[float, float]:
    count = len(scores)
    return sum(s.psnr for s in scores) / count, sum(s.ssim for s in scores) / count


def _rows(name: str, scores: list[Score], each: bool) -> list[tuple[str, str, str, str]]:
    shown = [(f"  {s.name}", "", f"{s.psnr:.2f}", f"{s.ssim:.4f}") for s in scores if each]
    psnr, ssim = _mean(scores)
    return [*shown, (name, str(len(scores)), f"{psnr:.2f}", f"{ssim:.4f}")]


def _as_dict(name: str, scores: list[Score]) -> dict[str, Any]:
    psnr, ssim = _mean(scores)
    pictures = [{"name": s.name, "psnr": s.psnr, "ssim": s.ssim} for s in scores]
    return {"name": name, "psnr": psnr, "ssim": ssim, "pictures": pictures}
