"""Download published checkpoints from their authors' pages into the cache, once and whole."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from srcli import __version__
from srcli.checkpoints.identify import convert
from srcli.checkpoints.shipped import fetched_path, sha256_of
from srcli.errors import OutputError, UsageError, WeightsError
from srcli.models.spec import ModelSpec, Publication
from srcli.system.cache import is_whole, remove, seal

Progress = Callable[[int, int], None]
"""A function that is called with the number of bytes received and their total."""

SCHEMES = ("http", "https")
TIMEOUT = 30.0  # seconds that a server may say nothing
LONGEST_ANSWER = 90.0  # seconds until the file begins to come
MIN_RATE = 1000.0  # bytes a second, over...
WINDOW = 30.0  # ...so many seconds
LONGEST = 4 * 3600.0  # seconds for one attempt
MAX_DIGITS = 18  # of a number of bytes
LARGEST = 256 << 20  # bytes, where the size is not published; the largest model here has 90 MB
BLOCK = 1 << 16  # bytes read at once
PAUSES = (1.0, 2.0, 4.0)  # seconds before the second attempt, the third...
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one a little later


class _TransferError(Exception):
    """The transfer broke off; another attempt may go on where it stopped."""


def find_publication(spec: ModelSpec, scale: int) -> Publication:
    """Return the place where the weights of a model and scale can be downloaded.

    Raises:
        UsageError: Nowhere, or only by hand; the message says how to go on.
    """
    found = spec.publications.get(scale)
    name = f"{spec.name} x{scale}"
    if found is None:
        others = ", ".join(f"x{other}" for other in spec.publications)
        also = f", only for {others}" if others else ""
        raise UsageError(
            f"{name}: srcli knows of no weights that its authors publish{also}",
            "Give your own to the other commands with --weights FILE.",
        )
    if found.address is None:
        wanted = f" as {found.file}" if found.file else ""
        taken = PurePosixPath(found.file).name if found.file else "FILE"
        raise UsageError(
            f"{name}: its authors publish it at {found.page}{wanted}, from where only a browser "
            "can download it",
            f"Download it there, run `srcli weights convert {taken} -m {spec.name} -s {scale}` "
            "and give the new file with --weights.",
        )
    return found


def fetch(spec: ModelSpec, scale: int, progress: Progress = lambda done, total: None) -> Path:
    """Download the published weights of a model, and keep them as safetensors in the cache.

    Several processes may ask for the same at once: one works, the others wait for it.

    Args:
        spec: The model.
        scale: Of enlargement.
        progress: Called with the bytes received and their total.

    Returns:
        The file; `find_weights` knows it from now on.

    Raises:
        UsageError: There is nothing that can be fetched.
        WeightsError: The server cannot be reached or gives something else.
        OutputError: The cache cannot be written.
    """
    from filelock import FileLock

    publication = find_publication(spec, scale)
    target = fetched_path(spec, scale)
    assert target is not None and publication.address is not None  # said by `find_publication`
    checkpoint = target.with_suffix("") / _file_name(publication.address)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not is_whole(target):
                remove(target)  # which is not whole
                checkpoint.parent.mkdir(exist_ok=True)
                download(publication, checkpoint, progress)
                try:
                    convert(checkpoint, target, model=spec.name, scale=scale)
                finally:  # what does not fit is no use to a next attempt
                    checkpoint.unlink()
                    checkpoint.parent.rmdir()
                seal(target)
    except OSError as error:
        raise _not_writable(target.parent, error) from error
    return target


def download(publication: Publication, target: Path, progress: Progress) -> None:
    """Download one file; it gets its name once it is whole and has the published checksum, if any.

    What an earlier attempt left in `target.part` is continued, if the server can do that and the
    checksum can show that the parts belong together.

    Raises:
        WeightsError: The server cannot be reached, or its file is too large or another one.
        OSError: The target cannot be written.
    """
    partial = target.with_name(f"{target.name}.part")
    if publication.sha256 is None:
        partial.unlink(missing_ok=True)
        _transfer(publication, partial, progress)
        os.replace(partial, target)
        return
    # Twice: a part of another file, or a server that continues wrongly, is no reason to give up.
    for _ in range(2):
        if _is(partial, publication.sha256):  # whole already, when the last run was stopped
            break
        continued = _transfer(publication, partial, progress)
        if _is(partial, publication.sha256):
            break
        partial.unlink()
        if not continued:
            raise WeightsError(
                f"{publication.address}: this is not the file that was published: its checksum is "
                "another one",
                f"It was removed. See {publication.page} for a newer one, and give it with "
                "--weights.",
            )
    else:
        raise WeightsError(f"{publication.address}: arrived damaged twice", "Try again later.")
    os.replace(partial, target)


def _is(file: Path, sha256: str | None) -> bool:
    return file.exists() and sha256_of(file) == sha256


def _transfer(publication: Publication, partial: Path, progress: Progress) -> bool:
    """Get all bytes, in several attempts if necessary; tell whether an earlier one had begun."""
    for pause in (*PAUSES, None):
        try:
            return _attempt(publication, partial, progress)
        except _TransferError as reason:
            if pause is None:
                raise WeightsError(
                    f"{publication.address}: cannot be downloaded ({reason})",
                    "Check the network and run this again: what has arrived is kept. Or "
                    "download it on another machine and run `srcli weights convert FILE`.",
                ) from reason
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _attempt(publication: Publication, partial: Path, progress: Progress) -> bool:
    """Ask once for the missing bytes and append them; tell whether some were there before."""
    start = partial.stat().st_size if partial.exists() else 0
    largest = publication.size or LARGEST
    pace = _Pace()
    with _answered(publication, partial, start) as answer:
        first = _first_byte(answer)
        if first not in (0, start):
            partial.unlink(missing_ok=True)
            raise _TransferError("the server did not continue where the download had stopped")
        start = first
        total = _total(answer, start)
        _check_size(publication, partial, total, largest)
        with partial.open("ab" if start else "wb") as file:
            done = start
            while block := _read(answer):
                done += len(block)
                _check_size(publication, partial, done, largest)
                file.write(block)
                progress(done, total or done)
                pace.check(done - start)
    if done < total:
        raise _TransferError(f"the connection ended after {done} of {total} bytes")
    return start > 0


class _Pace:
    """A check that bytes come fast enough; a very slow server would otherwise block for ever."""

    def __init__(self) -> None:
        self._begun = self._since = time.monotonic()
        self._before = 0

    def check(self, done: int) -> None:
        """Raise `_TransferError` if the `done` bytes of this attempt took too long."""
        now = time.monotonic()
        if now - self._begun > LONGEST:
            raise _TransferError(f"not finished after {LONGEST / 3600:g} hours")
        if now - self._since < WINDOW:
            return
        if done - self._before < MIN_RATE * (now - self._since):
            raise _TransferError(f"slower than {MIN_RATE:g} bytes a second")
        self._since, self._before = now, done


def _answered(publication: Publication, partial: Path, start: int) -> http.client.HTTPResponse:
    """Call `_ask` for a limited time: each of a server's lines may take as long as a timeout."""
    answer: Future[http.client.HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(_ask(publication, partial, start))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(LONGEST_ANSWER)
    except FutureTimeout as error:
        raise _TransferError(f"no file after {LONGEST_ANSWER:g} seconds") from error


def _ask(publication: Publication, partial: Path, start: int) -> http.client.HTTPResponse:
    """Open the address, from byte `start` on."""
    address = publication.address or ""
    if urlsplit(address).scheme not in SCHEMES:
        raise WeightsError(f"{address}: only http and https are fetched", "Download it yourself.")
    headers = {"User-Agent": f"srcli/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = build_opener(_Redirects).open(Request(address, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after what is here: it is not a part of this
            partial.unlink(missing_ok=True)
        if error.code in (*BUSY, 416):
            raise _TransferError(f"the server answers {error.code}") from error
        raise _refused(publication, error.code) from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise WeightsError(
                f"{address}: the server's certificate is not trusted "
                f"({error.reason.verify_message})",
                "Check the clock and the network's proxy.",
            ) from error
        raise _TransferError(_words(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(_words(error)) from error
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


class _Redirects(HTTPRedirectHandler):
    """A handler that follows redirects to the same scheme or from http to https, to no other."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refused(publication: Publication, code: int) -> WeightsError:
    if 300 <= code < 400:
        problem = f"the server redirects to another address ({code}), which srcli does not follow"
    elif code in (404, 410):
        problem = f"the server has no such file any more ({code})"
    else:
        problem = f"the server refuses ({code})"
    return WeightsError(
        f"{publication.address}: {problem}",
        f"Look for the file at {publication.page} and run `srcli weights convert FILE`.",
    )


def _first_byte(answer: http.client.HTTPResponse) -> int:
    """Return the offset in the file of the answer's first byte; 0 if the server knows no ranges."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found and len(found[1]) <= MAX_DIGITS else -1


def _total(answer: http.client.HTTPResponse, start: int) -> int:
    """Return the bytes of the whole file; 0 if the server does not say."""
    length = answer.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdecimal()):
        return 0
    return start + int(length[:MAX_DIGITS])


def _check_size(publication: Publication, partial: Path, size: int, largest: int) -> None:
    if size > largest:
        partial.unlink(missing_ok=True)
        raise WeightsError(
            f"{publication.address}: larger than the {largest} bytes that it may have, so it is "
            "another file",
            f"Look for the right one at {publication.page}.",
        )


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(BLOCK)  # `read` would wait for a whole block
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(_words(error)) from error


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} seconds"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _file_name(address: str) -> str:
    return PurePosixPath(urlsplit(address).path).name


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: cannot be written ({error.strerror or error})",
        "Free some space, or set SRCLI_CACHE to another folder.",
    )
