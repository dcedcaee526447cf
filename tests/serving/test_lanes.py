"""Lanes: as many at a time as there are, as many waiting as may, and none that is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from srcli.backends.base import StoppedError
from srcli.serving.lanes import Lanes, Ticket
from srcli.serving.problems import Problem


class Work:
    """Work that lasts until it is let go, and counts how much of it is under way."""

    def __init__(self):
        self.gate = threading.Event()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.gate.wait(20)
        with self._lock:
            self.now -= 1
        return "done"


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_more_are_sent_away():
    async def run():
        lanes, work = Lanes(2, 3), Work()
        tasks = [asyncio.ensure_future(lanes.run(work, Ticket())) for _ in range(5)]
        await until(lambda: work.now == 2 and lanes.waiting == 3)
        with pytest.raises(Problem) as raised:
            await lanes.run(work, Ticket())
        work.gate.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5
        lanes.close()
        return raised.value, work.most, lanes

    problem, most, lanes = asyncio.run(run())
    assert problem.status == 503
    assert int(problem.headers["Retry-After"]) >= 1
    assert most == 2
    assert (lanes.waiting, lanes.working) == (0, 0)


def test_who_goes_gives_up_the_place():
    async def run():
        lanes, work = Lanes(1, 1), Work()
        first = asyncio.ensure_future(lanes.run(work, Ticket()))
        await until(lambda: work.now == 1)
        second = asyncio.ensure_future(lanes.run(work, Ticket()))
        await until(lambda: lanes.waiting == 1)
        second.cancel()
        await until(lambda: lanes.waiting == 0)
        third = asyncio.ensure_future(lanes.run(work, Ticket()))
        first.cancel()  # its thread goes on, and so the lane is not free
        await until(lambda: lanes.waiting == 1)
        assert lanes.working == 1
        work.gate.set()
        assert await third == "done"
        lanes.close()
        return work.most

    assert asyncio.run(run()) == 1


def test_errors_open_the_lane_too():
    async def run():
        lanes = Lanes(1, 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await lanes.run(lambda: 1 / 0, Ticket())
            await asyncio.sleep(0)
        lanes.close()
        return lanes.working

    assert asyncio.run(run()) == 0


def test_a_stopped_ticket_ends_the_work():
    ticket = Ticket()
    ticket.advance(1, 4)
    assert ticket.share == 0.25
    ticket.stop()
    with pytest.raises(StoppedError):
        ticket.advance(2, 4)
