"""Find the pictures that a user names: files, folders, patterns, and standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srcli.errors import InputError, SrcliError, UsageError
from srcli.images import looks_readable

STDIO = "-"
STDIN_NAME = "standard input"

# Pictures that other programs read. In a folder they are left out, and that is said.
OTHER_PICTURES = frozenset(
    [
        ".3fr",
        ".apng",
        ".arw",
        ".bpg",
        ".cr2",
        ".cr3",
        ".dcm",
        ".dds",
        ".djvu",
        ".dng",
        ".emf",
        ".eps",
        ".erf",
        ".exr",
        ".fits",
        ".flif",
        ".fpx",
        ".gif",
        ".hdr",
        ".heic",
        ".heif",
        ".hif",
        ".icns",
        ".ico",
        ".iff",
        ".j2k",
        ".jng",
        ".jp2",
        ".jpf",
        ".jpx",
        ".jxl",
        ".jxr",
        ".kdc",
        ".mng",
        ".mos",
        ".mpo",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pbm",
        ".pcx",
        ".pdf",
        ".pef",
        ".pfm",
        ".pgm",
        ".pic",
        ".pict",
        ".png8",
        ".pnm",
        ".ppm",
        ".psb",
        ".psd",
        ".qoi",
        ".raf",
        ".ras",
        ".raw",
        ".rw2",
        ".sgi",
        ".srf",
        ".srw",
        ".svg",
        ".svgz",
        ".tga",
        ".wbmp",
        ".webm",
        ".wmf",
        ".x3f",
        ".xbm",
        ".xcf",
        ".xpm",
    ]
)


@dataclass(frozen=True, slots=True)
class Found:
    """An input, and the folder that it was found in, if the user named a folder."""

    source: Path
    folder: Path | None = None
    error: SrcliError | None = None
    """Reason why the input cannot be read; None if nothing is known against it."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file in a folder that is no input, with the reason."""

    path: Path
    reason: str


@dataclass(slots=True)
class Findings:
    """The inputs, in a stable order, and what was left out of folders."""

    inputs: list[Found] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find(inputs: Sequence[str], *, recursive: bool, output: str | None) -> Findings:
    """Find the pictures that are named.

    Args:
        inputs: Files, folders, patterns, or `-` for standard input.
        recursive: Look into the folders of a folder too.
        output: Place of the outputs. What lies in that folder is no input.

    Raises:
        UsageError: An input has no name, or standard input is named twice.
        InputError: There is no picture in any of them.
    """
    if inputs.count(STDIO) > 1:
        raise UsageError("standard input can be read once", "Name - once.")
    own = Path(os.path.realpath(output)) if output and output != STDIO else None
    found = Findings()
    for text in inputs:
        if not text:
            raise UsageError("an input has no name", "Is a variable of your shell empty?")
        _look(text, found, recursive=recursive, own=own)
    if not found.inputs:
        raise _nothing(inputs, found)
    return found


def _look(text: str, found: Findings, *, recursive: bool, own: Path | None) -> None:
    path = as_path(text)
    if text == STDIO:
        found.inputs.append(Found(path))
    elif os.path.isdir(path):  # Path.is_dir() raises where it may not look
        _search(path, found, recursive=recursive, own=own)
    elif not os.path.lexists(path) and glob.has_magic(text):
        # Shells expand patterns; where one did not, nothing matched, or there is no shell.
        found.inputs += (Found(as_file(name)) for name in _matching(text))
    else:
        found.inputs.append(Found(path))


def _nothing(inputs: Sequence[str], found: Findings) -> InputError:
    """Return the error that no picture was found, which says where some might be."""
    named = ", ".join(inputs)
    if any(entry.reason == NOT_RECURSIVE for entry in found.left_out):
        return InputError(f"{named}: no pictures in it, but folders", "Add -r to look into them.")
    return InputError(f"{named}: no pictures in it", "Name others.")


NOT_RECURSIVE = "a folder inside, and -r was not given"
OUTSIDE = "a link that leads out of the folder"
UNREAD = "a format that is not read"
LINKED_FOLDER = "a link to a folder, which is not followed"


def _search(folder: Path, found: Findings, *, recursive: bool, own: Path | None) -> None:
    """Find the files of a folder that have names of pictures.

    Leaves hidden files alone: half-written outputs are hidden.
    """
    inside = os.path.realpath(folder)
    skipped = own if own is not None and Path(inside) in own.parents else None

    def refuse(error: OSError) -> None:
        place = Path(os.fsdecode(error.filename or folder))
        reason = InputError(
            f"{place}: this folder cannot be read ({error.strerror})",
            "Change its permissions, or leave it out.",
        )
        found.inputs.append(Found(place, folder, reason))

    for parent, folders, names in os.walk(folder, onerror=refuse):
        here = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [n for n in here if _enters(Path(parent, n), found, recursive, skipped)]
        for name in sorted(names):
            if not name.startswith("."):
                _sort_out(Path(parent, name), folder, inside, found)


def _enters(path: Path, found: Findings, recursive: bool, skipped: Path | None) -> bool:
    """Tell whether to look into a folder; note it as left out if not."""
    if skipped is not None and Path(os.path.realpath(path)) == skipped:
        return False
    if os.path.islink(path):
        found.left_out.append(LeftOut(path, LINKED_FOLDER))
    elif not recursive:
        found.left_out.append(LeftOut(path, NOT_RECURSIVE))
    else:
        return True
    return False


def _sort_out(path: Path, folder: Path, inside: str, found: Findings) -> None:
    """Take a file of a folder as an input, or note why it is left out."""
    if not looks_readable(path):
        if path.suffix.lower() in OTHER_PICTURES:
            found.left_out.append(LeftOut(path, UNREAD))
    elif os.path.islink(path) and not _leads_inside(path, inside):
        found.left_out.append(LeftOut(path, OUTSIDE))
    else:
        found.inputs.append(Found(path, folder))


def _leads_inside(link: Path, inside: str) -> bool:
    """Tell whether a link leads to something in the folder; a link to itself is an input that
    cannot be read."""
    target = os.path.realpath(link)
    return target == inside or target.startswith(os.path.join(inside, ""))


def _matching(pattern: str) -> list[str]:
    """Expand a pattern; brackets in the name of an existing folder are no pattern."""
    head, rest = "", pattern
    while (cut := re.match(r"[^/\\]*[/\\]+" if os.name == "nt" else r"[^/]*/+", rest)) and (
        not cut[0].strip("/\\") or os.path.isdir(head + cut[0])
    ):
        head, rest = head + cut[0], rest[cut.end() :]
    return sorted(glob.glob(glob.escape(head) + rest, recursive=True))


def read_standard_input() -> bytes:
    """Read all of standard input.

    Raises:
        InputError: It is closed, empty, or cannot be read.
    """
    if sys.stdin is None:
        raise InputError(f"{STDIN_NAME}: is closed", "Redirect a picture into it, or name a file.")
    try:
        content = sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{STDIN_NAME}: cannot be read ({reason})", "Name a file.") from error
    if not content:
        raise InputError(f"{STDIN_NAME}: is empty", "Redirect a picture into it, or name a file.")
    return content


def as_path(text: str) -> Path:
    """Return the path that the user names; only `-` itself is standard input."""
    return Path(text) if text == STDIO else as_file(text)


def as_file(name: str) -> Path:
    """Return a file's path, made absolute if it would otherwise be `-`, standard input."""
    path = Path(name)
    return path.absolute() if str(path) == STDIO else path


def told(left_out: Iterable[LeftOut]) -> Iterator[str]:
    """Return what was left out, a line for each reason: how many, and the first names."""
    by_reason: dict[str, list[str]] = {}
    for entry in left_out:
        by_reason.setdefault(entry.reason, []).append(str(entry.path))
    for reason, names in by_reason.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"left out ({reason}): {', '.join(names[:3])}{more}"
