"""Rows of a benchmark: the work to measure, and the results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal, TypedDict

from srcli.backends.base import Precision
from srcli.bench.timing import Summary, percentile, summarise
from srcli.errors import UsageError

Graph = Literal["published", "fused"]
Scope = Literal["network", "host", "file"]

Subject = tuple[str, int, int, int, int]
"""A computation that is measured: model, scale, height, width and batch."""


class Roofline(TypedDict):
    """The latency that the device's ceilings allow a row; times are milliseconds."""

    bytes_of_layers: int
    bytes_moved: int
    bytes_at_once: int
    compute_ms: float
    memory_ms: float
    every_pass_ms: float
    bound: Literal["compute", "memory"]
    reached: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Work to be measured; two rows are comparable if they differ in one field only."""

    model: str
    scale: int
    graph: Graph
    backend: str
    precision: Precision = "fp32"
    height: int
    """Height of the input; the output is `scale` times as high."""

    width: int
    batch: int = 1
    scope: Scope = "network"
    """`network`: input and output stay on the device that computes. `host`: numpy in, numpy out.
    `file`: from a PNG on disk to a PNG on disk."""

    cuda_graph: bool = True
    """On CUDA, launch the network as one graph instead of kernel by kernel."""

    cold: bool = False
    """On CUDA, flush the L2 cache before every run."""

    @property
    def output(self) -> tuple[int, int]:
        """Width and height of the output."""
        return self.width * self.scale, self.height * self.scale

    @property
    def subject(self) -> Subject:
        """The computation that is measured: model, scale, height, width and batch."""
        return self.model, self.scale, self.height, self.width, self.batch

    @property
    def megapixels(self) -> float:
        """Megapixels of output in one run."""
        width, height = self.output
        return self.batch * width * height / 1e6


@dataclass(slots=True, kw_only=True)
class Result:
    """A row and what was measured."""

    row: Row
    rounds: list[list[float]] = field(default_factory=list)
    """Milliseconds, by round: the rows took turns."""

    host: list[float] = field(default_factory=list)
    """On CUDA: wall-clock milliseconds from launch to the end, of runs of their own."""

    bursts: list[float] = field(default_factory=list)
    """On CUDA, by round: milliseconds of a run, as the mean of many that were launched in a row."""

    error: float | None = None
    """Largest difference from the published float32 network, relative to its largest value."""

    tolerance: float = 0.0
    failure: str = ""
    """The reason why there are no samples; empty if there are."""

    facts: dict[str, object] = field(default_factory=dict)
    """Facts from the backend: device, provider, precision in use, peak of memory."""

    multiply_adds: float = 0.0
    """Multiply-adds in one run, counted."""

    roofline: Roofline | None = None
    speedups: list[float] = field(default_factory=list)
    """By round: median time of the published network in float32 PyTorch over the row's own. Only
    of rounds in which the machine was quiet, unless it is `disturbed`."""

    disturbed: bool = False
    """True if other work kept the CPU busy in all rounds but two or less, so that `speedups` holds
    all of them and another run may differ."""

    others: list[float | None] = field(default_factory=list)
    """By round: CPU cores that other processes kept busy; None where this is not known."""

    faults: list[float] = field(default_factory=list)
    """By round: pages of memory, in one run, that the system had to provide first."""

    @property
    def speedup(self) -> float | None:
        """Median speedup over rounds."""
        return percentile(self.speedups, 50) if self.speedups else None

    @property
    def speedup_quartiles(self) -> tuple[float, float] | None:
        """Quartiles of the speedup: the middle half of the rounds lies between them."""
        if not self.speedups:
            return None
        return percentile(self.speedups, 25), percentile(self.speedups, 75)

    @property
    def burst(self) -> float | None:
        """Median of `bursts` over rounds, in milliseconds."""
        return percentile(self.bursts, 50) if self.bursts else None

    @property
    def samples(self) -> list[float]:
        return [sample for samples in self.rounds for sample in samples]

    @property
    def summary(self) -> Summary | None:
        return summarise(self.samples) if self.rounds else None

    @property
    def verdict(self) -> Literal["ok", "wrong", "failed"]:
        if self.failure:
            return "failed"
        # Not `error > tolerance`: a value that is not a number must not pass.
        return "ok" if self.error is not None and self.error <= self.tolerance else "wrong"

    def as_dict(self) -> dict[str, object]:
        """Return the result for JSON; times are milliseconds."""
        row, summary = self.row, self.summary
        width, height = row.output
        measured: dict[str, object] = {}
        if summary is not None:
            seconds = summary.median / 1e3
            measured = {
                "median_ms": summary.median,
                "p50_ms": summary.median,
                "p90_ms": summary.p90,
                "p99_ms": summary.p99,
                "min_ms": summary.minimum,
                "mean_ms": summary.mean,
                "std_ms": summary.deviation,
                "cv": summary.variation,
                "runs": summary.runs,
                "frames_per_second": row.batch / seconds,
                "megapixels_per_second": row.megapixels / seconds,
                "host_median_ms": summarise(self.host).median if self.host else None,
                "burst_ms": self.burst,
            }
        return {
            **asdict(row),
            "output_size": [width, height],
            **measured,
            "speedup": self.speedup,
            "speedup_quartiles": self.speedup_quartiles,
            "speedup_by_round": self.speedups,
            "disturbed": self.disturbed,
            "cores_busy_by_others": self.others,
            "page_faults_per_run": percentile(self.faults, 50) if self.faults else None,
            "error": self.error,
            "tolerance": self.tolerance,
            "verdict": self.verdict,
            "failure": self.failure or None,
            "multiply_adds": self.multiply_adds,
            "roofline": self.roofline,
            "facts": self.facts,
            "samples_ms": self.rounds,
        }


def input_size(output: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return width and height of the input that gives this output.

    Raises:
        UsageError: There is none; the message proposes the nearest output.
    """
    if any(side % scale for side in output):
        near = "x".join(str(max(1, round(side / scale)) * scale) for side in output)
        raise UsageError(
            f"an output of {output[0]}x{output[1]} cannot come from a scale of {scale}",
            f"The nearest that can is --size {near}.",
        )
    return output[0] // scale, output[1] // scale
