"""Check that `srcli deblock` takes nothing away from a JPEG file, whatever its quality.

    python benchmarks/deblocked_files.py ../shared/data/eval/LIVE1

Each picture becomes JPEG files (4:2:0) of all qualities; each is deblocked into a PNG and into a
JPEG file, as the command does it. The table has the PSNR of Y in dB, means over the pictures, and
the sizes of the JPEG files in kB. The last row is of pictures that never were JPEG. Ends with 1 if
a row came out below its input.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import srcli
from srcli.api import OpenModel
from srcli.images import read
from srcli.quality.evaluation import dataset_files
from srcli.quality.metrics import luma, psnr

QUALITIES = (10, 20, 40, 60, 75, 85, *range(90, 101))


def row(network: OpenModel, files: list[Path], quality: int, folder: Path) -> list[float]:
    """Return PSNR of input, PNG and JPEG, and the sizes of both JPEG files, means over pictures."""
    found = []
    for file in files:
        original = Image.open(file).convert("RGB")
        source, png, again = (folder / name for name in ("in.jpg", "out.png", "out.jpg"))
        original.save(source, quality=quality)
        for target in (png, again):
            network.file(source, target, overwrite=True)
        plane = luma(np.asarray(original))
        dbs = [psnr(plane, luma(read(made).color)) for made in (source, png, again)]
        found.append([*dbs, *(made.stat().st_size / 1000 for made in (source, again))])
    return [float(mean) for mean in np.mean(found, axis=0)]


def clean(network: OpenModel, files: list[Path], folder: Path) -> float:
    """Return the PSNR of deblocked pictures that never were JPEG."""
    found = []
    for file in files:
        original = Image.open(file).convert("RGB")
        original.save(folder / "in.png")
        network.file(folder / "in.png", folder / "out.png", overwrite=True)
        made = read(folder / "out.png").color
        found.append(psnr(luma(np.asarray(original)), luma(made)))
    return float(np.mean(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("test_set", type=Path)
    parser.add_argument("--model", default="lapar-c")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="take each Nth picture")
    arguments = parser.parse_args()
    files = dataset_files(arguments.test_set)[:: arguments.every]
    worse = False
    print("| quality | file | as PNG | as JPEG | kB | kB as JPEG |\n|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as made,
        srcli.load(arguments.model, 1, task="deblock") as network,
    ):
        for quality in QUALITIES:
            before, png, again, *sizes = row(network, files, quality, Path(made))
            worse = worse or min(png, again) < before
            cells = [f"{value:.2f}" for value in (before, png, again)]
            print(f"| {quality} | {' | '.join([*cells, *(f'{size:.0f}' for size in sizes)])} |")
        print(f"| clean | | {clean(network, files, Path(made)):.2f} | | | |")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
