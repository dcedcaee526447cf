"""Files that are made once from a model's weights, verified, and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from srcli.errors import MissingPartError, VerificationError, first_line
from srcli.system.cache import Note, cache_folder, entry

# Forms that did not prove themselves, with problem and remedy: several backends may ask for one.
_refused: dict[Path, tuple[str, str]] = {}


def prepared(path: Path, make: Callable[[Path], object], *, label: str, note: Note) -> Path:
    """Return an entry of the cache, made now if it is not there or not whole.

    Args:
        path: Its name in the cache.
        make: Writes it under the name that it is given.
        label: Name of the content, for people: `lapar-c x4`.
        note: Called with messages: it takes a while; the cache was damaged.

    Raises:
        VerificationError: The new file failed its check, now or earlier in this process.
        MissingPartError: It has to be made, and a package for that is missing.
    """
    if path in _refused:
        raise VerificationError(*_refused[path])
    try:
        with needs_packages(label):
            return entry(path, make, label=label, note=note)
    except VerificationError as error:
        _refused[path] = error.problem, error.remedy
        raise


@contextmanager
def needs_packages(label: str) -> Iterator[None]:
    """Name the missing package if work that is done once for a model fails for want of one.

    Raises:
        MissingPartError: One of these packages is missing.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "PyTorch").partition(".")[0]
        raise MissingPartError(
            f"{label} has to be prepared once, which takes {package}, and that cannot be loaded "
            f"({first_line(error)})",
            f"Run `pip install {package}`, or copy the folder {cache_folder()} from a machine "
            f"where {label} has been used.",
        ) from error
