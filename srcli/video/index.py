"""Read which coded frames a video file holds, without decoding them."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import InputError
from srcli.video.containers import as_input_errors
from srcli.video.messages import ERROR, heard, prepared

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LATE = 1.0  # seconds that a stream may end before what its header states
LITTLE = 0.1  # seconds that are not worth a note


@dataclass(frozen=True, slots=True)
class Packet:
    """Place of a coded frame in its stream."""

    time: int
    """When it is shown, in ticks."""

    is_key: bool
    size: int


@dataclass(frozen=True, slots=True)
class Index:
    """The coded frames of a stream, in the order of the file."""

    packets: tuple[Packet, ...]
    sha256: str
    """Checksum of the coded frames and their times."""

    notes: tuple[str, ...] = ()
    """Signs of damage, for people: frames may be missing."""


def index_of(container: InputContainer, stream: VideoStream, path: Path) -> Index:
    """Read all packets of a stream, without decoding them.

    Raises:
        InputError: The file is damaged, encrypted, or ends before what its header states.
    """
    digest, packets, end = hashlib.sha256(), [], 0
    with as_input_errors(path), heard(ERROR) as faults:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                raise InputError(
                    f"{path}: frames have no times",
                    f"Give them some: {prepared(path, '-c copy')}.",
                )
            digest.update(struct.pack("<qq", time, packet.size))
            digest.update(packet)
            packets.append(Packet(time, packet.is_keyframe, packet.size))
            end = max(end, time + (packet.duration or 0))
    notes = _checked_end(stream, packets, end, path)
    if faults:
        notes.append(f"{path}: frames may be missing, the file is damaged ({faults[0]})")
    return Index(tuple(packets), digest.hexdigest(), tuple(notes))


def _checked_end(stream: VideoStream, packets: list[Packet], end: int, path: Path) -> list[str]:
    """Return a note if the file ends a little early.

    Raises:
        InputError: Its header counts more than there is.
    """
    if not packets:
        raise InputError(f"{path}: holds no frame", "Check the file with a player.")
    stated = None
    ends = float((end - (stream.start_time or 0)) * stream.time_base)
    if stream.duration:
        stated = float(stream.duration * stream.time_base)
    elif "DURATION" in stream.metadata:
        stated = _seconds(stream.metadata["DURATION"])
    if stream.frames > len(packets) or (stated is not None and ends + LATE < stated):
        raise InputError(
            f"{path}: ends after {ends:.2f} s, before what its header states",
            f"Get the whole file, or take what is there: {prepared(path, '-c copy')}.",
        )
    if stated is None or stated - ends < LITTLE:
        return []
    return [f"{path}: ends {stated - ends:.2f} s before what its header states"]


def _seconds(text: str) -> float | None:
    """Read `00:01:02.5` as seconds; None if it is something else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds
