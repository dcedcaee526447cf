"""Entries of the cache, checked at every reading, and made anew if they are damaged.

Beside each entry lies its seal, `<name>.sha256`: a checksum of the entry's name and content. The
name says model, scale, weights and form, so that neither a flipped bit nor another model's file
under this name is taken for the entry.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from srcli.errors import OutputError
from srcli.system.files import atomic_path, open_regular, sweep

Note = Callable[[str], None]

SEAL = ".sha256"
_LONGEST_SEAL = 128  # bytes
_BLOCK = 1 << 20

# What this process could not write into the cache, and has elsewhere until it ends.
_elsewhere: dict[Path, Path] = {}


def cache_folder() -> Path:
    """Return where entries are kept: `SRCLI_CACHE`, or the platform's place for caches."""
    chosen = os.environ.get("SRCLI_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("srcli", appauthor=False)


def entry(path: Path, make: Callable[[Path], object], *, label: str, note: Note) -> Path:
    """Return a file of the cache: the one that is there if it is whole, else one made now.

    Args:
        path: Its name in the cache.
        make: Writes it under the name that it is given.
        label: Name of the content, for people: `lapar-c x4`.
        note: Called with messages: it takes a while; the cache was damaged.

    Returns:
        Where it is: `path`, or where the cache cannot be written a place that lasts as long as
        this process.

    Raises:
        OutputError: It can be written nowhere.
        SrcliError: All errors that `make` raises.
    """
    kept = _elsewhere.get(path, path)
    if is_whole(kept):
        return kept
    if os.path.lexists(path):
        note(f"{path}: is damaged, so it is made anew")
        remove(path)
    note(f"preparing {label}; this happens once")
    try:
        _make(path, make)
        return path
    except OutputError as error:
        return _make_elsewhere(path, make, error.problem, note)


def _make(path: Path, make: Callable[[Path], object]) -> None:
    sweep([path.parent])
    make(path)
    seal(path)


def _make_elsewhere(path: Path, make: Callable[[Path], object], reason: str, note: Note) -> Path:
    advice = "make it writable, free some space, or name another folder in SRCLI_CACHE"
    try:
        place = _temporary_folder() / path.name
        _make(place, make)
    except OSError as error:
        raise OutputError(f"{reason}", f"It is srcli's cache: {advice}.") from error
    note(f"{reason}. This was prepared for this run only. It is srcli's cache: {advice}.")
    _elsewhere[path] = place
    return place


@cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="srcli-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def keep(path: Path, text: str) -> None:
    """Write a small entry and its seal.

    Args:
        path: Its name in the cache.
        text: Its whole content.

    Raises:
        OutputError: The cache cannot be written.
    """
    if path.is_dir() and not path.is_symlink():
        remove(path)
    with atomic_path(path) as partial:
        partial.write_text(text, "utf-8")
    seal(path)


def kept(path: Path) -> str | None:
    """Return the text of a small entry; None if there is none, or none that is whole."""
    try:
        return path.read_text("utf-8") if is_whole(path) else None
    except (OSError, ValueError):
        return None


def is_whole(path: Path) -> bool:
    """Tell whether an entry is there, with the content that was sealed under this name."""
    try:
        with open_regular(_seal_of(path)) as file:
            sealed = file.read(_LONGEST_SEAL).decode("ascii")
        size, _, digest = sealed.strip().partition(" ")
        with open_regular(path) as file:
            same_size = os.fstat(file.fileno()).st_size == int(size)
            return same_size and _digest(path.name, file) == digest
    except (OSError, ValueError):
        return False


def seal(path: Path) -> None:
    """Seal an entry: record the checksum that shows later that it is whole.

    Raises:
        OutputError: The seal cannot be written.
    """
    try:
        with open_regular(path) as file:
            content = f"{os.fstat(file.fileno()).st_size} {_digest(path.name, file)}\n"
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read back ({error.strerror})", "Try again."
        ) from error
    if _seal_of(path).is_dir():
        remove(_seal_of(path))
    with atomic_path(_seal_of(path)) as partial:
        partial.write_text(content, "ascii")


def flawed(folder: Path, maximum: int) -> Iterator[Path]:
    """Return the entries below a folder that are not whole.

    Args:
        folder: The cache.
        maximum: Bytes that may be read; entries beyond that are not looked at.
    """
    left = maximum
    for sealed in sorted(folder.rglob(f"*{SEAL}")):
        path = sealed.with_name(sealed.name.removesuffix(SEAL))
        if not os.path.lexists(path):
            continue
        size = path.lstat().st_size
        if size > left:
            continue
        left -= size
        if not is_whole(path):
            yield path


def _digest(name: str, file: io.BufferedReader) -> str:
    digest = hashlib.sha256(name.encode() + b"\0")
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + SEAL)


def remove(path: Path) -> None:
    """Remove a file, a link, a pipe or a folder. What cannot be removed stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
