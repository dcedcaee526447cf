"""What restoration undoes: noise and JPEG compression, as papers apply them to test pictures."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels8 = NDArray[np.uint8]
Subsampling = Literal["444", "422", "420"]


def add_noise(picture: Pixels8, sigma: float, rng: np.random.Generator) -> Pixels8:
    """White Gaussian noise of standard deviation `sigma` (of 255), rounded and clipped to 8 bits.

    Papers often keep the noisy picture in floating point, beyond black and white; no file can.
    """
    noisy = picture + rng.normal(0.0, sigma, picture.shape) if sigma else picture
    rounded: Pixels8 = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return rounded


def compress(picture: Pixels8, quality: int, subsampling: Subsampling = "420") -> Pixels8:
    """Through a JPEG file and back.

    Args:
        picture: H x W x 3 in 8 bits.
        quality: As of the Independent JPEG Group, 1 to 100.
        subsampling: Of the colour planes.
    """
    from PIL import Image

    held = io.BytesIO()
    kind = {"444": 0, "422": 1, "420": 2}[subsampling]
    Image.fromarray(picture).save(held, "JPEG", quality=quality, subsampling=kind)
    with Image.open(held) as decoded:
        return np.asarray(decoded.convert("RGB"))
