"""The system's Chromium, for tests, the PDF and the measurement of speed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
MISSING = (
    "no Chromium found: install it (Debian: apt-get install chromium, macOS: brew install --cask chromium) "
    "or set CHROMIUM to the path of Chromium or Chrome"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def chromium_path() -> str | None:
    """The browser's executable, or None."""
    candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES), *APPS]
    return next((path for path in candidates if path and Path(path).exists()), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's handle on the browser.

    Raises:
        RuntimeError: there is no Chromium.
    """
    path = chromium_path()
    if path is None:
        raise RuntimeError(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
