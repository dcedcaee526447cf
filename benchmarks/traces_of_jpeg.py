"""Measure how often pixels that went through JPEG are told from those that did not.

    python benchmarks/traces_of_jpeg.py ../shared/data/eval

Each picture of the test sets, the original and the reduced ones, as it is and after JPEG of
several qualities, with colour planes halved and not. Beside what `srcli` does
(`srcli.images.traces`) stands the simplest estimate: whether neighbours differ more at borders of
blocks than elsewhere.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.images.traces import quality_seen
from srcli.quality.degradations import Subsampling, compress
from srcli.quality.metrics import luma

SETS = ("Set5", "Set14", "B100", "LIVE1")
QUALITIES = (30, 50, 70, 80, 90, 95)
SUBSAMPLINGS: tuple[Subsampling, ...] = ("420", "444")
SHARE = 1.058  # of the steps at borders of blocks to others: decides best on these very pictures
BLOCK = 8

Pixels = NDArray[np.uint8]


def blocky(picture: Pixels) -> bool:
    """Tell whether third differences are larger across borders of blocks than elsewhere."""
    sums, counts = np.zeros(BLOCK), np.zeros(BLOCK)
    for plane in (luma(picture), luma(picture).T):
        steps = np.abs(3 * plane[:, 1:-2] - 3 * plane[:, 2:-1] - plane[:, :-3] + plane[:, 3:])
        for phase in range(BLOCK):
            chosen = np.minimum(steps[:, phase::BLOCK], 30)
            sums[phase] += chosen.sum()
            counts[phase] += chosen.size
    means = sums / counts
    return bool(means[6] > SHARE * np.delete(means, 6).mean())


def pictures(folder: Path) -> Iterator[Pixels]:
    for name in SETS:
        for kind in sorted((folder / name).iterdir()):
            for file in sorted(kind.iterdir()):
                yield np.ascontiguousarray(Image.open(file).convert("RGB"))


def versions(picture: Pixels) -> Iterator[tuple[str, Pixels]]:
    yield "none", picture
    for quality in QUALITIES:
        for subsampling in SUBSAMPLINGS:
            yield str(quality), compress(picture, quality, subsampling)


def main() -> None:
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    tests: dict[str, Callable[[Pixels], bool]] = {
        "cosines": lambda picture: quality_seen(picture) is not None,
        "blocks": blocky,
    }
    for picture in pictures(Path(sys.argv[1])):
        for level, version in versions(picture):
            for name, test in tests.items():
                seen[name][level].append(test(version))
    for name, levels in seen.items():
        print(f"{name}, share taken for JPEG by quality:")
        for level, found in levels.items():
            print(f"  {level:>5}: {np.mean(found):.4f} of {len(found)}")


if __name__ == "__main__":
    main()
