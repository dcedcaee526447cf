"""A real browser: Chromium of this system, driven by Playwright; and axe, which knows what pages
owe to people who hear them or use keys."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest

SERIOUS = ("serious", "critical")
ARGUMENTS = ("--no-sandbox", "--disable-background-networking")


@contextmanager
def chromium():
    """A browser, until the end of the block; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs srcli[services]")
    place = shutil.which("chromium")
    if place is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser, address, **options):
    """A page in a context of its own. It must run without an error, and load nothing else."""
    context = browser.new_context(**options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    errors, loaded = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if "Policy" in message.text else 0
    )
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(address)
    try:
        yield page
        assert errors == []
        own = (address.partition("#")[0], "data:", "blob:")
        assert [url for url in loaded if not url.startswith(own)] == []
    finally:
        context.close()


def complaints(page):
    """What axe finds that is serious, or worse."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs srcli[services]")
    script = axe.AXE_FILE_PATH.read_text("utf-8")
    # In a world of its own, which the page's policy says nothing about.
    session = page.context.new_cdp_session(page)
    frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
    call = {"contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True}
    session.send("Runtime.evaluate", {"expression": script, **call})
    expression = "axe.run(document).then((found) => JSON.stringify(found.violations))"
    answer = session.send("Runtime.evaluate", {"expression": expression, **call})
    found = json.loads(answer["result"]["value"])
    return [
        (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]])
        for one in found
        if one["impact"] in SERIOUS
    ]


def drag(page, locator, right, down=0.0):
    """Drag what a locator finds by so many pixels, with the mouse."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right / 2, y + down / 2)
    page.mouse.move(x + right, y + down)
    page.mouse.up()
