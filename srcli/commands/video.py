"""`srcli video`."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from srcli import console
from srcli.commands import options
from srcli.commands.sections import SectionedCommand
from srcli.commands.video_files import join_segments, restore_video
from srcli.commands.video_options import VideoRequest, video_options
from srcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from srcli.video.y4m import Reader, Target

STDIO = "-"
Y4M = ".y4m"
JOIN = "join"


@click.command(cls=SectionedCommand)
@video_options
def video(inputs: tuple[str, ...], **given: Any) -> int:
    """Enlarge, denoise or deblock a video.

    INPUT is a file, or - for Y4M from a pipe. Depth and chroma subsampling, times, sound, subtitles
    and all else stay; colours are converted in floats by the stream's own matrix, range and siting,
    and rounded once. Files other than .y4m need the extra `video`.

    \b
    Examples:
        srcli video in.mkv -o out.mkv -s 2
        srcli video in.mkv -o out.mkv -s 2 --resume
        srcli video noisy.mp4 -o clean.mp4 -s 1 --denoise
        ffmpeg -i in.mkv -f yuv4mpegpipe - | srcli video - -o large.y4m -s 2
        srcli video in.mkv -o out.mkv --shard 1/2
        srcli video join in.mkv -o out.mkv
    """
    from srcli.system.allocator import keep_freed_memory

    request = VideoRequest(**given)
    keep_freed_memory()  # else each frame's memory is provided anew, for a tenth of the time
    if inputs[0] == JOIN and len(inputs) == 2:
        return join_segments(inputs[1], request)
    name = _input(inputs)
    if is_y4m(name) and is_y4m(request.output or STDIO):
        return restore_pipe(name, request)
    _check_files(name, request)
    return restore_video(name, request)


def _check_files(name: str, request: VideoRequest) -> None:
    """Raise `UsageError` where a pipe of Y4M meets a file of another kind."""
    if name == STDIO:
        raise UsageError(
            f"{request.output}: is made of files, not of a pipe",
            "Write Y4M with -o -, and pipe it into ffmpeg.",
        )
    if request.output == STDIO:
        raise UsageError(
            f"{name}: goes to a file, not to a pipe",
            f"Run `ffmpeg -i {quote(name)} -f yuv4mpegpipe - | srcli video - -o -`.",
        )


def _input(inputs: tuple[str, ...]) -> str:
    if len(inputs) != 1:
        raise UsageError(f"{inputs[1]}: one video at a time", "Run srcli once for each.")
    return inputs[0]


def is_y4m(name: str) -> bool:
    """Tell whether a name is that of a Y4M stream: a pipe, or a file that ends so."""
    return name == STDIO or name.lower().endswith(Y4M)


def restore_pipe(name: str, request: VideoRequest) -> int:
    """Restore a Y4M stream; returns the exit code."""
    from srcli.video.networks import open_networks
    from srcli.video.piping import planned, restore_stream

    _refuse_for_streams(request)
    output = _output(name, request)
    models = request.recipe.models(console.note)
    with _opened(name) as reader:
        plan = planned(reader.header, request.scale, request.wanted, dither=request.dither)
        console.note(f"{name}: {plan.line}")
        with (
            _target(output, request) as target,
            open_networks(models, request.run_options(), console.note) as networks,
            console.progress() as bar,
        ):
            clock = restore_stream(
                reader,
                target,
                plan,
                networks.passes,
                workers=networks.workers,
                batch=networks.batch,
                progress=lambda done: bar.show(f"{name}: frame {done}", done, 0),
            )
    console.note(f"{output}: {clock.summary(clock.frames.get('writing', 0))}")
    return 0


def _refuse_for_streams(request: VideoRequest) -> None:
    """Raise `UsageError` for an option that a stream of Y4M has no use for."""
    for option, is_given in (
        ("--start", request.start is not None),
        ("--end", request.end is not None),
        ("--resume", request.resume),
        ("--shard", request.shard is not None),
        ("--dry-run", request.dry_run),
        ("--codec", request.codec != "auto"),
        ("--crf", request.crf is not None),
        ("--preset", request.preset is not None),
        ("--pix-fmt", request.pix_fmt != "auto"),
    ):
        if is_given:
            raise UsageError(f"{option} is for files, not for Y4M", f"Leave out {option}.")


def _output(name: str, request: VideoRequest) -> str:
    """Return the name of the output.

    Raises:
        UsageError: There is none, or nothing may be written there.
        OutputExistsError: It is there already.
    """
    output = request.output or (STDIO if name == STDIO else None)
    if output is None:
        raise UsageError("no output was named", "Name a file with -o.")
    if output == STDIO:
        options.check_stdout()
    else:
        options.check_free(Path(output), request.overwrite)
        if name != STDIO and Path(output).exists() and Path(name).samefile(output):
            raise UsageError(f"{output}: is the input itself", "Name another file with -o.")
    return output


@contextmanager
def _opened(name: str) -> Iterator[Reader]:
    """Open a Y4M stream.

    Raises:
        InputError: It cannot be read, or is damaged.
    """
    from srcli.video.y4m import Reader, open_unbuffered

    if name == STDIO:
        if sys.stdin is not None and sys.stdin.isatty():
            raise UsageError("standard input: is a terminal", "Pipe a Y4M stream into srcli.")
        yield Reader(open_unbuffered(0), "standard input")
        return
    with _read(Path(name)) as opened:
        yield Reader(opened, name)


def _read(path: Path) -> FileIO:
    try:
        return FileIO(path, "rb")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror})", "Check the name and its permissions."
        ) from error


@contextmanager
def _target(output: str, request: VideoRequest) -> Iterator[Target]:
    """Open the place where the result goes; a file gets its name once it is whole."""
    from srcli.system.files import atomic_path
    from srcli.video.y4m import open_unbuffered

    if output == STDIO:
        yield open_unbuffered(1)
        return
    path = Path(output)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):  # a named pipe, or a device
        with path.open("wb", buffering=0) as opened:
            yield opened
        return
    with atomic_path(path, replace=request.overwrite) as partial, partial.open("wb") as opened:
        yield opened
