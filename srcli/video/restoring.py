"""Restore frames: from planes to RGB, through the networks, and back to planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from srcli.images import Picture
from srcli.video.color import Converter
from srcli.video.layout import Planes
from srcli.video.stages import Clock

if TYPE_CHECKING:
    from srcli.images.picture import Pixels


class Networks(Protocol):
    """Networks that pictures go through one after the other; see `srcli.pipeline.passes`."""

    def restore_all(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Restore pictures of one size; floats in [0, 1] stay floats in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class FrameRestorer:
    """A function from frames to restored frames of the same stream."""

    converter: Converter
    networks: Networks
    clock: Clock

    def __call__(self, frames: Sequence[Planes]) -> list[Planes]:
        """Restore frames together.

        Raises:
            SrcliError: The network fails, or makes another size.
        """
        with self.clock.stage("colour", len(frames)):
            given = [self.converter.to_rgb(planes) for planes in frames]
        with self.clock.stage("network", len(frames)):
            made = self.networks.restore_all([_picture(rgb) for rgb, _ in given])
        with self.clock.stage("colour", 0):
            return [
                self.converter.from_rgb(_planes(picture), held)
                for picture, (_, held) in zip(made, given, strict=True)
            ]


def _planes(picture: Picture) -> NDArray[np.float32]:
    return picture.color.transpose(2, 0, 1).astype(np.float32, copy=False)


def _picture(rgb: NDArray[np.float32]) -> Picture:
    # H x W x 3 is how pictures are seen; in memory the planes stay as they are. Floats pass through
    # all networks as floats.
    return Picture(color=cast("Pixels", rgb.transpose(1, 2, 0)))
