"""AWSRN's facts; the arithmetic is in `network.py`."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from srcli.models.spec import FRAME, Geometry, ModelSpec, MultiplyAdds, Publication, Scores

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

PAPER = (
    "Wang, Li, Shi: Lightweight Image Super-Resolution with Adaptive Weighted Learning Network. "
    "2019"
)
FOLDER = "https://drive.google.com/drive/folders/1R3cqoXU7bstcaNrf76-Tg_AtHPj-JOU2"
WIDTH = 128  # channels within a residual unit, in all sizes
KERNELS = (3, 5, 7, 9)  # sides of those of the reconstruction's branches
BRANCH_TAPS = tuple(side**2 for side in KERNELS)


def _build(channels: int, blocks: int, units: int, scale: int) -> PublishedNetwork:
    from srcli.models.awsrn.network import Awsrn

    return Awsrn(channels, blocks, units, scale)


def _geometry(channels: int, blocks: int, units: int, scale: int) -> Geometry:
    # Every convolution is at input resolution: the head sees 1 pixel to each side, a unit 2, the
    # reduction that ends a block 1.
    margin = 1 + blocks * (2 * units + 1) + max(KERNELS) // 2
    # While a unit runs its wide middle, the block's input and the outputs of all units are alive,
    # the latter twice while they are put together; then phases and output. Measured in ONNX
    # Runtime and PyTorch, rounded up.
    body = 1.4 * (WIDTH + (2 * units + 2) * channels)
    floats = math.ceil(body / scale**2) + 12
    return Geometry(margin=margin, frame=FRAME, floats_per_pixel=floats)


def _body_weights(channels: int, blocks: int, units: int) -> int:
    block = units * 2 * 9 * channels * WIDTH + 9 * units * channels**2
    return 27 * channels + blocks * block


def _multiply_adds(channels: int, blocks: int, units: int, scale: int) -> MultiplyAdds:
    body = _body_weights(channels, blocks, units) / scale**2
    skip = 3 * 27  # nine taps of three planes for each of three planes
    return MultiplyAdds(
        published_form=body + 3 * channels * sum(BRANCH_TAPS) + skip,
        fused_form=body + 3 * channels * max(BRANCH_TAPS) + skip,
    )


def _parameters(channels: int, blocks: int, units: int, scale: int) -> int:
    def conv(inputs: int, outputs: int, taps: int) -> int:
        return outputs * (inputs * taps + 2)  # one norm and one bias for each output

    unit = conv(channels, WIDTH, 9) + conv(WIDTH, channels, 9) + 2
    block = units * unit + conv(units * channels, channels, 9) + 2
    tail = sum(conv(channels, 3 * scale**2, taps) + 1 for taps in BRANCH_TAPS)
    return conv(3, channels, 9) + blocks * block + tail + conv(3, 3 * scale**2, 9)


def _publication(size: str, scale: int) -> Publication:
    name = f"AWSRN_{size.upper()}x{scale}" if size else f"AWSRNx{scale}"
    # Trained once more by its authors, who lost the one of the paper.
    again = "_retrain" if (size, scale) == ("s", 3) else ""
    return Publication(page=FOLDER, file=f"{name}{again}/model/model_latest.pt")


def _spec(
    size: str,
    shape: tuple[int, int, int],
    scales: tuple[int, ...],
    good_for: str,
    published_scores: dict[int, Scores],
) -> ModelSpec:
    return ModelSpec(
        name=f"awsrn-{size}" if size else "awsrn",
        title=f"AWSRN-{size.upper()}" if size else "AWSRN",
        scales=scales,
        build=partial(_build, *shape),
        geometry=partial(_geometry, *shape),
        parameters=partial(_parameters, *shape),
        multiply_adds=partial(_multiply_adds, *shape),
        paper=PAPER,
        good_for={"upscale": good_for},
        # Measured: 1e-6 between all forms in float32, 4e-4 in float16, untrained weights; relative
        # to the largest value 2e-6 with the reference weights.
        tolerance=1e-5,
        compiled=True,
        prunable=True,
        published_scores=published_scores,
        publications={scale: _publication(size, scale) for scale in scales},
    )


# Shapes are channels, blocks, and residual units in a block.
SPECS = (
    _spec(
        "",
        (32, 4, 4),
        (2, 3, 4, 8),
        "best quality of AWSRN, x8",
        {
            2: Scores(set5=38.11, set14=33.78, b100=32.26),
            3: Scores(set5=34.52, set14=30.38, b100=29.16),
            4: Scores(set5=32.20, set14=28.69, b100=27.61),
            8: Scores(set5=26.97, set14=24.99, b100=24.80),
        },
    ),
    _spec(
        "m",
        (32, 3, 4),
        (2, 3, 4),
        "quality near awsrn, faster",
        {
            2: Scores(set5=38.04, set14=33.66, b100=32.21),
            3: Scores(set5=34.42, set14=30.32, b100=29.13),
            4: Scores(set5=32.21, set14=28.65, b100=27.60),
        },
    ),
    _spec(
        "s",
        (32, 1, 4),
        (2, 3, 4),
        "comparing small AWSRNs",
        {
            2: Scores(set5=37.75, set14=33.31, b100=32.00),
            3: Scores(set5=34.02, set14=30.09, b100=28.92),
            4: Scores(set5=31.77, set14=28.35, b100=27.41),
        },
    ),
    _spec(
        "sd",
        (16, 1, 8),
        (2, 3, 4),
        "close to lapar-a, faster",
        {
            2: Scores(set5=37.86, set14=33.41, b100=32.07),
            3: Scores(set5=34.18, set14=30.21, b100=28.99),
            4: Scores(set5=31.98, set14=28.46, b100=27.48),
        },
    ),
)
