"""Makes docs/playground.png: the playground in JupyterLab after two runs. Needs Chromium."""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

import test_playground as page  # noqa: E402
from harness import Lab, launch  # noqa: E402


def main() -> None:
    """Train twice with different noise and photograph the panel."""
    with sync_playwright() as playwright, Lab() as lab:
        browser = launch(playwright)
        with lab.open(browser, [page.PANEL.format("")], width=1560, height=1300) as notebook:
            notebook.run_all()
            notebook.page.wait_for_selector(page.READOUT)
            for noise in (1.0, 4.0):
                notebook.kernel(
                    f"panel.load('noise={noise} rate=0.5 momentum=0.5 batch=128 epochs=20')"
                )
                page.press(notebook, "Train")
                notebook.page.wait_for_timeout(700)
                page.until(notebook, "Done", 60)
            notebook.page.wait_for_timeout(1500)
            panel = notebook.page.locator(".dpkit-playground").first
            panel.screenshot(path=str(ROOT / "docs" / "playground.png"))
        browser.close()


if __name__ == "__main__":
    main()
