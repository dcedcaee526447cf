"""The order in which `auto` tries backends, where it was measured on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from srcli.models.spec import ModelSpec
from srcli.system import cache
from srcli.system.machine import machine_key

Order = tuple[str, ...]
"""Names of backends, the fastest first."""

_FILE = "backends-{}.json"


def measured_order(spec: ModelSpec) -> Order:
    """Return the backends measured with a model of the same family, the fastest first.

    Empty if none were measured on this machine.
    """
    return measured_orders().get(spec.family, ())


def measured_orders() -> dict[str, Order]:
    """Return what was measured on this machine, by family; what is damaged counts as missing."""
    if not any(cache.cache_folder().glob(_FILE.format("*"))):
        return {}  # as nearly always; asking the machine for its name takes longer
    try:
        table = json.loads(cache.kept(orders_file()) or "{}")
        return {str(family): tuple(map(str, names)) for family, names in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def keep_orders(orders: Mapping[str, Sequence[str]]) -> None:
    """Keep measured orders, by family; those of other families stay.

    Raises:
        OutputError: The cache cannot be written.
    """
    cache.keep(orders_file(), json.dumps({**measured_orders(), **orders}, indent=1))


def orders_file() -> Path:
    """Return the file in the cache with this machine's orders."""
    return cache.cache_folder() / _FILE.format(machine_key())
