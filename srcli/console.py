"""What users see. The only file that imports rich, and only when something is shown."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

Advance = Callable[[int, int], None]


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Names of files and packages may hold what looks like markup: `pyvips[binary]`.
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def note(message: str) -> None:
    """One line for people, on stderr."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201  nothing to lay out


def error(message: str) -> None:
    """One line on stderr that starts with `error:`."""
    note(f"error: {message}")


def result(line: str) -> None:
    """One line of the result, on stdout."""
    print(line, flush=True)  # noqa: T201


def print_json(value: Any) -> None:
    """The whole result as JSON, on stdout."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a name that is no text, or a terminal of few letters
        text = json.dumps(json.loads(text), indent=2)
    result(text)


def _finite(value: Any) -> Any:
    """JSON has no infinity, which is the PSNR of equal pictures: null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout: the first column to the left, numbers to the right."""
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
        laid_out.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        laid_out.add_row(*row)
    return laid_out


def _is_number(text: str) -> bool:
    return not text or text[0] in "0123456789-+∞–"


class Bar:
    """A progress bar over one piece of work after the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def start(self, description: str) -> Advance:
        """Begin a piece of work; returns a function to be called with (done, total)."""
        self._progress.reset(self._task, description=description, total=1)
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def show(self, description: str, done: int, total: int) -> None:
        """Say what is going on and how much of the whole is done."""
        self._progress.update(self._task, description=description, completed=done, total=total)


def _is_terminal(stream: TextIO | None) -> bool:
    """Also where a shell has closed it (`>&-`)."""
    return stream is not None and stream.isatty()


@contextmanager
def progress() -> Iterator[Bar]:
    """A progress bar on stderr while the block runs; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns,
        Remaining(),
        console=_console(stderr=True),
        transient=True,
        # On a terminal, lines are printed above the bar. A result that goes elsewhere must not be
        # drawn into it.
        redirect_stdout=_is_terminal(sys.stdout),
        disable=not _is_terminal(sys.stderr),
    ) as shown:
        yield Bar(shown)
