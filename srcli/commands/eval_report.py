"""Show what `srcli eval` measured: a table, JSON, a plot."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.models.spec import Scale, Task, number

if TYPE_CHECKING:
    from srcli.errors import SrcliError
    from srcli.quality.evaluation import Score

TITLES = {
    "psnr": "PSNR-Y (dB)",
    "ssim": "SSIM-Y",
    "psnr_rgb": "PSNR-RGB (dB)",
    "psnr_b": "PSNR-B (dB)",
    "lr_psnr": "LR-PSNR (dB)",
    "kernel_error": "kernel error",
}
# What papers on each task print; JSON holds all. The last two are shown where there are any.
COLUMNS: dict[Task, tuple[str, ...]] = {
    "upscale": ("psnr", "ssim", "lr_psnr", "kernel_error"),
    "denoise": ("psnr_rgb", "psnr", "ssim"),
    "deblock": ("psnr", "ssim", "psnr_b", "psnr_rgb"),
}
DIGITS = {"ssim": 4, "kernel_error": 3}
NOTHING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The scores of one data set at one scale and one level of damage."""

    name: str
    scale: Scale
    level: str
    pictures: int
    """Number of pictures in the set."""

    scores: Sequence[Score]
    failed: Mapping[Path, SrcliError] = field(default_factory=dict)
    """Pictures that could not be measured, with the reasons."""

    @property
    def mean(self) -> dict[str, float | None]:
        """Means by figure; None where no picture has it."""
        return {figure: self._mean(figure) for figure in TITLES}

    def _mean(self, figure: str) -> float | None:
        values = [getattr(score, figure) for score in self.scores]
        return None if None in values or not values else sum(values) / len(values)

    @property
    def count(self) -> str:
        """Number of pictures that were measured, for people."""
        done = self.pictures - len(self.failed)
        return f"{done} of {self.pictures}" if self.failed else str(done)

    def label(self, results: Sequence[Measured]) -> str:
        """Return a name that tells it apart from the others of a table."""
        several = len({result.scale for result in results}) > 1
        scale = f"x{number(self.scale):g}" if several else ""
        return " ".join(part for part in (self.name, scale, self.level) if part)

    def as_dict(self) -> dict[str, object]:
        """Return everything for JSON."""
        pictures = [{"name": score.name, **_figures(score)} for score in self.scores]
        about = {"name": self.name, "scale": number(self.scale), "level": self.level or None}
        failed = [{"name": file.name, "error": str(why)} for file, why in self.failed.items()]
        return {**about, **self.mean, "pictures": pictures, "failed": failed}


def _figures(score: Score) -> dict[str, float | None]:
    return {figure: getattr(score, figure) for figure in TITLES}


def table(results: Sequence[Measured], model: str, task: Task, *, each: bool) -> None:
    """Print a table.

    Args:
        results: What was measured.
        model: Its name.
        task: What was undone.
        each: Show every picture too.
    """
    from srcli import console

    console.table(*cells_of(results, task, each=each), title=title(results, model, task))


def title(results: Sequence[Measured], model: str, task: Task) -> str:
    """Return the title of a table: the model, and the task or the scales."""
    scales = dict.fromkeys(f"x{number(result.scale):g}" for result in results)
    return f"{model} {task if task != 'upscale' else ' '.join(scales)}"


def cells_of(
    results: Sequence[Measured], task: Task, *, each: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings of a table and its rows; with `each`, of every picture too."""
    shown = [c for c in COLUMNS[task] if any(result.mean[c] is not None for result in results)]
    rows = [row for result in results for row in _rows(result, results, shown, each)]
    return ("data set", "pictures", *(TITLES[name] for name in shown)), rows


def _rows(
    result: Measured, results: Sequence[Measured], shown: Sequence[str], each: bool
) -> list[tuple[str, ...]]:
    label = result.label(results)
    pictures = [(f"  {s.name}", "", *_cells(_figures(s), shown)) for s in result.scores if each]
    return [*pictures, (label, result.count, *_cells(result.mean, shown))]


def _cells(found: Mapping[str, float | None], shown: Sequence[str]) -> list[str]:
    values = [(name, found[name]) for name in shown]
    return [NOTHING if v is None else f"{v:.{DIGITS.get(name, 2)}f}" for name, v in values]


def plot(lines: Mapping[str, Sequence[Measured]], file: Path, *, replace: bool) -> None:
    """Draw PSNR of Y against the scale, a line for each model, data set and level.

    Args:
        lines: What was measured, by model. What is called bicubic is dashed.
        file: The picture, whose name ends in one of `srcli.bench.plot.FORMATS`.
        replace: True if a file of that name may be replaced.
    """
    from srcli.bench.plot import COLORS, drawn

    with drawn(file, replace=replace) as axes:
        series: dict[str, list[tuple[str, list[tuple[float, float]]]]] = defaultdict(list)
        for model, results in lines.items():
            for name, points in _points(results).items():
                series[name].append((model, points))
        for color, (name, of_name) in zip(cycle(COLORS), series.items(), strict=False):
            for model, points in of_name:
                style = "--" if model == "bicubic" else "-"
                label = f"{model}, {name}"
                axes.plot(*zip(*points, strict=True), style, marker="o", color=color, label=label)
        axes.set_xlabel("scale")
        axes.set_ylabel("PSNR-Y in dB")
        axes.legend(frameon=False, fontsize=8)


def _points(results: Sequence[Measured]) -> dict[str, list[tuple[float, float]]]:
    """Return scale and PSNR by data set and level."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        psnr = result.mean["psnr"]
        if psnr is not None and math.isfinite(psnr):
            found[f"{result.name} {result.level}".rstrip()].append((float(result.scale), psnr))
    return {name: sorted(points) for name, points in found.items()}
