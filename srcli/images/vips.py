"""The seam to libvips: loaded on first use, silenced, its errors turned into ours."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from srcli.errors import InputError, MemoryExhaustedError, MissingPartError, OutputError

_T = TypeVar("_T")
_PATIENCE = 1.0  # seconds that interrupted work gets to end in


@functools.cache
def library() -> Any:
    """The pyvips module, imported once; the import takes about 0.1 s."""
    ours = "pyvips" not in sys.modules
    # Warnings are of no use to the user, and what is wrong arrives as an error.
    os.environ.setdefault("VIPS_WARNING", "off")
    logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise MissingPartError(
            f"libvips cannot be loaded ({error}); reinstall it: pip install 'pyvips[binary]'"
        ) from error
    if ours:
        # Their handler runs Python code in the middle of libvips, and swallows a Ctrl-C there.
        getattr(pyvips, "_remove_log_handler", lambda: None)()
    # Sources are files and buffers that change and go away: nothing may be remembered.
    pyvips.cache_set_max(0)
    return pyvips


def source_of(source: Path | bytes) -> Any:
    """A libvips source; a file's name is never parsed for options such as `[page=2]`."""
    kind = library().Source
    if isinstance(source, bytes):
        return kind.new_from_memory(source)
    return kind.new_from_file(os.fsencode(source))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong with opening and decoding `name` into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: {_reason(error)}") from error
    except MemoryError as error:
        raise MemoryExhaustedError(f"{name}: not enough memory to decode it") from error
    except library().Error as error:
        raise _input_error(name, str(error)) from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn what goes wrong with encoding and writing `name` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name}: {_reason(error)}") from error
    except MemoryError as error:
        raise MemoryExhaustedError(f"{name}: not enough memory to encode it") from error
    except library().Error as error:
        raise OutputError(f"{name}: cannot be written ({_first_cause(str(error))})") from error


def _input_error(name: str, text: str) -> InputError | MemoryExhaustedError:
    cause = _first_cause(text)
    if "out of memory" in text:
        return MemoryExhaustedError(f"{name}: not enough memory to decode it")
    return InputError(
        f"{name}: damaged or incomplete ({cause}); get a whole copy of it, "
        "or repair it by saving it again from an image editor"
    )


def _first_cause(text: str) -> str:
    """The first telling line of a libvips error, whose own first line only names the call."""
    if "bad seek to" in text:
        return "it ends too early"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("unable to ")]
    return telling[0] if telling else "its data makes no sense"


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name for messages: on one line, whatever it consists of."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(name))


def _reason(error: OSError) -> str:
    """What an operating system's error means for the user, and what to do."""
    reasons = {
        errno.ENOENT: "there is no such file or folder; check the name",
        errno.EISDIR: "this is a folder; name a file in it",
        errno.ENOTDIR: "a part of this path is not a folder; check the name",
        errno.EACCES: "permission denied; check who may use the file and its folder",
        errno.EPERM: "not permitted; check who may use the file and its folder",
        errno.ENAMETOOLONG: "the name is too long for this file system; shorten it",
        errno.ENOSPC: "the disk is full; free some space or choose another folder",
        errno.EROFS: "the file system is read-only; choose another folder",
    }
    return reasons.get(error.errno or 0, error.strerror or str(error))


def interruptible(image: Any, work: Callable[[], _T]) -> _T:
    """Run libvips `work` on `image` so that Ctrl-C stops it within a moment.

    While the main thread is inside libvips, Python cannot react; so another thread goes there.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except BaseException:
        image.set_kill(True)
        # The AV1 encoder hears nothing while it works: it is left alone then.
        thread.join(_PATIENCE)
        raise
    return future.result()


class Sink:
    """A libvips target that writes to a Python file, and keeps the exception if that fails.

    `splice` is given the first bytes, and returns what is to be written instead of them.
    """

    _HEAD = 128

    def __init__(self, file: BinaryIO, splice: Callable[[bytes], bytes] | None = None) -> None:
        self._file, self._splice = file, splice
        self._held = b""
        self.error: BaseException | None = None
        self.target = library().TargetCustom()
        self.target.on_write(lambda data: self._guarded(lambda: self._write(bytes(data)), -1))
        self.target.on_read(lambda size: self._guarded(lambda: self._file.read(size), None))
        self.target.on_seek(lambda to, how: self._guarded(lambda: self._file.seek(to, how), -1))
        self.target.on_end(lambda: self._guarded(self._end, -1))

    def _write(self, data: bytes) -> int:
        if self._splice is None:
            return self._file.write(data)
        self._held += data
        if len(self._held) >= self._HEAD:
            self._release()
        return len(data)

    def _release(self) -> None:
        if self._splice is not None:
            self._file.write(self._splice(self._held))
            self._held, self._splice = b"", None

    def _end(self) -> int:
        self._release()
        return -1 if self.error else 0

    def _guarded(self, action: Callable[[], Any], failed: Any) -> Any:
        # An exception may not cross the C code that called us.
        try:
            return action()
        except BaseException as error:
            self.error = self.error or error
            return failed
