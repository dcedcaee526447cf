"""Draw the README's pictures: what srcli makes of reduced, noisy and compressed details.

    python benchmarks/readme_figures.py astronaut.png

The original is NASA's portrait of Eileen Collins (public domain), 512 x 512, as scikit-image
installs it in `skimage/data`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import srcli
from srcli.pipeline.resample import reduce, resize
from srcli.quality.degradations import add_noise, blur, compress, gaussian

Pixels = NDArray[np.uint8]
Detail = tuple[int, int, int, int]  # top, left, bottom, right, in the original

FOLDER = Path(__file__).parents[1] / "examples"
SCALE = 4
SIGMA, QUALITY = 25, 15
PHONE_BLUR, PHONE_NOISE, PHONE_QUALITY = 0.7, 4, 75
FACE: Detail = (60, 130, 228, 298)
SMILE: Detail = (90, 160, 202, 272)
BADGE: Detail = (330, 190, 442, 302)


def main() -> None:
    with Image.open(sys.argv[1]) as picture:
        original = np.asarray(picture.convert("RGB"))
    draw("comparison", enlarged(original), FACE)
    noisy = add_noise(original, SIGMA, np.random.default_rng(0))
    clean = srcli.restore(noisy, "denoise", "lapar-c")
    panels = {f"noise, sigma {SIGMA}": noisy, "srcli denoise": clean, "original": original}
    draw("denoise", panels, SMILE)
    blocky = compress(original, QUALITY)
    smooth = srcli.restore(blocky, "deblock", "lapar-c")
    panels = {f"JPEG, quality {QUALITY}": blocky, "srcli deblock": smooth, "original": original}
    draw("deblock", panels, BADGE)
    draw("photo", photographed(original), FACE)


def photographed(original: Pixels) -> dict[str, Pixels]:
    """Return what a phone makes of the original, and what others make of that."""
    soft = np.rint(blur(original, gaussian(PHONE_BLUR))).astype(np.uint8)
    small = reduce(soft, 2)
    photo = compress(add_noise(small, PHONE_NOISE, np.random.default_rng(0)), PHONE_QUALITY)
    cubic = resize(photo.astype(np.float64), *original.shape[:2])
    return {
        "photograph, bicubic": np.clip(np.rint(cubic), 0, 255).astype(np.uint8),
        "--input clean": srcli.upscale(photo, "lapar-a", 2, input="clean"),
        "--input photo": srcli.upscale(photo, "lapar-a", 2, input="photo"),
        "original": original,
    }


def enlarged(original: Pixels) -> dict[str, Pixels]:
    small = reduce(original, SCALE)
    cubic = resize(small.astype(np.float64), *original.shape[:2])
    return {
        "input": small.repeat(SCALE, axis=0).repeat(SCALE, axis=1),
        "bicubic": np.clip(np.rint(cubic), 0, 255).astype(np.uint8),
        "lapar-c, x4": srcli.upscale(small, "lapar-c", SCALE),
        "awsrn-sd, x4": srcli.upscale(small, "awsrn-sd", SCALE),
        "original": original,
    }


def draw(name: str, panels: dict[str, Pixels], detail: Detail) -> None:
    """Details side by side in one row, with their names below."""
    top, left, bottom, right = detail
    zoom = 2 if len(panels) > 3 else 3
    side, bar, gap = (bottom - top) * zoom, 24, 6
    width = len(panels) * (side + gap) - gap
    sheet = Image.new("RGBA", (width, side + bar), (0, 0, 0, 0))
    canvas = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for index, (label, panel) in enumerate(panels.items()):
        x = index * (side + gap)
        cut = Image.fromarray(panel[top:bottom, left:right])
        sheet.paste(cut.resize((side, side), Image.Resampling.NEAREST), (x, 0))
        # Mid grey can be read on a light page and on a dark one.
        canvas.text((x + side / 2, side + bar / 2), label, (128, 128, 128), font, anchor="mm")
    sheet.save(FOLDER / f"{name}.webp", quality=90, method=6)


if __name__ == "__main__":
    main()
