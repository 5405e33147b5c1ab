"""A real browser without a window, in which tests open pages and look at their pixels."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

FLAGS = [
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-watchdog", "--no-sandbox", "--disable-dev-shm-usage",
]  # fmt: skip
"""WebGL without a graphics card, however long a picture takes; the tests may run as root, in a container."""

WEBGL_LOST = """[...document.querySelectorAll("canvas")].some(
    canvas => (canvas.getContext("webgl2") || canvas.getContext("webgl"))?.isContextLost())"""


def executable() -> str:
    """Chromium, or the test is skipped."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no browser to look at pages with; type: apt-get install chromium")


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser."""
    path = executable()
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; type: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Course:
    """What a page went through: the messages of its console, and the requests that failed."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._told: list[str] = []
        page.on("console", lambda message: self._told.append(f"console: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._told.append(f"error: {error}"))
        page.on("crash", lambda _: self._told.append("the page crashed"))
        page.on("requestfailed", lambda request: self._told.append(f"failed: {request.url}: {request.failure}"))
        page.on("response", self._answered)

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self._told.append(f"{response.status}: {response.url}")

    def __str__(self) -> str:
        """Return the last lines of it, for the message of a test that waited in vain."""
        try:
            lost = f"WebGL is lost: {self._page.evaluate(WEBGL_LOST)}"
        except Exception as error:  # the page or the browser is gone, which is what is to be told
            lost = f"the page does not answer: {error}"
        return "\n".join([lost, *self._told[-30:]])


def pixels(page: Any) -> NDArray[np.uint8]:
    """What the page shows, (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
