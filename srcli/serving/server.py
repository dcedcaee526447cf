"""Run a service until it is told to stop, and let it finish what it has begun."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from srcli.errors import FAILED, UsageError
from srcli.serving.application import Service
from srcli.serving.connections import protocol
from srcli.serving.settings import Settings, Tell

MOST_CONNECTIONS = 1000
HEAD_BYTES = 1 << 14  # of a request's head
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn may be absent where types are checked
    """A server that ends orderly at a signal; uvicorn's would end the process by it afterwards."""

    should_exit: bool
    force_exit: bool

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop orderly at the first signal, and at once at the second."""
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def run(settings: Settings, tell: Tell) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises:
        UsageError: The address cannot be listened at.
        SrcliError: The first network cannot be opened.
    """
    listener = listen(settings)
    service = Service(settings, tell)
    config = uvicorn.Config(
        service.application(),
        http=protocol(settings.transfer_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    service.open()  # before anybody is told that it listens
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    secret = f"#token={settings.token}" if settings.token else ""
    tell.line(f"listening at http://{name}:{port}/{secret}")
    server = Server(config)
    asyncio.run(server.serve(sockets=[listener]))
    if service.is_cut or server.force_exit:
        tell.line("stopped before everything was done")
        return FAILED
    tell.line("stopped")
    return 0


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens at the address of a service.

    Raises:
        UsageError: Another program has it, or this machine does not.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise UsageError(
            f"{settings.host}:{settings.port}: cannot be listened at ({error.strerror or error})",
            "Choose another --port or --host.",
        ) from error
