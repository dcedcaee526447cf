"""Read video files by PyAV: facts about the stream, and its frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import InputError, first_line
from srcli.video.colorspace import CODES, REFUSED, UNSTATED, Stated
from srcli.video.formats import input_layout, planes_of
from srcli.video.layout import LARGEST_SIDE, Layout, Planes
from srcli.video.messages import prepared

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

FULL_RANGE, LIMITED_RANGE = 2, 1
INTERLACED = (2, 3, 4, 5)  # orders of fields
HDR_TRANSFERS = (16, 18)  # PQ and HLG
PROTECTED_TAGS = ("encv", "drmi")
DOLBY_TAGS = ("dvh1", "dvhe", "dav1", "dva1", "dvav")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about the video stream of a file."""

    layout: Layout
    stated: Stated
    rate: Fraction
    """Frames a second, the average."""

    time_base: Fraction
    """Seconds of a tick, in which times are counted."""

    aspect: Fraction | None
    """Width of a pixel by its height."""

    primaries: int
    transfer: int
    matrix: int
    """Numbers of H.273, handed on as they are."""

    mastering: tuple[Fraction, ...] | None = None
    """Ten numbers: x, y of red, green, blue and white, least and greatest luminance."""

    light: tuple[int, int] | None = None
    """Greatest light of a pixel, and greatest mean of a frame."""

    turn: tuple[int, ...] | None = None
    """Display matrix, nine numbers."""

    @property
    def is_hdr(self) -> bool:
        """True for PQ and HLG."""
        return self.transfer in HDR_TRANSFERS


@dataclass(frozen=True, slots=True)
class Moment:
    """Moment at which a frame is shown, and for how long, in ticks."""

    time: int
    duration: int


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream that is no cover picture.

    Raises:
        InputError: It is no video, or damaged.
    """
    import av

    with as_input_errors(path):
        container = av.open(str(path), metadata_errors="replace")  # old tags are of any encoding
    try:
        yield container, video_stream(container, path)
    finally:
        container.close()


@contextmanager
def as_input_errors(path: Path) -> Iterator[None]:
    """Turn PyAV's errors about a file into ours."""
    import av

    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file", "Check the path.") from error
    except av.FFmpegError as error:
        reason = error.strerror or first_line(error)
        raise InputError(
            f"{path}: cannot be read ({reason})",
            f"Check that it is a video, and whole; {prepared(path, '-c copy')} repairs some.",
        ) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is no cover picture.

    Raises:
        InputError: There is none, or it cannot be decoded.
    """
    import av

    found = next((s for s in container.streams.video if not _is_cover(s)), None)
    if found is None:
        raise InputError(f"{path}: holds no video", "Name a file with a video stream.")
    if found.codec_context is None:
        raise InputError(f"{path}: its codec is not known", "Convert it with ffmpeg first.")
    found.thread_type = av.codec.context.ThreadType.AUTO
    return found


def _is_cover(stream: VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def facts_of(container: InputContainer, stream: VideoStream, path: Path) -> Facts:
    """Read what a stream states, by its header and its first frame.

    Raises:
        InputError: It is interlaced, encrypted, of Dolby Vision, or in colours srcli lacks.
    """
    _check_tag(stream, path)
    with as_input_errors(path):
        frame = next(_open_frames(container, stream, path), None)
    if frame is None:
        raise InputError(f"{path}: no frame can be decoded", "Check the file with a player.")
    check_frame(frame, path, stream)
    context = stream.codec_context
    if max(frame.width, frame.height) > LARGEST_SIDE:
        raise InputError(f"{path}: frames are larger than {LARGEST_SIDE} pixels", "Cut them first.")
    name = frame.format.name
    layout = input_layout(name, frame.width, frame.height, str(path))
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return Facts(
        layout=layout,
        stated=_stated(frame, name, context.name, path),
        rate=rate,
        time_base=stream.time_base or Fraction(1) / rate,
        aspect=stream.sample_aspect_ratio or None,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        mastering=_mastering(_side(frame, "MASTERING_DISPLAY_METADATA")),
        light=_light(_side(frame, "CONTENT_LIGHT_LEVEL")),
        turn=_turn(_side(frame, "DISPLAYMATRIX")),
    )


def _check_tag(stream: VideoStream, path: Path) -> None:
    tag = str(stream.codec_context.codec_tag).lower()
    if tag in PROTECTED_TAGS:
        raise _encrypted(path)
    if tag in DOLBY_TAGS:
        raise _dolby(path)


def _open_frames(
    container: InputContainer, stream: VideoStream, path: Path
) -> Iterator[VideoFrame]:
    """Decode from the beginning; raise `InputError` for packets that are encrypted."""
    for packet in container.demux(stream):
        if packet.has_sidedata("encryption_info"):
            raise _encrypted(path)
        yield from packet.decode()


def _encrypted(path: Path) -> InputError:
    return InputError(
        f"{path}: is encrypted",
        f"Decrypt it: {prepared(path, '-c copy', first='-decryption_key KEY ')}.",
    )


def _dolby(path: Path) -> InputError:
    return InputError(
        f"{path}: is of Dolby Vision, whose layers no longer fit larger frames",
        f"Take it away: {prepared(path, '-c copy -bsf:v dovi_rpu=strip=1')}.",
    )


def check_frame(frame: VideoFrame, path: Path, stream: VideoStream) -> None:
    """Raise `InputError` for a frame of fields, of Dolby Vision, or that is damaged."""
    if frame.interlaced_frame or stream.codec_context.field_order in INTERLACED:
        raise InputError(
            f"{path}: is interlaced, which a network would take for a pattern",
            f"Prepare it: {prepared(path, '-vf bwdif=mode=send_frame -c:v ffv1 -c:a copy')}.",
        )
    if _side(frame, "DOVI_METADATA") or _side(frame, "DOVI_RPU_BUFFER"):
        raise _dolby(path)
    if frame.is_corrupt:
        raise damaged(path, frame.pts, stream.time_base)


def damaged(path: Path, time: int | None, time_base: Fraction | None) -> InputError:
    """Return the error for frames that cannot be decoded."""
    place = "" if time is None or time_base is None else f" at {float(time * time_base):.2f} s"
    return InputError(
        f"{path}: is damaged{place}",
        f"Repair it: {prepared(path, '-c:v ffv1 -c:a copy')}, and look at the result.",
    )


def _side(frame: VideoFrame, name: str) -> bytes | None:
    try:
        beside = frame.side_data
    except ValueError:  # a kind that PyAV has no name for, such as EXIF: it then gives none at all
        return None
    for data in beside:
        if data.type.name == name:
            return bytes(data)
    return None


def _stated(frame: VideoFrame, name: str, codec: str, path: Path) -> Stated:
    number = int(frame.colorspace)
    if number in REFUSED:
        raise InputError(
            f"{path}: colours are coded by {REFUSED[number]}, which srcli does not convert",
            f"Convert it: {prepared(path, '-vf zscale=matrix=709 -c:v ffv1')}.",
        )
    full = {FULL_RANGE: True, LIMITED_RANGE: False}.get(int(frame.color_range))
    if name.startswith("yuvj"):
        full = True
    matrix = CODES.get(number) if number != UNSTATED else None
    return Stated(
        matrix=matrix,
        full_range=full,
        siting="center" if codec in ("mjpeg", "mpeg1video") else None,
    )


def _mastering(data: bytes | None) -> tuple[Fraction, ...] | None:
    """Read FFmpeg's AVMasteringDisplayMetadata: ten fractions, and which of them are set."""
    if data is None or len(data) < 88:
        return None
    *numbers, has_colors, has_light = struct.unpack("<20i2i", data[:88])
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if not has_colors or not has_light or any(below == 0 for _, below in pairs):
        return None
    return tuple(Fraction(above, below) for above, below in pairs)


def _light(data: bytes | None) -> tuple[int, int] | None:
    if data is None or len(data) < 8:
        return None
    found: tuple[int, int] = struct.unpack("<2I", data[:8])
    return found


def _turn(data: bytes | None) -> tuple[int, ...] | None:
    return None if data is None or len(data) < 36 else struct.unpack("<9i", data[:36])


def frames_from(
    container: InputContainer, stream: VideoStream, layout: Layout, path: Path, start: int | None
) -> Iterator[tuple[Planes, Moment]]:
    """Decode frames in the order in which they are shown.

    Args:
        container: Of the file.
        stream: Of the container.
        layout: Of every frame.
        path: Of the file, for errors.
        start: Time of the first frame that is wanted, where a keyframe is; None for all.

    Raises:
        InputError: The file is damaged, or a frame is unlike the first one.
    """
    import av

    time: int | None = None
    try:
        for frame in _decoded(container, stream, start):
            time = _time(frame)
            if time is None or (start is not None and time < start):
                continue
            check_frame(frame, path, stream)
            if (frame.width, frame.height) != (layout.width, layout.height):
                raise InputError(
                    f"{path}: frames change their size to {frame.width}x{frame.height}",
                    "Cut the file there, and do the parts one after the other.",
                )
            yield planes_of(frame, layout), Moment(time, frame.duration or 0)
    except av.FFmpegError as error:
        raise damaged(path, time, stream.time_base) from error


def _decoded(
    container: InputContainer, stream: VideoStream, start: int | None
) -> Iterator[VideoFrame]:
    """Decode from a keyframe at `start`, or from before it where a container seeks too far."""
    if start is None:
        yield from container.decode(stream)
        return
    second = round(1 / stream.time_base)
    for earlier in (start, start - 10 * second, start - 100 * second):
        container.seek(earlier, stream=stream)
        frames = container.decode(stream)
        first = next(frames, None)
        time = None if first is None else _time(first)
        if time is not None and time <= start:
            yield first
            yield from frames
            return
    container.seek(stream.start_time or 0, stream=stream)
    yield from container.decode(stream)


def _time(frame: VideoFrame) -> int | None:
    time: int | None = frame.pts if frame.pts is not None else frame.dts
    return time
