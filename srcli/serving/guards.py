"""Guards before everything: who may ask, by which name, from which page; and what browsers may do.

A page of another site that is open in the same browser must not use the service: it could send
requests to this machine, or turn its own name to this machine's address.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from urllib.parse import urlsplit

from srcli.serving.problems import Problem
from srcli.serving.settings import LOCAL, Settings, ip_address

Message = MutableMapping[str, object]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PUBLIC = ("/", "/healthz", "/readyz", "/openapi.json")
"""Paths that need no token: they tell nothing."""

POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip
SAFE_HEADERS: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class Guard:
    """An application that lets through to another only what is allowed.

    Args:
        app: The other.
        settings: Names and token.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and answer it; ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*headers_of(message), *SAFE_HEADERS]}
            await send(message)

        try:
            check(scope, self._settings)
        except Problem as problem:
            await answer(problem, safely)
        else:
            await self._app(scope, receive, safely)


def check(scope: Scope, settings: Settings) -> None:
    """Raise the problem if a request may not be answered.

    Raises:
        Problem: 421, 403 or 401.
    """
    headers = {name.decode("latin-1"): value for name, value in headers_of(scope)}
    host = headers.get("host", b"").decode("latin-1")
    if not _is_ours(_name(host), settings):
        raise Problem(
            status=HTTPStatus.MISDIRECTED_REQUEST,
            problem="the name in Host is not one of this service",
            remedy="Use its address, or start it with --allow-host NAME.",
        )
    _check_origin(headers, host)
    path = str(scope["path"])
    if settings.token is not None and path not in PUBLIC and not path.startswith("/static/"):
        _check_token(headers.get("authorization", b""), settings.token)


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_ours(name: str, settings: Settings) -> bool:
    """Tell whether a name leads here by right: no other page's name is turned to this address."""
    if name in LOCAL or name in (other.lower() for other in settings.names):
        return True
    return not settings.is_local and ip_address(name) is not None


def _check_origin(headers: dict[str, bytes], host: str) -> None:
    """Refuse requests that pages of other sites make; programs send no Origin."""
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", b"none")
    same = origin is None or urlsplit(origin.decode("latin-1")).netloc == host
    # A link from elsewhere may lead to the page itself.
    visits = headers.get("sec-fetch-mode") == b"navigate" and origin is None
    if not same or (site in (b"cross-site", b"same-site") and not visits):
        raise Problem(
            status=HTTPStatus.FORBIDDEN,
            problem="the request comes from a page of another site",
            remedy="Use the service's own page, or a program.",
        )


def _check_token(sent: bytes, token: str) -> None:
    if not hmac.compare_digest(sent, b"Bearer " + token.encode()):
        raise Problem(
            status=HTTPStatus.UNAUTHORIZED,
            problem="the token is missing or wrong",
            remedy="Send `Authorization: Bearer TOKEN`, or open the page by the address with the "
            "token that the service printed.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def headers_of(message: Message) -> Headers:
    """Return the headers of a message."""
    found = message.get("headers", [])
    assert isinstance(found, list), "ASGI says so"
    return found


async def answer(problem: Problem, send: Send) -> None:
    """Send a problem as the whole answer."""
    content = json.dumps(problem.as_dict(), ensure_ascii=False).encode()
    headers = {
        "content-type": "application/problem+json",
        "content-length": str(len(content)),
        "cache-control": "no-store",
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    await send(
        {
            "type": "http.response.start",
            "status": int(problem.status),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": content})
