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

A message names the file or the option, says what is wrong, and ends with what to do next.
Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class SrcliError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code: ClassVar[int] = 1


class InputError(SrcliError):
    """A file cannot be read or decoded."""


class OutputError(SrcliError):
    """A result cannot be written."""


class VerificationError(SrcliError):
    """An artifact does not compute what it was made from."""


class UsageError(SrcliError):
    """The request makes no sense, or there is nothing safe to do."""

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
    """The first line of an exception's text that says something, for use in a sentence."""
    lines = [line.strip(" .") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
