"""Checks of the files of srcli: its cache, and the weights that it ships."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from srcli.health.finding import Finding, count, megabytes
from srcli.system.installation import reinstall

_CHECKED = 256 << 20  # bytes of the cache that are read: a fraction of a second
_LITTLE_SPACE = 1 << 30  # bytes; a TensorRT engine and its timing cache take a part of it


def cache() -> Iterator[Finding]:
    """Check the cache: its folder, its size, and whether it can be written."""
    from srcli.system.cache import cache_folder, flawed

    folder = cache_folder()
    files, size = _content(folder)
    found = f"{folder}, {count(files, 'file')}, {megabytes(size)}"
    damaged = [path.name for path in flawed(folder, _CHECKED)]
    refused = _refusal(folder)
    free = 0 if refused else shutil.disk_usage(_nearest(folder)).free
    if refused:
        yield Finding(
            subject="cache",
            status="problem",
            found=f"{folder} cannot be written ({refused})",
            remedy="Make it writable, or name another folder in SRCLI_CACHE.",
        )
    elif damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        yield Finding(
            subject="cache",
            status="note",
            found=f"{found}; {damaged[0]}{more} is not as srcli wrote it",
            remedy="It will be made anew when it is needed; check the disk and the memory.",
        )
    elif free < _LITTLE_SPACE:
        yield Finding(
            subject="cache",
            status="note",
            found=f"{found}; only {megabytes(free)} are free",
            remedy="Free some space, or name another folder in SRCLI_CACHE.",
        )
    else:
        yield Finding(subject="cache", status="ok", found=found)


def weights() -> Iterator[Finding]:
    """Check that the shipped weights are those that the manifest describes."""
    from srcli.checkpoints.shipped import flaws

    shipped = flaws()
    wrong = [f"{name} {said}" for name, said in shipped.items() if said]
    if wrong:
        yield Finding(
            subject="weights", status="problem", found="; ".join(wrong), remedy=reinstall()
        )
    else:
        found = f"{count(len(shipped), 'file')}, all with the checksum of the manifest"
        yield Finding(subject="weights", status="ok", found=found)


def _content(folder: Path) -> tuple[int, int]:
    """Return the number of files below a folder, and their bytes."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except OSError:  # gone in the meantime
                continue
    return len(sizes), sum(sizes)


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or the nearest one above that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _refusal(folder: Path) -> str | None:
    """Return why a folder, made if necessary, cannot be written in; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)
