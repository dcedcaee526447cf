"""Orders: what a request asks for, read from its query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from http import HTTPStatus
from pathlib import PurePosixPath, PureWindowsPath

from srcli.images import FORMATS, SaveOptions
from srcli.jobs.steps import wanted_before
from srcli.models.registry import DEFAULT_SCALE, get_model
from srcli.models.spec import INPUT_CHOICES, InputChoice, ModelSpec, Task
from srcli.serving.problems import Problem

# Short numbers only: 1e99999999 would be computed for hours.
_FACTOR = re.compile(r"\d{1,4}(\.\d{1,6})?|\d{1,4}/\d{1,4}", re.ASCII)
_ALSO = {"jpg": "jpeg", "tif": "tiff", "auto": None}
_YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
LONGEST_NAME = 200
UNNAMED = "picture"
PARAMETERS = (
    *("model", "scale", "input", "format", "quality", "lossless", "strip", "page"),
    *("denoise", "deblock", "name", "progress"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One picture's order: task, model, enlargement and options."""

    task: Task
    spec: ModelSpec
    factor: Fraction
    input: InputChoice
    before: tuple[Task, ...]
    options: SaveOptions
    page: int | None
    name: str
    """Name of the file at the client, for messages and for the name of the result."""

    progress: str | None
    """Word by which the client asks how far it is."""


def order_of(task: Task, query: Mapping[str, str], models: tuple[str, ...]) -> Order:
    """Read the query of a request.

    Args:
        task: By the path.
        query: Values by names.
        models: Names of those that are offered; the first is the default.

    Raises:
        Problem: A parameter is unknown, or makes no sense.
        UnknownModelError: No model has this name.
    """
    for name in query:
        if name not in PARAMETERS:
            raise _refused(name, "is no parameter", f"Use {', '.join(PARAMETERS)}.")
    spec = get_model(query.get("model", models[0]))
    if spec.name not in models:
        problem = f"{spec.name} is not offered here"
        raise Problem(
            status=HTTPStatus.NOT_FOUND, problem=problem, remedy=f"Choose {', '.join(models)}."
        )
    return Order(
        task=task,
        spec=spec,
        factor=_factor(task, query.get("scale")),
        input=_input(query.get("input", "auto")),
        before=wanted_before(deblock=_flag(query, "deblock"), denoise=_flag(query, "denoise")),
        options=SaveOptions(
            format=_format(query.get("format", "auto")),
            quality=_number(query, "quality", 100),
            lossless=_flag(query, "lossless"),
            strip=_flag(query, "strip"),
        ),
        page=_number(query, "page", 1_000_000),
        name=file_name(query.get("name", "")),
        progress=_word(query.get("progress")),
    )


def file_name(text: str) -> str:
    """Return the last part of a name, without what could harm a terminal, a header or a disk."""
    last = PureWindowsPath(PurePosixPath(text).name).name
    printable = "".join(letter for letter in last if letter.isprintable()).strip(". ")
    stem, dot, suffix = printable.rpartition(".")
    kept = f"{stem[:LONGEST_NAME]}{dot}{suffix[:8]}" if dot else printable[:LONGEST_NAME]
    return kept or UNNAMED


def _refused(name: str, problem: str, remedy: str) -> Problem:
    said = name if name.isprintable() else ascii(name)
    return Problem(status=HTTPStatus.BAD_REQUEST, problem=f"{said[:80]}: {problem}", remedy=remedy)


def _factor(task: Task, text: str | None) -> Fraction:
    if text is None or (task != "upscale" and text == "1"):
        return Fraction(DEFAULT_SCALE if task == "upscale" else 1)
    if task != "upscale":
        raise _refused("scale", f"nothing is enlarged by {task}", "Leave it out.")
    if not _FACTOR.fullmatch(text) or text.endswith("/0") or not (found := Fraction(text)):
        raise _refused("scale", "is no factor above 0", "Write 4 or 2.5.")
    return found


def _input(text: str) -> InputChoice:
    for choice in INPUT_CHOICES:
        if choice == text:
            return choice
    raise _refused("input", "is no kind of picture", f"Choose {', '.join(INPUT_CHOICES)}.")


def _format(text: str) -> str | None:
    name = text.lower()
    if name in _ALSO:
        return _ALSO[name]
    if name not in FORMATS:
        raise _refused("format", "is not written here", f"Choose auto, {', '.join(FORMATS)}.")
    return name


def _number(query: Mapping[str, str], name: str, largest: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= largest:
        raise _refused(name, "is no such number", f"Give a number from 1 to {largest}.")
    return int(text)


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in _YES:
        raise _refused(name, "is neither true nor false", "Write true or false.")
    return _YES[text]


def _word(text: str | None) -> str | None:
    if text is None or re.fullmatch(r"[\w-]{8,64}", text, re.ASCII):
        return text
    raise _refused("progress", "is no word", "Give 8 to 64 letters and digits.")
