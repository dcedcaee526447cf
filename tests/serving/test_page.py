"""The service's page in a real browser: drop, choose, slide, download; and what goes wrong."""

from __future__ import annotations

import base64
import re
import subprocess
import sys

import pytest
from PIL import Image
from support.browser import chromium, complaints, drag, page_of
from support.service import Service

pytestmark = pytest.mark.services
for _package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(_package, reason="needs srcli[serve]")

DROP = """
([name, text, type]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(event);
}
"""
PASTE = DROP.replace(
    'new DragEvent("drop", { dataTransfer: transfer,',
    'new ClipboardEvent("paste", { clipboardData: transfer,',
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def service():
    with Service("--lanes", "1", "--max-bytes", "1M") as running:
        yield running


@pytest.fixture
def picture(tmp_path, photograph):
    Image.fromarray(photograph[:48, :64]).save(tmp_path / "photo.jpg", quality=85)
    return tmp_path / "photo.jpg"


def ready(page):
    page.get_by_text("megapixels in the result").wait_for()


def drop(page, file, name=None, how=DROP):
    content = base64.b64encode(file.read_bytes()).decode()
    page.evaluate(how, [name or file.name, content, "image/jpeg"])


def made_by_command(picture, *options):
    output = picture.with_name("command") / "made.bin"
    output.parent.mkdir(exist_ok=True)
    folder = f"{output.parent}/"
    command = [sys.executable, "-m", "srcli", *options, picture, "-q", "-y", "-o", folder]
    subprocess.run(command, check=True)
    (made,) = [file for file in output.parent.iterdir() if not file.name.startswith(".")]
    return made


def test_a_dropped_picture_is_restored_compared_and_downloaded(browser, service, picture):
    with page_of(browser, service.address) as page:
        ready(page)
        page.get_by_label("Scale").select_option("2")
        drop(page, picture)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download photo_x2.jpg").click()
        made = made_by_command(picture, "upscale", "-s", "2")
        assert download.value.suggested_filename == made.name == "photo_x2.jpg"
        assert download.value.path().read_bytes() == made.read_bytes()
        page.get_by_text(re.compile("Done: 128 × 96")).wait_for()
        page.get_by_text(re.compile(r"photo.jpg \(JPEG of quality 85\): weights")).wait_for()
        slider = page.get_by_role("slider")
        drag(page, slider, -50)
        assert 0 < int(slider.get_attribute("aria-valuenow")) < 50
        slider.press("End")
        assert slider.get_attribute("aria-valuetext") == "100 % Before, the rest After"


def test_orders_are_those_that_are_chosen(browser, service, picture):
    with page_of(browser, service.address) as page:
        ready(page)
        page.get_by_text("Denoise", exact=True).click()
        assert not page.get_by_label("Scale").is_visible()
        page.get_by_label("Model").select_option("lapar-a")
        page.get_by_label("Save as").select_option("png")
        page.locator("#files").set_input_files(picture)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download photo_denoised.png").click()
        made = made_by_command(picture, "denoise", "-m", "lapar-a", "-f", "png")
        assert download.value.path().read_bytes() == made.read_bytes()


def test_several_pictures_and_one_that_is_none(browser, service, picture):
    broken = picture.with_name("broken.png")
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    large = picture.with_name("large.png")
    large.write_bytes(bytes(1 << 21))
    with page_of(browser, service.address) as page:
        ready(page)
        page.locator("#files").set_input_files([broken, large, picture, picture])
        page.get_by_text(re.compile("^broken.png: damaged or incomplete")).wait_for()
        page.get_by_text("large.png: has more than 1 MB. Choose a smaller file.").wait_for()
        page.get_by_role("link", name="Download photo_x4.jpg").nth(1).wait_for()
        assert page.get_by_role("listitem").filter(has=page.get_by_text("Done")).count() == 2


def test_a_picture_can_be_pasted(browser, service, picture):
    with page_of(browser, service.address) as page:
        ready(page)
        drop(page, picture, how=PASTE)
        page.get_by_role("link", name="Download photo_x4.jpg").wait_for()


def test_names_of_files_are_only_text(browser, service, picture):
    name = "<img src=x onerror=alert(1)>.jpg"
    with page_of(browser, service.address) as page:
        ready(page)
        drop(page, picture, name)
        page.get_by_text(name, exact=True).wait_for()
        page.get_by_role("link", name=re.compile("Download <img")).wait_for()


def test_a_picture_can_be_cancelled(browser, service, picture, photograph):
    large = picture.with_name("large.jpg")
    Image.fromarray(photograph).resize((1900, 1900)).save(large, quality=80)
    with page_of(browser, service.address) as page:
        ready(page)
        page.locator("#files").set_input_files([large, picture])
        page.get_by_text(re.compile(r"Restoring \d+ %")).wait_for()
        page.get_by_role("button", name="Cancel large.jpg").click()
        page.get_by_text("Cancelled").wait_for()
        page.get_by_role("link", name="Download photo_x4.jpg").wait_for()
    service.wait_for("srcli_pictures_working", 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nobody_is_left_out(browser, service, picture, scheme, width):
    viewport = {"width": width, "height": 844}
    with page_of(browser, service.address, color_scheme=scheme, viewport=viewport) as page:
        ready(page)
        assert complaints(page) == []
        broken = picture.with_name("broken.png")
        broken.write_bytes(b"nothing")
        page.locator("#files").set_input_files([broken, picture])
        page.get_by_role("button", name="Compare photo.jpg before and after").wait_for()
        assert complaints(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


def test_the_token_goes_from_the_address_into_the_tab(browser, picture):
    with (
        Service("--host", "0.0.0.0") as service,
        page_of(browser, service.address.replace("0.0.0.0", "127.0.0.1")) as page,
    ):
        ready(page)
        assert "token" not in page.url
        page.locator("#files").set_input_files(picture)
        page.get_by_role("link", name="Download photo_x4.jpg").wait_for()
        page.reload()
        ready(page)


def test_without_the_token_the_page_says_so(browser):
    with Service("--host", "0.0.0.0") as service:
        bare = service.address.replace("0.0.0.0", "127.0.0.1").partition("#")[0]
        with page_of(browser, bare) as page:
            page.get_by_role("alert").filter(has_text="the token is missing or wrong").wait_for()
