"""Read the bytes of a request within limits: of each, of all together, and of seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request

from srcli.serving.guards import Receive, Scope, Send
from srcli.serving.problems import Problem, busy, too_large
from srcli.serving.settings import Settings

PART = 1 << 18  # bytes of an answer that are sent at a time
SMALL = 1 << 16  # bytes of a body that is read before it is refused, so that the client hears why


class Held:
    """The bytes that a service holds for its clients, in and out.

    Args:
        largest: Bytes at most.
    """

    def __init__(self, largest: int) -> None:
        self.largest, self.bytes = largest, 0


class Account:
    """The bytes that are held for one request."""

    def __init__(self, held: Held) -> None:
        self._held, self._bytes = held, 0

    def add(self, count: int) -> None:
        """Count further bytes.

        Raises:
            Problem: There are too many of all clients together.
        """
        if self._held.bytes + count > self._held.largest:
            raise busy("too many bytes are under way", 5)
        self._held.bytes += count
        self._bytes += count

    def change(self, count: int) -> None:
        """Count so many bytes in place of all before; what was made is not thrown away."""
        self._held.bytes += count - self._bytes
        self._bytes = count

    def free(self) -> None:
        """Forget all bytes."""
        self.change(0)


async def read_body(request: Request, settings: Settings, account: Account) -> bytes:
    """Return the bytes of a request.

    Args:
        request: Its body has not been read.
        settings: Limits.
        account: Gets to know the bytes as they arrive.

    Raises:
        Problem: There are too many, none, or they arrive too slowly.
        ClientDisconnect: The client went away.
    """
    _check_head(request, settings)
    try:
        async with asyncio.timeout(settings.transfer_seconds):
            return await _read(request, settings.max_bytes, account)
    except TimeoutError:
        raise Problem(
            status=HTTPStatus.REQUEST_TIMEOUT,
            problem=f"the picture did not arrive within {settings.transfer_seconds:g} s",
            remedy="Send it over a faster line, or a smaller one.",
            headers={"Connection": "close"},
        ) from None


def _check_head(request: Request, settings: Settings) -> None:
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Problem(
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            problem="a form was sent, and the body should be the file itself",
            remedy="Send its bytes, as `curl --data-binary @photo.png` does.",
            headers={"Connection": "close"},
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_bytes:
        raise _too_many(settings.max_bytes)


def stated_length(request: Request) -> int:
    """Return the bytes that a request says it has; 0 if it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_many(largest: int) -> Problem:
    return too_large(
        f"the file has more than {largest >> 20} MiB", "Send a smaller one, or raise --max-bytes."
    )


async def _read(request: Request, largest: int, account: Account) -> bytes:
    parts: list[bytes] = []
    count = 0
    async for part in request.stream():
        count += len(part)
        if count > largest:
            raise _too_many(largest)
        account.add(len(part))
        parts.append(part)
    if not count:
        raise Problem(
            status=HTTPStatus.BAD_REQUEST,
            problem="the request has no picture in it",
            remedy="Send the bytes of a file as the body of the request.",
        )
    return b"".join(parts)


class Parts:
    """An answer that is sent piece by piece: each waits until the client has taken those before.

    Args:
        content: Of the answer.
        headers: Of the answer.
        account: Counts the bytes until all are sent.
    """

    def __init__(self, content: bytes, headers: Mapping[str, str], account: Account) -> None:
        self._content, self._headers, self._account = content, headers, account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; ASGI."""
        headers = [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in self._headers.items()
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for start in range(0, len(self._content), PART):
                part, more = self._content[start : start + PART], start + PART < len(self._content)
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            self._account.free()
