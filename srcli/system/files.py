"""Write files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srcli.errors import OutputError, OutputExistsError

_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\.srcli-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{16}(\.\w+)?")
_STARTED = time.time()
_FORGOTTEN = 24 * 3600  # seconds; of another machine's we know no more than their age
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_unfinished: set[Path] = set()
_swept: set[Path] = set()
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # whoever may write here must not write elsewhere by us
NOT_REGULAR = 0  # the number of an error that the system has none for


def temporary_name(suffix: str) -> str:
    """Return a hidden, unique name that states which process is writing the file."""
    return f".srcli-{_MACHINE}-{os.getpid()}-{secrets.token_hex(8)}{suffix}"


def leftovers(folders: Iterable[Path]) -> list[Path]:
    """List temporary files of srcli in some folders, of processes that were killed.

    Looks at what lies in each folder itself, not below it: an output may lie beside its input, and
    that folder may hold a whole disk.
    """
    found = (path for folder in folders for path in _listed(folder))
    return [path for path in found if _is_leftover(path)]


def sweep(folders: Iterable[Path]) -> None:
    """Remove the temporary files that killed processes have left in some folders."""
    folders = {folder.absolute() for folder in folders}
    _swept.update(folders)
    for path in leftovers(folders):
        with suppress(OSError):  # another user's, in a folder that many may write to
            path.unlink(missing_ok=True)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.glob(".srcli-*"))
    except OSError:
        return []


def open_regular(path: Path, *, follow: bool = True) -> io.BufferedReader:
    """Open a regular file for reading; refuse all others at once, without waiting for a pipe.

    Args:
        path: The file.
        follow: True if it may be a link.

    Raises:
        OSError: It cannot be opened; with `NOT_REGULAR` as its number where it is a folder, a pipe,
            a device, or a link that may not be followed.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    # A pipe that nobody writes to would otherwise hold the process for ever.
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if follow else NO_LINKS)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(NOT_REGULAR, "is no regular file", os.fspath(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(NOT_REGULAR, "is no regular file", os.fspath(path))
    return os.fdopen(descriptor, "rb")


def begin(path: Path) -> None:
    """Note a temporary file that `discard_unfinished` is to remove."""
    _unfinished.add(path)


def end(path: Path) -> None:
    """Forget a temporary file that is gone, or has its final name."""
    _unfinished.discard(path)


def discard_unfinished() -> None:
    """Remove the temporary files that this process is writing, for a process that ends at once."""
    for path in list(_unfinished):
        with suppress(OSError):
            path.unlink()


def _is_leftover(file: Path) -> bool:
    name = _TEMPORARY.fullmatch(file.name)
    if name is None:
        return False
    try:
        found = file.lstat()
    except OSError:  # gone meanwhile: another process has just finished it
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    written, process = found.st_mtime, int(name["process"])
    if name["machine"] != _MACHINE or sys.platform == "win32":  # where asking could kill it
        return time.time() - written > _FORGOTTEN
    if process == os.getpid():  # in a container it has the same number each time
        return written < _STARTED
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@contextmanager
def atomic_path(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Create an empty file beside `target` that becomes `target` if the block succeeds.

    If the block fails, no half-written file stays under either name. The temporary name has the
    suffix of the target, because libraries choose the format by it.

    Args:
        target: The name that the file gets. A file that is replaced hands on its permissions and,
            where the system allows it, its owner.
        replace: True if a file of that name may be replaced, also one that appears meanwhile.

    Raises:
        OutputExistsError: There is such a file, and it may not be replaced.
        OutputError: The folder or the file cannot be written.
    """
    partial = target.with_name(temporary_name(target.suffix if len(target.suffix) < 9 else ""))
    begin(partial)  # before it is there: Ctrl-C may come at any moment
    try:
        _create(partial, target)
        yield partial
        _flush(partial)
        if replace:
            _take_over(target, partial)
            os.replace(partial, target)
        else:
            _give_name(partial, target)
    except FileExistsError:
        raise OutputExistsError(
            f"{target}: another program made this file meanwhile",
            "Replace it with --overwrite, or choose another place with -o.",
        ) from None
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        with suppress(NotADirectoryError):  # its folder is a file, and it was never made
            partial.unlink(missing_ok=True)
        end(partial)


def _create(partial: Path, target: Path) -> None:
    """Create the temporary file of a target."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.absolute() not in _swept:  # once: it may hold a million files
            sweep([target.parent])
        # Exclusively, and with the permissions that any new file of this user gets.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _not_written(target, error) from error


def check_place(target: Path) -> None:
    """Check that a file of this name can be made, without making it.

    Raises:
        OSError: A part of the name is too long for the disk, lies in a file, or may not be written
            to; or the name is that of a folder or a device. `strerror` says so in words of ours.
    """
    folder = target.parent
    missing = [target.name]
    while not os.path.lexists(folder) and folder != folder.parent:
        missing.append(folder.name)
        folder = folder.parent
    _check_lengths(folder, missing)
    _check_kind(target)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise OSError(errno.ENOTDIR, f"{folder} is a file, not a folder")
    if not os.access(folder or Path(), os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"the folder {folder} may not be written to")


def _check_kind(target: Path) -> None:
    """Raise `OSError` for a name that is a folder or a device: neither can be replaced."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise OSError(errno.EEXIST, f"it is {what}, not a file")


def _check_lengths(folder: Path, names: Iterable[str]) -> None:
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):  # Windows
        longest = 255
    for name in names:
        length = len(os.fsencode(name))
        if length > longest:
            raise OSError(
                errno.ENAMETOOLONG,
                f"the name has {length} bytes, and {longest} are the most that this disk takes",
            )


def _not_written(target: Path, error: OSError) -> OutputError:
    """Return the error for a file that cannot be written."""
    if error.errno == errno.ENAMETOOLONG:
        problem = f"{target}: this name is too long for the disk"
        return OutputError(problem, "Choose a shorter one with -o.")
    remedy = "Choose another place with -o."
    if error.errno in _FULL:
        remedy = "Free some space, or choose another place with -o."
    return OutputError(f"{target}: cannot be written ({error.strerror or error})", remedy)


def _take_over(target: Path, partial: Path) -> None:
    """Give a new file the permissions and the owner of the one that it replaces."""
    try:
        old = target.lstat()
    except OSError:
        return
    if not stat.S_ISREG(old.st_mode):
        return
    new = partial.stat()
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(OSError):  # only root may give files away
            os.chown(partial, old.st_uid, old.st_gid)
    with suppress(OSError):
        partial.chmod(stat.S_IMODE(old.st_mode))


def _give_name(partial: Path, target: Path) -> None:
    """Rename without replacing, so that of two programs only one gets the name.

    Raises:
        FileExistsError: There is a file of that name.
    """
    if sys.platform == "win32":
        partial.rename(target)  # refuses by itself there
        return
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, *_FULL):
            raise
        # A file system without links (FAT, some network drives): take the name first.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            os.replace(partial, target)
        except BaseException:  # an empty file under the name is worse than none
            target.unlink(missing_ok=True)
            raise


def _flush(file: Path) -> None:
    """Force the content to the disk before the name points to it: a crash leaves old or new."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
