"""Planes to RGB and back: the identity, known colours, and places of chroma."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from srcli.commands import video_options
from srcli.errors import SrcliError, UsageError
from srcli.video.color import Converter
from srcli.video.colorspace import CODES, MATRICES, ColorSpace, Stated, Wanted, settled
from srcli.video.layout import SITINGS, Layout
from srcli.video.resampling import Grid, composed, resampler, taps

SUBSAMPLINGS = [("yuv", 2, 2), ("yuv", 2, 1), ("yuv", 1, 1), ("yuv", 4, 1), ("grey", 1, 1)]
KINDS = [*SUBSAMPLINGS, ("rgb", 1, 1)]
SIZES = [(16, 12), (17, 13), (3, 2), (1, 1)]


def layout_of(kind, bits=8, size=(16, 12)):
    name, across, down = kind
    width, height = size
    return Layout(width=width, height=height, kind=name, bits=bits, across=across, down=down)


def noise(layout, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 1 << layout.bits, shape).astype(layout.dtype) for shape in layout.shapes
    ]


def space_of(name, kind, full=False):
    return ColorSpace("rgb" if kind[0] == "rgb" else name, full)


def through(converter, planes, network=lambda rgb: rgb):
    rgb, held = converter.to_rgb(planes)
    assert rgb.dtype == np.float32 and rgb.min() >= 0 and rgb.max() <= 1
    return converter.from_rgb(network(rgb), held)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_an_identity_network_changes_no_level(kind, bits):
    """With noise in all codes: colours outside of RGB, and chroma that no filter keeps."""
    for name, full, siting, size in itertools.product(
        set(CODES.values()) - {"rgb"}, (False, True), SITINGS.values(), SIZES
    ):
        layout = layout_of(kind, bits, size)
        converter = Converter(layout, layout, space_of(name, kind, full), siting)
        planes = noise(layout)
        for before, after in zip(planes, through(converter, planes), strict=True):
            assert after.dtype == before.dtype
            difference = np.abs(after.astype(int) - before.astype(int)).max()
            assert difference <= (1 if bits == 16 else 0), (name, full, siting, size)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_flat_colours_stay_at_every_scale(kind, scale):
    for size, siting in itertools.product(SIZES, SITINGS.values()):
        layout = layout_of(kind, size=size)
        out = layout.enlarged(scale)
        planes = [np.full(s, v, "u1") for s, v in zip(layout.shapes, (90, 120, 140), strict=False)]
        converter = Converter(layout, out, space_of("bt709", kind), siting)
        made = through(converter, planes, lambda rgb: rgb.repeat(scale, 1).repeat(scale, 2))
        assert [plane.shape for plane in made] == list(out.shapes)
        for before, after in zip(planes, made, strict=True):
            assert (after == before.flat[0]).all()


@pytest.mark.parametrize(
    ("matrix", "full", "codes", "rgb"),
    [
        # Bars of 100 %: the codes that BT.601, BT.709 and BT.2020 give them in 8 bits.
        ("bt601", False, (81, 90, 240), (1, 0, 0)),
        ("bt601", False, (145, 54, 34), (0, 1, 0)),
        ("bt709", False, (63, 102, 240), (1, 0, 0)),
        ("bt709", False, (173, 42, 26), (0, 1, 0)),
        ("bt709", False, (32, 240, 118), (0, 0, 1)),
        ("bt2020", False, (29, 240, 119), (0, 0, 1)),
        ("bt601", True, (76, 85, 255), (1, 0, 0)),
        ("bt709", False, (235, 128, 128), (1, 1, 1)),
        ("bt709", False, (16, 128, 128), (0, 0, 0)),
        ("bt709", True, (255, 128, 128), (1, 1, 1)),
    ],
)
def test_known_colours(matrix, full, codes, rgb):
    layout = layout_of(("yuv", 2, 2))
    planes = [np.full(s, v, "u1") for s, v in zip(layout.shapes, codes, strict=True)]
    converter = Converter(layout, layout, ColorSpace(matrix, full), SITINGS["left"])
    found, _ = converter.to_rgb(planes)
    assert np.abs(found[:, 5, 5] - rgb).max() < 0.011


def test_ten_bits_become_eight_and_back_by_the_range():
    layout, eight = layout_of(("yuv", 2, 2), 10), layout_of(("yuv", 2, 2), 8)
    planes = [np.full(s, v, "u2") for s, v in zip(layout.shapes, (400, 480, 560), strict=True)]
    converter = Converter(layout, eight, ColorSpace("bt709", False), SITINGS["left"])
    assert [int(plane.flat[0]) for plane in through(converter, planes)] == [100, 120, 140]


@pytest.mark.parametrize("name", SITINGS)
@pytest.mark.parametrize("kind", SUBSAMPLINGS[:2], ids=str)
def test_a_ramp_of_chroma_lands_in_its_place(name, kind):
    """A colour that grows evenly from left to right, sampled at the siting, is found unshifted."""
    layout = layout_of(kind, 16, (64, 64))
    siting = SITINGS[name]
    (left, top), (left_of_red, top_of_red) = siting.places(layout)

    def ramps(to):
        height, width = to.chroma_shape
        factor = Fraction(to.width, layout.width)
        columns, rows = np.arange(width) * to.across, np.arange(height) * to.down

        def place(first, indices):  # in luma samples of the input
            return (float(first) + indices + 0.5) / float(factor) - 0.5

        blue = 20000 + 300 * place(left, columns) + 100 * place(top, rows)[:, None]
        red = 30000 + 100 * place(left_of_red, columns) + 300 * place(top_of_red, rows)[:, None]
        return blue, red

    blue, red = (np.rint(ramp).astype("<u2") for ramp in ramps(layout))
    planes = [np.full(layout.shapes[0], 30000, "<u2"), blue, red]
    large = layout.enlarged(2)
    converter = Converter(layout, large, ColorSpace("bt709", False), siting)
    with_ramps = zip(through(converter, planes, bilinear)[1:], ramps(large), strict=True)
    for found, wanted in with_ramps:
        inner = (slice(12, -12), slice(12, -12))
        assert np.abs(found[inner] - wanted[inner]).max() < 3


def bilinear(rgb):
    """A network that enlarges ramps exactly."""
    for axis in (1, 2):
        count = rgb.shape[axis]
        grid = Grid(Fraction(1), Fraction(0), count)
        filter = resampler(grid, grid.enlarged(2, 2 * count))
        rgb = (filter.rows if axis == 1 else filter.columns)(rgb)
    return np.clip(rgb, 0, 1)


def test_luma_outside_of_the_range_goes_beside_the_network():
    """Limited range has room below black and above white: a network of [0, 1] has not."""
    layout = layout_of(("yuv", 2, 2))
    planes = [np.full(s, v, "u1") for s, v in zip(layout.shapes, (250, 128, 128), strict=True)]
    converter = Converter(layout, layout.enlarged(2), ColorSpace("bt709", False), SITINGS["left"])
    made = through(converter, planes, lambda rgb: rgb.repeat(2, 1).repeat(2, 2))
    assert (made[0] == 250).all()


def test_dither_keeps_whole_levels_and_the_mean():
    layout = layout_of(("yuv", 1, 1), size=(64, 64))
    converter = Converter(layout, layout, ColorSpace("bt709", True), SITINGS["left"], dither=True)
    grey = [np.full(s, 100, "u1") for s in layout.shapes]
    rgb, held = converter.to_rgb(grey)
    assert (converter.from_rgb(rgb, held)[0] == 100).all()
    between = converter.from_rgb(rgb + np.float32(0.3 / 255), held)[0]
    assert set(np.unique(between)) == {100, 101}
    assert between.mean() == pytest.approx(100.3, abs=0.02)


def test_another_size_than_wanted_is_told():
    layout = layout_of(("yuv", 2, 2))
    converter = Converter(layout, layout.enlarged(2), ColorSpace("bt709", False), SITINGS["left"])
    with pytest.raises(SrcliError, match="16 x 12"):
        through(converter, noise(layout))


@pytest.mark.parametrize(
    ("stated", "wanted", "height", "matrix", "full", "words"),
    [
        (Stated(), Wanted(), 480, "bt601", False, "guessed by the height of 480"),
        (Stated(), Wanted(), 720, "bt709", False, "guessed by the height of 720"),
        (Stated(matrix="bt2020", full_range=True), Wanted(), 480, "bt2020", True, "matrix stated"),
        (Stated(matrix="bt709"), Wanted(matrix="bt601"), 720, "bt601", False, "--matrix"),
        (Stated(), Wanted(range="full"), 720, "bt709", True, "--range"),
    ],
)
def test_the_colour_line_says_what_is_known(stated, wanted, height, matrix, full, words):
    space, how = settled(stated, wanted, height=height, kind="yuv")
    assert space == ColorSpace(matrix, full) and words in how


def test_rgb_has_no_matrix():
    with pytest.raises(UsageError, match="RGB"):
        settled(Stated(), Wanted(matrix="bt709"), height=10, kind="rgb")


def test_names_in_the_help_are_those_of_the_room():
    assert set(video_options.MATRICES) == set(MATRICES)
    assert set(video_options.SITINGS) == {"auto", *SITINGS}


def test_weights_of_every_filter_sum_to_one():
    small, large = Grid(Fraction(2), Fraction(1, 2), 8), Grid(Fraction(1, 3), Fraction(-1, 3), 48)
    fine = Grid(Fraction(1), Fraction(0), 16)
    for found in (
        taps(small, large),
        taps(large, small),
        composed(taps(fine, large), taps(large, small)),
    ):
        assert all(sum(found(k).values()) == pytest.approx(1) for k in range(8))
