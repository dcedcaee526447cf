"""Every error that srcli raises on purpose, and the exit code that each one means.

    SrcliError                    1  a job failed
      InputError                  1  a file cannot be read or decoded
      OutputError                 1  a result cannot be written
      VerificationError           1  an artifact differs from what it was made from
      UsageError                  2  the request makes no sense, or nothing is safe to do
        OutputExistsError         2  an output is there already
        UnknownModelError         2
        UnsupportedScaleError     2
      MissingPartError            3  this machine or installation lacks something
        WeightsError              3  weights are missing, damaged or of another model
        BackendError              3  a backend is not available or fails to start
          DeclinedError           3  a backend does not run these weights
      MemoryExhaustedError        4  even the smallest tile did not fit

An error has two parts: `problem` names the file or the option and says what is wrong, `remedy` says
what to do next. `str()` of it is both, as users read it.
Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

FAILED = 1
"""Exit code: some of the work failed."""


class SrcliError(Exception):
    """Base of all errors whose message is meant for the user.

    Args:
        problem: What is wrong, beginning with the file or option that it is about; no full stop.
        remedy: What to do next. A sentence of its own begins with a capital and ends with a full
            stop; a clause that ends the problem's sentence begins with a small letter.
    """

    exit_code: ClassVar[int] = FAILED

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _joined(self.problem, self.remedy)

    def about(self, name: str) -> Self:
        """Return the same error with a problem that begins with `name`."""
        return type(self)(f"{name}: {self.problem}", self.remedy)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why something cannot be used here; `str()` is the message for the user."""

    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return _joined(self.problem, self.remedy)


def _joined(problem: str, remedy: str) -> str:
    """Return one message of both: two sentences, or one if the remedy begins in small letters."""
    if not remedy:
        return problem
    return f"{problem}{';' if remedy[0].islower() else '.'} {remedy}"


class InputError(SrcliError):
    """A file cannot be read or decoded."""


class OutputError(SrcliError):
    """A result cannot be written."""


class VerificationError(SrcliError):
    """An artifact does not compute what it was made from."""


class UsageError(SrcliError):
    """The request contradicts itself, or nothing can be done safely."""

    exit_code = 2


class OutputExistsError(UsageError):
    """An output is there already and may not be replaced."""


class UnknownModelError(UsageError):
    """No model has this name."""


class UnsupportedScaleError(UsageError):
    """The model does not have this scale."""


class MissingPartError(SrcliError):
    """This machine or installation lacks something."""

    exit_code = 3


class WeightsError(MissingPartError):
    """Weights are missing, damaged, or belong to another model."""


class BackendError(MissingPartError):
    """A backend is not available here or fails to start."""


class DeclinedError(BackendError):
    """A backend does not run these weights; others may."""


class MemoryExhaustedError(SrcliError):
    """Even the smallest tile did not fit in memory."""

    exit_code = 4


def first_line(error: object) -> str:
    """Return the first useful line of an exception's text, for use in a sentence."""
    lines = [line.strip(" .") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
