"""The journal: each request is counted and reported, and a fault of ours is answered by 500."""

from __future__ import annotations

import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic

from srcli.serving.figures import Figures
from srcli.serving.guards import App, Message, Receive, Scope, Send, answer
from srcli.serving.problems import CLOSED_BY_CLIENT, Problem
from srcli.serving.settings import Tell

FACTS = "srcli.facts"
"""Place in a request's scope for what its handler knows: route, model, seconds."""


def facts_of(scope: MutableMapping[str, object]) -> dict[str, object]:
    """Return the place for facts about a request."""
    found = scope.setdefault(FACTS, {})
    assert isinstance(found, dict), "only the journal puts something there"
    return found


class Journal:
    """An application that reports what another answers.

    Args:
        app: The other.
        figures: Count it.
        tell: Reports it.
    """

    def __init__(self, app: App, figures: Figures, tell: Tell) -> None:
        self._app, self._figures, self._tell = app, figures, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = monotonic(), 0, 0

        async def noted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
            body = message.get("body", b"")
            sent += len(body) if isinstance(body, bytes) else 0
            await send(message)

        facts = facts_of(scope)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            # A fault of ours: it goes into the journal, and says nothing to the client.
            facts["fault"] = traceback.format_exc()
            if not status:
                await answer(FAULT, noted)
            elif status != FAULT.status:  # the server has to end the answer that was begun
                raise
        finally:
            self._report(scope, status or CLOSED_BY_CLIENT, sent, monotonic() - began)

    def _report(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        facts = facts_of(scope)
        route = str(facts.get("route", "other"))
        status = CLOSED_BY_CLIENT if facts.get("gone") else status
        self._figures.count(route, status, seconds)
        self._tell.record(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "bytes_sent": sent,
                **{name: value for name, value in facts.items() if name not in ("route", "gone")},
            }
        )


FAULT = Problem(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    problem="a fault in the service",
    remedy="Its journal has the details; please report them.",
)
