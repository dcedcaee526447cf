"""Measure up to which quality of JPEG files weights help, and write that where it is used and read.

    python -m srcli.weights.training.limits --test ../shared/data/eval
    python -m srcli.weights.training.limits --test ../shared/data/eval lapar-c-photo-x2

Weights for photographs are compared with those for clean pictures on ten pictures of B100, and
weights for deblocking with doing nothing on LIVE1. The highest quality up to which they are better
stands in `manifest.toml`, where the commands look; the figures stand in `docs/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from srcli import load
from srcli.models.spec import InputKind
from srcli.quality.evaluation import (
    Conditions,
    Enlarge,
    Score,
    compressed,
    dataset_files,
    evaluate,
)

from .scores import FOLDER, Entry, change_row, read_manifest, replace_between

QUALITIES = {
    "photo": (50, 60, 70, 75, 80, 85, *range(90, 101)),
    "deblock": (10, 20, 40, 60, 75, 85, *range(90, 101)),
}
HIDDEN = (60, 70, 80, 91, 92, 94, 99)  # measured, but not shown: tables would be too wide
LEAST_GAIN = 0.01  # dB
EVERY = 10  # of B100's hundred pictures
DOCS = FOLDER.parent / "docs"
PAGES = {"photo": DOCS / "guide" / "real-pictures.md", "deblock": DOCS / "benchmarks.md"}
WITHOUT = {"photo": "clean", "deblock": "as it comes"}
Figures = Mapping[int, float]
"""PSNR of Y in dB by JPEG quality, 4:2:0."""


def purpose(entry: Entry) -> str | None:
    """Return what is to be measured of weights: `photo`, `deblock` or nothing."""
    return "photo" if entry.get("input") == "photo" else {"deblock": "deblock"}.get(entry["task"])


def of_photo(entry: Entry, test: Path) -> tuple[Figures, Figures]:
    """Return the figures of weights for photographs, and of those for clean pictures."""
    files, scale = dataset_files(test / "B100")[::EVERY], entry["scale"]

    def figures(kind: InputKind) -> Figures:
        with load(entry["model"], scale, input=kind) as network:
            return {
                quality: _mean(
                    evaluate(
                        files,
                        scale,
                        lambda low: network(low) / 255,
                        conditions=Conditions(jpeg=quality),
                    )
                )
                for quality in QUALITIES["photo"]
            }

    return figures("photo"), figures("clean")


def of_deblock(entry: Entry, test: Path) -> tuple[Figures, Figures]:
    """Return the figures of weights for deblocking, and of pictures as they come."""
    files = dataset_files(test / "LIVE1")

    def figures(restore: Enlarge) -> Figures:
        return {
            quality: _mean(evaluate(files, 1, restore, damage=compressed(quality)))
            for quality in QUALITIES["deblock"]
        }

    with load(entry["model"], 1, task="deblock") as network:
        return figures(lambda low: network(low) / 255), figures(lambda low: low / 255)


def _mean(scores: Iterable[Score]) -> float:
    return float(np.mean([score.psnr for score in scores]))


MEASURES = {"photo": of_photo, "deblock": of_deblock}


def limit(own: Figures, other: Figures) -> int:
    """Return the highest quality up to which the first are better at every quality; 0 if none."""
    best = 0
    for quality in sorted(own):
        if own[quality] - other[quality] < LEAST_GAIN:
            break
        best = quality
    return best


def rows(kind: str, found: Mapping[str, tuple[Figures, Figures]]) -> list[str]:
    """Return a table for people: figures without, and what the weights gain."""
    shown = [quality for quality in QUALITIES[kind] if quality not in HIDDEN]
    table = [
        "| quality | " + " | ".join(map(str, shown)) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for label, (own, other) in found.items():
        gains = (f"{own[quality] - other[quality]:+.2f}" for quality in shown)
        before = (f"{other[quality]:.2f}" for quality in shown)
        table.append(f"| {label}, {WITHOUT[kind]} | {' | '.join(before)} |")
        table.append(f"| gain by {kind} | {' | '.join(gains)} |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.limits", description=__doc__
    )
    parser.add_argument("names", nargs="*", help="measure only these, such as lapar-c-photo-x2")
    parser.add_argument("--test", type=Path, required=True, help="folder with B100 and LIVE1")
    arguments = parser.parse_args()
    table = read_manifest()
    able = [name for name, entry in table.items() if purpose(entry)]
    if unknown := set(arguments.names) - set(able):
        parser.error(f"{min(unknown)} is none of {', '.join(able)}")
    found: dict[str, dict[str, tuple[Figures, Figures]]] = {"photo": {}, "deblock": {}}
    for name in arguments.names or able:
        entry = table[name]
        kind = purpose(entry) or ""
        figures = MEASURES[kind](entry, arguments.test)
        found_limit = limit(*figures)
        change_row(name, entry["sha256"], better_up_to_jpeg=found_limit)
        scale = f" x{entry['scale']}" if kind == "photo" else ""
        found[kind][f"{entry['model']}{scale}"] = figures
        print(f"{name}: better up to {found_limit}")  # noqa: T201  takes minutes
    if not arguments.names:
        for kind, page in PAGES.items():
            replace_between(page, f"limits-{kind}", rows(kind, found[kind]))


if __name__ == "__main__":
    main()
