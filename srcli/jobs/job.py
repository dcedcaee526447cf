"""One picture to restore, and what the user wishes for all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from srcli.errors import SrcliError
from srcli.images import MAX_PIXELS, Header, SaveOptions
from srcli.jobs.finding import STDIN_NAME, STDIO
from srcli.jobs.shards import Shard
from srcli.jobs.sizes import Grid, Size, SizeRequest
from srcli.jobs.steps import Rules, Step
from srcli.system import stores

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to restore."""

    source: Path
    """The input; `-` for standard input."""

    target: Path
    """The output; `-` for standard output."""

    root: Path
    """The folder that all outputs of this input's kind lie in or below, in full."""

    options: SaveOptions = field(default_factory=SaveOptions)
    source_url: str | None = None
    """URL of the input, if it lies in an object store; `source` is then its name only."""

    target_url: str | None = None
    """URL of the output, if it goes to an object store; `target` is then where it is made."""

    content: bytes | None = None
    """Content of standard input, if that is the input."""

    held: bytes | None = None
    """Content of the input while it is worked on, if it is small or comes from a store."""

    page: int | None = None
    """The frame or page of a file that has several, counted from 1."""

    header: Header | None = None
    size: Size | None = None
    steps: tuple[Step, ...] = ()
    """The networks that the picture goes through, one after the other."""

    steps_if_jpeg: tuple[Step, ...] = ()
    """Those that it goes through instead if its pixels have traces of JPEG; empty if these are not
    looked for."""

    copied: bool = False
    """True if the output is the input's own bytes: nothing is to be done to it."""

    notes: tuple[str, ...] = ()
    error: SrcliError | None = None
    """Reason why the picture cannot be done, if that is known before work."""

    @property
    def exists(self) -> bool:
        """True if the output's name is taken already, even by a link that leads nowhere.

        Raises:
            InputError: The object store does not answer.
        """
        if self.target_url is not None:
            return stores.size(self.target_url) is not None
        has_name = not self.to_stdout and self.target != self.source
        return has_name and os.path.lexists(self.target)

    @property
    def to_stdout(self) -> bool:
        """True if the output goes to standard output."""
        return str(self.target) == STDIO

    @property
    def is_file_to_file(self) -> bool:
        """True if input and output are files of this machine."""
        stored = self.source_url is not None or self.target_url is not None
        return self.content is None and not stored

    @property
    def data(self) -> Path | bytes:
        """The file to be read, or all its bytes."""
        if self.held is not None:
            return self.held
        return self.source if self.content is None else self.content

    @property
    def name(self) -> str:
        """Name of the input, for people."""
        if self.source_url is not None:
            return self.source_url
        return STDIN_NAME if self.content is not None else str(self.source)

    @property
    def output(self) -> str:
        """Name of the output, for people."""
        return self.target_url or str(self.target)

    def notes_on(self, reading: Sequence[str]) -> tuple[str, ...]:
        """Return all notes on the output; those on reading are not true of a copy."""
        return self.notes if self.copied else (*self.notes, *reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The user's options for all outputs."""

    output: str | None
    """A file, a folder (it exists, or ends in a slash), `-`, a template, or None for beside the
    input."""

    suffix: str
    """End of output names, before the suffix of the format: `_x4`."""

    size: SizeRequest
    scales: tuple[int, ...]
    """Scales of the network; for a network of any scale, at least the largest."""

    grid: Grid | None = None
    """Grid of scales if the network takes any scale; else None."""

    rules: Rules = field(default_factory=Rules)
    """Rules for the networks that each picture goes through."""

    options: SaveOptions
    recursive: bool = False
    page: int | None = None
    max_pixels: int = MAX_PIXELS
    facts: Mapping[str, str] = field(default_factory=dict)
    """Values of `{model}`, `{scale}` and `{task}` in a template."""

    shard: Shard | None = None
    """The part of the pictures to do; None for all."""

    own_outputs: bool = False
    """Leave out inputs that are outputs of other inputs: `*.png` finds those of an earlier run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a job."""

    job: Job
    status: Status
    error: SrcliError | None = None
    seconds: float = 0.0
    """Seconds in the network."""

    notes: tuple[str, ...] = ()
