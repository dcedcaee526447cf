"""Read and write Y4M, the raw video of pipes: a header, then frames of planes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Protocol

import numpy as np

from srcli.errors import InputError
from srcli.video.layout import LARGEST_SIDE, Kind, Layout, Planes, Samples, split

MAGIC = b"YUV4MPEG2"
FRAME = b"FRAME"
LONGEST_LINE = 4096  # bytes; mjpegtools takes 80, others write more
PIECE = 1 << 20  # bytes to ask a pipe for at once

_SUBSAMPLINGS: Mapping[str, tuple[Kind, int, int]] = MappingProxyType(
    {
        "420": ("yuv", 2, 2),
        "422": ("yuv", 2, 1),
        "444": ("yuv", 1, 1),
        "411": ("yuv", 4, 1),
        "410": ("yuv", 4, 4),
        "440": ("yuv", 1, 2),
        "mono": ("grey", 1, 1),
    }
)
_COLOR = re.compile(r"(420|422|444|411|410|440|mono)(jpeg|mpeg2|paldv|alpha)?(?:p?(\d+))?")
_PLACES = {"jpeg": "center", "mpeg2": "left", "paldv": "paldv"}
DEPTHS = (8, 9, 10, 12, 14, 16)


class Source(Protocol):
    """A stream of bytes that can be read into memory."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read what is there, at least one byte before the end; return how many."""
        ...


class Target(Protocol):
    """A stream of bytes that can be written to."""

    def write(self, content: bytes | memoryview, /) -> int | None:
        """Write bytes; return how many were taken."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts that the first line of a Y4M stream states."""

    layout: Layout
    tokens: tuple[str, ...]
    """Words of the line after its magic, as they stand there."""

    siting: str | None = None
    """Name among `SITINGS`; None if the stream does not say."""

    full_range: bool | None = None
    """True for the full range of codes, False for the limited one; None if not stated."""

    @property
    def rate(self) -> Fraction | None:
        """Frames a second; None if not stated."""
        found = _token(self.tokens, "F")
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", found or "")
        if match is None or int(match[1]) == 0 or int(match[2]) == 0:
            return None
        return Fraction(int(match[1]), int(match[2]))

    def enlarged(self, scale: int) -> Header:
        """Return the header of the same stream with larger frames."""
        layout = self.layout.enlarged(scale)
        sizes = {"W": f"W{layout.width}", "H": f"H{layout.height}"}
        tokens = tuple(sizes.get(token[0], token) for token in self.tokens)
        return replace(self, layout=layout, tokens=tokens)

    def line(self) -> bytes:
        """Return the line that begins the stream."""
        words = [MAGIC, *(token.encode("latin-1") for token in self.tokens)]
        return b" ".join(words) + b"\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream, and the parameters of its own header as they stand there."""

    planes: Planes
    parameters: bytes = b""


class Reader:
    """A reader of a Y4M stream that holds one frame at a time.

    Args:
        source: Stream that stands at the beginning.
        name: Of the file, for errors.

    Raises:
        InputError: The header is damaged, or states what srcli does not take.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._bytes = _Bytes(source)
        self._name = name
        self.header = parsed(self._line("header"), name)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames until the stream ends.

        Raises:
            InputError: It ends within a frame, or something else stands where a frame should.
        """
        layout, number = self.header.layout, 0
        while (first := self._bytes.read(1)) is not None:
            number += 1
            line = bytes(first) + self._line(f"frame {number}")
            if line != FRAME and not line.startswith(FRAME + b" "):
                raise self._damaged(f"frame {number} does not begin with FRAME")
            samples = self._samples(layout, number)
            yield Frame(split(samples, layout), line[len(FRAME) :])

    def _samples(self, layout: Layout, number: int) -> Samples:
        content = self._bytes.read(layout.frame_bytes)
        if content is None or len(content) < layout.frame_bytes:
            raise self._damaged(f"the stream ends in the middle of frame {number}")
        samples: Samples = content.view(layout.dtype)
        if layout.bits not in (8, 16) and int(samples.max()) >> layout.bits:
            raise self._damaged(f"frame {number} has values of more than {layout.bits} bits")
        return samples

    def _line(self, what: str) -> bytes:
        line = self._bytes.line()
        if line is None:
            raise self._damaged(f"the {what} has no end")
        return line

    def _damaged(self, problem: str) -> InputError:
        return InputError(
            f"{self._name}: {problem}", "Make it again, for example by `ffmpeg -f yuv4mpegpipe`."
        )


class _Bytes:
    """A reader of lines and of blocks from a stream without a seek."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ahead = b""

    def line(self) -> bytes | None:
        """Return a line without its end; None if none ends within `LONGEST_LINE` bytes."""
        while b"\n" not in self._ahead:
            if len(self._ahead) > LONGEST_LINE:
                return None
            piece = np.empty(128, np.uint8)
            count = self._source.readinto(piece.data)
            if not count:
                return None
            self._ahead += piece[:count].tobytes()
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line if len(line) <= LONGEST_LINE else None

    def read(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]] | None:
        """Return `size` bytes, fewer at the end of the stream, None behind it.

        A size that a damaged header states costs no memory before the bytes are there.
        """
        block = np.empty(size, np.uint8)
        done = min(size, len(self._ahead))
        block[:done] = np.frombuffer(self._ahead[:done], np.uint8)
        self._ahead = self._ahead[done:]
        while done < size:
            count = self._source.readinto(block[done : done + PIECE].data)
            if not count:
                break
            done += count
        return block[:done] if done else None


class Writer:
    """A writer of a Y4M stream.

    Args:
        target: Stream to write to; nothing else may write there.
        header: Written at once.
    """

    def __init__(self, target: Target, header: Header) -> None:
        self._target = target
        self._dtype = header.layout.dtype
        self._all(header.line())

    def write(self, frame: Frame) -> None:
        """Write one frame."""
        self._all(FRAME + frame.parameters + b"\n")
        for plane in frame.planes:
            content = np.ascontiguousarray(plane, self._dtype)
            self._all(content.reshape(-1).view(np.uint8).data)

    def _all(self, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        while len(rest):
            rest = rest[self._target.write(rest) or 0 :]


def parsed(line: bytes, name: str = "header") -> Header:
    """Read the first line of a Y4M stream, without its end.

    Args:
        line: Of the stream.
        name: Of the file, for errors.

    Raises:
        InputError: It is damaged, or states what srcli does not take.
    """
    magic, *words = line.decode("latin-1").split(" ")
    if magic.encode("latin-1") != MAGIC:
        raise InputError(
            f"{name}: is no Y4M stream", "Make one by `ffmpeg -i FILE -f yuv4mpegpipe -`."
        )
    tokens = tuple(word for word in words if word)
    _check_progressive(_token(tokens, "I"), name)
    width, height = (_side(_token(tokens, letter), letter, name) for letter in "WH")
    color = _token(tokens, "C") or "420jpeg"
    kind, across, down, bits = _color(color, name)
    layout = Layout(width=width, height=height, kind=kind, bits=bits, across=across, down=down)
    return Header(
        layout=layout, tokens=tokens, siting=_siting(color), full_range=_full_range(tokens)
    )


def _token(tokens: tuple[str, ...], letter: str) -> str | None:
    """Return what follows the last word that begins with a letter; None without one."""
    return next((token[1:] for token in reversed(tokens) if token[0] == letter), None)


def _side(text: str | None, letter: str, name: str) -> int:
    if text is None or not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise InputError(f"{name}: the header states no {letter}", "Make the stream again.")
    if not 1 <= int(text) <= LARGEST_SIDE:
        raise InputError(
            f"{name}: the header states a side of {int(text)} pixels",
            f"Frames may have 1 to {LARGEST_SIDE} pixels a side.",
        )
    return int(text)


def _color(text: str, name: str) -> tuple[Kind, int, int, int]:
    """Return kind, subsampling and bits of a word such as `420p10`."""
    found = _COLOR.fullmatch(text)
    if found is not None and found[2] == "alpha":
        raise InputError(f"{name}: frames are transparent", "Add `-pix_fmt yuv444p` to ffmpeg.")
    bits = int(found[3] or 8) if found else 0
    if found is None or bits not in DEPTHS or (found[2] and found[1] != "420"):
        raise InputError(
            f"{name}: colours of the kind C{text!r} are not known",
            "Add `-pix_fmt yuv420p10le` or the like to ffmpeg.",
        )
    return *_SUBSAMPLINGS[found[1]], bits


def _siting(color: str) -> str | None:
    found = _COLOR.fullmatch(color)
    if found is None or found[1] != "420":
        return None
    # `420` alone means the same as `420jpeg`; of streams with more bits the name says nothing.
    return _PLACES[found[2] or "jpeg"] if found[2] or not found[3] else None


def _full_range(tokens: tuple[str, ...]) -> bool | None:
    stated = [token for token in tokens if token.startswith("XCOLORRANGE=")]
    return {"FULL": True, "LIMITED": False}.get(stated[-1].partition("=")[2]) if stated else None


def _check_progressive(interlacing: str | None, name: str) -> None:
    if interlacing in ("t", "b", "m"):
        raise InputError(
            f"{name}: frames are interlaced, which a network would take for a pattern",
            "Add `-vf bwdif=mode=send_frame` to the ffmpeg that makes the stream.",
        )


def open_unbuffered(descriptor: int) -> io.FileIO:
    """Return standard input or output as a stream that is not closed with the object."""
    return io.FileIO(descriptor, "rb" if descriptor == 0 else "wb", closefd=False)
