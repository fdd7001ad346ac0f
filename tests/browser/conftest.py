"""Fixtures of the browser tests: one Chromium and one JupyterLab for each test session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness import Lab, chromium_trouble, launch
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; where there is none, a failure in CI and a skip on a desk."""
    trouble = chromium_trouble()
    if trouble and os.environ.get("CI"):
        pytest.fail(trouble)
    if trouble:
        pytest.skip(trouble)
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def lab(browser: Browser) -> Iterator[Lab]:
    """A running JupyterLab in the light theme."""
    with Lab() as running:
        yield running
