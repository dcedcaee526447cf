"""Measure a model on pictures whose originals are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.images import Picture, has_picture_suffix, read, to_8_bits
from srcli.pipeline.resample import reduce, resize
from srcli.quality.degradations import add_noise, blur, compress, gaussian, reduced
from srcli.quality.metrics import SSIM_SIDE, crop_border, luma, psnr, psnr_b, ssim

Pixels8 = NDArray[np.uint8]
Enlarge = Callable[[Pixels8], NDArray[np.floating]]
"""A function from h x w x 3 in 8 bits to s*h x s*w x 3 in [0, 1], not clamped."""


Damage = Callable[[Pixels8, int], Pixels8]
"""A function that damages an original before it is restored; the number is the picture's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Damage to pictures before they are enlarged, in this order; None for no such damage."""

    blur: float | None = None
    """Standard deviation of a Gaussian on the large picture, in its pixels."""

    noise: float | None = None
    """Standard deviation of noise on the small picture, of 255."""

    jpeg: int | None = None
    """Quality of the JPEG file (4:2:0) that the small picture was in, 1 to 100."""

    def __str__(self) -> str:
        parts = {"blur": self.blur, "noise": self.noise, "jpeg": self.jpeg}
        return ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)

    def small(self, high: Pixels8, low: Pixels8, scale: int, number: int) -> Pixels8:
        """Return the small picture in these conditions.

        Args:
            high: The large picture, H x W x 3.
            low: The small one as it was made of that, without blur.
            scale: Factor of the reduction.
            number: Of the picture, which seeds the noise.
        """
        if self.blur is not None:
            low = reduced(blur(high, gaussian(self.blur)), scale, "bicubic")
        if self.noise is not None:
            low = add_noise(low, self.noise, np.random.default_rng(number))
        return low if self.jpeg is None else compress(np.ascontiguousarray(low), self.jpeg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Closeness of a restored picture to its original."""

    name: str
    psnr: float
    """PSNR of Y, in dB; infinite if both are equal."""
    ssim: float
    """SSIM of Y, at most 1."""
    psnr_rgb: float
    """PSNR of red, green and blue together, in dB."""
    psnr_b: float
    """PSNR-B of Y, with JPEG's blocking effect, in dB."""


def dataset_files(folder: Path) -> list[Path]:
    """Return the originals of a test set: the pictures in its folder `HR`, or in the folder itself.

    Raises:
        InputError: There is no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder", "Give one with pictures in it.")
    originals = folder / "HR" if (folder / "HR").is_dir() else folder
    files = sorted(p for p in originals.iterdir() if p.is_file() and has_picture_suffix(p))
    if not files:
        raise InputError(
            f"{originals}: no pictures",
            "A test set is a folder of pictures, or has them in a folder HR beside LRx2, LRx3, "
            "LRx4.",
        )
    return files


def evaluate(
    files: list[Path],
    scale: int,
    enlarge: Enlarge,
    *,
    y_rounded: bool = False,
    damage: Damage | None = None,
    conditions: Conditions | None = None,
    whole: bool = False,
) -> Iterator[Score]:
    """Score a way of enlarging on each original.

    The reduced picture is taken from the folder `LRx<scale>` beside `HR` where there is one and
    made by antialiased bicubic reduction otherwise; with `damage` it is what that makes of the
    original; in `conditions` it is blurred, noisy or compressed. As in the papers, the result is
    rounded to 8 bits, its luma compared, and a border as wide as the scale left out; of the `whole`
    picture no border is. Some papers round the luma to 8 bits too (`y_rounded`), which costs some
    0.02 dB at 32 dB and 0.09 dB at 38 dB.
    """
    border = scale if scale > 1 and not whole else 0
    for number, file in enumerate(files):
        low, high = _pair(file, scale) if damage is None else _damaged(file, number, damage)
        if conditions is not None:
            low = conditions.small(high, low, scale, number)
        if min(high.shape[:2]) - 2 * border < SSIM_SIDE:
            raise InputError(
                f"{file}: {high.shape[1]} x {high.shape[0]} pixels are too few to be compared",
                f"Leave out pictures with sides below {SSIM_SIDE + 2 * border}.",
            )
        restored = np.clip(np.rint(enlarge(low) * 255.0), 0, 255)
        planes = [crop_border(luma(picture), border) for picture in (restored, high)]
        colors = [crop_border(p.astype(np.float64), border) for p in (restored, high)]
        if y_rounded:
            planes = [np.rint(plane) for plane in planes]
        yield Score(
            name=file.stem,
            psnr=psnr(*planes),
            ssim=ssim(*planes),
            psnr_rgb=psnr(*colors),
            psnr_b=psnr_b(planes[1], planes[0]),
        )


def noisy(sigma: float) -> Damage:
    """Return a damage that adds white Gaussian noise, seeded by the picture's number."""
    return lambda high, number: add_noise(high, sigma, np.random.default_rng(number))


def compressed(quality: int) -> Damage:
    """Return a damage by a JPEG file of this quality, with halved colour planes."""
    return lambda high, number: compress(high, quality)


def _damaged(file: Path, number: int, damage: Damage) -> tuple[Pixels8, Pixels8]:
    high = _rgb(read(file))
    return damage(high, number), high


def bicubic(scale: int) -> Enlarge:
    """Return plain bicubic enlargement (a = -0.5, as MATLAB's), the baseline of all models."""

    def enlarge(low: Pixels8) -> NDArray[np.floating]:
        height, width = low.shape[:2]
        return resize(low.astype(np.float64) / 255.0, height * scale, width * scale)

    return enlarge


def _pair(file: Path, scale: int) -> tuple[Pixels8, Pixels8]:
    high = _rgb(read(file))
    reduced = file.parent.parent / f"LRx{scale}" / file.name
    low = _rgb(read(reduced)) if file.parent.name == "HR" and reduced.exists() else None
    if low is None:
        low = reduce(high, scale)
    height, width = (side * scale for side in low.shape[:2])
    left_over = high.shape[0] - height, high.shape[1] - width
    if not all(0 <= pixels < scale for pixels in left_over):
        is_what = "larger" if min(left_over) < 0 else "smaller"
        raise InputError(
            f"{reduced}: {is_what} than its original {file} divided by {scale}",
            f"Reduce the original by {scale} again, or remove this file.",
        )
    return low, high[:height, :width]


def _rgb(picture: Picture) -> Pixels8:
    color = to_8_bits(picture.color)
    return np.broadcast_to(color, (*color.shape[:2], 3))
