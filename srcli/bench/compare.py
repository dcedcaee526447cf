"""Compare two benchmarks: which rows became faster or slower by more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

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
Kind = TypeVar("Kind")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A row of a report."""

    key: tuple[object, ...]
    """Values that two rows share if they measure the same work."""

    label: str
    scope: str
    allocator: str
    rounds: Sequence[Sequence[float]]
    """Milliseconds, by round; empty if the row failed."""

    median: float
    """Milliseconds; 0 if the row failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A file written by `srcli bench --json`."""

    hardware: Mapping[str, object]
    rows: Sequence[Measured] = field(repr=False)


def read_report(file: Path) -> Report:
    """Read a file written by `srcli bench --json`.

    Raises:
        InputError: The file cannot be read, or is no benchmark.
    """
    try:
        report = _as(dict, json.loads(file.read_text("utf-8")))
        rows = [_measured(_as(dict, row)) for row in _as(list, report["rows"])]
        return Report(hardware=_as(dict, report["hardware"]), rows=rows)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror})", "Check its name and permissions."
        ) from error
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{file}: is no benchmark", "Write one with `srcli bench --json`."
        ) from None


def _measured(row: Mapping[str, object]) -> Measured:
    """Read a row of JSON; raise KeyError, TypeError or ValueError if it is none."""
    rounds = [[_number(sample) for sample in turn] for turn in _as(list, row["samples_ms"])]
    width, height = _as(list, row["output_size"])
    batch = _as(int, row["batch"])
    return Measured(
        key=tuple(row.get(name) for name in KEY),
        label=f"{row['model']} x{row['scale']} {row['graph']} {row['backend']} {row['precision']} "
        f"{width}x{height}" + (f" x {batch}" if batch > 1 else ""),
        scope=_as(str, row["scope"]),
        # Old files without an allocator used malloc's default.
        allocator=_as(str, _as(dict, row.get("facts", {})).get("allocator", "default")),
        rounds=rounds,
        median=_number(row["median_ms"]) if rounds else 0.0,
    )


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _as(kind: type[Kind], value: object) -> Kind:
    """Return a value of JSON if it has this type; raise TypeError otherwise."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind}")
    return value


def compare(first: Report, second: Report, *, anyway: bool = False) -> list[Change]:
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
            one, other = first.hardware.get(name), second.hardware.get(name)
            if one != other:
                raise UsageError(
                    f"measured on different hardware ({name}: {one} and {other})",
                    "Give --anyway to compare all the same.",
                )
    earlier: dict[tuple[object, ...], list[Measured]] = {}
    for row in first.rows:
        if row.rounds:
            earlier.setdefault(row.key, []).append(row)
    changes = []
    for row in second.rows:
        candidates = earlier.get(row.key)
        if not candidates or not row.rounds:
            continue
        # Of several scopes in one file the same one is meant.
        before = min(candidates, key=lambda other: other.scope != row.scope)
        if not anyway:
            _check_manner(before, row)
        changes.append(_change(before, row))
    if not changes:
        raise UsageError("the two benchmarks have no row in common", "Measure the same models.")
    return changes


def _check_manner(before: Measured, after: Measured) -> None:
    """Raise UsageError if the same work was timed in different ways."""
    for name, one, other in (
        ("scope", before.scope, after.scope),
        ("allocator", before.allocator, after.allocator),
    ):
        if one != other:
            raise UsageError(
                f"{after.label}: one was measured with --{name} {one}, the other with --{name} "
                f"{other}",
                "Measure both alike, or give --anyway.",
            )


def _change(before: Measured, after: Measured) -> Change:
    # Samples of one round resemble each other, so the rounds are what is drawn from.
    first, second = ([min(turn) for turn in row.rounds] for row in (before, after))
    ratio, low, high = ratio_interval(first, second)
    return Change(
        label=after.label,
        before=before.median,
        after=after.median,
        ratio=ratio,
        low=low,
        high=high,
    )
