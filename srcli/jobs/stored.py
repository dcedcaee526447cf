"""Outputs in an object store: their journal, and how they get there.

An output is made in a folder of srcli's cache, sent by one PUT, and removed. The journal is kept
there too, and copied to the store now and then: what is lost of it by a crash is done again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from srcli.errors import OutputExistsError, SrcliError
from srcli.jobs.job import Job
from srcli.jobs.journal import NAME, Journal
from srcli.jobs.records import Record
from srcli.system import stores
from srcli.system.cache import cache_folder

EVERY = 30.0  # seconds between two copies of the journal


def workshop(url: str, purpose: str = "outputs") -> Path:
    """Return the folder in srcli's cache where the outputs for a folder of a store are made."""
    return cache_folder() / "stores" / hashlib.sha256(url.encode()).hexdigest()[:24] / purpose


@contextmanager
def delivered(job: Job) -> Iterator[None]:
    """Send an output to its store, if it goes to one; after the block it is only there.

    Raises:
        OutputError: It cannot be written there.
    """
    if job.target_url is None:
        yield
        return
    try:
        stores.write(job.target_url, job.target.read_bytes())
        yield
    finally:
        job.target.unlink(missing_ok=True)


def check_not_there(job: Job) -> None:
    """Raise `OutputExistsError` if an output is there already."""
    if job.exists:
        raise OutputExistsError(
            f"{job.output}: exists already", "Replace it with --overwrite, or go on with --resume."
        )


def journal_for(
    root: Path,
    url: str | None,
    is_whole: Callable[[Path], bool],
    *,
    name: str,
    private: bool,
    needed: bool,
    note: Callable[[str], None],
) -> Journal:
    """Return the journal of a folder of outputs: in it, or in a store if it has a URL there."""
    if url is not None:
        return StoredJournal(root, is_whole, url=url, name=name, needed=needed, note=note)
    return Journal(root, is_whole, name=name, private=private, needed=needed, note=note)


def fetch_journals(url: str, folder: Path, own: str | None = None) -> None:
    """Copy the journals of a folder of a store.

    Args:
        url: The folder in the store, with a slash at its end.
        folder: Where to copy them to.
        own: Name of the journal of this process: what is here of it is newer, and stays.

    Raises:
        InputError: The store does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in stores.find(f"{url}{NAME}/", recursive=False):
        file = folder / name.rpartition("/")[2]
        stays = own is not None and file.stem.startswith(own) and file.exists()
        if file.suffix in (".json", ".jsonl") and not stays:
            file.write_bytes(stores.read(name))


class StoredJournal(Journal):
    """The journal of a folder in an object store.

    Args:
        root: Folder where the outputs are made.
        is_whole: As for `Journal`.
        url: The folder in the store, with a slash at its end.
        name: As for `Journal`.
        needed: As for `Journal`.
        note: As for `Journal`.
    """

    def __init__(
        self,
        root: Path,
        is_whole: Callable[[Path], bool],
        *,
        url: str,
        name: str = "main",
        needed: bool = False,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        super().__init__(root, is_whole, name=name, needed=needed, note=note)
        self._url = url
        self._sent = time.monotonic()

    def __enter__(self) -> Self:
        stores.check_writable(self._url)
        with suppress(SrcliError):  # there is none yet, or the store will fail at the first output
            fetch_journals(self._url, self.folder, self._name)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._send()

    def is_done(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Tell whether the output is in the store, and made from the same input and recipe.

        One that no journal knows is made again: its record may be lost.
        """
        sizes = [
            record.size
            for record in self._records(target)
            if record.output_sha256 is not None and record.fits(input_sha256, recipe)
        ]
        if not sizes:
            return False  # without asking the store
        found = stores.size(self._url + self._key(target))
        return found is not None and found in sizes

    def is_made_meanwhile(self, target: Path, input_sha256: str, recipe: str) -> bool:
        """Return False: an object is replaced as a whole, whoever writes it last."""
        return False

    def _size(self, target: Path) -> int | None:
        return target.stat().st_size

    def _append(self, target: Path, record: Record) -> None:
        super()._append(target, record)
        if time.monotonic() - self._sent > EVERY:
            self._sent = time.monotonic()
            self._send()

    def _send(self) -> None:
        """Copy the journal and the state of this process to the store."""
        for file in (self.file, self.file and self.file.with_suffix(".json")):
            if file is not None and file.exists():
                try:
                    stores.write(f"{self._url}{NAME}/{file.name}", file.read_bytes())
                except (SrcliError, OSError) as error:
                    self._note(f"the journal could not be copied to {self._url}: {error}")
                    return
