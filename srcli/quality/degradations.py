"""Damage pictures as papers do to test pictures, and as cameras and the web do to photographs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixels8 = NDArray[np.uint8]
Plane = NDArray[np.float32]
Subsampling = Literal["444", "422", "420"]
Filter = Literal["bicubic", "area", "bilinear", "lanczos"]

# What a photograph goes through before somebody enlarges it: shares, and ranges to draw from.
CLEAN = 0.25
BLURRED, MAX_BLUR = 0.3, 1.5  # sigma in pixels of the large picture
NOISY, MAX_NOISE, GREY_NOISE = 0.5, 15.0, 0.3  # sigma of 255
COMPRESSED, MIN_QUALITY = 0.75, 30
TWICE = 0.15  # of those that are compressed
WEBP = 0.08
SUBSAMPLINGS: tuple[tuple[Subsampling, float], ...] = (("420", 0.65), ("444", 0.25), ("422", 0.1))
FILTERS: tuple[tuple[Filter, float], ...] = (
    ("bicubic", 0.6),
    ("area", 0.15),
    ("bilinear", 0.1),
    ("lanczos", 0.15),
)
GRID = 16  # side of the blocks in which JPEG repeats itself, with halved colour planes


def add_noise(picture: Pixels8, sigma: float, rng: np.random.Generator) -> Pixels8:
    """Add white Gaussian noise of standard deviation `sigma` (of 255); round and clip to 8 bits.

    Papers often keep the noisy picture in floating point, beyond black and white; no file can.
    """
    noisy = picture + rng.normal(0.0, sigma, picture.shape) if sigma else picture
    rounded: Pixels8 = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return rounded


def compress(picture: Pixels8, quality: int, subsampling: Subsampling = "420") -> Pixels8:
    """Send a picture through a JPEG file and back.

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


def compress_webp(picture: Pixels8, quality: int) -> Pixels8:
    """Send a picture, H x W x 3 in 8 bits, through a lossy WebP file and back."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(picture).save(held, "WEBP", quality=quality, method=0)
    with Image.open(held) as decoded:
        return np.asarray(decoded.convert("RGB"))


def gaussian(
    sigma: float | tuple[float, float], angle: float = 0.0, side: int | None = None
) -> Plane:
    """Return a Gaussian kernel, K x K with a sum of 1, K odd.

    Args:
        sigma: Standard deviation in pixels; two for an ellipse, along its axes.
        angle: By which the first axis is turned from the horizontal, in radians.
        side: K; None for three standard deviations to each side.
    """
    wide, narrow = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    reach = max(1, int(np.ceil(3 * max(wide, narrow)))) if side is None else side // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    weights = np.exp(-0.5 * ((along / max(wide, 1e-3)) ** 2 + (across / max(narrow, 1e-3)) ** 2))
    kernel: Plane = (weights / weights.sum()).astype(np.float32)
    return kernel


def blur(picture: NDArray[np.generic], kernel: Plane) -> Plane:
    """Convolve H x W x C with a K x K kernel, mirrored at the border; the result is not rounded."""
    reach = len(kernel) // 2
    margin = ((reach, reach), (reach, reach), (0, 0))
    padded = np.pad(picture.astype(np.float32), margin, mode="symmetric")
    height, width = picture.shape[:2]
    total = np.zeros(picture.shape, np.float32)
    turned = kernel[::-1, ::-1]
    for y, x in np.ndindex(kernel.shape):
        total += turned[y, x] * padded[y : y + height, x : x + width]
    return total


def reduced(picture: Plane, scale: int, kind: Filter) -> Pixels8:
    """Reduce H x W x 3 in [0, 255] by a whole factor, antialiased, and round to 8 bits."""
    if kind == "bicubic":
        from srcli.pipeline.resample import resize

        small = resize(picture, picture.shape[0] // scale, picture.shape[1] // scale)
    else:
        small = _reduced_by_pillow(picture, scale, kind)
    pixels: Pixels8 = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    return pixels


def _reduced_by_pillow(picture: Plane, scale: int, kind: Filter) -> Plane:
    from PIL import Image

    chosen = {
        "area": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
        "lanczos": Image.Resampling.LANCZOS,
    }[kind]
    size = picture.shape[1] // scale, picture.shape[0] // scale
    planes = [Image.fromarray(plane).resize(size, chosen) for plane in np.moveaxis(picture, 2, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def photographed(
    high: Pixels8, scale: int, rng: np.random.Generator, *, clean: float = CLEAN
) -> Pixels8:
    """Reduce a picture by `scale` and damage it as a camera and the web do.

    In this order, each only now and then: blur, reduction by one of several filters, noise (grey or
    coloured), compression (JPEG, sometimes twice with blocks at other places, or WebP).

    Args:
        high: s*H x s*W x 3 in 8 bits.
        scale: Whole factor.
        rng: Draws everything; the same state gives the same result.
        clean: Share of pictures that are only reduced, bicubically.

    Returns:
        H x W x 3 in 8 bits. JPEG's blocks begin at its corner.
    """
    if rng.random() < clean:
        return reduced(high.astype(np.float32), scale, "bicubic")
    picture = high.astype(np.float32)
    if rng.random() < BLURRED:
        picture = blur(picture, _drawn_blur(rng))
    low = reduced(picture, scale, _drawn(FILTERS, rng))
    if rng.random() < NOISY:
        low = _noisy(low, float(rng.uniform(0, MAX_NOISE)), rng)
    return _compressed(low, rng) if rng.random() < COMPRESSED else low


def _drawn_blur(rng: np.random.Generator) -> Plane:
    sigma = float(rng.uniform(0.1, MAX_BLUR))
    if rng.random() < 0.5:
        return gaussian(sigma)
    other = float(rng.uniform(0.1, MAX_BLUR))
    return gaussian((sigma, other), float(rng.uniform(0, np.pi)))


def _noisy(picture: Pixels8, sigma: float, rng: np.random.Generator) -> Pixels8:
    if rng.random() >= GREY_NOISE:
        return add_noise(picture, sigma, rng)
    grey = rng.normal(0.0, sigma, (*picture.shape[:2], 1))
    pixels: Pixels8 = np.clip(np.rint(picture + grey), 0, 255).astype(np.uint8)
    return pixels


def _compressed(picture: Pixels8, rng: np.random.Generator) -> Pixels8:
    quality = int(rng.integers(MIN_QUALITY, 101))
    if rng.random() < WEBP:
        return compress_webp(picture, quality)
    if rng.random() < TWICE:
        first = int(rng.integers(MIN_QUALITY, 101))
        down, right = (int(shift) for shift in rng.integers(0, GRID, 2))
        around = np.pad(picture, ((down, 0), (right, 0), (0, 0)), mode="symmetric")
        once = compress(np.ascontiguousarray(around), first, _drawn(SUBSAMPLINGS, rng))
        picture = np.ascontiguousarray(once[down:, right:])
    return compress(picture, quality, _drawn(SUBSAMPLINGS, rng))


T = TypeVar("T")


def _drawn(choices: Sequence[tuple[T, float]], rng: np.random.Generator) -> T:
    """Draw one of several, each with the probability of its share."""
    at = rng.random() * sum(share for _, share in choices)
    for choice, share in choices:
        at -= share
        if at < 0:
            return choice
    return choices[-1][0]
