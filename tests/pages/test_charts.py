"""Plots of pages: every value at its place, in words too."""

from __future__ import annotations

import re

import pytest

from srcli.pages.charts import Bar, bars


def numbers(svg, name):
    return [float(value) for value in re.findall(rf' {name}="([-\d.]+)"', svg)]


@pytest.mark.parametrize("values", [[3.0, 6.0, 1.5], [1000.0, 20.0], [0.004], [7.0, 7.0]])
def test_bars_are_as_long_as_their_values(values):
    svg = bars([Bar(label="x", value=value, text=f"{value}") for value in values], "ms")
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', svg)]
    assert [w / widths[0] for w in widths] == pytest.approx(
        [v / values[0] for v in values], rel=0.01
    )
    assert max(widths) > 250  # the axis is no longer than it has to be


@pytest.mark.parametrize("values", [[30.42, 38.31], [31.0], [-2.5, 4.0]])
def test_points_lie_between_the_ends_of_the_axis(values):
    rows = [Bar(label=f"set {v}", value=v, text=f"{v}") for v in values]
    svg = bars(rows, "dB", from_zero=False)
    places = numbers(svg, "cx")
    rules = numbers(svg, "x1")
    assert min(rules) <= min(places) <= max(places) <= max(rules)
    assert sorted(places) == [place for _, place in sorted(zip(values, places, strict=True))]


def test_words_are_for_those_who_do_not_see():
    svg = bars([Bar(label="a<b>", value=2, text="2.00 ms", until=3)], "time & so on")
    assert 'role="img" aria-label="time &amp; so on. a&lt;b&gt;: 2.00 ms"' in svg
    assert 'class="spread"' in svg
