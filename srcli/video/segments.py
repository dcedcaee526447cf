"""Cut a video at its keyframes into segments, and restore each as a unit of long work."""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import OutputError
from srcli.jobs.journal import Journal
from srcli.system.files import atomic_path
from srcli.video.containers import Moment, damaged, frames_from, opened
from srcli.video.encoders import Settings, opened_encoder
from srcli.video.formats import fill
from srcli.video.index import Index
from srcli.video.layout import Layout
from srcli.video.packets import Coded, SegmentFile, SegmentWriter
from srcli.video.stages import Numbered, Overlap

if TYPE_CHECKING:
    from av import Packet as AvPacket
    from av import VideoFrame

SPARE = 64 << 20  # bytes that are left free on a disk
SUFFIX = ".segment"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video from one keyframe to another."""

    number: int
    start: int | None
    """Time of the keyframe that it begins with; None for the first of the file."""

    times: tuple[int, ...]
    """When its frames are shown, in order."""

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.number:06d}{SUFFIX}"


def cut(index: Index, seconds: float, time_base: float, span: tuple[float, float]) -> list[Segment]:
    """Cut a video into segments.

    Args:
        index: Of its packets.
        seconds: Least length of a segment.
        time_base: Seconds of a tick.
        span: Seconds from which and to which frames are wanted, as the file counts them.
    """
    times = sorted(packet.time for packet in index.packets)
    starts = [times[0]]
    for key in sorted(packet.time for packet in index.packets if packet.is_key):
        if (key - starts[-1]) * time_base >= seconds:
            starts.append(key)
    groups: dict[int, list[int]] = {}
    for time in times:
        if span[0] <= time * time_base < span[1]:
            groups.setdefault(bisect_right(starts, time) - 1, []).append(time)
    return [
        Segment(number, None if place == 0 else starts[place], tuple(groups[place]))
        for number, place in enumerate(sorted(groups))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that segments are made with."""

    source: Path
    folder: Path
    """Folder of the segments."""

    layout: Layout
    settings: Settings
    input_sha256: str
    recipe: str
    """Checksum of everything that the frames depend on."""

    count: int
    """Number of segments of the whole."""

    shift: int = 0
    """Time of the first frame of the output, in ticks of the input: it becomes 0 by --start."""

    journal: str = "main"
    note: Callable[[str], None] = lambda message: None
    extra: dict[str, object] = field(default_factory=dict)

    def path(self, segment: Segment) -> Path:
        """Return the file of a segment."""
        return self.folder / segment.name

    def header(self, segment: Segment, extradata: bytes) -> dict[str, object]:
        """Return what stands at the beginning of a segment's file."""
        return {
            "number": segment.number,
            "count": self.count,
            "frames": len(segment.times),
            "input_sha256": self.input_sha256,
            "recipe": self.recipe,
            "shift": self.shift,
            "settings": self.settings.as_dict(),
            "extradata": extradata.hex(),
            **self.extra,
        }


def opened_journal(run: Run) -> Journal:
    """Return the journal of a run's folder, not open yet."""
    return Journal(run.folder, _is_whole, name=run.journal, note=run.note)


def _is_whole(path: Path) -> bool:
    try:
        SegmentFile(path).check()
    except Exception:
        return False
    return True


def missing(run: Run, segments: Sequence[Segment], journal: Journal) -> list[Segment]:
    """Return the segments that are not made yet by the same recipe."""
    return [
        segment
        for segment in segments
        if not journal.is_done(run.path(segment), run.input_sha256, run.recipe)
    ]


def make(
    run: Run,
    segments: Sequence[Segment],
    overlap: Overlap[tuple[Segment, Moment]],
    journal: Journal,
    progress: Callable[[int], None] = lambda frames: None,
) -> int:
    """Make segments, each under its name once it is whole; returns the number of frames.

    Args:
        run: What they are made with.
        segments: In order; those between two that follow each other are decoded in one go.
        overlap: Runs the networks.
        journal: Open; gets a record of each.
        progress: Called with the number of frames done so far.

    Raises:
        InputError: The input is damaged. Segments that were finished before stay.
        OutputError: The disk is full. Likewise.
    """
    done = 0
    with closing(overlap(_frames(run, segments))) as restored:
        for segment, frames in groupby(restored, key=lambda frame: frame.tag[0]):
            _check_space(run)
            target = run.path(segment)
            count = 0
            with atomic_path(target) as partial:
                for _ in _encoded(run, segment, frames, partial, overlap):
                    count += 1
                    progress(done + count)
                if count < len(segment.times):
                    raise damaged(run.source, segment.times[count], stream_base(run))
                journal.announce(target, run.input_sha256, run.recipe)
            journal.finish(target, run.input_sha256, run.recipe)
            done += count
    return done


def _check_space(run: Run) -> None:
    """Raise `OutputError` where the disk is nearly full, before it is."""
    free = shutil.disk_usage(run.folder).free
    if free < SPARE:
        raise OutputError(
            f"{run.folder}: the disk is nearly full ({free >> 20} MB left)",
            "Free some space, and go on with --resume.",
        )


def _encoded(
    run: Run,
    segment: Segment,
    frames: Iterator[Numbered[tuple[Segment, Moment]]],
    target: Path,
    overlap: Overlap[tuple[Segment, Moment]],
) -> Iterator[None]:
    """Encode the frames of a segment into a file; yields once for each frame."""
    encoder = opened_encoder(run.settings)
    layout = run.settings.layout
    with SegmentWriter(target, run.header(segment, encoder.extradata or b"")) as out:
        for frame in frames:
            with overlap.clock.stage("writing"):
                for packet in encoder.encode(_frame(frame, layout, run)):
                    out.add(_coded(packet))
            yield
        with overlap.clock.stage("writing", 0):
            for packet in encoder.encode(None):
                out.add(_coded(packet))


def _frame(numbered: Numbered[tuple[Segment, Moment]], layout: Layout, run: Run) -> VideoFrame:
    import av

    moment = numbered.tag[1]
    frame = av.VideoFrame(layout.width, layout.height, run.settings.pixel_format)
    fill(frame, numbered.planes, layout)
    frame.pts, frame.duration = moment.time - run.shift, moment.duration
    frame.color_range, frame.colorspace = run.settings.color_range, run.settings.matrix
    return frame


def _coded(packet: AvPacket) -> Coded:
    return Coded(packet.pts, packet.duration or 0, packet.is_keyframe, bytes(packet))


def _frames(run: Run, segments: Sequence[Segment]) -> Iterator[Numbered[tuple[Segment, Moment]]]:
    """Decode the frames of segments; those that follow each other in one go."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and runs[-1][-1].number + 1 == segment.number:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    for together in runs:
        yield from _decoded(run, together)


def _decoded(run: Run, segments: Sequence[Segment]) -> Iterator[Numbered[tuple[Segment, Moment]]]:
    owner = {time: segment for segment in segments for time in segment.times}
    left = len(owner)
    with opened(run.source) as (container, stream):
        start = segments[0].start
        for planes, moment in frames_from(container, stream, run.layout, run.source, start):
            segment = owner.pop(moment.time, None)
            if segment is not None:
                yield Numbered(planes, (segment, moment))
                left -= 1
            if not left:
                return
    if owner:
        raise damaged(run.source, min(owner), stream_base(run))


def stream_base(run: Run) -> Fraction:
    """Return the seconds of a tick of the input."""
    return Fraction(*run.settings.time_base)


def read_settings(header: dict[str, object]) -> Settings:
    """Return the settings that a segment was encoded with."""
    stored = json.loads(json.dumps(header["settings"]))
    for name in ("time_base", "rate", "aspect"):
        stored[name] = None if stored[name] is None else tuple(stored[name])
    return Settings(**stored)
