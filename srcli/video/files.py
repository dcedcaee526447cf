"""Restore video files: what is to be done, in segments, then joined with all other streams."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from srcli import __version__
from srcli.errors import OutputExistsError, UsageError
from srcli.jobs.journal import NAME, recipe_of
from srcli.jobs.shards import Shard
from srcli.video.color import Converter
from srcli.video.colorspace import CODES, UNSTATED, Wanted, settled
from srcli.video.containers import Facts, Moment, facts_of, frames_from, opened
from srcli.video.encoders import CARRY_HDR, Settings, settings_for
from srcli.video.formats import output_layout
from srcli.video.index import Index, index_of
from srcli.video.layout import SITINGS, USUAL_SITING
from srcli.video.restoring import FrameRestorer, Networks
from srcli.video.segments import SUFFIX, Run, Segment, cut, make, missing, opened_journal
from srcli.video.stages import Clock, Overlap

SEGMENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The user's wishes for a file."""

    source: Path
    target: Path
    scale: int
    wanted: Wanted = field(default_factory=Wanted)
    dither: bool = False
    codec: str = "auto"
    quality: int | None = None
    preset: str | None = None
    pixel_format: str = "auto"
    start: float | None = None
    end: float | None = None
    shard: Shard | None = None
    networks: tuple[str, ...] = ()
    """Facts about the networks that frames depend on: checksums of weights."""

    @property
    def folder(self) -> Path:
        """Folder of the segments, beside the output."""
        return self.target.with_name(f"{self.target.name}.segments")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """Work that is to be done with a file."""

    wishes: Wishes
    facts: Facts
    converter: Converter
    run: Run
    segments: tuple[Segment, ...]
    """All segments of the output."""

    coded_bytes: int
    """Bytes of the input's own video stream, as far as it is wanted."""

    line: str
    notes: tuple[str, ...]

    @property
    def own(self) -> Sequence[Segment]:
        """Segments of this shard: a run of those that follow each other."""
        shard = self.wishes.shard
        if shard is None:
            return self.segments
        count = len(self.segments)
        first, last = (count * k // shard.count for k in (shard.number - 1, shard.number))
        return self.segments[first:last]

    @property
    def frames(self) -> int:
        """Number of frames of this shard."""
        return sum(len(segment.times) for segment in self.own)


def planned(wishes: Wishes, note: Callable[[str], None] = lambda message: None) -> FilePlan:
    """Look at a file, and plan what is to be done.

    Args:
        wishes: The user's.
        note: Called later with messages about the journal.

    Raises:
        InputError: The file is damaged, or is refused.
        UsageError: The wishes do not fit it, or each other.
    """
    source = wishes.source
    with opened(source) as (container, stream):
        facts = facts_of(container, stream, source)
    with opened(source) as (container, stream):
        index = index_of(container, stream, source)
        origin = Fraction(container.start_time or 0, 1_000_000)
    layout = facts.layout
    out = output_layout(wishes.pixel_format, layout.enlarged(wishes.scale))
    space, how = settled(facts.stated, wishes.wanted, height=layout.height, kind=layout.kind)
    siting = _siting(wishes.wanted, facts)
    converter = Converter(layout, out, space, SITINGS[siting], dither=wishes.dither)
    settings = settings_for(
        facts,
        out,
        full_range=space.full_range,
        matrix=_matrix_number(facts, wishes.wanted),
        siting=siting if wishes.wanted.siting != "auto" or facts.stated.siting else None,
        codec=wishes.codec,
        quality=wishes.quality,
        preset=wishes.preset,
    )
    span = _span(wishes, origin)
    segments = cut(index, SEGMENT_SECONDS, float(facts.time_base), span)
    if not segments:
        raise UsageError(
            f"{source}: has no frame between --start and --end", "Choose another part."
        )
    chroma = f", chroma {siting}" if (layout.across, layout.down) != (1, 1) else ""
    frames = sum(len(segment.times) for segment in segments)
    line = (
        f"{layout.width}x{layout.height} to {out.width}x{out.height}, {frames} frames, "
        f"{layout.subsampling} in {layout.bits} bits to {settings.codec} {settings.pixel_format}; "
        f"{space.title}{chroma} ({how})"
    )
    shift = 0 if wishes.start is None else segments[0].times[0]
    return FilePlan(
        wishes=wishes,
        facts=facts,
        converter=converter,
        run=_run(wishes, facts, settings, index, segments, shift, span, note),
        segments=tuple(segments),
        coded_bytes=sum(packet.size for packet in index.packets) * frames // len(index.packets),
        line=line,
        notes=(*index.notes, *_notes(facts, settings)),
    )


def _siting(wanted: Wanted, facts: Facts) -> str:
    return wanted.siting if wanted.siting != "auto" else facts.stated.siting or USUAL_SITING


def _matrix_number(facts: Facts, wanted: Wanted) -> int:
    """Return the number to state in the output: the input's, unless the user knows better."""
    if wanted.matrix == "auto" or CODES.get(facts.matrix) == wanted.matrix:
        return facts.matrix
    return next((n for n, name in CODES.items() if name == wanted.matrix), UNSTATED)


def _span(wishes: Wishes, origin: Fraction) -> tuple[float, float]:
    """Return the wanted part in seconds as the file counts them: some begin at an hour."""
    start = -math.inf if wishes.start is None else wishes.start + float(origin)
    end = math.inf if wishes.end is None else wishes.end + float(origin)
    if start >= end:
        raise UsageError(
            f"--start {wishes.start} lies behind --end {wishes.end}", "Exchange the two."
        )
    return start, end


def _run(
    wishes: Wishes,
    facts: Facts,
    settings: Settings,
    index: Index,
    segments: Sequence[Segment],
    shift: int,
    span: tuple[float, float],
    note: Callable[[str], None],
) -> Run:
    recipe = recipe_of(
        {
            "version": __version__,
            "networks": wishes.networks,
            "scale": wishes.scale,
            "colour": (wishes.wanted.matrix, wishes.wanted.range, wishes.wanted.siting),
            "dither": wishes.dither,
            "settings": settings.as_dict(),
            "cuts": [segment.times[0] for segment in segments],
            "last": segments[-1].times[-1],
            "shift": shift,
        }
    )
    return Run(
        source=wishes.source,
        folder=wishes.folder,
        layout=facts.layout,
        settings=settings,
        input_sha256=index.sha256,
        recipe=recipe,
        count=len(segments),
        shift=shift,
        journal="main" if wishes.shard is None else wishes.shard.journal,
        note=note,
        extra={"span": list(span), "turn": facts.turn and list(facts.turn)},
    )


def _notes(facts: Facts, settings: Settings) -> tuple[str, ...]:
    lost = [
        name
        for name, value in (("mastering", facts.mastering), ("light-level", facts.light))
        if value is not None and settings.codec not in CARRY_HDR
    ]
    if not lost:
        return ()
    return (f"{settings.codec} cannot carry the {' and '.join(lost)} data of HDR",)


def check_folder(plan: FilePlan, *, resume: bool, overwrite: bool) -> None:
    """Refuse, or remove, the segments of an earlier run.

    Raises:
        OutputExistsError: There are some, and neither --resume nor --overwrite was given.
    """
    folder = plan.wishes.folder
    if not any(folder.glob(f"*{SUFFIX}")):
        return
    if overwrite and not resume:
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink()
        return
    if not resume and plan.wishes.shard is None:
        raise OutputExistsError(
            f"{folder}: holds segments of an earlier run",
            "Go on with --resume, or begin anew with --overwrite.",
        )


def restore_file(
    plan: FilePlan,
    networks: Networks,
    *,
    workers: int = 1,
    batch: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, Clock]:
    """Make all segments of this shard that are missing.

    Args:
        plan: For the file.
        networks: For the frames.
        workers: Batches in the networks at once.
        batch: Frames that go through them together.
        progress: Called with the number of frames done and to be done.

    Returns:
        The number of frames that were made, and the time that each stage took.

    Raises:
        InputError: The file is damaged; finished segments stay.
        OutputError: The disk is full; likewise.
    """
    _remove_others(plan)
    clock = Clock()
    overlap: Overlap[tuple[Segment, Moment]] = Overlap(
        restore=FrameRestorer(plan.converter, networks, clock),
        workers=workers,
        batch=batch,
        clock=clock,
    )
    with opened_journal(plan.run) as journal:
        todo = missing(plan.run, plan.own, journal)
        total = sum(len(segment.times) for segment in todo)
        made = make(plan.run, todo, overlap, journal, lambda done: progress(done, total))
    return made, clock


def _remove_others(plan: FilePlan) -> None:
    """Remove segments that this plan has not: an earlier one was cut in more parts."""
    names = {segment.name for segment in plan.segments}
    for path in plan.wishes.folder.glob(f"*{SUFFIX}"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def clear(plan_or_folder: Path) -> None:
    """Remove the folder of segments once they are joined."""
    for path in plan_or_folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
    shutil.rmtree(plan_or_folder / NAME, ignore_errors=True)
    if not any(plan_or_folder.iterdir()):  # something else may lie there: it is not ours
        plan_or_folder.rmdir()


def seconds_per_frame(plan: FilePlan, networks: Networks, workers: int) -> float:
    """Return the seconds that a frame takes, measured on the first two frames."""
    restore = FrameRestorer(plan.converter, networks, Clock())
    with opened(plan.wishes.source) as (container, stream):
        source = frames_from(container, stream, plan.facts.layout, plan.wishes.source, None)
        planes, _ = next(source)
        restore([planes])  # the first call makes what later ones use again
        began = time.perf_counter()
        restore([planes])
    return (time.perf_counter() - began) / workers
