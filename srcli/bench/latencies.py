"""Latencies of models on this machine, measured once and kept in the cache."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from srcli.checkpoints.shipped import Weights
from srcli.models.spec import ModelSpec
from srcli.system import cache
from srcli.system.machine import machine_key, usable_cores

if TYPE_CHECKING:
    from srcli.backends.base import Precision

WIDTH, HEIGHT = 1280, 720
"""Size of the output that is measured, in pixels."""

RUNS = 5
_LONGEST = 5.0  # seconds for one model, unless a single run takes longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of one output of 1280 x 720 pixels."""

    milliseconds: float
    """Median over the runs, from array to array."""

    backend: str
    runs: int
    threads: int
    precision: str = "fp32"


class _Row(TypedDict):
    milliseconds: float
    backend: str
    runs: int
    threads: int
    precision: NotRequired[str]


def kept() -> dict[str, Latency]:
    """Return the latencies kept from earlier runs on this machine, by the weights' checksum.

    What is damaged, or of another machine, is as if it had never been measured.
    """
    try:
        return dict(_entries(json.loads(cache.kept(_path()) or "{}")))
    except (ValueError, TypeError, AttributeError):
        return {}


def _entries(table: Mapping[str, _Row]) -> Iterator[tuple[str, Latency]]:
    for sha256, row in table.items():
        latency = Latency(**row)
        if math.isfinite(latency.milliseconds) and latency.milliseconds > 0:
            yield sha256, latency


def keep(found: dict[str, Latency]) -> None:
    """Add latencies to those that are kept.

    Raises:
        OutputError: The cache cannot be written.
    """
    table = {sha256: asdict(latency) for sha256, latency in {**kept(), **found}.items()}
    cache.keep(_path(), json.dumps(table, indent=1))


def key(weights: Weights, backend: str, precision: str) -> str:
    """Return the key of a latency in one backend and precision, at the weights' scale."""
    return f"{weights.sha256} x{weights.scale} {backend} {precision}"


def measure(weights: Weights, backend: str | None = None, precision: Precision = "fp32") -> Latency:
    """Measure a model by a few runs.

    Args:
        weights: Of a model in the registry.
        backend: Its name; None for `native` if that runs the model, else the fastest that does.
        precision: Number type to compute in.

    Raises:
        SrcliError: It cannot be run here.
    """
    import numpy as np

    from srcli.backends import open_model
    from srcli.backends.base import SessionOptions
    from srcli.bench.timing import clock, for_a_while
    from srcli.loading.model import LoadedModel
    from srcli.models.registry import get_model

    model = LoadedModel(spec=get_model(weights.model), scale=weights.scale, weights=weights)
    size = (math.ceil(HEIGHT / weights.scale), math.ceil(WIDTH / weights.scale))
    picture = np.random.default_rng(0).random((1, 3, *size), np.float32)
    options = SessionOptions(precision=precision)
    opened, session = open_model(backend or _backend(model.spec), model, options)
    with closing(session):
        run = partial(clock, lambda: session(picture))
        samples = [run()]
        if samples[0] < 1e3 * _LONGEST:  # a first run takes longer, but little of so long a time
            samples = for_a_while(run, _LONGEST, RUNS)
    return Latency(
        milliseconds=round(statistics.median(samples), 2),
        backend=opened.name,
        runs=len(samples),
        threads=usable_cores(),
        precision=precision,
    )


def _backend(spec: ModelSpec) -> str:
    from srcli.backends.native.session import NativeBackend

    native = NativeBackend()
    able = native.unavailable() is None and native.declines(spec, "fp32") is None
    return native.name if able else "auto"


def _path() -> Path:
    return cache.cache_folder() / f"latencies-{machine_key()}.json"
