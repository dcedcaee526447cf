"""Choose what a page of `srcli compare` shows of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srcli.errors import UsageError
from srcli.images import Picture, read
from srcli.images.formats import SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of the results that a page shows."""

    region: tuple[int, int, int, int] | None
    """Left, top, width and height in pixels of the results; None for the middle."""

    largest: tuple[int, int]
    """Width and height of the middle that is shown at most."""

    frame: int | None = None
    """Number of the frame of videos that is shown, from 0; None for pictures."""

    def read(self, path: Path) -> Picture:
        """Read a picture, or the frame of a video.

        Raises:
            SrcliError: It cannot be read, or the video has no such frame.
        """
        if self.frame is None or path.suffix.lower() in SUFFIXES:
            return read(path)
        from srcli.video.stills import frame_of

        return frame_of(path, self.frame)

    def of(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of what is shown of pictures of this size.

        Raises:
            UsageError: The region lies outside.
        """
        if self.region is None:
            across, down = min(width, self.largest[0]), min(height, self.largest[1])
            return (width - across) // 2, (height - down) // 2, across, down
        left, top, across, down = self.region
        if left + across > width or top + down > height:
            raise UsageError(
                f"--region {left},{top},{across}x{down}: reaches out of the results, which have "
                f"{width} x {height} pixels",
                "Give a region inside.",
            )
        return self.region
