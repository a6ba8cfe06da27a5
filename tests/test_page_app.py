"""The page with the real server behind it."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page_browser import ASTRONAUT, choose, open_tab
from page_fixtures import browser
from posezoo import Estimator
from posezoo.formats.posezoo import from_json

pytestmark = pytest.mark.slow
TOKEN = "a-token-for-the-page"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    from posezoo.serve.app import create_app
    from posezoo.serve.settings import Settings

    app = create_app(Settings(token=TOKEN, max_body_mb=1.0, threads=1))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)


def test_from_token_to_file(browser: Any, url: str, tmp_path: Path) -> None:
    with open_tab(browser, url) as tab:
        page = tab.page
        page.wait_for_selector("#token-form:not([hidden])")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        tab.wait("document.querySelectorAll('#by-source option').length > 5")
        page.set_input_files("#file", ASTRONAUT)
        while page.locator("#results").is_hidden():  # it may be warming up still
            if page.locator("#retry").is_visible():
                assert tab.text("#notice-title") == "The server is not ready"
                page.click("#retry")
            page.wait_for_timeout(300)
        assert tab.text("#status").startswith("1 person found")
        with page.expect_download() as waiting:
            page.click("#save-json")
        waiting.value.save_as(tmp_path / "a.json")
        poses, expected = from_json(tmp_path / "a.json").poses, Estimator(threads=1)(ASTRONAUT)
        same = [
            row for row in range(len(expected)) if np.abs(expected.boxes_xyxy[row] - poses.boxes_xyxy[0]).max() < 0.1
        ]
        np.testing.assert_allclose(expected.keypoints_xy[same[0]], poses.keypoints_xy[0], atol=0.1)

        (tmp_path / "large.png").write_bytes(bytes(1_500_000))
        page.set_input_files("#file", tmp_path / "large.png")
        page.wait_for_selector("#notice:not([hidden])")
        assert tab.text("#notice-title") in (
            "The picture is too large for this server",
            "The server does not answer",  # it hung up while the picture was on its way
        )
        (tmp_path / "text.png").write_text("no picture")
        page.set_input_files("#file", tmp_path / "text.png")
        tab.wait("/could not read|no kind of picture/.test(document.querySelector('#notice-title').textContent)")
        page.click("#dismiss")
        page.click("#to-zoo")
        page.wait_for_selector("#chart .mark")
        page.click("#zoo-table .name >> nth=0")
        page.wait_for_selector("#entry dl")
        page.keyboard.press("Escape")
        tab.wait("history.state === null")

        page.goto(f"{url}#picture")
        page.click("#camera") if page.locator("#camera").is_visible() else page.click("#camera-again")
        tab.wait("/frames a second/.test(document.querySelector('#rate').textContent)")
        page.click("#stop")
        choose(page, ASTRONAUT)
