"""What is installed here and what of it works, for `srcli doctor`.

Whatever loads a compiled library is tried in a process of its own (`probes`): a broken one can end
that process, hang it or write to its stdout, and the rest has to be looked at all the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from srcli.health.finding import Check, Finding, guarded
from srcli.health.installed import machine, packages, python, runtimes
from srcli.health.probes import PROBES, probe
from srcli.health.storage import cache, weights

__all__ = ["Finding", "examine"]

# What can be looked up without loading anything.
LOOKED_UP: tuple[Check, ...] = (python, machine, packages, runtimes, cache, weights)


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds and changes nothing.

    Never raises because of what is missing or broken: that is what it reports.
    """
    with ThreadPoolExecutor(len(PROBES)) as pool:
        probed = pool.map(probe, PROBES)
        here = [finding for check in LOOKED_UP for finding in guarded(check)]
        return here + [finding for findings in probed for finding in findings]
