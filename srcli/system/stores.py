"""Read and write objects by URL: S3, Google Cloud Storage, Azure, and web servers to read from.

fsspec does it: one small library whose clients take their credentials from where each provider's
own tools look for them. An object appears whole or not at all, by one PUT, or by the end of an
upload in parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from srcli.errors import InputError, MissingPartError, OutputError, SrcliError, first_line
from srcli.system.installation import pip_install

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CLIENTS: Mapping[str, str] = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
"""Package of the client, by scheme."""

READ_ONLY = ("http", "https")


def is_url(text: str) -> bool:
    """Tell whether a name is that of an object in a store."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in CLIENTS


def parent(url: str) -> str:
    """Return the folder of an object, with a slash at its end."""
    return url.rpartition("/")[0] + "/"


def read(url: str) -> bytes:
    """Return the content of an object.

    Raises:
        InputError: It is not there, or cannot be read.
        MissingPartError: The store's client is not installed.
    """
    try:
        content = _store(url).cat_file(url)
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no such object", "Check the name.") from error
    except SrcliError:
        raise
    except Exception as error:  # each client has errors of its own
        raise InputError(
            f"{url}: cannot be read ({_reason(error)})", "Check the connection and your rights."
        ) from error
    assert isinstance(content, bytes), "fsspec gives bytes"
    return content


def write(url: str, content: bytes) -> None:
    """Write an object, whole or not at all; one of that name is replaced.

    Raises:
        OutputError: It cannot be written.
        MissingPartError: The store's client is not installed.
    """
    check_writable(url)
    try:
        _store(url).pipe_file(url, content)
    except SrcliError:
        raise
    except Exception as error:
        raise OutputError(
            f"{url}: cannot be written ({_reason(error)})",
            "Check the connection and your rights, then go on with --resume.",
        ) from error


def check_writable(url: str) -> None:
    """Raise `OutputError` for a store that can only be read."""
    if url.partition("://")[0].lower() in READ_ONLY:
        raise OutputError(
            f"{url}: a web server takes no outputs", "Choose a folder, s3://, gs:// or az://."
        )


def size(url: str) -> int | None:
    """Return the bytes of an object; None if it is not there.

    Raises:
        InputError: The store does not answer.
        MissingPartError: The store's client is not installed.
    """
    try:
        store = _store(url)
        store.invalidate_cache(parent(url))
        found = store.info(url)
    except FileNotFoundError:
        return None
    except SrcliError:
        raise
    except Exception as error:
        raise InputError(
            f"{url}: cannot be looked up ({_reason(error)})", "Check the connection."
        ) from error
    return None if found.get("type") == "directory" else int(found.get("size") or 0)


def find(url: str, *, recursive: bool) -> Iterator[str]:
    """Yield the objects in a folder, in order.

    Args:
        url: Of the folder, with a slash at its end.
        recursive: True for those in the folders in it too.

    Raises:
        InputError: It cannot be listed.
        MissingPartError: The store's client is not installed.
    """
    try:
        store = _store(url)
        store.invalidate_cache(url)
        names = store.find(url, maxdepth=None if recursive else 1)
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no such folder", "Check the name.") from error
    except SrcliError:
        raise
    except Exception as error:
        raise InputError(
            f"{url}: cannot be listed ({_reason(error)})", "Check the connection and your rights."
        ) from error
    scheme = url.partition("://")[0]
    for name in sorted(names):
        yield name if is_url(name) else f"{scheme}://{name}"


def _reason(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def _store(url: str) -> AbstractFileSystem:
    return _of_scheme(url.partition("://")[0].lower())


@cache
def _of_scheme(scheme: str) -> AbstractFileSystem:
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise MissingPartError(
            f"{scheme}:// needs {CLIENTS[scheme]}, which cannot be loaded ({first_line(error)})",
            f"Run `{pip_install('cloud')}`.",
        ) from error
