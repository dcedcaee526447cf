"""A lock that many threads share, or that one thread holds alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that any number of threads share until one needs to be alone.

    Who waits to be alone goes before those that come later. A thread that is inside already may
    enter `together` again; it must not wait to be alone.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # entries by thread
        self._waiting = 0
        self._owner: int | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold the lock together with others."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside and me != self._owner:
                self._changed.wait_for(lambda: self._owner is None and not self._waiting)
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._owner is None and not self._inside)
                self._owner = threading.get_ident()
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()
