"""Checks of the installation and the machine, for `srcli doctor`.

Every check that loads a compiled library runs in a process of its own (`probes`): a broken library
can end the process, hang it or write to its stdout, and the other checks must still run.
"""

from __future__ import annotations

from srcli.health.finding import Finding, guarded

__all__ = ["Finding", "examine"]


def examine() -> list[Finding]:
    """Look at everything; takes about a second and changes nothing.

    Never raises because of what is missing or broken: that is what it reports.
    """
    # Here and not above: the processes of the probes, which import this package too, need less.
    from concurrent.futures import ThreadPoolExecutor

    from srcli.health.installed import codecs, machine, packages, python, runtimes
    from srcli.health.probes import PROBES, probe
    from srcli.health.storage import cache, weights

    # What can be looked up without loading anything.
    looked_up = (python, machine, packages, runtimes, codecs, cache, weights)
    with ThreadPoolExecutor(len(PROBES)) as pool:
        probed = pool.map(probe, PROBES)
        here = [finding for check in looked_up for finding in guarded(check)]
        return here + [finding for findings in probed for finding in findings]
