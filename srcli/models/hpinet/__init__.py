"""HPINet's facts; the arithmetic is in `network.py`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from srcli.models.spec import FRAME, Geometry, ModelSpec, MultiplyAdds, Publication, Scores

if TYPE_CHECKING:
    from srcli.models.base import PublishedNetwork

PAPER = (
    "Liu, Chen, Tang, Wu: From Coarse to Fine: Hierarchical Pixel Integration for Lightweight "
    "Image Super-Resolution. AAAI 2023"
)
LAYERS = 3  # transformer layers of a block
OVERLAP = 2  # pixels that neighbouring patches share
REPOSITORY = "passerer/HPINet"
COMMIT = "eb34123c0670fffb56b47e0c30f985831b78a339"  # that added the checkpoints
Sides = tuple[int, ...]


def _build(channels: int, keys: int, hidden: int, sides: Sides, scale: int) -> PublishedNetwork:
    from srcli.models.hpinet.network import HpiNet

    return HpiNet(channels, keys, hidden, sides, scale)


def _geometry(channels: int, sides: Sides, scale: int) -> Geometry:
    # Every patch is compared with every other, so no finite margin is exact. What a pixel owes to
    # its own neighbourhood comes from the patches around it; the rest is one matched patch,
    # which a tile replaces by the best that it holds. A halo of one largest patch is enough:
    # with it, tiles score within 0.1 dB of the whole picture, on either side of it.
    # In ONNX Runtime the scores of attention (T for each of the T tokens of a patch, twice: before
    # and after the softmax) are the worst moment; patches overlap, most at the smallest tiles.
    largest = max(sides)
    scores = 2 * 1.5 * largest**2 + 12 * channels
    return Geometry(
        frame=FRAME,
        margin=largest,
        minimum=largest,
        floats_per_pixel=round(scores / scale**2) + 3 * channels,
        tiling="approximate",
    )


def _multiply_adds(
    channels: int, keys: int, hidden: int, sides: Sides, printed: dict[int, float], scale: int
) -> MultiplyAdds:
    """Count all but the matching, which grows with the picture: below 1% at 1280x720 output.

    Where the paper prints a number (`printed`, in G at that size), it is the published one: it
    counts a twentieth less than all products of matrices make together.
    """
    body = 27.0 * channels
    for side in sides:
        width = keys + channels
        token = width * channels + keys * channels + width * side**2 + 2 * channels * hidden
        body += LAYERS * token * _overlap(side) + 9 * channels**2
    up = 36 * channels**2 * 5 if scale == 4 else 9 * channels**2 * scale**2
    total = (body + up) / scale**2 + 27 * channels
    # The fused form has queries and keys as wide as values.
    padding = sum(
        LAYERS * (channels - keys) * (2 * channels + side**2) * _overlap(side) for side in sides
    )
    counted = printed[scale] * 1e9 / (1280 * 720) if scale in printed else total
    return MultiplyAdds(published_form=counted, fused_form=total + padding / scale**2 + 27)


def _overlap(side: int) -> float:
    """Return the tokens for each pixel: patches of `side` begin every `side - OVERLAP` pixels."""
    return (side / (side - OVERLAP)) ** 2


def _parameters(channels: int, keys: int, hidden: int, sides: Sides, scale: int) -> int:
    norm = 2 * channels
    attention = norm + (2 * keys + channels) * channels
    feed_forward = norm + 2 * channels * hidden + hidden + channels
    block = norm + LAYERS * (attention + feed_forward) + _conv(channels, channels)
    ups = 2 * _conv(channels, 4 * channels) if scale == 4 else _conv(channels, channels * scale**2)
    return _conv(3, channels) + len(sides) * block + ups + _conv(channels, 3)


def _conv(inputs: int, outputs: int) -> int:
    return outputs * (9 * inputs + 1)


def _publication(name: str, sha256: str | None, size: int | None = None) -> Publication:
    path = f"checkpoints/{name}.pth"
    return Publication(
        page=f"https://github.com/{REPOSITORY}",
        file=path,
        address=f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/{path}",
        sha256=sha256,
        size=size,
    )


def _spec(
    size: str,
    channels: int,
    keys: int,
    hidden: int,
    sides: Sides,
    good_for: str,
    published_scores: dict[int, Scores],
    weights: dict[int, Publication],
    printed: dict[int, float] | None = None,
) -> ModelSpec:
    widths = (channels, keys, hidden, sides)
    return ModelSpec(
        name=f"hpinet-{size}",
        title=f"HPINet-{size.upper()}",
        scales=(2, 3, 4),
        build=partial(_build, *widths),
        geometry=partial(_geometry, channels, sides),
        parameters=partial(_parameters, *widths),
        multiply_adds=partial(_multiply_adds, *widths, printed or {}),
        paper=PAPER,
        good_for={"upscale": good_for},
        # Rounding is amplified from block to block, and a patch with two nearly equal candidates
        # may get the other one.
        tolerance=1e-3,
        half_tolerance=None,
        published_scores=published_scores,
        publications=weights,
    )


SPECS = (
    _spec(
        "s",
        40,
        24,
        72,
        (12, 16, 20, 24) * 2,
        "repeated textures, slow",
        {4: Scores(set5=32.47, set14=28.80, b100=27.69)},
        {
            4: _publication(
                "HPINet-S-x4",
                "675abc363c9a2ea92a42d54d546bbdd19118cab10bb35b3fa1eeaa18158d0f58",
                1_974_687,
            ),
        },
    ),
    _spec(
        "m",
        56,
        32,
        100,
        (12, 16, 20, 24) * 2,
        "best to be fetched, slow",
        {
            2: Scores(set5=38.12, set14=33.94, b100=32.31),
            3: Scores(set5=34.70, set14=30.63, b100=29.26),
            4: Scores(set5=32.60, set14=28.87, b100=27.73),
        },
        {
            2: _publication(
                "HPINet-M-x2",
                "d2c6b13f459de9cf0c30877b7e7a28e78fa8b42b31e08fb30bb03d791b08b448",
                3_244_837,
            ),
            3: _publication(
                "HPINet-M-x3",
                "b15f30423e115edf031da2ca280f3f3e4897c8a4e80fa416441dd5004876fb8b",
            ),
            4: _publication(
                "HPINet-M-x4",
                "567043542711fb3171ac0c4487a1d867698df46613cdb49e8d0b7de936d9b223",
                3_698_017,
            ),
        },
        {4: 124.0},
    ),
    _spec(
        "l",
        64,
        36,
        128,
        (12, 14, 16, 20, 24) * 2,
        "best of all at x4, slowest",
        {4: Scores(set5=32.72, set14=28.97, b100=27.79)},
        {4: _publication("HPINet-L-x4", None)},
    ),
)
