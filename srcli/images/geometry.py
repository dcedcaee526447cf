"""The change of size and orientation from the picture as stored to the picture to write."""

from __future__ import annotations

from dataclasses import dataclass

# Turning upright: (transpose first?, flip rows?, flip columns?) for EXIF orientations 1 to 8.
TURNS = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change from the picture as stored to the picture to write, which is upright.

    Attributes:
        stored: width and height as stored; None if they are not known: then nothing is scaled.
        orientation: EXIF's 1..8, of the stored one.
        width, height: of the picture to write, in pixels.
    """

    stored: tuple[int, int] | None
    orientation: int
    width: int
    height: int

    @property
    def transposed(self) -> bool:
        return TURNS[self.orientation][0]

    @property
    def turned(self) -> bool:
        return self.orientation != 1

    @property
    def upright(self) -> tuple[int, int] | None:
        """Width and height of the stored picture, turned."""
        if self.stored is None:
            return None
        width, height = self.stored
        return (height, width) if self.transposed else (width, height)

    @property
    def factors(self) -> tuple[float, float]:
        """Factors by which the picture is wider and higher than the stored one, turned upright."""
        if self.upright is None:
            return 1.0, 1.0
        return self.width / self.upright[0], self.height / self.upright[1]

    def point(self, x: float, y: float, extent: tuple[float, float]) -> tuple[float, float]:
        """Turn a place in the stored picture upright; it is not scaled.

        Args:
            extent: width and height of the stored picture in the unit of x and y: (1, 1) for
                parts of the whole.
        """
        transpose, flip_rows, flip_columns = TURNS[self.orientation]
        width, height = extent
        if transpose:
            x, y, width, height = y, x, height, width
        return width - x if flip_columns else x, height - y if flip_rows else y

    def sides(self, width: float, height: float) -> tuple[float, float]:
        """Turn the sides of a rectangle upright; they are not scaled."""
        return (height, width) if self.transposed else (width, height)

    def subject(self, numbers: list[int]) -> list[int] | None:
        """Return EXIF's subject area in the picture to write; None if it is not known.

        Args:
            numbers: x and y in stored pixels, and a diameter, or a width and a height, or nothing.
        """
        if self.stored is None or not 2 <= len(numbers) <= 4:
            return None
        x, y = self.point(numbers[0], numbers[1], self.stored)
        across, down = self.factors
        moved = [x * across, y * down]
        if len(numbers) == 3:
            moved.append(numbers[2] * (across + down) / 2)
        elif len(numbers) == 4:
            width, height = self.sides(numbers[2], numbers[3])
            moved += [width * across, height * down]
        return [round(number) for number in moved]
