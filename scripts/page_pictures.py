"""The pictures of the page in the documentation: people found in a photograph, and the zoo.

posezoo serve --port 8000 &
CHROMIUM=/usr/bin/chromium python scripts/page_pictures.py http://127.0.0.1:8000/
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1200, 800
JOINT = 5  # whose name and score are shown: the left shoulder


def main(url: str) -> None:
    """Open the page at `url`, write docs/images/page.png and page_zoo.png."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.set_input_files("#file", ROOT / "examples" / "astronaut.png")
        page.wait_for_selector("#results:not([hidden])")
        page.locator("#overlay").focus()
        for _ in range(JOINT + 1):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        page.screenshot(path=ROOT / "docs" / "images" / "page.png")
        page.goto(f"{url}#zoo")
        page.wait_for_selector("#chart svg")
        page.wait_for_timeout(500)
        page.screenshot(path=ROOT / "docs" / "images" / "page_zoo.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
