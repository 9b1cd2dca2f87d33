"""A real browser for the tests: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


# In a page or a frame: pictures that did not load, and canvases of (almost) one colour.
BROKEN = """
() => {
  const images = [...document.images].filter((image) => !(image.complete && image.naturalWidth));
  const blank = [...document.querySelectorAll("canvas")].filter((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size < 50;
  });
  return [...images.map((i) => `broken image: ${i.alt}`), ...blank.map((c) => `blank: #${c.id}`)];
}
"""
WAIT_MS = 10_000


@contextmanager
def browser(width: int) -> Iterator[tuple]:
    """A tab of a browser, and the list of addresses that it requests."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            ignore_default_args=["--hide-scrollbars"],
        )
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        try:
            yield tab, asked
        finally:  # else a test that fails here waits for minutes
            chromium.close()


def faults(tab, page: Path) -> list[str]:
    """Open a page of the kit: errors in the console, broken images and blank canvases, if any.

    Every slice viewer in the page is scrolled to and waited for.
    """
    found: list[str] = []
    listeners = {
        "console": lambda message: found.append(f"console: {message.text}"),
        "pageerror": lambda error: found.append(f"error: {error}"),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.goto(page.as_uri(), wait_until="load")
    tab.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    try:
        tab.wait_for_function("[...document.images].every(i => i.complete)", timeout=WAIT_MS)
        for frame in tab.locator("iframe").all():
            frame.scroll_into_view_if_needed()
            frame.content_frame.locator("canvas[data-z]").wait_for(timeout=WAIT_MS)
    except Exception as error:  # a playwright.sync_api.TimeoutError, imported only where installed
        found.append(str(error).split("\n")[0])
    for frame in tab.frames:
        found += frame.evaluate(BROKEN)
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    return [f"{page.name}: {fault}" for fault in found]
