"""Compare two benchmarks: which rows became faster or slower by more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.bench.timing import ratio_interval
from srcli.errors import InputError, UsageError

# What makes two rows the same measurement, besides scope and allocator: rows that differ in those
# are told apart from rows that are missing.
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
    """A change of a row's latency: the second measurement over the first."""

    label: str
    before: float
    """Median in milliseconds."""

    after: float
    ratio: float
    low: float
    """Lower end of the ratio's 95 % confidence interval."""

    high: float

    def regressed(self, tolerance: float) -> bool:
        """Tell whether the row is slower by more than `tolerance`, chance aside."""
        return self.low > 1 + tolerance

    def improved(self, tolerance: float) -> bool:
        """Tell whether the row is faster by more than `tolerance`, chance aside."""
        return self.high < 1 - tolerance


def read_report(file: Path) -> dict[str, Any]:
    """Read a file written by `srcli bench --json`.

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
        raise InputError(f"{file}: no benchmark", "Write one with `srcli bench --json`.") from None
    return {"rows": rows, "hardware": machine}


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, anyway: bool = False
) -> list[Change]:
    """Compare the rows that both reports have.

    Args:
        first: As read by `read_report`.
        second: The later one.
        anyway: Compare different hardware, scopes and allocators too.

    Raises:
        UsageError: Different hardware, scopes or allocators, or nothing in common.
    """
    if not anyway:
        for name in HARDWARE:
            one, other = first["hardware"].get(name), second["hardware"].get(name)
            if one != other:
                raise UsageError(
                    f"measured on different hardware ({name}: {one} and {other})",
                    "Give --anyway to compare all the same.",
                )
    earlier: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in first["rows"]:
        if row["samples_ms"]:
            earlier.setdefault(_key(row), []).append(row)
    changes = []
    for row in second["rows"]:
        candidates = earlier.get(_key(row))
        if not candidates or not row["samples_ms"]:
            continue
        # Of several scopes in one file the same one is meant.
        before = min(candidates, key=lambda other: other["scope"] != row["scope"])
        if not anyway:
            _check_manner(before, row)
        changes.append(_change(before, row))
    if not changes:
        raise UsageError("the two benchmarks have no row in common", "Measure the same models.")
    return changes


def _check_manner(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise UsageError if the same work was timed in different ways."""
    for name, one, other in (
        ("scope", before["scope"], after["scope"]),
        ("allocator", _allocator(before), _allocator(after)),
    ):
        if one != other:
            raise UsageError(
                f"{_label(after)}: one was measured with --{name} {one}, the other with --{name} "
                f"{other}",
                "Measure both alike, or give --anyway.",
            )


def _allocator(row: Mapping[str, Any]) -> str:
    """Return the allocator of a report; old files without one used malloc's default."""
    return str(row.get("facts", {}).get("allocator", "default"))


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
