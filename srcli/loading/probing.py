"""Find out a network's scale and receptive field by running it on small pictures."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from srcli.backends.base import Images
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import WeightsError, first_line

Run = Callable[[Images], Images]

PROBED = 96  # side of the picture on which a network's reach is looked for
MIN_MARGIN = 16
LONGEST_PROBE = 60.0  # seconds, for one small picture
LONGEST_END = 5.0  # seconds, for a run that was told to end
PAUSE = 0.1  # seconds between two cancellations
FELT = 1e-4  # of the range: what a changed pixel must do to another to count


def limited(session: OnnxRuntimeSession, file: Path) -> Run:
    """Lend a session for a limited time: another's graph may hold an endless loop."""

    def run(batch: Images) -> Images:
        answer: Future[Images] = Future()

        def compute() -> None:
            try:
                answer.set_result(session(batch))
            except BaseException as error:
                answer.set_exception(error)

        # Not in the main thread, which must hear Ctrl-C, nor in one that Python waits for.
        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        try:
            return answer.result(LONGEST_PROBE)
        except TimeoutError as error:
            raise WeightsError(
                f"{file}: is not done with a picture of {batch.shape[3]} x {batch.shape[2]} "
                f"after {LONGEST_PROBE:g} seconds",
                "It may loop without end; use another network.",
            ) from error
        finally:
            _end(session, thread)

    return run


def _end(session: OnnxRuntimeSession, thread: threading.Thread) -> None:
    """Cancel a call until it has ended: one about to begin does not hear the first time."""
    latest = time.monotonic() + LONGEST_END
    while thread.is_alive() and time.monotonic() < latest:
        session.cancel()
        thread.join(PAUSE)


def scale_of(run: Run, file: Path, fixed: tuple[int, int] | None) -> int:
    """Return the scale by which a network enlarges every picture that it takes."""
    first, *others = _probes(fixed)
    scale = _enlargement(run, file, first)
    for picture in others:
        try:
            again = _enlargement(run, file, picture)
        except _RefusalError:
            continue  # it may want sides of certain multiples
        if again != scale:
            raise WeightsError(
                f"{file}: enlarges by {scale} or by {again}, depending on the picture",
                "Use a network that always enlarges by the same whole number.",
            )
    return scale


def _probes(fixed: tuple[int, int] | None) -> Iterator[Images]:
    """Return small pictures: grey, noise, black, white, and stripes; not all of one size."""
    random = np.random.default_rng(0)
    for height, width in [fixed] if fixed else [(64, 64), (96, 64), (48, 80)]:
        shape = (1, 3, height, width)
        yield np.full(shape, 0.5, np.float32)
        yield random.random(shape, np.float32)
        yield np.zeros(shape, np.float32)
        yield np.ones(shape, np.float32)
        yield np.broadcast_to((np.arange(width) // 4 % 2).astype(np.float32), shape).copy()


class _RefusalError(WeightsError):
    """A network refuses a picture."""


def _enlargement(run: Run, file: Path, picture: Images) -> int:
    height, width = picture.shape[2:]
    try:
        restored = run(picture)
    except WeightsError:
        raise
    except Exception as error:
        raise _RefusalError(
            f"{file}: does not run on a picture of {width} x {height} ({first_line(error)}). "
            "Use another network."
        ) from error
    scale = restored.shape[2] // height if restored.ndim == 4 else 0
    if not scale or restored.shape != (1, 3, height * scale, width * scale):
        raise WeightsError(
            f"{file}: makes {' x '.join(map(str, restored.shape))} from a picture of {width} x "
            f"{height}, which is no enlargement by a whole number",
            "Use another network.",
        )
    if not np.isfinite(restored).all():
        raise WeightsError(
            f"{file}: makes values that are not finite from a picture of {width} x {height}",
            "Its weights are damaged or its training diverged; use another network.",
        )
    return scale


def reach(run: Run, scale: int, fixed: tuple[int, int] | None, *, step: int = 1) -> int:
    """Return the receptive field, in input pixels: 1.5 times the effect of a changed pixel."""
    side = -(-PROBED // step) * step
    height, width = fixed or (side, side)
    picture = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    other = picture.copy()
    y, x = height // 2, width // 2
    other[:, :, y, x] = 1 - np.round(other[:, :, y, x])
    felt = np.abs(run(picture) - run(other)).max(axis=(0, 1)) > FELT
    rows, columns = np.nonzero(felt)
    if not rows.size:
        return MIN_MARGIN
    far = int(
        max(np.abs(rows // scale - y).max(initial=0), np.abs(columns // scale - x).max(initial=0))
    )
    margin: int = max(MIN_MARGIN, math.ceil(1.5 * int(far)))
    return min(margin, (min(fixed) - 1) // 4) if fixed else margin
