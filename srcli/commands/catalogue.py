"""The list of models, the most useful first, in as many columns as fit."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from srcli.bench.latencies import Latency
from srcli.checkpoints.shipped import Weights, find_weights, shipped_weights
from srcli.models.registry import DEFAULT_MODEL, MODELS
from srcli.models.spec import INPUT_KINDS, TASKS, InputKind, ModelSpec, Purpose, Task, purpose_of

NONE = "–"
MEGA = 1e6
BYTES = 4  # of a parameter
USUAL = 4  # the scale that one figure stands for, where there is room for one
UNLIMITED = 1000  # columns of what is no terminal
# How weights can be had, the easiest first.
WAYS = ("own", "fetched", "fetch", "by hand", "none")
# The figure that stands for a task: test set, its name in the manifest, for people.
MEASURES: Mapping[Task, tuple[str, str, str]] = {
    "upscale": ("Set5", "psnr", "Set5, Y"),
    "denoise": ("B100 sigma 25", "psnr_rgb", "B100 with noise of sigma 25, RGB"),
    "deblock": ("LIVE1 quality 20", "psnr", "LIVE1 in JPEG of quality 20, Y"),
}

HEADINGS = ("model", "good for", "task", "scales", "weights", "MB", "ms", "PSNR")
"""Headings of all columns, with one figure for each scale."""

LAYOUTS: tuple[tuple[str, ...], ...] = (
    HEADINGS,
    ("model", "good for", "task", "scales", "weights", "MB", "ms x4", "PSNR x4"),
    ("model", "good for", "task", "scales", "weights", "ms x4", "PSNR x4"),
    ("model", "good for", "task", "scales", "weights", "ms x4"),
    ("model", "good for", "scales", "weights", "ms x4"),
    ("model", "good for", "scales", "weights"),
    ("model", "good for", "weights"),
    ("model", "good for"),
)
"""Names of columns, the widest layout first. `x4` stands for one figure: of x4 where there is x4,
else of the largest scale."""


@dataclass(frozen=True)
class Entry:
    """A model for one purpose: a row of the list."""

    spec: ModelSpec
    task: Task
    kind: InputKind
    latencies: Mapping[str, Latency]
    """Measured latencies, by the checksum of the weights."""

    @property
    def purpose(self) -> Purpose:
        return purpose_of(self.task, self.kind)

    @property
    def good_for(self) -> str:
        return self.spec.good_for.get(self.purpose, "")

    @property
    def limits(self) -> str:
        """Say for which files the weights are taken, where that depends on the file."""
        limits = {s: w.better_up_to_jpeg for s, w in self.weights.items() if w.better_up_to_jpeg}
        if not limits:
            return ""
        if self.task == "deblock":
            return f"JPEG files above quality {max(limits.values())} stay as they are"
        said = ", ".join(f"{limit} at x{scale}" for scale, limit in limits.items())
        return (
            f"taken by --input auto for JPEG files up to quality {said}, for other files "
            "compressed with loss, and where pixels have traces of JPEG"
        )

    @cached_property
    def scales(self) -> tuple[int, ...]:
        """Scales of the model; for photographs only those with weights that ship."""
        scales = self.spec.scales_for(self.task)
        if self.kind == "clean":
            return scales
        return tuple(s for s in scales if find_weights(self.spec, s, self.task, self.kind))

    @cached_property
    def weights(self) -> dict[int, Weights]:
        """Weights that are on this machine, by scale."""
        found = {s: find_weights(self.spec, s, self.task, self.kind) for s in self.scales}
        return {scale: weights for scale, weights in found.items() if weights is not None}

    def way(self, scale: int) -> str:
        """Return how weights can be had: one of `WAYS`."""
        if (weights := self.weights.get(scale)) is not None:
            return "own" if weights in shipped_weights() else "fetched"
        publication = self.spec.publications.get(scale) if self.purpose == "upscale" else None
        if publication is None:
            return "none"
        return "by hand" if publication.address is None else "fetch"

    @property
    def best_way(self) -> str:
        """The easiest way to get weights of at least one scale: one of `WAYS`."""
        return min((self.way(scale) for scale in self.scales), key=WAYS.index)

    @property
    def ways(self) -> str:
        """The easiest way to get weights, for people; with the scales if it is not all of them."""
        best = self.best_way
        some = [scale for scale in self.scales if self.way(scale) == best]
        if len(some) == len(self.scales):
            return best
        row = len(some) > 2 and some[-1] - some[0] == len(some) - 1
        return f"{best} x{some[0]}-{some[-1]}" if row else f"{best} x{','.join(map(str, some))}"

    @property
    def usual(self) -> int:
        """The scale whose figures stand for the row."""
        usable = list(self.weights) or list(self.scales)
        return USUAL if USUAL in usable else max(usable)

    def milliseconds(self, scale: int) -> float | None:
        """Return the latency measured on this machine, for 1280 x 720 pixels of output."""
        weights = self.weights.get(scale)
        latency = self.latencies.get(weights.sha256) if weights else None
        return latency.milliseconds if latency else None

    def psnr(self, scale: int) -> tuple[float | None, bool]:
        """Return PSNR in dB on the task's test set, and True if it is the paper's, not measured."""
        name, figure, _ = MEASURES[self.task]
        scores = self.weights[scale].scores if scale in self.weights else {}
        if name in scores:
            return scores[name][figure], False
        paper = self.spec.published_scores.get(scale) if self.purpose == "upscale" else None
        return (paper.set5, True) if paper else (None, False)

    def bytes(self, scale: int) -> int:
        """Return the bytes of the file of weights; if it is not here, as published or estimated."""
        publication = self.spec.publications.get(scale) if self.purpose == "upscale" else None
        guess = publication.size if publication and publication.size else None
        return self.file_size(scale) or guess or BYTES * self.spec.parameters(scale)

    def file_size(self, scale: int) -> int | None:
        """Return the bytes of the file of weights; None if it is not here or cannot be read."""
        weights = self.weights.get(scale)
        try:
            return weights.path.stat().st_size if weights else None
        except OSError:
            return None

    def cell(self, column: str) -> str:
        """Return the text of a cell."""
        name, _, one = column.partition(" x")
        scales = (self.usual,) if one else self.scales
        match name:
            case "model":
                return self.spec.name
            case "good for":
                return self.good_for
            case "task":
                return self.task
            case "scales":
                return self._scales()
            case "weights":
                return self.ways
            case "MB":
                return f"{max(map(self.bytes, self.scales)) / MEGA:.1f}"
            case "ms":
                return _joined([_whole(self.milliseconds(scale)) for scale in scales])
            case _:
                return _joined([_decibels(*self.psnr(scale)) for scale in scales])

    def _scales(self) -> str:
        if self.spec.any_scale is not None and self.purpose == "upscale":
            return f"1 to {self.spec.any_scale.largest}"
        return " ".join(map(str, self.scales))


def entries(latencies: Mapping[str, Latency]) -> list[Entry]:
    """Return all models and purposes, in the order in which one would try them.

    First those whose weights are here, then those that can be had; of these the default model, then
    the best by PSNR.
    """
    found = [
        Entry(spec, task, kind, latencies)
        for spec in MODELS
        for task in spec.tasks()
        for kind in INPUT_KINDS
    ]
    return sorted((e for e in found if _exists(e)), key=_rank)


def _exists(entry: Entry) -> bool:
    return entry.kind == "clean" or (entry.purpose != entry.task and bool(entry.scales))


def _rank(entry: Entry) -> tuple[int, int, int, bool, bool, bool, float]:
    here = entry.best_way in ("own", "fetched")
    psnr = entry.psnr(entry.usual)[0] or 0.0
    return (
        0 if here else WAYS.index(entry.best_way),
        TASKS.index(entry.task),
        INPUT_KINDS.index(entry.kind),
        entry.spec.name != DEFAULT_MODEL,
        entry.ways != entry.best_way,  # weights for some of its scales only
        entry.task == "upscale" and USUAL not in entry.scales,  # figures of another scale
        -psnr,
    )


def terminal_width() -> int:
    """Return the columns of text for results: many if stdout is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return UNLIMITED
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return 80  # as rich has it, which lays tables out
    return shutil.get_terminal_size().columns


def fitting(
    layouts: Sequence[Sequence[str]], rows: Mapping[str, Sequence[str]], width: int
) -> Sequence[str]:
    """Return the first layout that fits into a width, else the last.

    Args:
        layouts: Lists of names of columns, the widest first.
        rows: The cells of each column.
        width: Letters in a line.
    """
    widths = {name: max(map(len, (name, *cells))) for name, cells in rows.items()}

    # Beside each column a space on both sides, and one between two of them.
    def taken(layout: Sequence[str]) -> int:
        return sum(widths[name] + 3 for name in layout) - 1

    return next((layout for layout in layouts if taken(layout) <= width), layouts[-1])


def table(listed: Sequence[Entry], width: int) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Return headings and rows of the list of models.

    Args:
        listed: Entries to show.
        width: Letters in a line.
    """
    names = dict.fromkeys(name for layout in LAYOUTS for name in layout)
    cells = {name: [entry.cell(name) for entry in listed] for name in names}
    layout = fitting(LAYOUTS, cells, width)
    return layout, list(zip(*(cells[name] for name in layout), strict=True))


def legend(layout: Sequence[str], listed: Sequence[Entry]) -> list[str]:
    """Return what the columns of a list mean, a line each."""
    lines = []
    if any(name.startswith("ms") for name in layout):
        lines.append(_about_milliseconds(listed))
    if any(name.startswith("PSNR") for name in layout):
        tests = "; ".join(f"{task}: {words}" for task, (_, _, words) in MEASURES.items())
        lines.append(f"PSNR in dB, in brackets the paper's. {tests}.")
    if any(name.endswith("x4") for name in layout):
        lines.append("x4: or the largest scale that the model has.")
    if "weights" in layout:
        lines.append(
            "fetch: `srcli weights fetch MODEL`; by hand: `srcli weights list` says where."
        )
    return lines


def _about_milliseconds(listed: Sequence[Entry]) -> str:
    measured = any(e.milliseconds(scale) for e in listed for scale in e.scales)
    meaning = "ms: for an output of 1280x720, measured on this machine"
    return f"{meaning}." if measured else f"{meaning} by `srcli models --measure`."


def _joined(cells: Sequence[str]) -> str:
    return NONE if set(cells) == {NONE} else " ".join(cells)


def _whole(milliseconds: float | None) -> str:
    return NONE if milliseconds is None else f"{milliseconds:.0f}"


def _decibels(psnr: float | None, printed: bool) -> str:
    if psnr is None:
        return NONE
    return f"({psnr:.2f})" if printed else f"{psnr:.2f}"
