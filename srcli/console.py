"""Output for users; the only file that imports rich, and only when something is shown."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, TextIO

from srcli.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

Advance = Callable[[int, int], None]
UNKNOWN = "-:--:--"  # how long the rest takes, before anything is done
BESIDE = 56  # columns that a bar takes with what stands to the right of it
EVERY = 10.0  # seconds between lines about progress where there is no terminal


class Level(Enum):
    """Levels of messages."""

    QUIET = 0
    """Errors only."""
    NORMAL = 1
    VERBOSE = 2


_level = Level.NORMAL


def begin() -> None:
    """Forget what an earlier command in this process has chosen."""
    global _level, _data_on_stdout, _lost_output
    _level, _data_on_stdout, _lost_output = Level.NORMAL, False, False


def set_level(level: Level) -> None:
    """Set the level of messages from now on."""
    global _level
    _level = level


def is_quiet() -> bool:
    """Tell whether the user wants errors only."""
    return _level is Level.QUIET


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Names of files and packages may hold what looks like markup: `pyvips[binary]`.
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def note(message: str) -> None:
    """Write one line for people to stderr."""
    if _level is not Level.QUIET:
        _to_stderr(message)


def detail(message: str) -> None:
    """Write one line to stderr if the user wants details (`-v`)."""
    if _level is Level.VERBOSE:
        _to_stderr(message)


def error(message: str) -> None:
    """Write one line to stderr that starts with `error:`."""
    _to_stderr(f"error: {message}", always=True)


def _to_stderr(message: str, *, always: bool = False) -> None:
    """Write a line to stderr, unless it is closed or data goes there.

    `print` would take stdout if stderr was closed (`2>&-`). An error is told `always`: where it
    ends the work there is no data.
    """
    if sys.stderr is None or (_data_on_stdout and not always and _is_one_file()):
        return
    with suppress(OSError, ValueError):  # a full disk or a reader that has gone: nobody to tell
        _write(sys.stderr, shown(message))


_data_on_stdout = False


def expect_data_on_stdout() -> None:
    """Keep messages out of stdout's file or pipe: a shell may have joined the two (`2>&1`)."""
    global _data_on_stdout
    _data_on_stdout = True


def _is_one_file() -> bool:
    try:
        out, err = os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.path.samestat(out, err) and not stat.S_ISCHR(out.st_mode)


def result(line: str) -> None:
    """Write one line of the result to stdout."""
    if sys.stdout is not None:
        _write(sys.stdout, line)


_one_line = threading.Lock()


def _write(stream: TextIO, line: str) -> None:
    """Write a line at once, so that lines of several threads are not mixed."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with _one_line:
        try:
            stream.write(f"{line}\n")
            stream.flush()
        except UnicodeEncodeError:  # a name that is no text, where `cli.main` has not seen to it
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()


def report(line: str) -> None:
    """Write one line about finished work to stdout; work goes on if its reader has gone."""
    if _level is not Level.QUIET:
        _result_or_go_on(for_terminal(line))


_lost_output = False


def lost_output() -> bool:
    """Tell whether lines of results were lost (a full disk) while the work went on."""
    return _lost_output


def _result_or_go_on(line: str) -> None:
    """Write a line; after a failure write no more, so that the work itself goes on."""
    global _lost_output
    try:
        result(line)
    except BrokenPipeError:
        give_up_stdout()
    except OSError as problem:
        give_up_stdout()
        _lost_output = True
        error(f"standard output: cannot be written ({problem.strerror}). The work goes on.")


def give_up_stdout() -> None:
    """Discard all that is written to stdout from now on: its reader has gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_json(value: object) -> None:
    """Print the whole result to stdout as JSON."""
    check_stdout()
    result(_encodable(value, indent=2))


def check_stdout() -> None:
    """Raise `OutputError` if standard output, where the result is to go, is closed."""
    if sys.stdout is None:
        raise OutputError(
            "standard output: is closed, and the result was to go there", "Redirect it."
        )


def print_event(value: Mapping[str, object]) -> None:
    """Write one JSON object as a line to stdout; work goes on if its reader has gone."""
    _result_or_go_on(_encodable(value, indent=None))


def _encodable(value: object, indent: int | None) -> str:
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a name that is no text, or a terminal of few letters
        text = json.dumps(json.loads(text), indent=indent)
    return text


def _finite(value: object) -> object:
    """Replace infinity, the PSNR of equal pictures, by null: JSON has no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table to stdout: the first column to the left, numbers to the right."""
    console = _console(stderr=False)
    laid_out = _table(columns, rows, title)
    if console.is_terminal:
        console.print(laid_out)
        return
    console.width = 1000  # a pipe has no width: let no line be wrapped or shortened
    with console.capture() as captured:
        console.print(laid_out)
    for line in captured.get().splitlines():
        result(line.rstrip())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    from rich import box
    from rich.table import Table

    laid_out = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = index > 0 and all(_is_number(row[index]) for row in rows)
        # In a narrow terminal a word goes on in the next line: a number that is cut is wrong.
        laid_out.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        laid_out.add_row(*row)
    return laid_out


def _is_number(text: str) -> bool:
    return not text or text[0] in "0123456789-+∞–"


class Bar:
    """Progress over pieces of work: a bar, or without a terminal a line now and then."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = None
        if progress is not None:
            self._task = progress.add_task("", total=None, left=UNKNOWN)
        self._began = self._told = time.monotonic()

    def start(self, description: str) -> Advance:
        """Begin a piece of work; return a function to call with (done, total)."""
        self._began = self._told = time.monotonic()
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, description=description, total=1)
        return lambda done, total: self.show(description, done, total)

    def show(self, description: str, done: int, total: int) -> None:
        """Show what is going on and how much of the whole is done; a total of 0 is not known."""
        now = time.monotonic()
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task,
                description=shortened(shown(description), self._progress.console.width - BESIDE),
                completed=done,
                total=total or None,
                left=_left(done, total, now - self._began) or UNKNOWN,
            )
        elif now - self._told >= EVERY:
            self._told = now
            said = f": {_how_far(done, total, now - self._began)}" if total else ""
            note(f"{shown(description)}{said}")


def _how_far(done: int, total: int, seconds: float) -> str:
    """Say what share is done, and about how long the rest takes."""
    said = f"{done / total if total else 0.0:.0%} done"
    left = _left(done, total, seconds)
    return f"{said}, about {left} left" if left else said


def _left(done: int, total: int, seconds: float) -> str:
    """Return an estimate of the time left, by all work so far; empty if nothing was done."""
    if not done or not total:
        return ""
    return str(timedelta(seconds=round(seconds * (total - done) / done)))


def shortened(text: str, maximum: int) -> str:
    """Shorten a text to so many letters: keep the number at its start and the end of its path."""
    maximum = max(maximum, 20)
    return text if len(text) <= maximum else f"{text[:6]}…{text[7 - maximum :]}"


def shown(text: str) -> str:
    """Return a text on one line, with characters that control a terminal as codes."""
    return text if text.isprintable() else "".join(map(_shown_letter, text))


def _shown_letter(letter: str) -> str:
    # Names of screenshots hold narrow spaces, those of emojis joiners: both do no harm.
    harmless = letter == "\N{ZERO WIDTH JOINER}" or unicodedata.category(letter) == "Zs"
    return letter if harmless or letter.isprintable() else ascii(letter)[1:-1]


def for_terminal(line: str) -> str:
    """Return a line of the result: for a terminal as `shown`, else unchanged."""
    return shown(line) if _is_terminal(sys.stdout) else line


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal; a stream that a shell has closed (`>&-`) is none."""
    return stream is not None and stream.isatty()


@contextmanager
def progress() -> Iterator[Bar]:
    """Show progress on stderr while the block runs, unless the user wants no messages."""
    if _level is Level.QUIET or not _is_terminal(sys.stderr):
        yield Bar(None)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", style="progress.remaining"),
        console=_console(stderr=True),
        transient=True,
        # On a terminal, lines are printed above the bar. A result that goes elsewhere must not be
        # drawn into it.
        redirect_stdout=_is_terminal(sys.stdout),
    ) as bar:
        yield Bar(bar)
