"""A browser for the tests of the page: Debian's chromium, headless, which watches what the page asks for and prints."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY

ASTRONAUT = REPOSITORY / "examples" / "astronaut.png"
PATIENCE_S = 10
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def start_chromium() -> Iterator[Any]:
    """The body of a module's fixture; skips without Playwright or without a browser for it."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium (apt install chromium), or its path in CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Tab:
    page: Any
    problems: list[str]

    def text(self, selector: str) -> str:
        return (
            self.page.locator(selector)
            .evaluate(
                "node => [...node.children].filter(c => c.tagName === 'SPAN')"
                ".map(c => c.textContent).join(', ') || node.textContent"
            )
            .strip()
        )

    def wait(self, expression: str) -> None:
        wait(self.page, expression)

    def frame(self) -> None:
        """Until what was asked to be drawn is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wait(page: Any, expression: str) -> None:
    """Until JavaScript is true. Playwright's own way to wait needs eval, which the page's policy forbids."""
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not so: {expression}"
        page.wait_for_timeout(20)


@contextmanager
def open_tab(browser: Any, url: str, **look: Any) -> Iterator[Tab]:
    """A tab on the page; at its end nothing may have gone wrong, nor anything been asked of another origin."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **look})
    context.set_default_timeout(1000 * PATIENCE_S)
    page, problems = context.new_page(), []

    def on_console(message: Any) -> None:
        # the browser prints a line for every refusal, which the page tells in its own words, and one on our own reading
        expected = "Failed to load resource" in message.text or "willReadFrequently" in message.text
        if message.type in ("error", "warning") and not expected:
            problems.append(f"{message.type}: {message.text}")

    def on_request(request: Any) -> None:
        if not request.url.startswith((url.partition("#")[0], "blob:", "data:")):
            problems.append(f"asked for {request.url}")

    page.on("console", on_console)
    page.on("request", on_request)
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    page.goto(url)
    try:
        yield Tab(page, problems)
        assert not problems, "\n".join(problems)
    finally:
        context.close()


def choose(page: Any, file: Path) -> None:
    """Give the page a picture and wait for what was found."""
    wait(page, "document.querySelector('#model').textContent !== 'loading…'")
    page.set_input_files("#file", file)
    page.wait_for_selector("#results:not([hidden])")


def pixel(page: Any, x: float, y: float, picture_width: int) -> list[int]:
    """RGBA of the canvas over a pixel of the picture."""
    script = """([x, y, width]) => {
      const canvas = document.querySelector("#overlay");
      const [left, top] = [x, y].map((value) => Math.round(((value + 0.5) * canvas.width) / width - 0.5));
      return [...canvas.getContext("2d").getImageData(left, top, 1, 1).data];
    }"""
    return page.evaluate(script, [float(x), float(y), picture_width])
