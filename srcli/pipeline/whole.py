"""Restore whole pictures from integers to integers, where the session converts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srcli.backends.base import Integers, OutOfMemory, PixelSession
from srcli.images import Picture, Pixels
from srcli.models.spec import Geometry, Scale
from srcli.pipeline.rows import Framed, rows_of
from srcli.pipeline.tiling import enlarged


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A shorter way through the network: no strips, no tiles, and no floats on the host."""

    session: PixelSession
    geometry: Geometry
    scale: Scale
    frame: Callable[[int, int], int]
    """Function from height and width to the width of the frame for the network."""

    fits: Callable[[int, int, int], bool]
    """Function from height, width and number of pictures to whether they go in at once."""

    submit: Callable[[Callable[[], Integers]], Integers]
    """Function that calls another where all calls of the session are made."""

    def __call__(
        self, pictures: Sequence[Picture], size: tuple[int, int] | None, bits: int | None
    ) -> list[Picture] | None:
        """Restore pictures of one size, channels and bits.

        Args:
            pictures: With or without alpha, in colour or grey.
            size: Height and width of the results; None for the network's own.
            bits: Per channel of the results; None keeps the pictures'.

        Returns:
            None where the longer way is needed: other sizes, grey, alpha, floats, or a lack of
            memory.

        Raises:
            SrcliError: The network gave values that are not finite.
        """
        first = pictures[0]
        height, width = first.height, first.width
        wanted = enlarged(height, self.scale), enlarged(width, self.scale)
        colors = [picture.color for picture in pictures]
        if not _plain(pictures, colors) or (size or wanted) != wanted or bits not in (None, 8, 16):
            return None
        frame = self.frame(height, width)
        sides = height + 2 * frame, width + 2 * frame
        if not self._taken(*sides) or not self.fits(*sides, len(pictures)):
            return None
        framed = (Framed(rows_of(picture), height, width, frame) for picture in pictures)
        given = np.stack([rows(0, sides[0])[0] for rows in framed])
        out = enlarged(frame, self.scale)
        cut = slice(out, out + wanted[0]), slice(out, out + wanted[1])
        try:
            made = self.submit(lambda: self.session.restore_pixels(given, cut, bits or first.bits))
        except OutOfMemory:
            return None
        if made.shape != (len(pictures), *wanted, 3):
            return None  # the longer way tells what is wrong
        return [
            replace(picture, color=color) for picture, color in zip(pictures, made, strict=True)
        ]

    def _taken(self, height: int, width: int) -> bool:
        """Tell whether the network takes this size without padding."""
        accepted = self.geometry.accepted
        return self.session.limits is None and (accepted(height), accepted(width)) == (
            height,
            width,
        )


def _plain(pictures: Sequence[Picture], colors: Sequence[Pixels]) -> bool:
    """Tell whether pictures are of integers, in colour and without alpha."""
    return all(picture.alpha is None for picture in pictures) and all(
        color.shape[2] == 3 and color.dtype in (np.uint8, np.uint16) for color in colors
    )
