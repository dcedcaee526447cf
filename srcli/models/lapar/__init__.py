"""LAPAR's facts; the arithmetic is in `network.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from srcli.models.spec import (
    FRAME,
    EightBits,
    Geometry,
    ModelSpec,
    MultiplyAdds,
    Publication,
    Purpose,
    Scores,
)

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

PAPER = (
    "Li, Zhou, Qi, Jiang, Lu, Jia: LAPAR: Linearly-Assembled Pixel-Adaptive Regression Network "
    "for Single Image Super-resolution and Beyond. NeurIPS 2020"
)
FOLDER = "https://drive.google.com/drive/folders/1c-KUEPJl7pHs9btqHYoUJkcMPKViObgJ"
LICENCE = "MIT, of the authors' repository (dvlab-research/Simple-SR)"
ATOMS = 72  # filters in the dictionary
SIDE = 5  # of each filter
TAPS, PLANES = SIDE**2, 3
UNITS = 4  # residual units in a block
DISTINCT_TAPS = TAPS // 2 + 1  # of a filter that equals its own half-turn


def _build(channels: int, blocks: int, scale: int) -> PublishedNetwork:
    from srcli.models.lapar.network import Lapar

    return Lapar(channels, blocks, scale)


def _geometry(channels: int, blocks: int, scale: int) -> Geometry:
    # At input resolution the head sees 1 pixel to each side, a block 4 * 2 + 1 and the
    # up-sampling 1; at output resolution the tail sees 2 + 1 + 1. Filter and bicubic
    # enlargement reach less far than that.
    margin = 1 + 9 * blocks + (scale > 1) + math.ceil(4 / scale)
    # Convolutions at output resolution keep input and output alive, beside the taps and the
    # padded picture: measured in ONNX Runtime and PyTorch, rounded up. At scale 1 the body runs at
    # this resolution too; runtimes round its channels up to 16, and OpenVINO, which is told to need
    # 0.6 of this, needs as much as the others.
    floats = 4 * channels + 60 if scale > 1 else 18 * 16 * math.ceil(channels / 16)
    # The reflected border of 2 needs 3 pixels at output resolution.
    return Geometry(
        margin=margin,
        minimum=3 if scale == 1 else 2,
        frame=FRAME if scale == 1 else FRAME - 1,  # measured: 3 pixels are enough for upscaling
        floats_per_pixel=floats,
    )


def _multiply_adds(channels: int, blocks: int, scale: int) -> MultiplyAdds:
    body = 27 * channels + blocks * 9 * 3 * UNITS * channels**2
    body += 9 * channels**2 * scale**2 if scale > 1 else 0
    filters = (9 + 25 + 9) * channels**2 + 9 * ATOMS * channels
    fused = (25 + 9) * channels**2 + 9 * DISTINCT_TAPS * channels
    return MultiplyAdds(
        published_form=body / scale**2 + filters,
        fused_form=body / scale**2 + fused + DISTINCT_TAPS * PLANES + TAPS * PLANES,
    )


def _parameters(channels: int, blocks: int, scale: int) -> int:
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return outputs * (inputs * kernel**2 + 2)  # one norm and one bias for each output

    unit = 2 * conv(channels, channels, 3) + 2
    block = UNITS * unit + conv(UNITS * channels, channels, 3) + 2
    up = conv(channels, channels * scale**2, 3) if scale > 1 else 0
    tail = 2 * conv(channels, channels, 3) + conv(channels, channels, 5) + 2
    return conv(3, channels, 3) + blocks * block + up + tail + conv(channels, ATOMS, 3)


def _publication(size: str, scale: int) -> Publication:
    return Publication(page=FOLDER, file=f"LAPAR_{size.upper()}_x{scale}.pth", licence=LICENCE)


def _spec(
    size: str,
    channels: int,
    blocks: int,
    good_for: dict[Purpose, str],
    latency: float | None = None,
    published_scores: Mapping[int, Scores] = MappingProxyType({}),
    *,
    scales: tuple[int, ...] = (1, 2, 3, 4),
) -> ModelSpec:
    """Return the entry of a LAPAR.

    Args:
        size: Letter or word after `lapar-`.
        channels: Of its features.
        blocks: In its body.
        good_for: One phrase for each purpose.
        latency: Of x4 in the paper, in milliseconds on an RTX 2080 Ti; None if it is not there.
        published_scores: From the paper, by scale; empty if it is not there.
        scales: That it is offered for; 1 removes noise and JPEG blocks.
    """
    return ModelSpec(
        name=f"lapar-{size}",
        title=f"LAPAR-{size.upper()}",
        scales=scales,
        build=partial(_build, channels, blocks),
        geometry=partial(_geometry, channels, blocks),
        parameters=partial(_parameters, channels, blocks),
        multiply_adds=partial(_multiply_adds, channels, blocks),
        paper=PAPER,
        good_for=good_for,
        published_scores=dict(published_scores),
        compiled=True,
        distinct_taps=DISTINCT_TAPS,
        # Those after the body: four fifths of the arithmetic. In the body 8 bits cost another
        # 0.01 dB and gain little. The tolerance holds on black and white noise too; evenly spread
        # noise differs by up to 17 levels of 255 at x4, photographs by up to 5, in few pixels.
        eight_bits=EightBits(layers=("up.", "mix.", "merge.", "taps."), tolerance=16 / 255),
        latency={} if latency is None else {4: latency},
        publications={scale: _publication(size, scale) for scale in published_scores},
    )


SPECS = (
    _spec(
        "a",
        32,
        4,
        {
            "upscale": "best quality that ships",
            "photo": "blurred photos, JPEG",
            "denoise": "noise, best quality",
            "deblock": "JPEG blocks, best quality",
        },
        37.3,
        {
            2: Scores(set5=38.01, set14=33.62, b100=32.19),
            3: Scores(set5=34.36, set14=30.34, b100=29.11),
            4: Scores(set5=32.15, set14=28.61, b100=27.61),
        },
    ),
    _spec(
        "b",
        24,
        3,
        {
            "upscale": "between lapar-c and -a",
            "denoise": "noise",
            "deblock": "JPEG blocks",
        },
        29.1,
        {
            2: Scores(set5=37.87, set14=33.39, b100=32.10),
            3: Scores(set5=34.20, set14=30.17, b100=29.03),
            4: Scores(set5=31.94, set14=28.46, b100=27.52),
        },
    ),
    _spec(
        "c",
        16,
        2,
        {
            "upscale": "most pictures, fastest",
            "photo": "photos with noise and JPEG",
            "denoise": "noise, fastest",
            "deblock": "JPEG blocks, fastest",
        },
        22.2,
        {
            2: Scores(set5=37.65, set14=33.20, b100=31.95),
            3: Scores(set5=33.91, set14=30.02, b100=28.90),
            4: Scores(set5=31.72, set14=28.31, b100=27.40),
        },
    ),
    # Not in the paper: half of the channels of LAPAR-C, for video.
    _spec("mini", 8, 2, {"upscale": "video, fastest"}, scales=(2,)),
)
