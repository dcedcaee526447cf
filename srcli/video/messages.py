"""Say how FFmpeg prepares a file, and listen to what its libraries say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

INFO, ERROR = 32, 16
"""FFmpeg's levels: all that is said up to a level is heard."""


@contextmanager
def heard(level: int) -> Iterator[list[str]]:
    """Collect the lines that the libraries write within the block, up to a level.

    Only while no decoder runs in threads: their lines would wait for Python, and Python for them.
    """
    from av import logging

    before, lines = logging.get_level(), list[str]()
    logging.set_level(level)
    try:
        with logging.Capture(local=False) as found:
            yield lines
    finally:
        logging.set_level(before)
        lines += [text.strip() for _, _, text in found]


def prepared(path: Path | str, options: str, *, first: str = "") -> str:
    """Return the command that makes another file of one, in backquotes; `first` precedes -i."""
    return f"`ffmpeg {first}-i {quote(str(path))} {options} prepared.mkv`"
