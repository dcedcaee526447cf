"""Restore by a blind network with a blur that is known, in place of the one that it estimates."""

from __future__ import annotations

from typing import Any

import numpy as np

from srcli.backends.base import BlindSession, BlurKernels, Images, Session, as_blind
from srcli.errors import BackendError


class KnownBlur(BlindSession):
    """A session whose network is told the blur of every picture.

    Args:
        session: An open blind network; it is closed with this one.
        kernel: The blur at input resolution, K x K, of sum 1.

    Raises:
        BackendError: The session's backend lets nobody tell the network a blur.
    """

    is_blind = True

    def __init__(self, session: Session, kernel: BlurKernels) -> None:
        blind = as_blind(session)
        if blind is None:
            raise BackendError(
                "this backend runs the network as a whole, with its own estimate of the blur",
                "Choose --backend torch.",
            )
        self._session = blind
        self._kernel = np.ascontiguousarray(kernel[None, None], np.float32)
        self.memory_share, self.concurrency = session.memory_share, session.concurrency
        self.min_shape, self.max_shape = session.min_shape, session.max_shape

    def __call__(self, batch: Images) -> Images:
        return self.restore(batch, self.estimate_kernel(batch))

    def estimate_kernel(self, batch: Images) -> BlurKernels:
        """Return the known kernel for each of n pictures: n x 1 x K x K."""
        return np.repeat(self._kernel, len(batch), axis=0)

    def restore(self, batch: Images, kernel: BlurKernels) -> Images:
        """Restore with known kernels."""
        return self._session.restore(batch, kernel)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the inner session's facts."""
        return self._session.facts

    @property
    def device_memory(self) -> int | None:
        """The inner session's free memory of the GPU, in bytes; None on the CPU."""
        return self._session.device_memory

    def cancel(self) -> None:
        """End the calls that are under way, where that can be done."""
        self._session.cancel()

    def stop(self) -> None:
        """Let a call of several passes end before its next one."""
        self._session.stop()

    def close(self) -> None:
        """Free what the session holds."""
        self._session.close()
