"""Drawing LAPAR's filters."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from srcli.commands.filters import assembled
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
        assert drawn.width == 12 * 66 + 6
        assert drawn.height == 6 * 66 + 6


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
