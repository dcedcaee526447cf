"""`srcli video` for files of any container, by PyAV."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from srcli import console
from srcli.commands import options
from srcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from srcli.commands.video_options import VideoRequest
    from srcli.loading.model import LoadedModel
    from srcli.video.files import FilePlan, Wishes


def restore_video(name: str, request: VideoRequest) -> int:
    """Restore a file, in segments, and join them; returns the exit code."""
    from srcli.video.files import check_folder, planned

    target = _target(request)
    if request.shard is None:
        options.check_file(target, request.overwrite)
    models = request.recipe.models(console.note)
    plan = planned(_wishes(Path(name), target, request, models), console.note)
    console.note(f"{name}: {plan.line}")
    for line in plan.notes:
        console.note(f"note: {line}")
    if request.dry_run:
        return _tell(plan, request, models)
    check_folder(plan, resume=request.resume, overwrite=request.overwrite)
    _make(plan, request, models)
    if request.shard is not None:
        console.report(f"{plan.wishes.folder}  {len(plan.own)} of {len(plan.segments)} segments")
        return 0
    return join_segments(name, request)


def _make(plan: FilePlan, request: VideoRequest, models: list[LoadedModel]) -> None:
    from srcli.video.files import restore_file
    from srcli.video.networks import open_networks

    name = plan.wishes.source.name
    with (
        open_networks(models, request.run_options(), console.note) as networks,
        console.progress() as bar,
    ):
        try:
            made, clock = restore_file(
                plan,
                networks.passes,
                workers=networks.workers,
                batch=networks.batch,
                progress=lambda done, total: bar.show(f"{name}: frame {done}", done, total),
            )
        except (KeyboardInterrupt, SystemExit):
            console.note("Finished segments stay. To go on, repeat the command with --resume.")
            raise
        except InputError:
            console.note(
                f"Finished segments stay in {plan.wishes.folder}, for --resume once this file can "
                "be read. A repaired file is another one: all its segments are made anew."
            )
            raise
    console.note(f"{name}: {clock.summary(made)}")


def join_segments(name: str, request: VideoRequest) -> int:
    """Join the segments of a file, with its other streams; returns the exit code."""
    from srcli.video.files import clear
    from srcli.video.joining import join

    target = _target(request)
    options.check_file(target, request.overwrite)
    folder = target.with_name(f"{target.name}.segments")
    frames = join(Path(name), folder, target, replace=request.overwrite, note=console.note)
    clear(folder)
    console.report(f"{target}  {frames} frames")
    return 0


def _target(request: VideoRequest) -> Path:
    if request.output is None:
        raise UsageError("no output was named", "Name a file with -o.")
    return Path(request.output)


def _wishes(source: Path, target: Path, request: VideoRequest, models: list[LoadedModel]) -> Wishes:
    from srcli.video.files import Wishes

    if target.exists() and source.exists() and source.samefile(target):
        raise UsageError(f"{target}: is the input itself", "Name another file with -o.")
    facts = [f"{model.weights.sha256} {model.label}" for model in models]
    return Wishes(
        source=source,
        target=target,
        scale=request.scale,
        wanted=request.wanted,
        dither=request.dither,
        codec=request.codec,
        quality=request.crf,
        preset=request.preset,
        pixel_format=request.pix_fmt,
        start=request.start,
        end=request.end,
        shard=request.shard,
        networks=(*facts, f"tta {request.tta}", request.precision),
    )


def _tell(plan: FilePlan, request: VideoRequest, models: list[LoadedModel]) -> int:
    """Say what a run would do, how long it takes and how much disk, and do nothing."""
    from srcli.video.files import seconds_per_frame
    from srcli.video.networks import open_networks

    with open_networks(models, request.run_options()) as networks:
        each = seconds_per_frame(plan, networks.passes, networks.workers)
    whole = timedelta(seconds=round(each * plan.frames))
    # As many bits for each pixel as the input has, twice: in segments, and joined.
    bytes_needed = 2 * plan.coded_bytes * request.scale**2
    console.result(
        f"{plan.wishes.target}  {plan.frames} frames in {len(plan.own)} segments, about {whole} "
        f"at {1 / each:.1f} frames a second, about {max(1, bytes_needed >> 20)} MB of disk"
    )
    return 0
