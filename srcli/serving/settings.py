"""Settings of a service."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from srcli.loading.restorer import RunOptions

LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a service."""

    host: str = "127.0.0.1"
    """Address that it listens at."""

    port: int = 8000
    """Port; 0 for any that is free."""

    names: tuple[str, ...] = ()
    """Further names that clients may call it by."""

    token: str | None = None
    """Secret that clients must send; None where only this machine can reach it."""

    models: tuple[str, ...]
    """Names of the models that are offered; the first is the default."""

    options: RunOptions
    """Options for running the networks."""

    lanes: int
    """Pictures that are restored at a time."""

    queue: int
    """Pictures that wait for a lane at most."""

    max_bytes: int = 64 << 20
    """Largest file that is taken, in bytes."""

    max_pixels: int = 64_000_000
    """Largest picture, in pixels, of inputs and of outputs."""

    seconds: float = 120.0
    """Longest time from a whole request to its answer."""

    transfer_seconds: float = 30.0
    """Longest time to send a request; and to take each part of an answer."""

    grace: float = 60.0
    """Longest time for what was begun, when the service stops."""

    @property
    def held_bytes(self) -> int:
        """Bytes of files, in and out, that are held at most."""
        return 4 * self.lanes * self.max_bytes

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach it."""
        return is_local(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Functions that a service reports by."""

    line: Callable[[str], None] = lambda line: None
    """Function for a line for people."""

    record: Callable[[dict[str, object]], None] = lambda record: None
    """Function for the facts of each request."""


def is_local(host: str) -> bool:
    """Tell whether an address reaches this machine only."""
    address = ip_address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an address; None if it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
