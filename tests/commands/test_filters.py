"""Drawing LAPAR's filters."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from srcli.commands.drawing import GAP, LINE
from srcli.commands.filters import FALLING, MAGNIFIED, MARK, RISING, VIEW, assembled
from srcli.loading.model import load
from srcli.models.lapar.network import dictionary


@pytest.fixture
def picture(tmp_path, photograph):
    file = tmp_path / "in.png"
    Image.fromarray(photograph[:50, :60]).save(file)
    return file


def test_the_dictionary_is_drawn(srcli, tmp_path):
    target = tmp_path / "dictionary.png"
    code, out, _ = srcli("filters", "--dictionary", "-o", target, "--json")
    assert code == 0
    assert np.allclose(json.loads(out)["filters"], dictionary()[:, 0])
    with Image.open(target) as drawn:
        colors = np.asarray(drawn.convert("RGB")).reshape(-1, 3)
    # Each filter has its own range: the colour of the largest tap is there at least once in each.
    strongest = (colors == RISING).all(axis=1) | (colors == FALLING).all(axis=1)
    assert strongest.sum() >= len(dictionary()) * MAGNIFIED**2


def test_several_places_are_drawn_and_marked(srcli, picture, tmp_path, photograph):
    target = tmp_path / "places.png"
    at = ("--at", "20,20", "--at", "30,25")
    code, out, _ = srcli("filters", picture, *at, "-s", 3, "-o", target, "--json")
    found = json.loads(out)["places"]
    assert code == 0
    assert [place["at"] for place in found] == [[20, 20], [30, 25]]
    model = load("lapar-c", 3)
    for place in found:
        assert np.allclose(place["filters"], assembled(model, picture, tuple(place["at"])))
    with Image.open(target) as opened:
        drawn = np.asarray(opened.convert("RGB"))
    # The first panel begins at (GAP, GAP + LINE) and shows input pixels (10, 10) to (40, 35).
    factor = VIEW / 31
    for column, row in ((20, 20), (30, 25)):
        x, y = (GAP + (column - 10) * factor), (GAP + LINE + (row - 10) * factor)
        assert tuple(drawn[round(y), round(x + 2)]) == MARK
        middle = drawn[round(y + factor / 2), round(x + factor / 2)]
        assert tuple(middle) == tuple(photograph[row, column])


@pytest.mark.parametrize("task", ["denoise", "deblock"])
def test_networks_that_keep_the_size_have_one_filter_a_pixel(srcli, picture, tmp_path, task):
    target = tmp_path / "one.png"
    arguments = ("--at", "5,6", "-s", 1, "--task", task, "-o", target, "--json")
    code, out, _ = srcli("filters", picture, *arguments)
    assert code == 0
    (place,) = json.loads(out)["places"]
    (taps,) = place["filters"]
    assert np.allclose(taps, assembled(load("lapar-c", 1, task=task), picture, (5, 6))[0])


@pytest.mark.parametrize("at", [(0, 0), (59, 49), (30, 20)])
def test_the_filters_at_a_pixel_make_the_output(picture, photograph, at):
    model = load("lapar-c", 2)
    column, row = at
    x = torch.from_numpy(photograph[:50, :60].transpose(2, 0, 1)[None] / np.float32(255))
    with torch.inference_mode():
        expected = model.published_network()(x)[
            0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2
        ]
        enlarged = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        padded = F.pad(enlarged, [2] * 4, mode="reflect")[0]
    for index, taps in enumerate(assembled(model, picture, at)):
        dy, dx = divmod(index, 2)
        window = padded[:, 2 * row + dy :, 2 * column + dx :][:, :5, :5].numpy()
        assert np.allclose((window * taps).sum(axis=(1, 2)), expected[:, dy, dx], atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--at", "3,4"),
        ("--dictionary", "--at", "3,4"),
        ("--dictionary", "-m", "awsrn"),
    ],
)
def test_what_makes_no_sense_is_refused(srcli, tmp_path, arguments):
    assert srcli("filters", *arguments, "-o", tmp_path / "f.png")[0] in (2, 3)
    assert not list(tmp_path.iterdir())


def test_a_pixel_outside_is_refused(srcli, picture, tmp_path):
    code, _, err = srcli("filters", picture, "--at", "60,0", "-o", tmp_path / "f.png")
    assert code == 2
    assert "60 x 50" in err
    assert srcli("filters", picture, "--at", "x", "-o", tmp_path / "f.png")[0] == 2


def test_places_at_the_border_are_marked(srcli, tmp_path):
    """Outline and number lie within the picture: as much of them as of a place in the middle."""
    Image.new("RGB", (60, 50)).save(tmp_path / "black.png")

    def marks(place):
        target = tmp_path / f"{place}.png"
        corners = ("--at", "0,0", "--at", "59,49", "--at", place)
        assert srcli("filters", tmp_path / "black.png", *corners, "-s", 2, "-o", target)[0] == 0
        with Image.open(target) as opened:
            shown = np.asarray(opened.convert("RGB"))[GAP + LINE :, GAP : GAP + VIEW]
        return (shown[: VIEW * 50 // 60] > 0).any(axis=2).sum()

    inside = marks("30,25")
    assert marks("59,0") > 0.95 * inside
    assert marks("0,49") > 0.95 * inside


def test_a_figure_is_a_png_file(srcli, picture, tmp_path):
    code, _, err = srcli("filters", picture, "--at", "1,1", "-o", tmp_path / "x.jpg")
    assert code == 2
    assert "x.jpg: must end in .png" in err
