"""Draw latency against quality, and latency against size."""

from __future__ import annotations

import importlib.util
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.bench.rows import Result
from srcli.checkpoints.shipped import find_weights
from srcli.errors import MissingPartError, UsageError
from srcli.models.registry import get_model
from srcli.system.files import atomic_path
from srcli.system.installation import pip_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.typing import RcKeyType

FORMATS = (".svg", ".png", ".pdf")
MARKERS = {"published": "s", "fused": "o"}
SHORT_MARKERS = {"fp16": "^", "bf16": "v", "int8": "D"}
BATCH_MARKERS = "os^Dvp*"
INK = "#7a7f87"  # legible on white and on black
COLORS = ("#1f77b4", "#e07b00", "#2a9d57", "#c2410c", "#8b5cf6", "#0891b2", "#be185d", "#a16207")


def check_target(file: Path) -> None:
    """Raise before anything is measured if no plot could be written.

    Raises:
        UsageError: The file's name ends in no known format.
        MissingPartError: The plotting library is not installed.
    """
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"{file}: a plot is written as {', '.join(FORMATS)}", "Rename it.")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPartError("plots need matplotlib", f"Run `{pip_install('plot')}`.")


def plot(results: Sequence[Result], file: Path, *, replace: bool = False) -> str:
    """Draw rows that were measured: by size if they have several, by quality otherwise.

    Returns:
        What was drawn, for people.
    """
    shown = [result for result in results if result.summary is not None]
    with drawn(file, replace=replace) as axes:
        by_size = len({result.row.output for result in shown}) > 1
        return _by_size(axes, shown) if by_size else _by_quality(axes, shown)


@contextmanager
def drawn(file: Path, *, replace: bool) -> Iterator[Axes]:
    """Give axes to draw on, and write the plot when the block succeeds.

    Args:
        file: The plot; its suffix is one of `FORMATS`.
        replace: True if a file of that name may be replaced.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(_style()):
        figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
        yield axes
        with atomic_path(file, replace=replace) as partial:
            # The format is told apart from the name, which is a temporary one.
            pyplot.savefig(
                partial, format=file.suffix[1:].lower(), dpi=160, transparent=True,
                metadata={"Date": None} if file.suffix == ".svg" else None,
            )  # fmt: skip
        pyplot.close(figure)


def growth(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Fit the exponent p of time ~ size**p, by least squares on logarithms; 1 is linear."""
    xs, ys = [math.log(size) for size in sizes], [math.log(time) for time in times]
    middle, mean = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * (y - mean) for x, y in zip(xs, ys, strict=True)) / spread


def _by_quality(axes: Axes, results: Sequence[Result]) -> str:
    backends = list(dict.fromkeys(result.row.backend for result in results))
    marked: dict[str, tuple[str, str]] = {}
    series: dict[tuple[str, float], list[float]] = defaultdict(list)
    for result in results:
        row, summary = result.row, result.summary
        quality, ours = _psnr(row.model, row.scale)
        if quality is None or summary is None:
            continue
        color = COLORS[backends.index(row.backend) % len(COLORS)]
        marker = SHORT_MARKERS.get(row.precision, MARKERS[row.graph])
        axes.scatter(
            summary.median, quality, marker=marker, s=64, linewidths=2,
            edgecolors=color, facecolors=color if ours else "none", zorder=3,
        )  # fmt: skip
        marked[f"{row.backend} {row.precision}, {row.graph}"] = marker, color
        series[f"{row.model} x{row.scale}", quality].append(summary.median)
    for (label, quality), times in series.items():
        # One name for all ways to compute the same model: they lie on one line.
        axes.plot([min(times), max(times)], [quality] * 2, color=INK, alpha=0.5, linewidth=1)
        axes.annotate(
            label, (min(times), quality), xytext=(0, 9), textcoords="offset points",
            ha="center", fontsize=9, color=INK,
        )  # fmt: skip
    for label, (marker, color) in marked.items():
        axes.scatter([], [], marker=marker, color=color, label=label)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.margins(0.12, 0.2)
    width, height = results[0].row.output if results else (0, 0)
    axes.set_xlabel(f"milliseconds for {width} x {height} (median; further left is faster)")
    axes.set_ylabel("PSNR-Y on Set5 in dB")
    axes.set_title("filled: weights that ship, measured; hollow: the paper's score", fontsize=9)
    if marked:
        axes.legend(frameon=False, fontsize=8)
    return f"latency against PSNR of {len(marked)} kinds of row"


def _by_size(axes: Axes, results: Sequence[Result]) -> str:
    lines: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        row, summary = result.row, result.summary
        if summary is not None:
            label = f"{row.model} x{row.scale} {row.graph}, {row.backend} {row.precision}"
            label += "" if row.scope == "network" else f", {row.scope}"
            lines[label][row.batch].append((row.megapixels, summary.median))
    batches = sorted({batch for of_label in lines.values() for batch in of_label})
    for index, (label, by_batch) in enumerate(lines.items()):
        sizes, times = zip(*(p for points in by_batch.values() for p in points), strict=True)
        exponent = f", ~ pixels^{growth(sizes, times):.2f}" if len(set(sizes)) > 1 else ""
        color = COLORS[index % len(COLORS)]
        axes.plot([], [], color=color, label=label + exponent)
        # Joined are pictures of several sizes in batches of one: two that hold as many pixels in
        # all need not take as long.
        for batch, points in by_batch.items():
            marker = BATCH_MARKERS[batches.index(batch) % len(BATCH_MARKERS)]
            axes.plot(*zip(*sorted(points), strict=True), marker=marker, color=color, alpha=0.8)
    for number, batch in enumerate(batches if len(batches) > 1 else []):
        marker = BATCH_MARKERS[number % len(BATCH_MARKERS)]
        axes.plot([], [], marker, color=INK, label=f"{batch} at once")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("megapixels of output in one run (size x batch)")
    axes.set_ylabel("milliseconds (median)")
    axes.legend(frameon=False, fontsize=8)
    return f"latency against size of {len(lines)} series"


def _psnr(model: str, scale: int) -> tuple[float | None, bool]:
    """Return PSNR on Set5, in dB, and True if we measured it with weights that ship."""
    spec = get_model(model)
    weights = find_weights(spec, scale, "upscale")
    if weights is not None and "Set5" in weights.scores:
        return weights.scores["Set5"]["psnr"], True
    paper = spec.published_scores.get(scale)
    return (None, False) if paper is None else (paper.set5, False)


def _plain_numbers(axis: Axis) -> None:
    """Label axes by 100 and 1000 in place of powers of ten, and numbers between if they fit."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _style() -> dict[RcKeyType, object]:
    """Return a style with one colour of ink that reads on light and dark pages."""
    inked: tuple[RcKeyType, ...] = (
        "text.color",
        "axes.labelcolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
    )
    return {
        **dict.fromkeys(inked, INK),
        "axes.grid": True,
        "grid.color": INK,
        "grid.alpha": 0.25,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
        "svg.hashsalt": "srcli",
    }
