"""Which pictures are to be done and what each becomes: all of it settled before any work."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srcli.errors import InputError, OutputExistsError, SrcliError, UsageError
from srcli.images import (
    FORMATS,
    MAX_PIXELS,
    Header,
    SaveOptions,
    check_output,
    format_of,
    has_picture_suffix,
    is_opaque,
    looks_readable,
    named_for_writing,
    probe_all,
    writes_as,
)
from srcli.sizes import Grid, Size, SizeRequest

STDIO = "-"
_STDIN_NAME = "standard input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to restore."""

    source: Path
    """The input; `-` for standard input."""

    target: Path
    """The output; `-` for standard output."""

    root: Path
    """The folder that all outputs of this input's kind lie in or below, in full."""

    options: SaveOptions = field(default_factory=SaveOptions)
    content: bytes | None = None
    """What standard input held."""

    header: Header | None = None
    size: Size | None = None
    notes: tuple[str, ...] = ()
    error: SrcliError | None = None
    """Why the picture cannot be done, where that is known before work."""

    @property
    def exists(self) -> bool:
        """Whether the output's name is taken already, be it by a link that leads nowhere."""
        return str(self.target) != STDIO and os.path.lexists(self.target)

    @property
    def name(self) -> str:
        """The input, for people."""
        return _STDIN_NAME if self.content is not None else str(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user wants of all outputs."""

    output: str | None
    """A file, a folder (it exists, or ends in a slash), `-`, or None for beside the input."""

    suffix: str
    """What names get: `_x4`."""

    size: SizeRequest
    scales: tuple[int, ...]
    """Those that the network has; for one of any scale, the largest at least."""

    grid: Grid | None = None
    """Set if the network takes any scale."""

    options: SaveOptions
    recursive: bool = False
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class _Found:
    """An input, and the folder that it was found in, if the user named a folder."""

    source: Path
    folder: Path | None = None


def plan_jobs(inputs: Sequence[str], wishes: Wishes) -> list[Job]:
    """Pair each input with its output, and look at each as far as its header.

    Args:
        inputs: Files, folders, patterns, or `-`.
        wishes: For all of them.

    Raises:
        UsageError: Outputs collide with each other or with inputs, or the wishes contradict.
    """
    found = list(_find(inputs, recursive=wishes.recursive, output=wishes.output))
    if not found:
        raise InputError(f"{', '.join(inputs)}: no pictures in it. Name others, or give -r.")
    jobs = [_job(entry, wishes, alone=len(found) == 1, folders=inputs) for entry in found]
    _check_names(jobs)
    return [_examined(job, wishes) for job in jobs]


def check_existing(jobs: Iterable[Job]) -> None:
    """Raise `OutputExistsError` if an output is there already."""
    present = [job.target for job in jobs if job.exists]
    if present:
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise OutputExistsError(
            f"{present[0]}: exists already{more}. Replace it with --overwrite, keep it with "
            "--skip-existing, or choose another place with -o."
        )


def _find(inputs: Sequence[str], *, recursive: bool, output: str | None) -> Iterator[_Found]:
    """The inputs; in a folder that holds the output folder too, not what is in that one."""
    own = Path(output).resolve() if output and output != STDIO else None
    for text in inputs:
        if not text:
            raise UsageError("an input has no name. Is a variable of your shell empty?")
        path = _path(text)
        if text != STDIO and path.is_dir():
            inside = own is not None and path.resolve() in own.parents
            for file in _pictures_in(path, recursive=recursive):
                if not (inside and own in file.resolve().parents):
                    yield _Found(file, path)
        elif text != STDIO and not os.path.lexists(path) and glob.has_magic(text):
            # Shells expand patterns; where one did not, nothing matched, or there is no shell.
            yield from (_Found(_file(name)) for name in _matching(text))
        else:
            yield _Found(path)


def _matching(pattern: str) -> list[str]:
    # Path.glob takes no absolute patterns.
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def _pictures_in(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """Files that are called like pictures, in a stable order.

    Hidden files are left alone (half-written outputs are hidden), and so are symbolic links that
    lead out of the folder.
    """
    inside = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            hidden = name.startswith(".") or not looks_readable(name)
            if not hidden and path.resolve().is_relative_to(inside):
                yield path
        if not recursive:
            return


def _job(found: _Found, wishes: Wishes, *, alone: bool, folders: Sequence[str]) -> Job:
    source = found.source
    content = sys.stdin.buffer.read() if str(source) == STDIO else None
    root, target = _target(found, wishes, alone=alone, folders=folders)
    return Job(
        source=source,
        target=target,
        root=Path(os.path.abspath(root)),  # noqa: PTH100  resolve() would follow links
        options=wishes.options,
        content=content,
    )


def _target(
    found: _Found, wishes: Wishes, *, alone: bool, folders: Sequence[str]
) -> tuple[Path, Path]:
    """The root folder of an output, and the output."""
    source, output = found.source, wishes.output
    if found.folder is not None:
        root = _tree_root(found.folder, wishes, folders)
        return root, _with_format(root / source.relative_to(found.folder), wishes.options)
    if output == STDIO or (output is None and str(source) == STDIO):
        if not alone:
            raise UsageError("standard output takes one picture. Give a folder with -o.")
        return Path(STDIO), Path(STDIO)
    if output is not None and alone and not _is_folder(output):
        _check_suffix(output, wishes.options.format)  # before any work
        return _path(output).parent, _path(output)
    stem = "stdin" if str(source) == STDIO else source.stem
    folder = source.parent if output is None else Path(output)
    named = source.with_name(f"{stem}{wishes.suffix}{source.suffix}").name
    return folder, _with_format(folder / named, wishes.options)


def _check_suffix(output: str, wanted: str | None) -> None:
    """Raise `UsageError` if the name says no format, or another one than is wanted."""
    fmt = format_of(wanted or output)
    if wanted is not None and has_picture_suffix(output) and format_of(output) is not fmt:
        raise UsageError(
            f"{output}: this name is that of another format than --format {wanted}. "
            "Change it, or leave out --format."
        )


def _tree_root(folder: Path, wishes: Wishes, folders: Sequence[str]) -> Path:
    """Where the tree of a folder's outputs begins: `IN_x4` beside it, or in what -o says."""
    if wishes.output is None:
        named = folder if folder.name not in ("", "..") else folder.resolve()
        return named.with_name(f"{named.name}{wishes.suffix}")
    if wishes.output == STDIO:
        raise UsageError("standard output takes one picture. Give a folder with -o.")
    if len(folders) == 1:
        return Path(wishes.output)
    return Path(wishes.output) / folder.resolve().name


def _with_format(target: Path, options: SaveOptions) -> Path:
    """The name with the suffix of the format that is asked for; otherwise the input's format."""
    if options.format is not None and target.suffix.lower() not in FORMATS[options.format].suffixes:
        return target.with_name(f"{target.stem}{FORMATS[options.format].suffixes[0]}")
    return Path(named_for_writing(target))


def _path(text: str) -> Path:
    """What the user names; only `-` itself is standard input."""
    return Path(text) if text == STDIO else _file(text)


def _file(name: str) -> Path:
    """A file, in full if it would otherwise be called like standard input."""
    path = Path(name)
    return path.absolute() if str(path) == STDIO else path


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _check_names(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs if job.content is None}
    taken: dict[Path, Job] = {}
    for job in jobs:
        if str(job.target) == STDIO:
            continue
        target = job.target.resolve()
        if target in sources:
            raise UsageError(
                f"{job.target}: is an input and would be replaced by its own result. Choose -o."
            )
        # Some file systems do not tell A from a.
        key = Path(str(target).casefold())
        other = taken.setdefault(key, job)
        if other is not job:
            raise UsageError(
                f"{other.name} and {job.name} would both become {job.target}. "
                "Give them different names or folders."
            )


def _examined(job: Job, wishes: Wishes) -> Job:
    """The job with what the input's header tells; or with the reason why it cannot be done."""
    try:
        source = job.source if job.content is None else job.content
        header, metadata = probe_all(source, max_pixels=wishes.max_pixels, name=job.name)
        size = wishes.size.resolve(header.width, header.height, wishes.scales, wishes.grid)
        options = job.options
        if str(job.target) == STDIO:
            options = replace(options, format=options.format or writes_as(header.format))
        chosen = options.format or format_of(job.target).name
        if header.has_alpha and not FORMATS[chosen].alpha and options.background is None:
            opaque = is_opaque(source, max_pixels=wishes.max_pixels, name=job.name)
            options = replace(options, opaque=opaque)
        _check_pixels(job, size, wishes.max_pixels)
        notes = check_output(
            size.width,
            size.height,
            header.has_alpha,
            header.bits,
            chosen,
            options,
            str(job.target),
            channels=header.channels,
            metadata=metadata,
        )
    except SrcliError as error:
        return replace(job, error=error)
    reach = max(wishes.scales)
    if size.width > header.width * reach or size.height > header.height * reach:
        notes.append(f"{job.target}: enlarged by {reach}, the most the model has, then resampled")
    return replace(job, header=header, size=size, options=options, notes=tuple(notes))


def _check_pixels(job: Job, size: Size, max_pixels: int) -> None:
    # The output is larger than the input by the square of the scale, and no bomb; but a factor of
    # a thousand is a mistake.
    limit = 64 * max_pixels
    if size.width * size.height > limit:
        raise UsageError(
            f"{job.name}: would become {size.width} x {size.height}. Choose a smaller size, or "
            "raise --max-pixels."
        )
