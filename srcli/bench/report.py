"""Write a benchmark as a table, CSV, Markdown or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from srcli.bench import elsewhere
from srcli.bench.hardware import Conditions
from srcli.bench.rows import Result
from srcli.models.registry import get_model

COLUMNS = (
    "model", "graph", "backend", "precision", "scope", "output", "median ms", "p90", "p99", "CV %",
    "runs", "times faster", "quartiles", "Multi-Adds G", "error", "verdict",
)  # fmt: skip
# How "times faster" is computed: said wherever it is shown.
SPEEDUP = (
    "times faster: in each round, the median time of the published network in float32 PyTorch "
    "divided by the row's own; shown are median and quartiles of these ratios, over the rounds in "
    "which other work kept less than a fifth of a CPU core busy, or over all (~) if fewer than "
    "three were so quiet"
)
ROOFLINE = (
    "reached: the latency that the measured ceilings allow, divided by the median; memory_ms: if "
    "each layer's inputs are read and its output is written once; every_pass_ms: if every "
    "operation of PyTorch reads and writes memory"
)
BURST = "on a GPU: the mean of many runs launched in a row, between two events"
ROOF_COLUMNS = ("fps", "MP/s", "bound by", "of the roof %")
_NUMBERS = (
    "median_ms", "p90_ms", "p99_ms", "min_ms", "mean_ms", "std_ms", "cv", "runs", "host_median_ms",
    "burst_ms", "frames_per_second", "megapixels_per_second", "speedup", "page_faults_per_run",
    "multiply_adds", "error", "tolerance",
)  # fmt: skip
_NAMES = (
    "model", "scale", "graph", "backend", "precision", "height", "width", "batch", "scope",
    "cuda_graph", "cold",
)  # fmt: skip


def as_dict(results: Sequence[Result], facts: Conditions) -> dict[str, object]:
    """Return all figures for JSON, samples included."""
    return {
        "hardware": dict(facts),
        "definitions": {"speedup": SPEEDUP, "roofline": ROOFLINE, "burst_ms": BURST},
        "rows": [result.as_dict() for result in results],
        "not_measured_here": elsewhere.as_dicts(results),
    }


def columns(*, paper: bool, roof: bool, burst: bool = False) -> list[str]:
    """Return the headings of `cells`."""
    shown = list(COLUMNS)
    if burst:
        shown.insert(shown.index("p90"), "burst ms")
    if roof:
        shown[-2:-2] = ROOF_COLUMNS
    return [*shown, "paper ms"] if paper else shown


def cells(result: Result, *, paper: bool, roof: bool, burst: bool = False) -> list[str]:
    """Return one row of the table."""
    row, summary = result.row, result.summary
    width, height = row.output
    backend = (
        row.backend + (", CUDA graph" if row.cuda_graph else "") + (", cold" if row.cold else "")
    )
    size = f"{width}x{height}" + (f" x {row.batch}" if row.batch > 1 else "")
    times = [""] * 5
    if summary is not None:
        times = [
            _time(summary.median),
            _time(summary.p90),
            _time(summary.p99),
            f"{100 * summary.variation:.0f}",
            str(summary.runs),
        ]
    shown = [
        f"{row.model} x{row.scale}",
        row.graph,
        backend,
        row.precision,
        row.scope,
        size,
        *times[:1],
        *((_time(result.burst) if result.burst is not None else "",) if burst else ()),
        *times[1:],
        _speedup(result),
        _quartiles(result),
        f"{result.multiply_adds / 1e9:.1f}" if result.multiply_adds else "",
        *(_roof(result) if roof else ()),
        "" if result.error is None else f"{result.error:.1e}",
        result.verdict if not result.failure else f"failed: {result.failure}",
    ]
    return [*shown, paper_latency(result)] if paper else shown


def _speedup(result: Result) -> str:
    if result.speedup is None:
        return ""
    return f"{result.speedup:.2f}" + (" ~" if result.disturbed else "")


def _quartiles(result: Result) -> str:
    found = result.speedup_quartiles
    return "" if found is None else f"{found[0]:.2f} to {found[1]:.2f}"


def paper_latency(result: Result) -> str:
    """Return the paper's own milliseconds, if it measured this."""
    row = result.row
    if row.graph != "published" or row.output != elsewhere.OUTPUT or row.batch != 1:
        return ""
    latency = get_model(row.model).latency.get(row.scale)
    return "" if latency is None else f"{latency:.1f}"


def to_csv(results: Sequence[Result]) -> str:
    """Return CSV: one line for each row, numbers unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_NAMES, *_NUMBERS, "verdict"])
    for result in results:
        found = result.as_dict()
        writer.writerow([found.get(name) for name in (*_NAMES, *_NUMBERS, "verdict")])
    return stream.getvalue()


def to_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table for a README."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def conditions(facts: Conditions) -> list[str]:
    """Return lines, for people, about the machine that was measured and its state."""
    gpus = facts["before"]["gpus"]
    where = ", ".join(gpu["name"] for gpu in gpus) or facts["cpu"]
    lines = [
        f"measured on {where}; {facts['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    ]
    lines.append(SPEEDUP)
    lines.append(_ALLOCATORS[facts["allocator"]])
    for moment, found in (("before", facts["before"]), ("after", facts["after"])):
        load = found["load_average"]
        told = [] if load is None else [f"load average {load:.1f}"]
        told += [
            f"{gpu['clocks.sm']}, {gpu['temperature.gpu']} C, throttling {gpu[_REASONS]}"
            for gpu in found["gpus"]
        ]
        lines.append(f"{moment}: {'; '.join(told)}")
    if not gpus:
        lines.append("no GPU here: everything was measured on the CPU, by the wall clock")
        if (facts["before"]["load_average"] or 0) > 0.5 * facts["cores"]:
            lines.append(
                "other work shares this machine: milliseconds are too long, and ratios marked ~ "
                "depend on that work"
            )
    return lines


def notes(results: Sequence[Result]) -> list[str]:
    """Return lines, for people, on how runs on a GPU were timed; empty if there were none."""
    said = []
    waiting = {
        result.row.backend
        for result in results
        if result.facts.get("clock") == "host" and result.facts.get("device") != "cpu"
    }
    if waiting:
        said.append(
            f"{', '.join(sorted(waiting))} on the GPU: measured by the host's clock from the call "
            "to its return, launch and waiting included"
        )
    if any(result.bursts for result in results):
        said.append(
            "milliseconds on the GPU: by its own events around one run, launched before the first "
            "event is due; burst ms: the mean of many runs launched in a row"
        )
    return said


_ALLOCATORS = {
    "keep": "memory that a run frees stays with the process for the next run (--allocator keep)",
    "default": "memory that a run frees goes back as malloc decides (--allocator default)",
}
_REASONS = "clocks_event_reasons.active"


def _roof(result: Result) -> tuple[str, str, str, str]:
    summary, row = result.summary, result.row
    if summary is None:
        return "", "", "", ""
    seconds = summary.median / 1e3
    roofline = result.roofline
    reached = roofline["reached"] if roofline else None
    return (
        f"{row.batch / seconds:.1f}",
        f"{row.megapixels / seconds:.1f}",
        roofline["bound"] if roofline else "",
        "" if reached is None else f"{100 * reached:.0f}",
    )


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.2f}"
