"""The page of `srcli compare` in a real browser: slider, zoom, panning, difference, keys, touch."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from support.browser import chromium, complaints, drag, page_of

from srcli.images import Picture
from srcli.pages.comparison import Shown, comparison

pytestmark = pytest.mark.services
WIDTH, HEIGHT = 96, 64
SLIDER = {"name": "Divider between the pictures"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures():
    """Three pictures whose pixels are all different from each other's."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def address(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("pages") / "compare.html"
    shown = [
        Shown(label=name, picture=Picture(color=pixels), figures={"PSNR-Y (dB)": "30.00"})
        for name, pixels in zip(("one", "two", "three"), pictures, strict=True)
    ]
    place.write_text(comparison("A comparison", "of three pictures", shown), "utf-8")
    return place.as_uri()


def stage(page):
    return page.get_by_role("group", name=re.compile("Pictures"))


def seen(page, locator):
    """Pixels of a part of the page."""
    image = Image.open(io.BytesIO(locator.screenshot())).convert("RGB")
    return np.asarray(image).astype(int)


def value(page):
    return int(page.get_by_role("slider", **SLIDER).get_attribute("aria-valuenow"))


def nothing_on_top(page):
    """Hide divider and labels, which lie upon the pictures."""
    page.locator(".divider").evaluate_all("all => all.forEach((one) => (one.style.opacity = 0))")
    page.locator(".tag").evaluate_all("all => all.forEach((one) => (one.style.opacity = 0))")


def is_in_the_middle(picture, drawn):
    """Whether the middle of a picture is drawn, pixel by pixel; half a pixel may be rounded."""
    side = min(picture.shape[0], picture.shape[1], drawn.shape[0] - 8, drawn.shape[1] - 8) - 8
    top, left = ((a - side) // 2 for a in picture.shape[:2])
    middle = picture[top : top + side, left : left + side]
    top, left = ((a - side) // 2 for a in drawn.shape[:2])
    return any(
        np.array_equal(middle, drawn[top + y : top + y + side, left + x : left + x + side])
        for y in range(-2, 3)
        for x in range(-2, 3)
    )


@pytest.mark.parametrize("zoom", [1, 2, 4, 8])
def test_each_pixel_is_a_square_of_its_colour(browser, address, pictures, zoom):
    with page_of(browser, address, viewport={"width": 1000, "height": 900}) as page:
        page.get_by_role("combobox", name="Zoom").select_option(str(zoom))
        page.get_by_role("slider", **SLIDER).press("End")  # the left picture alone
        nothing_on_top(page)
        drawn = seen(page, stage(page))
        assert is_in_the_middle(pictures[0].repeat(zoom, 0).repeat(zoom, 1), drawn)


def test_the_divider_follows_mouse_and_keys(browser, address, pictures):
    with page_of(browser, address, viewport={"width": 1000, "height": 900}) as page:
        slider = page.get_by_role("slider", **SLIDER)
        assert value(page) == 50
        drag(page, slider, stage(page).bounding_box()["width"] / 4)
        assert value(page) in (74, 75, 76)
        slider.focus()
        before = value(page)
        for key, change in [
            ("ArrowLeft", -1),
            ("ArrowRight", 1),
            ("PageDown", -10),
            ("Shift+ArrowRight", 10),
        ]:
            page.keyboard.press(key)
            assert value(page) == before + change
            before += change
        page.keyboard.press("Home")
        assert value(page) == 0
        assert slider.get_attribute("aria-valuetext") == "0 % one, the rest two"
        nothing_on_top(page)
        right = seen(page, stage(page))
        page.keyboard.press("End")
        assert np.abs(seen(page, stage(page)) - right).max() > 50


def test_a_finger_moves_the_divider(browser, address):
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with page_of(browser, address, **options) as page:
        box = stage(page).bounding_box()
        session = page.context.new_cdp_session(page)
        y = box["y"] + box["height"] / 2
        for kind, share in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.25)):
            points = [{"x": box["x"] + box["width"] * share, "y": y}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert value(page) in (24, 25, 26)


def places(page):
    """Where the pictures of all panes are drawn."""
    return page.locator(".pane > img").evaluate_all("all => all.map((one) => one.style.transform)")


def test_panes_move_together(browser, address):
    with page_of(browser, address, viewport={"width": 1000, "height": 900}) as page:
        page.get_by_text("All", exact=True).click()
        page.get_by_role("combobox", name="Zoom").select_option("8")
        before = places(page)
        assert (len(before), len(set(before))) == (3, 1)
        drag(page, page.locator(".pane").first, 60, 30)
        moved = places(page)
        assert len(set(moved)) == 1
        numbers = [
            [float(n) for n in re.findall(r"-?[\d.]+", place)][:2]
            for place in (before[0], moved[0])
        ]
        assert np.subtract(*numbers[::-1]) == pytest.approx([60, 30], abs=1)
        stage(page).focus()
        for key in ("ArrowRight", "ArrowDown", "-", "+"):
            page.keyboard.press(key)
        assert len(set(places(page))) == 1
        page.keyboard.press("0")
        assert page.get_by_role("combobox", name="Zoom").input_value() == "fit"


def test_the_difference_is_that_of_the_pixels(browser, address, pictures):
    with page_of(browser, address, viewport={"width": 1000, "height": 900}) as page:
        page.get_by_role("combobox", name="Right").select_option(label="three")
        page.get_by_text("Difference", exact=True).click()
        page.get_by_role("combobox", name="Strength").select_option("1")
        page.get_by_role("combobox", name="Zoom").select_option("1")
        difference = np.abs(pictures[0].astype(int) - pictures[2])
        words = f"{difference.mean():.2f} levels of 255 on average, {difference.max()} at most"
        page.get_by_text(words).wait_for()
        page.get_by_text("|one − three| × 1").wait_for()
        nothing_on_top(page)
        drawn = seen(page, stage(page))
        assert is_in_the_middle(difference, drawn)


def test_the_pixel_below_the_mouse_is_told(browser, address, pictures):
    with page_of(browser, address, viewport={"width": 1000, "height": 900}) as page:
        page.get_by_role("combobox", name="Zoom").select_option("8")
        box = stage(page).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 20)
        x, y = (int(WIDTH / 2 + 30 / 8), int(HEIGHT / 2 + 20 / 8))
        colors = [" ".join(map(str, one[y, x])) for one in pictures[:2]]
        page.get_by_text(f"{x}, {y}: {colors[0]} | {colors[1]}").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_left_out(browser, address, scheme):
    with page_of(browser, address, color_scheme=scheme) as page:
        for view in ("Slider", "Side by side", "All", "Difference"):
            page.get_by_text(view, exact=True).click()
            assert complaints(page) == []


def test_without_script_all_pictures_are_there(browser, address):
    with page_of(browser, address, java_script_enabled=False) as page:
        for name in ("one", "two", "three"):
            assert page.get_by_role("img", name=name).is_visible()
        assert page.get_by_role("table").is_visible()
