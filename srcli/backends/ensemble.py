"""Self-ensemble: the mean of a network's outputs for a picture's eight flips and turns."""

from __future__ import annotations

import numpy as np

from srcli.backends.base import (
    Images,
    Session,
    Shape,
    StoppedError,
    as_blind,
)
from srcli.errors import UsageError


class SelfEnsemble(Session):
    """A session that runs another one eight times.

    Source: Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super
    resolution", CVPR 2016, section 3.6.

    Args:
        session: The session to run; it is closed with this one.

    Raises:
        UsageError: The network estimates the picture's blur, which would be turned with it; or it
            takes no picture that lies on its side.
    """

    def __init__(self, session: Session) -> None:
        if as_blind(session) is not None:
            raise UsageError(
                "this model estimates the picture's blur itself, which --tta would change",
                "Leave out --tta.",
            )
        self._session = session
        self._stopped = False
        self.memory_share, self.concurrency = session.memory_share, session.concurrency
        limits = session.limits
        if limits is not None:
            self.min_shape, self.max_shape = _square(*limits)
            if self.min_shape[2] > self.max_shape[2]:
                height, width = limits[1][2:]
                raise UsageError(
                    f"this network takes at most {width} x {height} pixels, and no picture of that "
                    "turned on its side, which --tta needs",
                    "Leave out --tta.",
                )

    def __call__(self, batch: Images) -> Images:
        total: Images | None = None
        for turns in range(4):
            for mirrored in (False, True):
                if self._stopped:
                    raise StoppedError
                seen = batch[..., ::-1] if mirrored else batch
                result = self._session(np.ascontiguousarray(np.rot90(seen, turns, (2, 3))))
                upright = np.rot90(result, -turns, (2, 3))
                upright = upright[..., ::-1] if mirrored else upright
                total = np.array(upright) if total is None else np.add(total, upright, out=total)
        assert total is not None
        return total / np.float32(8)

    @property
    def facts(self) -> dict[str, object]:
        """Return the inner session's facts, and `tta`."""
        return {**self._session.facts, "tta": True}

    @property
    def device_memory(self) -> int | None:
        """The inner session's free memory of the GPU, in bytes; None on the CPU."""
        return self._session.device_memory

    def stop(self) -> None:
        """Let a call that is under way end before the next pass, by `StoppedError`."""
        self._stopped = True

    def close(self) -> None:
        self._session.close()


def _square(low: Shape, high: Shape) -> tuple[Shape, Shape]:
    """Return limits that hold for turned pictures too."""
    minimum, maximum = max(low[2:]), min(high[2:])
    return (*low[:2], minimum, minimum), (*high[:2], maximum, maximum)
