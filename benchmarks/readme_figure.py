"""Draw the README's picture: input, bicubic enlargement, LAPAR-C and the original, side by side.

    python benchmarks/readme_figure.py astronaut.png

The original is NASA's portrait of Eileen Collins (public domain), 512 x 512, as scikit-image
installs it in `skimage/data`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import srcli
from srcli.resample import reduce, resize

SCALE = 4
FACE = (60, 130, 228, 298)  # top, left, bottom, right of the detail, in the original
ZOOM = 2
TARGET = Path(__file__).parents[1] / "examples" / "comparison.webp"


def main() -> None:
    with Image.open(sys.argv[1]) as picture:
        original = np.asarray(picture.convert("RGB"))
    small = reduce(original, SCALE)
    cubic = resize(small.astype(np.float64), *original.shape[:2])
    panels = {
        "input": small.repeat(SCALE, axis=0).repeat(SCALE, axis=1),
        "bicubic": np.clip(np.rint(cubic), 0, 255).astype(np.uint8),
        "lapar-c, x4": srcli.upscale(small, "lapar-c", SCALE),
        "original": original,
    }
    top, left, bottom, right = FACE
    side, bar, gap = (bottom - top) * ZOOM, 24, 6
    width = len(panels) * (side + gap) - gap
    sheet = Image.new("RGBA", (width, side + bar), (0, 0, 0, 0))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for index, (name, panel) in enumerate(panels.items()):
        x = index * (side + gap)
        detail = Image.fromarray(panel[top:bottom, left:right])
        sheet.paste(detail.resize((side, side), Image.Resampling.NEAREST), (x, 0))
        # Mid grey can be read on a light page and on a dark one.
        draw.text((x + side / 2, side + bar / 2), name, (128, 128, 128), font, anchor="mm")
    sheet.save(TARGET, quality=90, method=6)


if __name__ == "__main__":
    main()
