"""The interface to libvips: load it on first use, silence it, turn its errors into ours."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, TypeVar

from srcli.errors import InputError, MemoryExhaustedError, MissingPartError, OutputError
from srcli.images.spliced import Spliced
from srcli.images.turns import Turns

if TYPE_CHECKING:
    from pyvips import Image, Source

_T = TypeVar("_T")
TURNS = Turns()
_WARNINGS = ("VipsJpeg:", "tiff2vips:")  # how lines of decoders that warn begin
_SPARE = "close other programs, or use a smaller picture"
_PATIENCE = 1.0  # seconds that interrupted work gets to end in


@functools.cache
def library() -> ModuleType:
    """Return the module `pyvips`, imported once; the import takes about 0.1 s."""
    ours = "pyvips" not in sys.modules
    # Warnings are of no use to the user, and what is wrong arrives as an error.
    os.environ.setdefault("VIPS_WARNING", "off")
    logging.getLogger("pyvips").setLevel(logging.CRITICAL + 1)
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise MissingPartError(
            f"libvips cannot be loaded ({error})", "reinstall it: pip install 'pyvips[binary]'"
        ) from error
    if ours:
        # Their handler runs Python code in the middle of libvips, and swallows a Ctrl-C there.
        getattr(pyvips, "_remove_log_handler", lambda: None)()
    _take_any_text(pyvips)
    # Sources are files and buffers that change and go away: nothing may be remembered.
    pyvips.cache_set_max(0)
    return pyvips


def _take_any_text(made: ModuleType) -> None:
    """Let errors of libvips hold any bytes: it quotes damaged files.

    pyvips would fail to read such a text, and leave it where every later error finds it again.
    """

    def text(pointer: object) -> str:
        content: bytes = b"" if pointer == made.ffi.NULL else made.ffi.string(pointer)
        return content.decode("utf-8", "replace")

    vars(sys.modules["pyvips.error"])["_to_string"] = text


def source_of(source: Path | bytes | Spliced) -> Source:
    """Return a libvips source; a file's name is never parsed for options such as `[page=2]`."""
    if isinstance(source, Spliced):
        return source.for_libvips()
    kind: type[Source] = library().Source
    if isinstance(source, bytes):
        return kind.new_from_memory(source)
    return kind.new_from_file(os.fsencode(source))


def load(loader: str, source: Path | bytes | Spliced, **options: object) -> Image:
    """Return a lazy libvips image by the loader of this name, read from top to bottom."""
    made = source_of(source)
    image: Image = getattr(library().Image, loader)(made, access="sequential", **options)
    # As pyvips' own `new_from_source` does: the source must live as long as the image, and as
    # whatever is made of it.
    image._references.append(made)
    return image


def attempt(work: Callable[[], _T], *, warnings: bool = True) -> _T:
    """Run `work`; if libvips fails, run it once more while no other thread uses libvips.

    libvips has one buffer for the errors of all threads. Only in the second run is it certain
    that its text belongs to this failure. It also holds decoders' warnings of the last rows, for
    which libvips no longer fails; these count unless `warnings` is false.

    Raises:
        pyvips.Error: the second failure, with a text of its own.
    """
    results: list[_T] = []
    with Watch() as watch:
        results.append(work())
    if watch.quiet or (results and not warnings):
        return results[0]
    return attempt_alone(work)


class Watch:
    """A block in which libvips works beside other threads; tells whether all went well.

    An error of libvips ends the block, and does not leave it. What the block computes counts only
    if `quiet` is true.
    """

    quiet = False

    def __enter__(self) -> Self:
        self._turn = ExitStack()
        self._turn.enter_context(TURNS.together())
        self._before = _failures.count
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        failed = kind is not None and issubclass(kind, library().Error)
        if failed:
            _failures.count += 1
        self.quiet = kind is None and not _said() and self._before == _failures.count
        self._turn.close()
        return failed


def attempt_alone(work: Callable[[], _T]) -> _T:
    """Run `work` while no other thread uses libvips; warnings of decoders are failures.

    Raises:
        pyvips.Error: with a text of its own.
    """
    with TURNS.alone():
        library().vips_lib.vips_error_clear()
        result = work()
        text = _said()
        if text:
            library().vips_lib.vips_error_clear()
            raise library().Error("unable to decode", text)
        return result


class _Failures:
    """A count of libvips' failures in this process; each clears messages that others would see."""

    count = 0


_failures = _Failures()


def _said() -> str:
    """Return what decoders have warned of since libvips' buffer was emptied."""
    made = library()
    text = made.ffi.string(made.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    return text if any(mark in text for mark in _WARNINGS) else ""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong with opening and decoding `name` into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(*_reason(name, error)) from error
    except MemoryError as error:
        raise MemoryExhaustedError(f"{name}: not enough memory to decode it", _SPARE) from error
    except library().Error as error:
        raise _input_error(name, str(error)) from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn what goes wrong with encoding and writing `name` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(*_reason(name, error)) from error
    except MemoryError as error:
        raise MemoryExhaustedError(f"{name}: not enough memory to encode it", _SPARE) from error
    except library().Error as error:
        raise OutputError(
            f"{name}: cannot be written ({_first_cause(str(error))})", "try another format"
        ) from error


def _input_error(name: str, text: str) -> InputError | MemoryExhaustedError:
    cause = _first_cause(text)
    if "out of memory" in text:
        return MemoryExhaustedError(f"{name}: not enough memory to decode it", _SPARE)
    return InputError(
        f"{name}: damaged or incomplete ({cause})",
        "get a whole copy of it, or repair it by saving it again from an image editor",
    )


def _first_cause(text: str) -> str:
    """Return the first useful line of a libvips error, whose own first line only names the call."""
    if "bad seek to" in text:
        return "it ends too early"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("unable to ")]
    return shown(telling[0]) if telling else "its data makes no sense"


def shown(name: str | os.PathLike[str]) -> str:
    """Return a file's name for messages: on one line, whatever it consists of."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(name))


def _reason(name: str, error: OSError) -> tuple[str, str]:
    """Return what an operating system's error means for the user, and what to do."""
    reasons = {
        errno.ENOENT: ("there is no such file or folder", "check the name"),
        errno.EISDIR: ("this is a folder", "name a file in it"),
        errno.ENOTDIR: ("a part of this path is not a folder", "check the name"),
        errno.EACCES: ("permission denied", "check who may use the file and its folder"),
        errno.EPERM: ("not permitted", "check who may use the file and its folder"),
        errno.ENAMETOOLONG: ("the name is too long for this file system", "shorten it"),
        errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
        errno.EROFS: ("the file system is read-only", "choose another folder"),
    }
    other = error.strerror or str(error), "check the file and its disk"
    problem, remedy = reasons.get(error.errno or 0, other)
    return f"{name}: {problem}", remedy


def interruptible(image: Image, work: Callable[[], _T]) -> _T:
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

    `splice` is given the first bytes, and returns what is to be written instead of them. What is
    written begins at `start` of the file; libvips counts from there.
    """

    _HEAD = 128

    def __init__(
        self,
        file: BinaryIO,
        splice: Callable[[bytes], bytes] | None = None,
        start: int = 0,
    ) -> None:
        self._file, self._splice, self._start = file, splice, start
        self._held = b""
        self.error: BaseException | None = None
        self.target = library().TargetCustom()
        self.target.on_write(lambda data: self._guarded(lambda: self._write(bytes(data)), -1))
        self.target.on_read(lambda size: self._guarded(lambda: self._file.read(size), None))
        self.target.on_seek(lambda to, how: self._guarded(lambda: self._seek(to, how), -1))
        self.target.on_end(lambda: self._guarded(self._end, -1))

    def _write(self, data: bytes) -> int:
        if self._splice is None:
            return self._file.write(data)
        self._held += data
        if len(self._held) >= self._HEAD:
            self._release()
        return len(data)

    def _seek(self, to: int, how: int) -> int:
        return self._file.seek(to + (self._start if how == 0 else 0), how) - self._start

    def _release(self) -> None:
        if self._splice is not None:
            self._file.write(self._splice(self._held))
            self._held, self._splice = b"", None

    def _end(self) -> int:
        self._release()
        return -1 if self.error else 0

    def _guarded(self, action: Callable[[], _T], failed: _T) -> _T:
        # An exception may not cross the C code that called us.
        try:
            return action()
        except BaseException as error:
            self.error = self.error or error
            return failed
