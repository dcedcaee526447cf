"""Draw how the PSNR of training runs grew.

    python -m srcli.weights.training.plot runs/lapar-c-x2 runs/lapar-c-x4 -o psnr.png

Needs matplotlib: `pip install srcli[plot]`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def read_log(folder: Path) -> tuple[list[int], list[float]]:
    """Steps, and PSNR in dB after each, of the run in a folder.

    Raises:
        SystemExit: It has no log, or one without test results.
    """
    file = folder / "log.csv"
    try:
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        steps = [int(row["step"]) for row in rows]
        scores = [float(row["psnr"]) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{file}: is no log of a run ({error}).") from error
    if not steps:
        raise SystemExit(f"{file}: has no results yet.")
    return steps, scores


def draw(folders: list[Path], target: Path) -> None:
    """One line for each run, named by its folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs = {str(folder): read_log(folder) for folder in folders}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, (steps, scores) in runs.items():
        axes.plot(steps, scores, marker="o", markersize=3, label=name)
    axes.set_xlabel("steps")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders that train.py wrote")
    parser.add_argument("-o", "--out", type=Path, default=Path("psnr.png"))
    arguments = parser.parse_args()
    draw(arguments.runs, arguments.out)
    print(arguments.out)  # noqa: T201  what the command is for


if __name__ == "__main__":
    main()
