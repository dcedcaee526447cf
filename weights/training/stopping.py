"""Stop a training at the end of a step, and count only the time in which it ran."""

from __future__ import annotations

import signal
import time
from typing import Self

LONGEST_STEP = 30.0  # seconds; what takes longer was a stopped process, not training


class Interruption:
    """Ctrl-C and a polite kill, which wait for the end of a step; a second one does not."""

    signal: int | None = None

    def __enter__(self) -> Self:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def exit(self) -> SystemExit:
        """Return what ends the process with the exit code of the signal."""
        return SystemExit(128 + (self.signal or 0))

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Stopwatch:
    """Tells how long each step took; a process that was stopped meanwhile did not train."""

    def __init__(self, began: float | None = None) -> None:
        """Begin now, or at a time of `time.monotonic`; the first lap then counts whole."""
        self._last = time.monotonic() if began is None else began
        self._whole = began is not None

    def lap(self) -> float:
        """Seconds since the last lap, `LONGEST_STEP` at most."""
        last, self._last = self._last, time.monotonic()
        seconds = self._last - last
        whole, self._whole = self._whole, False
        return seconds if whole else min(seconds, LONGEST_STEP)
