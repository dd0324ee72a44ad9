"""A browser for the pages of reports, closed with each module: Playwright opens no second one beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from patience import LONG_S
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * LONG_S)
        yield opened
        opened.close()
