"""Two benchmarks: what became faster, what slower, and whether that is more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.errors import InputError, UsageError
from srcli.timing import ratio_interval

# What makes two rows the same measurement. The scope is one of them, but rows that differ in it
# alone are told apart from rows that are missing.
KEY = (
    "model",
    "scale",
    "graph",
    "backend",
    "precision",
    "height",
    "width",
    "batch",
    "cuda_graph",
    "cold",
)
HARDWARE = ("cpu", "cores", "gpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The second measurement of a row over the first."""

    label: str
    before: float
    """Median in milliseconds."""

    after: float
    ratio: float
    low: float
    """Lower end of the ratio's 95 % confidence interval."""

    high: float

    def regressed(self, tolerance: float) -> bool:
        """Whether it is slower by more than `tolerance`, chance aside."""
        return self.low > 1 + tolerance

    def improved(self, tolerance: float) -> bool:
        """Whether it is faster by more than `tolerance`, chance aside."""
        return self.high < 1 - tolerance


def read_report(file: Path) -> dict[str, Any]:
    """A file written by `srcli bench --json`.

    Raises:
        InputError: It is none.
    """
    try:
        report = json.loads(file.read_text("utf-8"))
        rows, machine = report["rows"], report["hardware"]
        for row in rows:
            row["model"], row["samples_ms"], row["scope"]
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: no benchmark. Write one with `srcli bench --json`.") from None
    return {"rows": rows, "hardware": machine}


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, anyway: bool = False
) -> list[Change]:
    """The rows that both have.

    Args:
        first: As read by `read_report`.
        second: The later one.
        anyway: Compare different hardware too.

    Raises:
        UsageError: Different hardware or scopes, or nothing in common.
    """
    if not anyway:
        for name in HARDWARE:
            one, other = first["hardware"].get(name), second["hardware"].get(name)
            if one != other:
                raise UsageError(
                    f"measured on different hardware ({name}: {one} and {other}). "
                    "Give --anyway to compare all the same."
                )
    earlier = {_key(row): row for row in first["rows"] if row["samples_ms"]}
    changes = []
    for row in second["rows"]:
        before = earlier.get(_key(row))
        if before is None or not row["samples_ms"]:
            continue
        if before["scope"] != row["scope"]:
            raise UsageError(
                f"{_label(row)}: one was measured as {before['scope']}, the other as "
                f"{row['scope']}. Measure both with the same --scope."
            )
        changes.append(_change(before, row))
    if not changes:
        raise UsageError("the two benchmarks have no row in common. Measure the same models.")
    return changes


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    # Samples of one turn resemble each other, so the turns are what is drawn from.
    first, second = ([min(turn) for turn in row["samples_ms"]] for row in (before, after))
    ratio, low, high = ratio_interval(first, second)
    return Change(
        label=_label(after),
        before=before["median_ms"],
        after=after["median_ms"],
        ratio=ratio,
        low=low,
        high=high,
    )


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)


def _label(row: Mapping[str, Any]) -> str:
    width, height = row["output_size"]
    return (
        f"{row['model']} x{row['scale']} {row['graph']} {row['backend']} {row['precision']} "
        f"{width}x{height}" + (f" x {row['batch']}" if row["batch"] > 1 else "")
    )
