"""Keep the coded frames of a segment in a file of our own: times to the tick, and a checksum.

A header of JSON on one line, then for each packet its time, duration, whether it is a keyframe, its
size and its bytes; at the end the SHA-256 of all before. Containers are not used here: some round
times, and others lack a codec.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from srcli.errors import InputError

MAGIC = b"srcli segment 1\n"
_HEAD = struct.Struct("<qqBI")
_CHECKSUM = 32  # bytes
LONGEST_HEADER = 1 << 20


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded frame."""

    time: int
    duration: int
    is_key: bool
    content: bytes


class SegmentWriter:
    """A writer of a segment's file; it is whole once the block has ended without an error.

    Args:
        path: Of the file.
        header: Facts about the segment, for JSON.
    """

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._write(MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def add(self, packet: Coded) -> None:
        """Append a packet, in the order of decoding."""
        size = len(packet.content)
        self._write(_HEAD.pack(packet.time, packet.duration, packet.is_key, size))
        self._write(packet.content)

    def _write(self, content: bytes) -> None:
        self._digest.update(content)
        self._file.write(content)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None:
                self._file.write(self._digest.digest())


class SegmentFile:
    """A reader of a segment's file.

    Args:
        path: Of the file.

    Raises:
        InputError: It cannot be read, or is no segment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as opened:
                magic, line = opened.read(len(MAGIC)), opened.readline(LONGEST_HEADER)
            header = json.loads(line)
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        if magic != MAGIC or not isinstance(header, dict):
            raise self._damaged()
        self.header: dict[str, object] = header
        self._start = len(MAGIC) + len(line)
        self._end = path.stat().st_size - _CHECKSUM

    def packets(self) -> Iterator[Coded]:
        """Yield the packets in the order of decoding.

        Raises:
            InputError: The file is damaged.
        """
        with self.path.open("rb") as opened:
            opened.seek(self._start)
            while opened.tell() < self._end:
                time, duration, is_key, size = self._head(opened)
                content = opened.read(size)
                if len(content) < size:
                    raise self._damaged()
                yield Coded(time, duration, bool(is_key), content)

    def times(self) -> list[int]:
        """Return the times of all packets in the order of decoding, without reading these."""
        found = []
        with self.path.open("rb") as opened:
            opened.seek(self._start)
            while opened.tell() < self._end:
                time, _, _, size = self._head(opened)
                opened.seek(size, 1)
                found.append(time)
        return found

    def _head(self, opened: BinaryIO) -> tuple[int, int, int, int]:
        head = opened.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise self._damaged()
        found: tuple[int, int, int, int] = _HEAD.unpack(head)
        return found

    def check(self) -> None:
        """Raise `InputError` unless the file is as it was written."""
        digest, left = hashlib.sha256(), self._end
        with self.path.open("rb") as opened:
            while left > 0 and (block := opened.read(min(1 << 20, left))):
                digest.update(block)
                left -= len(block)
            if left or opened.read() != digest.digest():
                raise self._damaged()

    def _damaged(self) -> InputError:
        return InputError(
            f"{self.path}: is no whole segment", "Remove it, and make it again with --resume."
        )


def decoding_times(shown: list[int]) -> list[int]:
    """Return times of decoding for packets, given when each is shown, in the order of decoding.

    They grow, and none is later than the packet is shown. Those that encoders gave do not fit
    where segments meet: each encoder had begun before its first frame.
    """
    ordered = sorted(shown)
    rank = {time: place for place, time in enumerate(ordered)}
    delay = max((place - rank[time] for place, time in enumerate(shown)), default=0)
    step = ordered[1] - ordered[0] if len(ordered) > 1 else 1
    before = [ordered[0] - step * (delay - place) for place in range(delay)]
    return before + ordered[: len(shown) - delay]
