"""Run a network on pictures in tiles that fit in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from srcli.backends.base import BlurKernels, Images, OutOfMemory, Session, as_blind
from srcli.errors import MemoryExhaustedError, SrcliError
from srcli.models.spec import Geometry, Scale
from srcli.pipeline.tiling import Tile, choose_window, enlarged, halved, plan
from srcli.pipeline.work import NETWORK_SHARE, ROWS_SHARE, Progress, check_finite, ignore_progress


@dataclass(slots=True, kw_only=True)
class Tiles:
    """A runner that cuts batches into tiles and joins the results of the network."""

    session: Session
    geometry: Geometry
    scale: Scale
    tile: int | None
    on_device: int | None
    """Bytes that one tile may take on a device with memory of its own; None on the host, or if
    the user has chosen."""

    share: Callable[[float], int]
    """Function from a fraction to the bytes of that part of one call's memory."""

    check: Callable[[], None]
    """Function that raises if the result is no longer wanted."""

    pool: ThreadPoolExecutor
    note: Callable[[str], None]
    kernel: BlurKernels | None = None
    """Blur kernels, n x 1 x K x K, of the pictures restored last, by a blind network."""

    _fitting: tuple[int, int] | None = None
    """Height and width of a window that should fit, once a larger one did not."""

    _said_approximate: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def estimate_kernel(self, batch: Images) -> BlurKernels | None:
        """Return the blur kernels of n pictures, n x 1 x K x K; None if the network is not blind.

        Where a picture takes more memory than there is for a tile, its middle stands for it.

        Raises:
            MemoryExhaustedError: Not even the smallest tile fits.
        """
        session = as_blind(self.session)
        if session is None:
            return None
        padded = self._padded(batch)
        while True:
            window = self.window(padded.shape[2], padded.shape[3], len(batch))
            middle = np.ascontiguousarray(_middle(padded, window))
            try:
                self.kernel = self.pool.submit(session.estimate_kernel, middle).result()
                return self.kernel
            except OutOfMemory:
                self._shrink(window)

    def restore(
        self,
        batch: Images,
        progress: Progress = ignore_progress,
        kernel: BlurKernels | None = None,
    ) -> Images:
        """Restore n x 3 x h x w in [0, 1] to n x 3 x s*h x s*w, not clamped, tile by tile.

        Args:
            batch: In any size.
            progress: Called with the number of tiles done and of all.
            kernel: Blur kernels for blind networks, n x 1 x K x K; None estimates them.

        Raises:
            MemoryExhaustedError: Not even the smallest tile fits.
            SrcliError: The network gave values that are not finite.
        """
        height, width = batch.shape[2:]
        padded = self._padded(batch)
        if kernel is None:
            kernel = self.estimate_kernel(batch)
        while True:
            window = self.window(padded.shape[2], padded.shape[3], len(batch))
            try:
                restored = self._run_tiles(padded, window, progress, kernel)
                break
            except OutOfMemory:
                self._shrink(window)
        return restored[:, :, : enlarged(height, self.scale), : enlarged(width, self.scale)]

    def _run_tiles(
        self, batch: Images, window: tuple[int, int], progress: Progress, kernel: BlurKernels | None
    ) -> Images:
        count, _, height, width = batch.shape
        s = self.scale
        tiles = plan(height, width, window, self.geometry.margin, self.geometry.multiple_of)
        self.tell_approximate(height, width, window)
        if len(tiles) == 1:
            restored: Images = self.pool.submit(self._run, batch, kernel).result()
            progress(1, 1)
            return restored
        out = np.empty((count, 3, enlarged(height, s), enlarged(width, s)), np.float32)

        def restore(tile: Tile) -> None:
            rows, columns = tile.rows, tile.columns
            cut = batch[:, :, rows.start : rows.stop, columns.start : columns.stop]
            result = self._run(cut, kernel)[:, :, rows.inner(s), columns.inner(s)]
            out[:, :, rows.outer(s), columns.outer(s)] = result

        # In the pool even at a concurrency of 1: all calls of the session share its threads.
        futures = [self.pool.submit(restore, tile) for tile in tiles]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                progress(done, len(tiles))
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        return out

    def _run(self, batch: Images, kernel: BlurKernels | None) -> Images:
        limits = self.session.limits
        maximum = limits[1][0] if limits else len(batch)
        parts = [slice(first, first + maximum) for first in range(0, len(batch), maximum)]
        made = [self._call(batch, kernel, part) for part in parts]
        restored = made[0] if len(made) == 1 else np.concatenate(made)
        self._check_shape(batch, restored)
        check_finite(restored)
        return restored

    def _check_shape(self, batch: Images, restored: Images) -> None:
        """Raise if the output has another shape than wanted: a network may be x2 for one size only.

        Raises:
            SrcliError: They differ.
        """
        count, _, height, width = batch.shape
        wanted = (count, 3, enlarged(height, self.scale), enlarged(width, self.scale))
        if restored.shape != wanted:
            raise SrcliError(
                f"the network made {restored.shape[3]} x {restored.shape[2]} of {width} x {height} "
                f"pixels, and {wanted[3]} x {wanted[2]} were expected",
                "Check the network, or choose another.",
            )

    def _call(self, batch: Images, kernel: BlurKernels | None, part: slice) -> Images:
        self.check()
        session = as_blind(self.session)
        pictures = np.ascontiguousarray(batch[part])
        if session is None or kernel is None:
            return self.session(pictures)
        return session.restore(pictures, kernel[part])

    def _padded(self, batch: Images) -> Images:
        """Pad to a size that the network accepts: repeat the border below and to the right."""
        limits = self.session.limits
        smallest = limits[0][2:] if limits else (1, 1)
        missing = [
            max(minimum, self.geometry.accepted(side)) - side
            for side, minimum in zip(batch.shape[2:], smallest, strict=True)
        ]
        if not any(missing):
            return batch
        return np.pad(batch, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")

    def window(self, height: int, width: int, count: int) -> tuple[int, int]:
        """Return the largest (height, width) to give to the network at once."""
        wanted = self._affordable(height, width, count)
        limits = self.session.limits
        if limits is None:
            return wanted
        (_, _, *minimum), (_, _, *maximum) = limits
        rows, columns = (
            min(max(side, low), high)
            for side, low, high in zip(wanted, minimum, maximum, strict=True)
        )
        return rows, columns

    def _affordable(self, height: int, width: int, count: int) -> tuple[int, int]:
        """Return the largest (height, width) that the memory and the user's options allow."""
        if self._fitting is not None:
            return self._fitting
        if self.tile is not None:
            side = max(self.tile + 2 * self.geometry.margin, self.geometry.minimum)
            return side, side
        floats = self.geometry.floats_per_pixel * self.session.memory_share
        bytes_per_pixel = 4 * floats * self.scale**2 * count
        share = self.on_device or self.share(NETWORK_SHARE)
        pixels = int(share // bytes_per_pixel)
        return choose_window(height, width, margin=self.geometry.margin, pixels=pixels)

    def strip_rows(self, width: int, count: int) -> int:
        """Return the number of input rows in work at once, by the memory of three float outputs."""
        bytes_per_row = 4 * 3 * width * self.scale**2 * count
        on_host = ROWS_SHARE if self.on_device is None else NETWORK_SHARE + ROWS_SHARE
        return self.share(on_host) // (3 * bytes_per_row)

    def tell_approximate(self, height: int, width: int, window: tuple[int, int]) -> None:
        """Say once that tiles change the result, for networks that look at the whole picture."""
        whole = height <= window[0] and width <= window[1]
        if whole or self.geometry.tiling == "exact" or self._said_approximate:
            return
        self._said_approximate = True
        if not self.geometry.dynamic:
            self.note(
                f"this network takes pictures of one size; {width} x {height} goes in tiles of "
                f"{window[1]} x {window[0]}, so the result is approximate."
            )
            return
        self.note(
            f"this model looks at the whole picture; {width} x {height} goes in tiles of "
            f"{min(width, window[1])} x {min(height, window[0])}, so the result is approximate. "
            "More --memory makes larger tiles."
        )

    def _shrink(self, window: tuple[int, int]) -> None:
        smaller = halved(window, self.geometry.margin)
        if smaller is None:
            raise MemoryExhaustedError(
                "out of memory even with the smallest tile",
                "Close other programs, or choose another backend or a smaller model.",
            )
        with self._guard:
            known = self._fitting
            if known is not None and math.prod(known) <= math.prod(smaller):
                return  # another call has met a smaller limit
            self._fitting = smaller
        self.note(f"out of memory: going on with tiles of {smaller[1]} x {smaller[0]}")


def _middle(batch: Images, window: tuple[int, int]) -> Images:
    """Return the part of at most `window` in the middle of n x 3 x h x w."""
    top, left = (
        max(0, (side - maximum) // 2) for side, maximum in zip(batch.shape[2:], window, strict=True)
    )
    return batch[:, :, top : top + window[0], left : left + window[1]]
