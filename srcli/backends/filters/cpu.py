"""LAPAR's filters on a CPU, in one pass over memory, by code that is compiled with srcli.

As nodes of a graph they take a fourth of the time of the whole network (LAPAR-C x4 in OpenVINO; in
8 bits, over a third), because each of the 24 neighbours becomes a picture in memory. So backends
run a graph that ends at the taps (`Model.tap_graph`) and call this.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srcli.errors import Obstacle
from srcli.models.spec import GraphPrecision
from srcli.system.machine import usable_cores

if TYPE_CHECKING:
    from srcli.backends.base import Images, Model, SessionOptions

COMPILED = "srcli.backends.filters._filters"
REBUILD = (
    "Install a C compiler (GCC or Clang) and Python's headers, then install srcli from its source "
    "again, with --no-cache-dir."
)
# Share of its memory that a dense model needs by parts; measured: 0.26 to 0.38 (see
# benchmarks/memory_per_pixel.py).
BY_PARTS = 0.4
STRIP = 64  # rows; four more are read for each strip
# Outputs of a graph that ends at the taps; the picture that they filter is the input if missing.
TAPS, PICTURE = "filter.taps", "filter.picture"


def unavailable() -> Obstacle | None:
    """Return why the compiled code cannot be used, and the remedy; None if it can."""
    try:
        importlib.import_module(COMPILED)
    except ImportError:
        return Obstacle("srcli was installed without its compiled part", REBUILD)
    return None


def shortest_graph(model: Model, precision: GraphPrecision) -> Path:
    """Return the graph for CPUs: up to the taps if the filters are applied here, else the whole."""
    parted = None if unavailable() else model.tap_graph(precision)
    return model.cpu_graph(precision) if parted is None else parted


class CpuFilters:
    """Filters pictures with 5x5 kernels, one for each pixel, each equal to its own half-turn.

    May be called from several threads at once.

    Args:
        threads: Of each call.
        concurrency: Number of calls that may be under way at once.
    """

    def __init__(self, threads: int, concurrency: int = 1) -> None:
        self._compiled = importlib.import_module(COMPILED)
        self._pool = ThreadPoolExecutor(threads * concurrency) if threads > 1 else None

    @classmethod
    def on_all_cores(cls, options: SessionOptions) -> CpuFilters:
        """Return filters on as many threads as the session may use, shared by its calls."""
        threads = options.threads or usable_cores()
        return cls(max(1, threads // options.concurrency), options.concurrency)

    def __call__(self, picture: Images, taps: NDArray[np.float32]) -> Images:
        """Filter n x c x H x W with taps n x 13 x H x W, both float32, in any memory layout.

        The taps are row by row the first half of each kernel, and its centre; borders are
        reflected. The same as `apply_filters` in `srcli.models.lapar.network`, up to rounding.
        """
        filtered = np.empty(picture.shape, np.float32)
        self._run(self._compiled.filter, picture, taps, filtered)
        return filtered

    def gradient(self, picture: Images, change: Images, taps: NDArray[np.float32]) -> None:
        """Write a loss's gradient by the taps to `taps`; `change` is its gradient by the result."""
        self._run(self._compiled.gradient, picture, taps, change)

    def _run(
        self,
        function: Callable[..., None],
        picture: Images,
        taps: NDArray[np.float32],
        filtered: Images,
    ) -> None:
        height = picture.shape[2]
        if self._pool is None:
            function(picture, taps, filtered, 0, height)
            return

        def strip(top: int) -> None:
            function(picture, taps, filtered, top, min(top + STRIP, height))

        for _ in self._pool.map(strip, range(0, height, STRIP)):
            pass

    def close(self) -> None:
        """End the threads of the filters."""
        if self._pool is not None:
            self._pool.shutdown()
