"""Lanes: so many pictures are restored at a time, so many wait, and the rest is sent away."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Literal, TypeVar

from srcli.backends.base import StoppedError
from srcli.serving.problems import busy

T = TypeVar("T")
State = Literal["reading", "waiting", "working", "done"]
REMEMBERED = 32  # times of pictures, for the estimate of when there is room again
LONGEST_WAIT = 60  # seconds that a client is told to wait at most


class Ticket:
    """A picture on its way through the service: how far it is, and a switch to stop it."""

    def __init__(self) -> None:
        self.state: State = "reading"
        self.share = 0.0
        """Share of the network's work that is done, 0 to 1."""

        self.waited = 0.0
        """Seconds in the queue."""

        self._stopped = False

    def advance(self, done: int, total: int) -> None:
        """Take in how much is done; raises `StoppedError` if nobody wants the result any more."""
        if self._stopped:
            raise StoppedError
        self.share = done / total if total else 0.0

    def stop(self) -> None:
        """Stop the work at its next report."""
        self._stopped = True


class Lanes:
    """Threads for the networks, and the queue before them.

    Args:
        lanes: Pictures at a time.
        queue: Pictures that wait at most.
    """

    def __init__(self, lanes: int, queue: int) -> None:
        self.lanes, self.queue = lanes, queue
        self.waiting = self.working = 0
        self._pool = ThreadPoolExecutor(lanes, "lane")
        self._free = asyncio.Semaphore(lanes)
        self._times: deque[float] = deque(maxlen=REMEMBERED)

    def check_room(self) -> None:
        """Raise the problem 503 if neither a lane nor a place in the queue is free."""
        if self.waiting >= self.queue and self._free.locked():
            raise busy("too many pictures are waiting", self.seconds_until_room())

    def seconds_until_room(self) -> int:
        """Return when there is probably room again, in whole seconds from 1."""
        mean = sum(self._times) / len(self._times) if self._times else 1.0
        return min(LONGEST_WAIT, max(1, math.ceil(mean * (self.waiting + 1) / self.lanes)))

    async def run(self, work: Callable[[], T], ticket: Ticket) -> T:
        """Do work in a lane, when its turn comes.

        If the caller is cancelled, its place in the queue is given up, and the lane is free again
        when the work has noticed that its ticket was stopped.

        Raises:
            Problem: There is no room.
        """
        self.check_room()
        ticket.state, began = "waiting", monotonic()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        ticket.state, ticket.waited = "working", monotonic() - began
        self.working += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda done: self._left(done, monotonic() - began - ticket.waited))
        result = await asyncio.shield(future)
        ticket.state = "done"
        return result

    def _left(self, done: asyncio.Future[T], seconds: float) -> None:
        """Open the lane for the next one."""
        self.working -= 1
        self._free.release()
        if not done.cancelled() and done.exception() is None:  # asked for: else Python complains
            self._times.append(seconds)

    def close(self) -> None:
        """End the threads when their work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
