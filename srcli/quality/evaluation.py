"""Measure a model on pictures whose originals are known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, MemoryExhaustedError, SrcliError
from srcli.images import Picture, has_picture_suffix, probe, read, to_8_bits
from srcli.models.dcls.reduction import Kernel
from srcli.models.dcls.reduction import reduced as reduced_kernel
from srcli.models.spec import Scale
from srcli.models.spec import number as number_of
from srcli.pipeline.resample import reduce, resize
from srcli.quality.blurs import Blur, seen
from srcli.quality.degradations import Plane, add_noise, blur, compress, gaussian
from srcli.quality.metrics import SSIM_SIDE, crop_border, luma, psnr, psnr_b, ssim

Pixels8 = NDArray[np.uint8]
Enlarge = Callable[[Pixels8], NDArray[np.floating]]
"""A function from h x w x 3 in 8 bits to s*h x s*w x 3 in [0, 1], not clamped."""


Damage = Callable[[Pixels8, int], Pixels8]
"""A function that damages an original before it is restored; the number is the picture's."""

Failed = Callable[[Path, SrcliError], None]
"""A function that is told of a picture which cannot be measured, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Damage to pictures before they are enlarged, in this order; None for no such damage."""

    blur: float | None = None
    """Standard deviation of a Gaussian on the large picture, in its pixels. The result is reduced
    bicubically."""

    kernel: Blur | None = None
    """Blur of the large picture, of which then every s-th pixel is kept."""

    kernel_name: str = ""

    noise: float | None = None
    """Standard deviation of noise on the small picture, of 255."""

    jpeg: int | None = None
    """Quality of the JPEG file (4:2:0) that the small picture was in, 1 to 100."""

    seed: int = 0
    """Seed of the noise, with the picture's number."""

    def __str__(self) -> str:
        parts = {"blur": self.blur, "noise": self.noise, "jpeg": self.jpeg}
        given = [f"{name} {value:g}" for name, value in parts.items() if value is not None]
        return ", ".join([self.kernel_name, *given] if self.kernel_name else given)

    def small(self, high: Pixels8, low: Pixels8, scale: Scale, number: int) -> Pixels8:
        """Return the small picture in these conditions.

        Args:
            high: The large picture, H x W x 3.
            low: The small one as it was made of that, without blur.
            scale: Factor of the reduction; whole if there is a kernel.
            number: Of the picture, which seeds the noise.
        """
        if self.blur is not None:
            low = _rounded(resize(blur(high, gaussian(self.blur)), *low.shape[:2]))
        if self.kernel is not None:
            low = _rounded(seen(high, self.kernel(number), int(scale)))
        if self.noise is not None:
            low = add_noise(low, self.noise, generator(self.seed, number))
        return low if self.jpeg is None else compress(np.ascontiguousarray(low), self.jpeg)

    def again(self, restored: Plane, scale: Scale, number: int) -> Plane | None:
        """Return a restored picture blurred and reduced as the original was; None without kernel.

        Args:
            restored: H x W x 3.
            scale: Factor of the reduction.
            number: Of the picture.
        """
        return None if self.kernel is None else seen(restored, self.kernel(number), int(scale))


def generator(seed: int, number: int) -> np.random.Generator:
    """Return what draws the damage of a picture: the same for the same seed and number."""
    return np.random.default_rng([seed, number] if seed else number)


def _rounded(picture: NDArray[np.floating]) -> Pixels8:
    pixels: Pixels8 = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


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

    lr_psnr: float | None = None
    """PSNR of Y, in dB, of the small picture and of what blur and reduction make of the restored
    one; None if no kernel blurred the original."""

    kernel_error: float | None = None
    """Sum of the differences of the kernel that a blind network estimated from the known one,
    reduced to input resolution: 0 to 2. None if none was estimated."""


def dataset_files(folder: Path) -> list[Path]:
    """Return the originals of a test set: the pictures in its folder `HR`, or in the folder itself.

    Raises:
        InputError: There is no such folder, it cannot be read, or no pictures are in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder", "Give one with pictures in it.")
    originals = folder / "HR" if (folder / "HR").is_dir() else folder
    try:
        entries = sorted(originals.iterdir())
    except OSError as error:
        problem = f"{originals}: cannot be read ({error.strerror})"
        raise InputError(problem, "Check that you may list the folder.") from error
    # Hidden ones are what file managers and half-written copies leave behind.
    files = [p for p in entries if p.is_file() and has_picture_suffix(p) and p.name[0] != "."]
    if not files:
        raise InputError(
            f"{originals}: no pictures",
            "A test set is a folder of pictures, or has them in a folder HR beside LRx2, LRx3, "
            "LRx4.",
        )
    return files


def evaluate(
    files: list[Path],
    scale: Scale,
    enlarge: Enlarge,
    *,
    y_rounded: bool = False,
    damage: Damage | None = None,
    conditions: Conditions | None = None,
    whole: bool = False,
    estimated: Callable[[], Kernel | None] = lambda: None,
    failed: Failed | None = None,
) -> Iterator[Score]:
    """Score a way of enlarging on each original.

    The reduced picture is taken from the folder `LRx<scale>` beside `HR` where there is one and
    made by antialiased bicubic reduction otherwise; with `damage` it is what that makes of the
    original; in `conditions` it is blurred, noisy or compressed. As in the papers, the result is
    rounded to 8 bits, its luma compared, and a border as wide as the scale left out; of the `whole`
    picture no border is. Some papers round the luma to 8 bits too (`y_rounded`), which costs some
    0.02 dB at 32 dB and 0.09 dB at 38 dB. `estimated` returns the blur kernel that a blind network
    found in the picture that was enlarged last.

    Originals are cut so that a fractional scale leads from whole pixels to whole pixels.

    Raises:
        InputError: A picture cannot be read, or is too small. If `failed` is given, it is told that
            instead, and the other pictures are scored.
        MemoryExhaustedError: The same of a picture that is too large.
    """
    border = math.ceil(scale) if scale > 1 and not whole else 0
    stems = Counter(file.stem for file in files)

    def scored(number: int, file: Path) -> Score:
        low, high = _pair(file, scale) if damage is None else _damaged(file, number, damage)
        if min(high.shape[:2]) - 2 * border < SSIM_SIDE:
            raise _too_small(file, scale, border)
        if conditions is not None:
            low = conditions.small(high, low, scale, number)
        restored = np.clip(np.rint(enlarge(low) * 255.0), 0, 255)
        planes = [crop_border(luma(picture), border) for picture in (restored, high)]
        colors = [crop_border(p.astype(np.float64), border) for p in (restored, high)]
        if y_rounded:
            planes = [np.rint(plane) for plane in planes]
        return Score(
            name=file.stem if stems[file.stem] == 1 else file.name,
            psnr=psnr(*planes),
            ssim=ssim(*planes),
            psnr_rgb=psnr(*colors),
            psnr_b=psnr_b(planes[1], planes[0]),
            lr_psnr=_psnr_of_small(restored, low, scale, number, conditions),
            kernel_error=_kernel_error(estimated(), scale, number, conditions),
        )

    for number, file in enumerate(files):
        try:
            score = scored(number, file)
        except (InputError, MemoryExhaustedError, MemoryError) as error:
            if failed is None:
                raise
            failed(file, _of_file(file, error))
        else:
            yield score


def _too_small(file: Path, scale: Scale, border: int) -> InputError:
    """Return the error for a picture of which the border, and cutting, leave too little."""
    parts = scale.numerator  # sides are cut to a multiple
    least = -(-(SSIM_SIDE + 2 * border) // parts) * parts
    at = f" at x{number_of(scale):g}" if scale > 1 else ""
    header = probe(file)
    return InputError(
        f"{file}: {header.width} x {header.height} pixels are too few to be compared{at}",
        f"Leave out pictures with sides below {least}.",
    )


def _of_file(file: Path, error: SrcliError | MemoryError) -> SrcliError:
    """Return an error that names the picture; that of a network knows nothing of files."""
    if isinstance(error, MemoryError):
        return MemoryExhaustedError(
            f"{file}: out of memory", "Close other programs, or leave out the picture."
        )
    return error if str(file) in str(error) else error.about(str(file))


def _psnr_of_small(
    restored: Plane, low: Pixels8, scale: Scale, number: int, conditions: Conditions | None
) -> float | None:
    again = None if conditions is None else conditions.again(restored, scale, number)
    return None if again is None else psnr(luma(again), luma(low))


def _kernel_error(
    found: Kernel | None, scale: Scale, number: int, conditions: Conditions | None
) -> float | None:
    if found is None or conditions is None or conditions.kernel is None:
        return None
    known = reduced_kernel(conditions.kernel(number), int(scale), len(found))
    return float(np.abs(found - known).sum())


def noisy(sigma: float, seed: int = 0) -> Damage:
    """Return a damage that adds white Gaussian noise, seeded with the picture's number."""
    return lambda high, number: add_noise(high, sigma, generator(seed, number))


def compressed(quality: int) -> Damage:
    """Return a damage by a JPEG file of this quality, with halved colour planes."""
    return lambda high, number: compress(high, quality)


def _damaged(file: Path, number: int, damage: Damage) -> tuple[Pixels8, Pixels8]:
    high = _rgb(read(file))
    return damage(high, number), high


def bicubic(scale: Scale) -> Enlarge:
    """Return plain bicubic enlargement (a = -0.5, as MATLAB's), the baseline of all models."""

    def enlarge(low: Pixels8) -> NDArray[np.floating]:
        height, width = low.shape[:2]
        return resize(low.astype(np.float64) / 255.0, round(height * scale), round(width * scale))

    return enlarge


def _pair(file: Path, scale: Scale) -> tuple[Pixels8, Pixels8]:
    """Return the small picture and the large one, cut to the scale times its size."""
    high = _rgb(read(file))
    if not isinstance(scale, int):
        return _fractional(file, high, scale)
    folder = file.parent.parent / f"LRx{scale}"
    reduced = folder / file.name
    if file.parent.name != "HR" or not folder.is_dir():
        low = reduce(high, scale)
    elif reduced.exists():
        low = _rgb(read(reduced))
    else:  # another name there may hold it: what is made here would not be what was to be measured
        raise InputError(
            f"{reduced}: is missing, the reduced picture of {file}",
            f"Give it this name, or remove the folder {folder}: then it is made from the original.",
        )
    height, width = (side * scale for side in low.shape[:2])
    left_over = high.shape[0] - height, high.shape[1] - width
    if not all(0 <= pixels < scale for pixels in left_over):
        is_what = "larger" if min(left_over) < 0 else "smaller"
        raise InputError(
            f"{reduced}: {is_what} than its original {file} divided by {scale}",
            f"Reduce the original by {scale} again, or remove this file.",
        )
    return low, high[:height, :width]


def _fractional(file: Path, high: Pixels8, scale: Fraction) -> tuple[Pixels8, Pixels8]:
    """Reduce by a fraction p/q: of sides that are multiples of p come multiples of q."""
    p, q = scale.numerator, scale.denominator
    parts = [side // p for side in high.shape[:2]]
    if min(parts) < 1:
        raise InputError(
            f"{file}: {high.shape[1]} x {high.shape[0]} pixels cannot be divided by {scale} evenly",
            f"Choose a scale of fewer digits: sides of {p} pixels and more are needed.",
        )
    cut = high[: parts[0] * p, : parts[1] * p]
    small = resize(cut.astype(np.float32), parts[0] * q, parts[1] * q)
    return _rounded(small), cut


def _rgb(picture: Picture) -> Pixels8:
    color = to_8_bits(picture.color)
    return np.broadcast_to(color, (*color.shape[:2], 3))
