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

FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-dev-shm-usage"]
"""WebGL without a graphics card; the tests may run as root, in a container."""


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


def pixels(page: Any) -> NDArray[np.uint8]:
    """What the page shows, (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
