"""Cut a batch into shards that machines can do apart."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Self

from srcli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a batch. Which one a picture belongs to depends on its name alone."""

    number: int
    """From 1 to `count`."""

    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3/16`.

        Raises:
            UsageError: It is none.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"{text!r} is no shard", "Write 3/16 for the third of sixteen.")
        return cls(int(found[1]), int(found[2]))

    def takes(self, name: str) -> bool:
        """Tell whether the picture of this name, relative and with slashes, is in the shard."""
        return digest(name) % self.count == self.number - 1

    @property
    def journal(self) -> str:
        """Name of the shard's journal, without a suffix."""
        return f"shard-{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def digest(name: str) -> int:
    """Return 64 bits of a name's checksum, which are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")
