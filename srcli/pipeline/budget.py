"""Decide how much memory a restoration takes, and how many pictures it works on at once."""

from __future__ import annotations

from srcli.models.spec import Geometry
from srcli.system.machine import free_memory, usable_cores

SMALLEST_BUDGET, LARGEST_BUDGET = 128 << 20, 512 << 20  # bytes, of the automatic choice, a call
MAX_CONCURRENCY = 4
FIXED = 40 << 20  # bytes that decoding, rounding and encoding take, measured
APPROXIMATE_BUDGET = 8 << 30  # where a larger tile is a better one
DEVICE_BUDGET = 4 << 30  # on a GPU, which a larger tile keeps no busier


def automatic_budget(geometry: Geometry | None = None, concurrency: int = 1) -> int:
    """Return the bytes that tiles may take by default: a quarter of what is free.

    At most 512 MiB for each concurrent call, because larger tiles are hardly faster. Where tiles
    only approximate the whole picture they are better, though: then at most 8 GiB.
    """
    approximate = geometry is not None and geometry.tiling == "approximate"
    largest = APPROXIMATE_BUDGET if approximate else LARGEST_BUDGET * concurrency
    free = free_memory()
    if free is None:
        return min(largest, LARGEST_BUDGET * concurrency)
    return min(max(free // 4, SMALLEST_BUDGET), largest)


def device_budget(free: int, geometry: Geometry) -> int:
    """Choose the bytes that tiles may take on a device that has memory of its own.

    A quarter of what is free there, at most 4 GiB; half of it where tiles only
    approximate the whole picture.

    Args:
        free: Bytes.
        geometry: Of the network.
    """
    return free // 2 if geometry.tiling == "approximate" else min(free // 4, DEVICE_BUDGET)


def sensible_concurrency(
    pictures: int,
    geometry: Geometry,
    *,
    threads: int | None = None,
    memory: int | None = None,
    tile: int | None = None,
) -> int:
    """Return the number of pictures that should go through the network side by side.

    Each then has its share of the cores, and none of them waits for the others at the end of every
    layer. But each needs memory too: with less than the largest automatic budget, tiles would be so
    small that their halos cost more than is gained. Where tiles only approximate the picture, one
    picture has all memory, so that its result does not depend on how many there are.

    Args:
        pictures: To be restored.
        geometry: Of the network.
        threads: That may be used; None for one on each core.
        memory: Bytes for the tiles of all concurrent calls; None for the automatic budget.
        tile: Side of a tile that the user chose, and with it the memory.
    """
    if geometry.tiling == "approximate" or tile is not None:
        return 1
    budget = memory or automatic_budget(concurrency=MAX_CONCURRENCY)
    concurrency = min(
        pictures, threads or usable_cores(), budget // LARGEST_BUDGET, MAX_CONCURRENCY
    )
    return max(1, concurrency)
