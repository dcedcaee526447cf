"""Findings of checks, and helpers for their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from srcli.errors import SrcliError, first_line
from srcli.system.installation import reinstall

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding of a check about one subject."""

    subject: str
    status: Status
    """A `note` is worth knowing; a `problem` keeps something from working that should."""

    found: str
    remedy: str = ""
    """The thing to do about it; empty if there is none."""


Check = Callable[[], Iterator[Finding]]
"""A function that yields findings; if it fails, its name is the subject of the finding."""


def guarded(check: Check) -> Iterator[Finding]:
    """Return a check that ends with a problem instead of an exception."""
    try:
        yield from check()
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        found = f"cannot be checked ({what})"
        yield Finding(subject=check.__name__, status="problem", found=found, remedy=reinstall())


def told(subject: str, status: Status, error: SrcliError) -> Finding:
    """Return a finding from an error of our own."""
    return Finding(subject=subject, status=status, found=error.problem, remedy=error.remedy)


def count(number: int, what: str) -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """Return a number of bytes as text: `3.0 MiB`; from 1 GiB on, `1.5 GiB`."""
    return f"{size / 2**20:,.1f} MiB" if size < 1 << 30 else f"{size / 2**30:,.1f} GiB"
