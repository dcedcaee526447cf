"""Restore a Y4M stream: from a pipe or a file, to a pipe or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from srcli.video.color import Converter
from srcli.video.colorspace import Stated, Wanted, settled
from srcli.video.layout import SITINGS, USUAL_SITING
from srcli.video.restoring import FrameRestorer, Networks
from srcli.video.stages import Clock, Numbered, Overlap
from srcli.video.y4m import Frame, Header, Reader, Target, Writer

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Layouts and colours of a stream that is to be restored."""

    header: Header
    target: Header
    converter: Converter
    line: str
    """Line for people: sizes and colours, and how they are known."""


def planned(header: Header, scale: int, wanted: Wanted, *, dither: bool = False) -> Plan:
    """Return what is to be done with a stream.

    Args:
        header: Of the stream that comes in.
        scale: Factor of enlargement.
        wanted: The user's word on colours.
        dither: Spread the error of rounding.

    Raises:
        UsageError: The user's word does not fit the stream.
    """
    layout, target = header.layout, header.enlarged(scale)
    stated = Stated(full_range=header.full_range, siting=header.siting)
    space, how = settled(stated, wanted, height=layout.height, kind=layout.kind)
    siting = wanted.siting if wanted.siting != "auto" else header.siting or USUAL_SITING
    converter = Converter(layout, target.layout, space, SITINGS[siting], dither=dither)
    chroma = f", chroma {siting}" if (layout.across, layout.down) != (1, 1) else ""
    line = (
        f"{layout.width}x{layout.height} to {target.layout.width}x{target.layout.height}, "
        f"{layout.subsampling} in {layout.bits} bits; {space.title}{chroma} ({how})"
    )
    return Plan(header=header, target=target, converter=converter, line=line)


def restore_stream(
    reader: Reader,
    target: Target,
    plan: Plan,
    networks: Networks,
    *,
    workers: int = 1,
    batch: int = 1,
    progress: Progress = lambda frames: None,
) -> Clock:
    """Restore all frames of a stream, in bounded memory.

    Args:
        reader: Of the stream, of which the header was read.
        target: Stream to write to.
        plan: For the stream.
        networks: For the frames.
        workers: Batches in the networks at once.
        batch: Frames that go through them together.
        progress: Called with the number of frames written so far.

    Returns:
        The time that each stage took.

    Raises:
        InputError: The stream is damaged; the frames before that place were written.
        BrokenPipeError: Nobody reads the result any more.
    """
    clock = Clock()
    restore = FrameRestorer(plan.converter, networks, clock)
    overlap: Overlap[bytes] = Overlap(restore=restore, workers=workers, batch=batch, clock=clock)
    writer = Writer(target, plan.target)
    with closing(overlap(_numbered(reader))) as restored:
        for done, frame in enumerate(restored, start=1):
            with clock.stage("writing"):
                writer.write(Frame(frame.planes, frame.tag))
            progress(done)
    return clock


def _numbered(reader: Reader) -> Iterator[Numbered[bytes]]:
    for frame in reader.frames():
        yield Numbered(frame.planes, frame.parameters)
