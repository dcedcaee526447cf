"""Plan a batch whose pictures are named in a list: in one pass, and in little memory.

Names alone are looked at before work. Headers are read when a picture's turn comes: a list may name
ten million.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

from srcli.errors import InputError, OutputExistsError, UsageError
from srcli.images import has_picture_suffix, looks_readable
from srcli.jobs.finding import STDIN_NAME, STDIO, as_file, find
from srcli.jobs.job import Job, Wishes
from srcli.jobs.naming import Naming, check_suffix, is_folder, is_template
from srcli.jobs.shards import Shard, digest
from srcli.jobs.stored import workshop
from srcli.system import stores

CHUNK = 1 << 20
FOLDERS = 4096  # whose real places are remembered: lists usually go through them one by one


class NameList:
    """The names in a list, one in each line, or each ended by NUL; a context manager.

    Args:
        name: What messages call it.
        file: The list, which is closed at the end.
    """

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self._file = name, file
        file.seek(0)
        self._end = b"\0" if b"\0" in file.read(CHUNK) else b"\n"

    @classmethod
    def read(cls, file: str) -> Self:
        """Open a list.

        Args:
            file: Its name; `-` for standard input, which is copied to a temporary file.

        Raises:
            InputError: It cannot be read.
        """
        name = STDIN_NAME if file == STDIO else file
        try:
            return cls(name, _opened(file))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{name}: the list cannot be read ({reason})", "Check --files-from."
            ) from error

    @classmethod
    def of_inputs(cls, inputs: Sequence[str], *, recursive: bool, output: str | None) -> Self:
        """List inputs of which some may lie in object stores; their folders are looked into.

        Args:
            inputs: Files, folders, patterns; in a store objects, and folders with a slash at the
                end.
            recursive: Look into the folders of a folder too.
            output: Place of the outputs; what lies there is no input.

        Raises:
            InputError: There is no picture in one of them, or a store does not answer.
        """
        with ExitStack() as stack:
            copy = stack.enter_context(tempfile.TemporaryFile())
            for text in inputs:
                for name in _found(text, recursive=recursive, output=output):
                    copy.write(os.fsencode(name) + b"\0")
            stack.pop_all()
        return cls(", ".join(inputs), copy)

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        rest = b""
        while chunk := self._file.read(CHUNK):
            *names, rest = (rest + chunk).split(self._end)
            yield from filter(None, map(self._decoded, names))
        if name := self._decoded(rest):
            yield name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def _decoded(self, name: bytes) -> str:
        return os.fsdecode(name if self._end == b"\0" else name.removesuffix(b"\r"))


def _found(text: str, *, recursive: bool, output: str | None) -> Iterator[str]:
    """Yield the names of pictures that an input stands for."""
    if not stores.is_url(text):
        place = None if output is None or stores.is_url(output) else output
        found = find([text], recursive=recursive, output=place)
        yield from (str(entry.source) for entry in found.inputs)
    elif text.endswith("/"):
        own = f"{output.rstrip('/')}/" if output is not None and stores.is_url(output) else None
        for name in stores.find(text, recursive=recursive):
            if looks_readable(Path(name)) and not (own and name.startswith(own)):
                yield name
    else:
        yield text


def _opened(file: str) -> BinaryIO:
    if file == STDIO:
        return _standard_input()
    return BytesIO(stores.read(file)) if stores.is_url(file) else as_file(file).open("rb")


def _standard_input() -> BinaryIO:
    """Copy standard input into a temporary file, which can be read again."""
    if sys.stdin is None:
        raise ValueError("it is closed")
    with ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(sys.stdin.buffer, copy, CHUNK)
        copy.seek(0)
        stack.pop_all()
        return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPlan:
    """The pictures of a list, or of one shard of it, and the output of each."""

    names: NameList
    wishes: Wishes
    places: Places
    total: int
    """Number of pictures."""

    def __len__(self) -> int:
        return self.total

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs, whose headers have not been read."""
        shard = self.wishes.shard
        for name in self.names:
            if shard is None or shard.takes(self.places.relative(name)):
                yield self.places.job(name, self.wishes)


def plan_list(
    names: NameList, wishes: Wishes, *, relative_to: str | None, refuse: bool
) -> ListedPlan:
    """Check the names of a list, and the names of the outputs.

    Args:
        names: The list, which must stay open.
        wishes: For all pictures.
        relative_to: Folder below which the names of outputs begin; None for the current one.
        refuse: True if outputs that are there already are an error.

    Raises:
        UsageError: Two outputs would have one name, an output would replace an input, or the output
            is no folder.
        InputError: The list is empty.
        OutputExistsError: An output is there already.
    """
    places = _places(names, wishes, relative_to)
    refuse = refuse and places.url is None and os.path.isdir(places.output)
    total = _checked(names, places, wishes.shard, refuse=refuse)
    return ListedPlan(names=names, wishes=wishes, places=places, total=total)


def _places(names: NameList, wishes: Wishes, relative_to: str | None) -> Places:
    output, format = wishes.output, wishes.options.format
    if output is None or output == STDIO or is_template(output):
        raise UsageError(
            "the outputs of a list go into a folder", "Name one with -o, ending in a slash."
        )
    if is_folder(output) or not has_picture_suffix(output):
        return Places(output, format, relative_to)
    if len([*islice(names, 2)]) > 1:
        raise UsageError(
            f"{output}: names one file, and the outputs of a list go into a folder",
            "End it with a slash.",
        )
    check_suffix(output, format)
    folder = stores.parent(output) if stores.is_url(output) else str(Path(output).parent)
    return Places(folder, format, relative_to, only=posixpath.basename(Path(output).name))


def _checked(names: NameList, places: Places, shard: Shard | None, *, refuse: bool) -> int:
    """Check all names, also those of other shards; return the number of those in this one."""
    import numpy as np

    targets, inside = array("Q"), array("Q")
    total = 0
    for name in names:
        relative = places.relative(name)
        target = places.target(relative)
        targets.append(digest(target.casefold()))
        if (beside := places.inside(name)) is not None:
            inside.append(digest(beside.casefold()))
        if shard is None or shard.takes(relative):
            total += 1
            if refuse and os.path.lexists(os.path.join(places.output, target)):
                raise OutputExistsError(
                    f"{os.path.join(places.output, target)}: exists already",
                    "Replace it with --overwrite, keep it with --skip-existing, go on with "
                    "--resume, or choose another place with -o.",
                )
    if not targets:
        raise InputError(f"{names.name}: names no pictures", "Name one in each line.")
    found, counts = np.unique(np.frombuffer(targets, np.uint64), return_counts=True)
    if doubtful := {*found[counts > 1].tolist()}:
        _refuse_same(names, places, doubtful)
    own = np.frombuffer(inside, np.uint64) if inside else np.empty(0, np.uint64)
    if doubtful := {*np.intersect1d(found, own).tolist()}:
        _refuse_inputs(names, places, doubtful)
    return total


def _refuse_same(names: NameList, places: Places, doubtful: set[int]) -> None:
    """Raise `UsageError` for two names of one output, of those whose checksums are in doubt."""
    taken: dict[str, str] = {}
    for name in names:
        target = places.target(places.relative(name))
        if digest(target.casefold()) not in doubtful:
            continue
        first = taken.get(target.casefold())  # some file systems do not tell A from a
        if first == name:
            raise UsageError(
                f"{names.name}: names {name} twice", "Remove one of them, for example by sort -u."
            )
        if first is not None:
            raise UsageError(
                f"{first} and {name} would both become {os.path.join(places.output, target)}",
                "Give them different names or folders.",
            )
        taken[target.casefold()] = name


def _refuse_inputs(names: NameList, places: Places, doubtful: set[int]) -> None:
    """Raise `UsageError` for an input that an output would replace, of those in doubt."""
    outputs: dict[str, str] = {}
    for name in names:
        target = places.target(places.relative(name)).casefold()
        if digest(target) in doubtful:
            outputs[target] = name
    for name in names:
        maker = outputs.get((places.inside(name) or "").casefold())
        if maker is not None:
            raise UsageError(
                f"{name}: is an input and would be replaced by the result of {maker}",
                "Choose another folder with -o.",
            )


class Places:
    """Names of outputs for the names of a list.

    Args:
        output: The folder of all outputs, also in a store.
        format: The format of all outputs; None for that of each input.
        relative_to: Folder below which the names of outputs begin; None for the current one.
        only: Name of the output, if there is one only.
    """

    def __init__(
        self,
        output: str,
        format: str | None,
        relative_to: str | None,
        *,
        only: str | None = None,
    ) -> None:
        self._only = only
        self.url = f"{output.rstrip('/')}/" if stores.is_url(output) else None
        """The folder, if it is in a store."""

        self.output = output if self.url is None else str(workshop(self.url))
        """The folder in which outputs are made."""

        self._naming = Naming(output=output, suffix="", format=format)
        self._base = relative_to or ""
        if not stores.is_url(self._base):
            self._base = os.path.abspath(self._base)
        self._is_here = relative_to is None
        self.root = Path(os.path.abspath(self.output))
        """The same in full."""

        self._root = os.path.realpath(self.output)
        self._ending = cache(self._new_ending)
        self._real = lru_cache(FOLDERS)(os.path.realpath)

    def relative(self, name: str) -> str:
        """Return a name of the list relative to the base, with slashes.

        One outside of the base keeps its whole path, without its root.

        Raises:
            UsageError: Its output would lie outside of the folder of outputs.
        """
        if self._is_here and _is_plain(name):
            return name
        if stores.is_url(name):
            return self._of_url(name)
        path = os.path.abspath(name)
        if path.startswith(os.path.join(self._base, "")):
            relative = os.path.relpath(path, self._base)
        else:
            relative = os.path.splitdrive(path)[1].lstrip("/" + os.sep)
        return relative.replace(os.sep, "/")

    def _of_url(self, name: str) -> str:
        base = f"{self._base.rstrip('/')}/"
        path = name.removeprefix(base) if name.startswith(base) else name.partition("://")[2]
        return posixpath.normpath(f"/{path}").lstrip("/")

    def target(self, relative: str) -> str:
        """Return the output's name in the folder of outputs, with slashes."""
        if self._only is not None:
            return self._only
        stem, suffix = posixpath.splitext(relative)
        return stem + self._ending(suffix)

    def job(self, name: str, wishes: Wishes) -> Job:
        """Return the job for a name; the picture's header has not been read."""
        target = self.target(self.relative(name))
        return Job(
            source=as_file(name),
            source_url=name if stores.is_url(name) else None,
            target=Path(self.output, target),
            target_url=self.url and self.url + target,
            root=self.root,
            options=wishes.options,
            page=wishes.page,
        )

    def inside(self, name: str) -> str | None:
        """Return an input's name in the folder of outputs; None if it lies elsewhere."""
        if self.url is not None or stores.is_url(name):
            inside = self.url is not None and name.startswith(self.url)
            return name.removeprefix(self.url or "") if inside else None
        folder, file = os.path.split(name)
        real = self._real(folder)
        if real == self._root:
            return file
        if not real.startswith(os.path.join(self._root, "")):
            return None
        return os.path.relpath(os.path.join(real, file), self._root).replace(os.sep, "/")

    def _new_ending(self, suffix: str) -> str:
        return self._naming.with_format(Path(f"x{suffix}")).name[1:]


def _is_plain(name: str) -> bool:
    """Tell whether a name is relative and has no detours: then nothing has to be resolved."""
    return os.sep == "/" and not (
        name[0] == "/" or name[-1] in "./" or "./" in name or "//" in name
    )
