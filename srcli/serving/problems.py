"""Errors as HTTP tells them: status, and a document of RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from srcli.errors import (
    InputError,
    MemoryExhaustedError,
    MissingPartError,
    Obstacle,
    SrcliError,
    UnknownModelError,
    UsageError,
)

CLOSED_BY_CLIENT = 499
"""Status for the journal: the client went away. Nobody gets it."""

# The first that fits.
_STATUS: tuple[tuple[type[SrcliError], int], ...] = (
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UnknownModelError, HTTPStatus.NOT_FOUND),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (MissingPartError, HTTPStatus.NOT_IMPLEMENTED),
    (MemoryExhaustedError, HTTPStatus.INSUFFICIENT_STORAGE),
)


@dataclass(slots=True, kw_only=True, eq=False)  # not frozen: Python notes the traceback on it
class Problem(Exception):
    """A request that cannot be answered as it was meant."""

    status: int
    problem: str
    """What is wrong, as a command says it."""

    remedy: str
    """What to do next."""

    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(Obstacle(self.problem, self.remedy))

    def as_dict(self) -> dict[str, object]:
        """Return the document."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": int(self.status),
            "detail": str(self),
            "problem": self.problem,
            "remedy": self.remedy,
        }


def problem_of(error: SrcliError) -> Problem:
    """Return the problem for an error of ours."""
    status = next(
        (code for kind, code in _STATUS if isinstance(error, kind)),
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
    return Problem(status=status, problem=error.problem, remedy=error.remedy)


def too_large(problem: str, remedy: str) -> Problem:
    """Return the problem for what is beyond a limit of the service; its connection ends."""
    return Problem(
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        problem=problem,
        remedy=remedy,
        headers={"Connection": "close"},
    )


def busy(problem: str, seconds: int) -> Problem:
    """Return the problem for a service that has no room now."""
    return Problem(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        problem=problem,
        remedy=f"Try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )
