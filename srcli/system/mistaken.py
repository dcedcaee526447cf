"""Recognise what failed downloads leave in place of a file: a web page or a git-lfs pointer."""

from __future__ import annotations

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_pointer(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is a pointer that git-lfs left."""
    return head.startswith(b"version https://git-lfs")


def is_page(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is a web page."""
    return beginning(head).startswith((b"<!doctype html", b"<html", b"<head", b"<!--"))


def beginning(head: bytes) -> bytes:
    """Return the first letters of a text, in lower case, without blanks or marks before them."""
    return head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:200].lower()
