"""Connections that end in time, if a client is too slow to ask or to take its answer."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, from its first byte or from the connection


def protocol(transfer_seconds: float, head_seconds: float = HEAD_SECONDS) -> type[asyncio.Protocol]:
    """Return a class of HTTP connections with limits.

    Args:
        transfer_seconds: Longest time until a client takes the next part of an answer.
        head_seconds: Longest time for the head of a request.
    """

    class Connection(H11Protocol):  # type: ignore[misc]  # uvicorn may be absent where types are checked
        """An HTTP connection with limits."""

        _head: asyncio.TimerHandle | None = None
        _taking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop(self._head)
            self._stop(self._taking)
            super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._head is None:
                self._await_head()
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:  # the head of a request is complete
                self._stop(self._head)
                self._head = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stop(self._taking)
            self._taking = self.loop.call_later(transfer_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop(self._taking)
            super().resume_writing()

        def _await_head(self) -> None:
            self._head = self.loop.call_later(head_seconds, self._end)

        def _end(self) -> None:
            if not self.transport.is_closing():
                self.transport.abort()

        @staticmethod
        def _stop(timer: asyncio.TimerHandle | None) -> None:
            if timer is not None:
                timer.cancel()

    return Connection
