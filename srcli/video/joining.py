"""Join segments to a file, with everything else that the input holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import InputError, OutputError, UsageError, first_line
from srcli.system.files import atomic_path
from srcli.video.containers import as_input_errors, video_stream
from srcli.video.encoders import ENCODERS, Settings, configure
from srcli.video.packets import SegmentFile, decoding_times
from srcli.video.segments import SUFFIX, read_settings

if TYPE_CHECKING:
    from av import Packet as AvPacket
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

OWN_TAGS = ("encoder", "creation_time", "major_brand", "minor_version", "compatible_brands")
SIZE_TAGS = ("BPS", "NUMBER_OF_BYTES", "NUMBER_OF_FRAMES", "DURATION", "_STATISTICS")


@dataclass(frozen=True, slots=True)
class Joined:
    """Segments that make up a whole, in order, and what they have in common."""

    files: tuple[SegmentFile, ...]
    settings: Settings
    shift: Fraction
    """Seconds of the input at which the output begins."""

    span: tuple[float, float]
    turn: tuple[int, ...] | None


def found_in(folder: Path) -> Joined:
    """Read the segments of a folder.

    Raises:
        InputError: One is missing, damaged, or of another run.
    """
    files = [SegmentFile(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    if not files:
        raise InputError(f"{folder}: holds no segments", "Run `srcli video` first.")
    first = files[0].header
    shared = ("count", "input_sha256", "recipe", "settings", "extradata", "shift", "span", "turn")
    for file in files:
        if any(file.header[key] != first[key] for key in shared):
            raise InputError(
                f"{file.path}: was made from another input, or with other options",
                "Remove it, and make it again with --resume.",
            )
        file.check()
    have = {file.header["number"] for file in files}
    count = int(str(first["count"]))
    lacking = sorted(set(range(count)) - have)
    if lacking:
        raise InputError(
            f"{folder}: {len(lacking)} of {count} segments are missing, the first is {lacking[0]}",
            "Make them with --resume, or with the --shard that is missing.",
        )
    settings = read_settings(first)
    start, end = (float(str(value)) for value in _list(first["span"]))
    turn = first["turn"]
    return Joined(
        tuple(files),
        settings,
        int(str(first["shift"])) * Fraction(*settings.time_base),
        (start, end),
        None if turn is None else tuple(int(str(value)) for value in _list(turn)),
    )


def _list(value: object) -> list[object]:
    assert isinstance(value, list), "it was written as one"
    return value


def join(
    source: Path,
    folder: Path,
    target: Path,
    *,
    replace: bool,
    note: Callable[[str], None] = lambda message: None,
) -> int:
    """Write segments and all other streams of the input to a file; returns the number of frames.

    Args:
        source: The input that the segments were made of.
        folder: Of the segments.
        target: The file; its suffix names the container.
        replace: True if a file of that name may be replaced.
        note: Called with what could not be kept.

    Raises:
        InputError: A segment is missing or damaged.
        OutputError: The file cannot be written.
        UsageError: The container does not take a stream.
    """
    import av

    joined = found_in(folder)
    times = decoding_times([time for file in joined.files for time in file.times()])
    with as_input_errors(source):
        container = av.open(str(source), metadata_errors="replace")
    with (
        container,
        atomic_path(target, replace=replace) as partial,
        _as_output_errors(target),
        av.open(str(partial), "w", container_options=_options(target)) as out,
    ):
        video = video_stream(container, source)
        own = _own_stream(out, video, joined)
        others = _others(container, out, video, target, note)
        _copy_tags(container, out, joined)
        out.start_encoding()
        _check_headers(own, joined, target)
        _mux(container, out, own, others, joined, times)
    return len(times)


def _options(target: Path) -> dict[str, str]:
    # Times stay as they are; a shift would part sound from picture in some players.
    options = {"avoid_negative_ts": "disabled"}
    if target.suffix.lower() in (".mp4", ".mov", ".m4v"):
        options["movflags"] = "+faststart+use_metadata_tags"
    return options


@contextmanager
def _as_output_errors(target: Path) -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(
            f"{target}: cannot be written ({first_line(error)})",
            "Choose another container with -o; .mkv takes nearly everything.",
        ) from error


def _own_stream(out: OutputContainer, video: VideoStream, joined: Joined) -> VideoStream:
    settings = joined.settings
    stream = out.add_stream(ENCODERS[settings.codec], rate=Fraction(*settings.rate))
    configure(stream.codec_context, settings)
    stream.time_base = Fraction(*settings.time_base)
    _describe(video, stream)
    if joined.turn is not None:
        stream.set_display_matrix(joined.turn)
    return stream


def _describe(source: Stream, stream: Stream) -> None:
    """Copy tags and disposition of a stream, but for what counts its bytes."""
    stream.metadata.update(_kept(source.metadata))
    stream.disposition = source.disposition


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in OWN_TAGS and not key.startswith(SIZE_TAGS)
    }


def _others(
    container: InputContainer,
    out: OutputContainer,
    video: VideoStream,
    target: Path,
    note: Callable[[str], None],
) -> dict[int, Stream]:
    """Add all other streams to the output; returns them by their place in the input."""
    added: dict[int, Stream] = {}
    for stream in container.streams:
        if stream.index == video.index:
            continue
        if stream.type == "attachment":
            made = out.add_attachment(
                stream.metadata.get("filename", stream.name or "attachment"),
                stream.mimetype or "application/octet-stream",
                stream.data,
            )
            made.metadata.update(_kept(stream.metadata))
            continue
        try:
            made = out.add_stream_from_template(stream, opaque=True)
        except ValueError as error:
            if stream.type == "data":  # of cameras and editors: nothing to see or hear
                note(f"{target}: cannot hold data stream {stream.index}, which is left out")
                continue
            raise UsageError(
                f"{target}: cannot hold stream {stream.index}, {stream.type} ({first_line(error)})",
                "Name an .mkv file with -o.",
            ) from error
        _describe(stream, made)
        added[stream.index] = made
    return added


def _copy_tags(container: InputContainer, out: OutputContainer, joined: Joined) -> None:
    out.metadata.update(_kept(container.metadata))
    chapters = []
    for chapter in container.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        start, end = (Fraction(chapter[name]) * base for name in ("start", "end"))
        if joined.span[0] <= end and start < joined.span[1]:
            for name, time in (("start", start), ("end", end)):
                chapter[name] = max(0, round((time - joined.shift) / base))
            chapters.append(chapter)
    if chapters:
        out.set_chapters(chapters)


def _check_headers(own: VideoStream, joined: Joined, target: Path) -> None:
    """Raise `OutputError` if this encoder's header is not that of the segments."""
    now = (own.codec_context.extradata or b"").hex()
    if now != joined.files[0].header["extradata"]:
        raise OutputError(
            f"{target}: the segments were made by another version of the encoder",
            "Make them again with this one: remove their folder.",
        )


def _mux(
    container: InputContainer,
    out: OutputContainer,
    own: VideoStream,
    others: Mapping[int, Stream],
    joined: Joined,
    times: Sequence[int],
) -> None:
    """Write all packets in the order of their times."""
    video = _video_packets(own, joined, times)
    ahead = next(video, None)
    for packet in (
        container.demux(*[container.streams[index] for index in others]) if others else ()
    ):
        if packet.dts is None or not packet.size:
            continue
        seconds = packet.dts * packet.time_base
        if not joined.span[0] <= seconds < joined.span[1]:
            continue
        seconds -= joined.shift
        while ahead is not None and ahead.dts * ahead.time_base <= seconds:
            out.mux_one(ahead)
            ahead = next(video, None)
        packet.stream = others[packet.stream.index]
        if joined.shift:
            moved = round(joined.shift / packet.time_base)
            packet.dts -= moved
            packet.pts = None if packet.pts is None else packet.pts - moved
        out.mux_one(packet)
    while ahead is not None:
        out.mux_one(ahead)
        ahead = next(video, None)


def _video_packets(own: VideoStream, joined: Joined, times: Sequence[int]) -> Iterator[AvPacket]:
    import av

    base = Fraction(*joined.settings.time_base)
    decoding = iter(times)
    for file in joined.files:
        for coded in file.packets():
            packet = av.Packet(coded.content)
            packet.pts, packet.dts, packet.duration = coded.time, next(decoding), coded.duration
            packet.time_base, packet.stream = base, own
            packet.is_keyframe = coded.is_key
            yield packet
