"""LAPAR-C against a classical denoiser: OpenCV's fastNlMeansDenoisingColored, tuned.

    python benchmarks/classical_denoiser.py ../shared/data/eval/B100 --save

Needs `pip install opencv-python-headless`. For each strength of noise both denoise the same
pictures, with the noise that `srcli eval --sigma` adds. OpenCV's strength `h` is chosen on a fifth
of the pictures, for each sigma, out of a range of multiples of sigma: what a careful user could
reach. PSNR of RGB in dB.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from srcli import api
from srcli.bench.hardware import hardware
from srcli.quality.degradations import add_noise
from srcli.quality.metrics import psnr

SIGMAS = (0, 15, 25, 35, 50)
STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)  # of sigma
RESULTS = Path(__file__).parent / "results"


def classical(noisy: np.ndarray, strength: float) -> np.ndarray:
    """Non-local means on RGB; brightness and colour alike."""
    done = cv2.fastNlMeansDenoisingColored(
        noisy[:, :, ::-1].copy(), None, strength, strength, 7, 21
    )
    return done[:, :, ::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, help="so many pictures; all by default")
    parser.add_argument("--save", action="store_true", help="keep the result")
    arguments = parser.parse_args()
    folder = arguments.folder / "HR" if (arguments.folder / "HR").is_dir() else arguments.folder
    files = list(islice(sorted(folder.iterdir()), arguments.count))
    originals = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    rows = []
    with api.load("lapar-c", 1, task="denoise") as ours:
        for sigma in SIGMAS:
            noisy = [add_noise(o, sigma, np.random.default_rng(i)) for i, o in enumerate(originals)]
            pairs = list(zip(noisy, originals, strict=True))
            best = 0.0
            if sigma:
                trials = {
                    share: np.mean([psnr(classical(n, share * sigma), o) for n, o in pairs[::5]])
                    for share in STRENGTHS
                }
                best = max(trials, key=lambda share: trials[share])
            row = {
                "sigma": sigma,
                "noisy": None if not sigma else mean(psnr(n, o) for n, o in pairs),
                "classical": mean(psnr(classical(n, best * sigma), o) for n, o in pairs)
                if sigma
                else None,
                "h": best * sigma,
                "lapar-c": mean(psnr(ours(n), o) for n, o in pairs),
            }
            rows.append(row)
            print(row, flush=True)
    if arguments.save:
        report = {"hardware": hardware(), "pictures": len(files), "rows": rows}
        (RESULTS / "classical-denoiser.json").write_text(json.dumps(report, indent=1) + "\n")


def mean(values: object) -> float:
    return round(float(np.mean(list(values))), 3)  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
