"""Measure the shipped weights and write the figures where they are read.

    python -m srcli.weights.training.scores --test ../shared/data/eval
    python -m srcli.weights.training.scores --test ../shared/data/eval lapar-c-x2

Rewrites checksums and scores in `manifest.toml`, and the tables in `README.md` here and in
`docs/benchmarks.md`. Provenance (steps, hours, hardware, data) is written into the manifest by
hand.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srcli.checkpoints.shipped import sha256_of
from srcli.commands.costs import scores_of, test_sets
from srcli.models.registry import get_model
from srcli.models.spec import TEST_SETS
from srcli.system.files import atomic_path

FOLDER = Path(__file__).parents[1]
BLURRED_SET = "Set5"  # others take a quarter of an hour and more
# What is undone when the picture keeps its size: the test set, the option, its values.
LEVELS = {
    "denoise": ("B100", "--sigma", (15, 25, 35, 50)),
    "deblock": ("LIVE1", "--quality", (10, 20, 30, 40, 60, 75, 90, 95)),
}
FIGURES = {
    "upscale": ("psnr", "ssim"),
    "denoise": ("psnr_rgb", "ssim"),
    "deblock": ("psnr", "ssim", "psnr_b"),
    "blurred": ("psnr", "ssim", "lr_psnr", "kernel_error"),
}
EVAL = [sys.executable, "-m", "srcli", "eval", "--json"]
DIGITS = {"ssim": 4, "kernel_error": 3}
Entry = dict[str, Any]


def measure(entry: Entry, test: Path) -> dict[str, dict[str, float]]:
    """PSNR and SSIM by test set, by the command that users have; by scale and set for any scale."""
    kind, scale = entry.get("input", "clean"), entry["scale"]
    if entry.get("protocol") == "gaussian8":
        return {BLURRED_SET: blurred(entry["model"], scale, test / BLURRED_SET)}
    if not isinstance(scale, list):
        return evaluated(entry["model"], entry["task"], scale, test, kind)
    return {
        f"x{each} {name}": score
        for each in scale
        if (test / TEST_SETS[0] / f"LRx{each}").is_dir()
        for name, score in evaluated(entry["model"], entry["task"], each, test, kind).items()
    }


def blurred(model: str, scale: int, folder: Path) -> dict[str, float]:
    """Return the figures over eight round blurs of each picture, as DCLS's table 1 has them."""
    options = ["-s", str(scale), "--set", "gaussian8", str(folder)]
    (row,) = _said([*EVAL, "-m", model, *options])
    return {name: round(row[name], DIGITS.get(name, 3)) for name in FIGURES["blurred"]}


def evaluated(
    model: str, task: str, scale: int, test: Path, kind: str = "clean"
) -> dict[str, dict[str, float]]:
    """What `srcli eval` says of a model; of `none`, the pictures as they are before."""
    command = [*EVAL, "-m", model]
    if task == "upscale":
        command += ["-s", str(scale), "--input", kind]
        command += [str(test / name) for name in TEST_SETS if (test / name).is_dir()]
    else:
        name, option, values = LEVELS[task]
        command += [*(part for value in values for part in (option, str(value))), str(test / name)]
    return {
        " ".join(filter(None, (row["name"], row["level"]))): {
            figure: round(row[figure], DIGITS.get(figure, 3)) for figure in FIGURES[task]
        }
        for row in _said(command)
    }


def _said(command: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a command says of each data set."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["datasets"]
    return rows


def read_manifest() -> dict[str, Entry]:
    """Return the rows of the manifest as it is now."""
    return tomllib.loads((FOLDER / "manifest.toml").read_text("utf-8"))


def change_row(name: str, sha256: str, /, **facts: object) -> None:
    """Write facts about weights into their row, and leave all else as it is by now.

    Measuring takes hours, in which other rows come and change.

    Args:
        name: Of the row.
        sha256: Of the weights that the facts are about. If the row has others by now, or is gone,
            that is said, and nothing is written.
        **facts: Values by key; None removes a key.
    """
    table = read_manifest()
    if table.get(name, {}).get("sha256") != sha256:
        print(f"{name}: other weights by now; measure again", file=sys.stderr)  # noqa: T201
        return
    row = table[name] | facts
    table[name] = {key: value for key, value in row.items() if value is not None}
    _write_manifest(table)


def _write_manifest(table: dict[str, Entry]) -> None:
    lines = ["# Written by `make scores`; the provenance of each entry is written by hand."]
    for name, entry in table.items():
        lines += ["", f"[{name}]"]
        lines += [f"{k} = {json.dumps(v)}" for k, v in entry.items() if not isinstance(v, dict)]
        for dataset, score in entry.get("scores", {}).items():
            values = ", ".join(f"{k} = {v}" for k, v in score.items())
            lines.append(f"scores.{json.dumps(dataset)} = {{ {values} }}")
    with atomic_path(FOLDER / "manifest.toml") as partial:
        partial.write_text("\n".join(lines) + "\n", "utf-8")


def score_rows(table: dict[str, Entry]) -> list[str]:
    """Return the rows of `docs/benchmarks.md`: ours, with the paper's in brackets."""
    entries = [entry for entry in _measured(table) if entry["task"] == "upscale"]
    found = [(entry, scale, _own(entry, scale)) for entry in entries for scale in _scales(entry)]
    shown = test_sets([*own, *_paper(entry, scale)] for entry, scale, own in found)
    rows = [f"| model | scale | {' | '.join(shown)} |", "|---|---|" + "---|" * len(shown)]
    return [*rows, *(_score_row(*row, shown) for row in found)]


def _measured(table: dict[str, Entry]) -> list[Entry]:
    """Return the rows that have scores: what is new was not measured yet."""
    return [entry for entry in table.values() if entry.get("scores")]


def _scales(entry: Entry) -> list[int]:
    """Those that were measured."""
    scale = entry["scale"]
    if not isinstance(scale, list):
        return [scale]
    return [each for each in scale if f"x{each} {TEST_SETS[0]}" in entry["scores"]]


def _own(entry: Entry, scale: int) -> dict[str, float]:
    """Return PSNR by test set."""
    prefix = f"x{scale} " if isinstance(entry["scale"], list) else ""
    return {
        name: entry["scores"][prefix + name]["psnr"]
        for name in TEST_SETS
        if prefix + name in entry["scores"]
    }


def _paper(entry: Entry, scale: int) -> dict[str, float]:
    if "input" in entry:
        return {}
    return scores_of(get_model(entry["model"]).published_scores.get(scale))


def _score_row(entry: Entry, scale: int, own: dict[str, float], shown: Sequence[str]) -> str:
    paper = _paper(entry, scale)
    cells = [
        (f"{own[name]:.2f}" if name in own else "–")
        + (f" ({paper[name]:.2f})" if name in paper else "")
        for name in shown
    ]
    kind = f" ({entry['input']})" if "input" in entry else ""
    return f"| {entry['model']}{kind} | x{scale} | " + " | ".join(cells) + " |"


def restoration_rows(table: dict[str, Entry], task: str, test: Path) -> list[str]:
    """Return the rows of `docs/benchmarks.md`: what restoring gains over leaving pictures alone."""
    name, _, values = LEVELS[task]
    before = evaluated("none", task, 1, test)
    rows = [
        f"| {name} | " + " | ".join(key.removeprefix(name + " ") for key in before) + " |",
        "|---|" + "---|" * len(values),
        "| as it comes | " + " | ".join(_cell(score) for score in before.values()) + " |",
    ]
    for entry in _measured(table):
        if entry["task"] == task:
            cells = (_cell(score) for score in entry["scores"].values())
            rows.append(f"| {entry['model']} | " + " | ".join(cells) + " |")
    return rows


def _cell(score: dict[str, float]) -> str:
    return " / ".join(f"{v:.{DIGITS.get(figure, 2)}f}" for figure, v in score.items())


def provenance_rows(table: dict[str, Entry]) -> list[str]:
    """Return the rows of `weights/README.md`: everything."""
    rows = [
        "| weights | PSNR / SSIM | | | | steps | hours | hardware | sha256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in table.items():
        cells = [f"{key}: {_cell(score)}" for key, score in entry.get("scores", {}).items()]
        cells += [""] * (4 - len(cells))
        facts = [str(entry[key]) for key in ("steps", "hours", "hardware")]
        rows.append(
            f"| {name} | " + " | ".join([*cells, *facts, f"`{entry['sha256'][:12]}…`"]) + " |"
        )
    return rows


def replace_between(file: Path, mark: str, rows: list[str]) -> None:
    """Replace what stands between `<!-- mark... -->` and `<!-- /mark -->`."""
    text = file.read_text()
    pattern = re.compile(rf"(<!-- {mark}\b[^>]*-->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{file}: no place marked {mark!r}")
    file.write_text(pattern.sub(lambda m: m[1] + "\n".join(rows) + "\n" + m[2], text))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.scores", description=__doc__
    )
    parser.add_argument("names", nargs="*", help="measure only these, such as lapar-c-x2")
    parser.add_argument("--test", type=Path, required=True, help="folder with " + str(TEST_SETS))
    arguments = parser.parse_args()
    table = read_manifest()
    if unknown := set(arguments.names) - set(table):
        parser.error(f"the manifest has no {min(unknown)}")
    names = arguments.names or list(table)
    digests = {name: sha256_of(FOLDER / f"{name}.safetensors") for name in names}
    for name, found in digests.items():  # the command that measures checks them
        if found != (before := table[name]["sha256"]):
            change_row(name, before, sha256=found, prepared_sha256=None)  # that was of others
    for name, found in digests.items():
        change_row(name, found, scores=measure(table[name], arguments.test))
    table = read_manifest()
    page = FOLDER.parent / "docs" / "benchmarks.md"
    replace_between(page, "scores", score_rows(table))
    tasks = {table[name]["task"] for name in names if name in table}
    for task in tasks & set(LEVELS):
        replace_between(page, task, restoration_rows(table, task, arguments.test))
    replace_between(FOLDER / "README.md", "scores", provenance_rows(table))


if __name__ == "__main__":
    main()
