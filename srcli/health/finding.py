"""What a check has found, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from srcli.errors import SrcliError, first_line

Status = Literal["ok", "note", "problem"]

REINSTALL = "Reinstall srcli: `pip install --force-reinstall srcli`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: Status
    """A `note` is worth knowing; a `problem` keeps something from working that should."""

    found: str
    remedy: str = ""
    """The one thing to do about it, if there is any."""


Check = Callable[[], Iterator[Finding]]
"""Its name is the subject of the finding if it fails itself."""


def guarded(check: Check) -> Iterator[Finding]:
    """A check that ends with a problem instead of an exception."""
    try:
        yield from check()
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        found = f"cannot be checked ({what})"
        yield Finding(subject=check.__name__, status="problem", found=found, remedy=REINSTALL)


def told(subject: str, status: Status, error: SrcliError) -> Finding:
    """A finding from an error of our own."""
    return Finding(subject=subject, status=status, found=error.problem, remedy=error.remedy)


def count(number: int, what: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """A number of bytes: `3.0 MiB`; from 1 GiB on, `1.5 GiB`."""
    return f"{size / 2**20:,.1f} MiB" if size < 1 << 30 else f"{size / 2**30:,.1f} GiB"
