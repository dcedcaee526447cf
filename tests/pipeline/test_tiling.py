"""Tiles cover a picture, and their windows are all of one size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.pipeline.tiling import choose_window, halved, plan, spans

lengths = st.integers(1, 400)
margins = st.integers(0, 40)


@given(lengths, st.integers(1, 200), margins)
def test_spans_partition_the_axis(length, inside, margin):
    window = inside + 2 * margin
    cut = spans(length, window, margin)
    assert cut[0].first == 0
    assert cut[-1].last == length
    assert all(a.last == b.first for a, b in itertools.pairwise(cut))
    assert all(span.first < span.last for span in cut)


@given(lengths, st.integers(1, 200), margins)
def test_every_tile_has_its_halo(length, inside, margin):
    for span in spans(length, inside + 2 * margin, margin):
        assert span.start == 0 or span.first - span.start >= margin
        assert span.stop == length or span.stop - span.last >= margin


@given(lengths, st.integers(1, 200), margins)
def test_windows_are_of_one_size(length, inside, margin):
    window = inside + 2 * margin
    assert {s.stop - s.start for s in spans(length, window, margin)} == {min(length, window)}


@given(lengths, lengths, margins, st.integers(1, 100_000))
def test_chosen_windows_can_be_planned(height, width, margin, pixels):
    window = choose_window(height, width, margin=margin, pixels=pixels)
    assert window[0] <= height
    assert window[1] <= width
    assert plan(height, width, window, margin)


@given(lengths, lengths, margins, st.integers(1, 100_000))
def test_chosen_windows_fit(height, width, margin, pixels):
    window = choose_window(height, width, margin=margin, pixels=pixels)
    smallest = 4 * margin + 1
    assert window[0] * window[1] <= max(pixels, min(height, smallest) * min(width, smallest))


@pytest.mark.parametrize(
    ("height", "width", "pixels", "maximum"),
    [(320, 480, 67_000, 1.45), (320, 480, 153_600, 1.0), (8000, 12000, 270_000, 1.2)],
)
def test_little_is_computed_twice(height, width, pixels, maximum):
    """Square windows of those pixels would compute 2.6, 1 and 1.2 times the picture."""
    window = choose_window(height, width, margin=21, pixels=pixels)
    tiles = plan(height, width, window, 21)
    assert len(tiles) * window[0] * window[1] <= maximum * height * width


@given(lengths, lengths, margins)
def test_halving_ends(height, width, margin):
    window: tuple[int, int] | None = (height, width)
    for _ in range(40):
        assert window is not None
        smaller = halved(window, margin)
        if smaller is None:
            return
        assert smaller[0] * smaller[1] < window[0] * window[1]
        assert min(smaller) > 0
        window = smaller
    raise AssertionError("halving never ends")
