"""Calls an ASGI application as a server does, without a network."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers and bytes."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@asynccontextmanager
async def running(app):
    """Begin and end an application's life."""
    asked, told = asyncio.Queue(), asyncio.Queue()
    life = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"
    yield
    await asked.put({"type": "lifespan.shutdown"})
    assert (await told.get())["type"] == "lifespan.shutdown.complete"
    await life


async def call(app, method, path, body=b"", headers=None, *, parts=None, gone=None):
    """Send a request, and return the answer.

    Args:
        app: The application.
        method: `GET` or `POST`.
        path: With its query.
        body: Of the request.
        headers: Further ones.
        parts: Yields the body piece by piece instead, in its own time.
        gone: An event: when it is set, the client goes away.
    """
    path, _, query = path.partition("?")
    named = {"host": "localhost", **(headers or {})}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    sent = []

    async def bodies():
        if parts is None:
            yield {"type": "http.request", "body": body}
        else:
            async for part in parts:
                yield {"type": "http.request", "body": part, "more_body": True}
            yield {"type": "http.request", "body": b""}
        if gone is None:
            await asyncio.Event().wait()
        await gone.wait()
        yield {"type": "http.disconnect"}

    messages = bodies()

    async def receive():
        return await anext(messages)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], found, b"".join(message.get("body", b"") for message in rest))
