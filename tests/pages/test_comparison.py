"""Pages: their pixels are exact, they load nothing, and no text of others becomes HTML."""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image
from support.corpus import SRGB
from support.pictures import picture, stacked

from srcli.images import Picture
from srcli.images.picture import Metadata
from srcli.pages.comparison import Shown, comparison, data_uri
from srcli.pages.documents import asset, document, table

LOADED = re.compile(r"""(?:src|href)="(?!data:)[^"]*"|url\(|@import|https?://""")


def decoded(uri):
    head, _, text = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_exact(channels, alpha):
    shown = picture(channels, alpha)
    pixels = np.asarray(decoded(data_uri(shown)))
    expected = stacked(shown)
    if channels == 1:
        expected = np.concatenate([shown.color.repeat(3, 2), expected[..., 1:]], 2)
    assert np.array_equal(pixels, expected)


def test_the_colour_profile_goes_along_and_nothing_else():
    about = Metadata(format="jpeg", icc=SRGB, exif=b"MM\0*" + bytes(40), xmp=b"<secret/>")
    image = decoded(data_uri(Picture(color=picture(3).color, metadata=about)))
    assert image.info["icc_profile"] == SRGB
    assert not {"exif", "xmp"} & set(image.info)


def page(label="one"):
    first, second = picture(3), picture(3, bits=16)
    return comparison(
        f"title {label}",
        f"lead {label}",
        [
            Shown(label=label, picture=first, figures={"PSNR": "30.00"}),
            Shown(label="two", picture=second, figures={"PSNR": "31.50"}),
        ],
        best=("31.50",),
        note=f"note {label}",
    )


def test_a_page_loads_nothing():
    assert not LOADED.search(page().replace("http-equiv", ""))


def test_the_policy_allows_just_what_the_page_holds():
    text = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", text.replace(asset("viewer.js"), ""))


def test_texts_become_no_html():
    text = page('<img src=x onerror="alert(1)">&')
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;") == 7


def test_the_best_is_marked():
    assert '<td class="number best">31.50</td>' in page()
    assert '<td class="number">30.00</td>' in page()


def test_columns_of_words_stand_left():
    made = table(["a", "b"], [["x", "1"], ["y", "words"]])
    assert "number" not in made


def test_a_page_without_script_allows_none():
    made = document("report.html", styles=["base.css"], title="t", lead="l", sections="<p>one</p>")
    assert "script-src 'none'" in made
