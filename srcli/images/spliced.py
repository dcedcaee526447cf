"""Read a file with some parts replaced, without a copy of the rest."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from pyvips import Source

Result = TypeVar("Result")

Piece = bytes | tuple[int, int]
"""A part of the content: bytes, or (start, end) of the file."""


@dataclass(frozen=True, slots=True)
class Spliced:
    """Pieces of a file and bytes of our own, one after the other."""

    source: Path | bytes
    pieces: tuple[Piece, ...]

    def content(self) -> bytes:
        """Return the whole content, for files that are small or must be in memory anyway."""
        return self.open().read()

    def open(self) -> io.BufferedReader:
        """Return the content as an open file; closing it closes the file below."""
        return io.BufferedReader(_SplicedFile(self.source, self.pieces), 1 << 16)

    def for_libvips(self) -> Source:
        """Return the content as a libvips source."""
        import pyvips

        if isinstance(self.source, bytes):
            return pyvips.Source.new_from_memory(self.content())
        file = _SplicedFile(self.source, self.pieces)
        made = pyvips.SourceCustom()
        made.on_read(lambda size: _quietly(lambda: file.read(size) or b"", b""))
        made.on_seek(lambda to, how: _quietly(lambda: file.seek(to, how), -1))
        return made


def _quietly(action: Callable[[], Result], failed: Result) -> Result:
    # An exception may not cross the C code that called us.
    try:
        return action()
    except (OSError, ValueError):
        return failed


class _SplicedFile(io.RawIOBase):
    def __init__(self, source: Path | bytes, pieces: Sequence[Piece]) -> None:
        self._file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        self._pieces = pieces
        sizes = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self._at = 0

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill as much of the buffer as one piece reaches."""
        target = memoryview(buffer).cast("B")
        for piece, start, end in zip(self._pieces, self._starts, self._starts[1:], strict=False):
            if start <= self._at < end:
                data = self._part(piece, self._at - start, min(len(target), end - self._at))
                target[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0

    def _part(self, piece: Piece, at: int, size: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[at : at + size]
        self._file.seek(piece[0] + at)
        return self._file.read(size)
