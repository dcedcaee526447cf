"""Close what was opened at the end of a `with` block."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """A base for classes with a method `close`: as a context manager the object closes itself."""

    __slots__ = ()

    def close(self) -> None:
        """Free the resources that are held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
