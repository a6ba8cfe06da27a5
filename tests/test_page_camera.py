"""The page's camera, through Chromium's fake device: a frame at a time, and plain words where there is none."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest

from page_browser import ASTRONAUT, Tab, open_tab
from page_fixtures import astronaut, browser, server, tab
from page_server import PageServer

pytestmark = pytest.mark.slow


def test_frames_go_one_at_a_time_and_the_last_one_stays(tab: Tab, server: PageServer) -> None:
    server.delay_s = 0.1
    tab.page.click("#camera")
    tab.wait("/frames a second/.test(document.querySelector('#rate').textContent)")
    while len(server.posts) < 4:
        tab.page.wait_for_timeout(50)
    assert server.most_at_once == 1
    for _, headers, body in server.posts[:3]:
        assert headers["content-type"] == "image/jpeg"
        frame = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert max(frame.shape) <= 960
    assert tab.page.locator("#video").is_visible()
    assert tab.page.evaluate("document.activeElement.id") == "stop"
    assert not tab.page.evaluate(
        "[...document.querySelector('#overlay').getContext('2d')"
        ".getImageData(0, 0, 400, 400).data].every((value) => value === 0)"
    )
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.page.locator("#video").is_hidden()
    assert tab.page.locator("#photo").evaluate("photo => photo.naturalWidth") > 0
    assert tab.page.evaluate("document.querySelector('#video').srcObject") is None
    sent = len(server.posts)
    tab.page.wait_for_timeout(300)
    assert len(server.posts) == sent, "nothing is sent once it has stopped"


def test_busy_server_is_waited_for(tab: Tab, server: PageServer) -> None:
    server.refusals = [(429, "busy", "32 requests are waiting", {}), (503, "not_ready", "loading", {})]
    tab.page.click("#camera")
    while len(server.posts) < 4:
        tab.page.wait_for_timeout(50)
    assert tab.page.locator("#notice").is_hidden()
    assert server.most_at_once == 1


def test_refusal_stops_the_camera_and_is_told(tab: Tab, server: PageServer) -> None:
    server.refusals = [(413, "too_large", "more than 1 MB", {})]
    tab.page.click("#camera")
    tab.page.wait_for_selector("#notice:not([hidden])")
    assert tab.text("#notice-title") == "The picture is too large for this server"
    assert tab.page.locator("#drop").is_visible()
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("script", "title"),
    [
        (
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); }",
            "The camera was not allowed",
        ),
        (
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotFoundError'); }",
            "There is no camera",
        ),
        (
            "Object.defineProperty(Navigator.prototype, 'mediaDevices', { value: undefined })",
            "The browser gives no camera to this page",
        ),
    ],
)
def test_no_camera_is_told(tab: Tab, server: PageServer, script: str, title: str) -> None:
    tab.page.evaluate(f"() => {{ {script} }}")
    tab.page.click("#camera")
    tab.page.wait_for_selector("#notice:not([hidden])")
    assert tab.text("#notice-title") == title
    assert tab.page.locator("#drop").is_visible()
    assert server.posts == []


def test_camera_is_off_once_its_view_is_left(tab: Tab, server: PageServer) -> None:
    tab.page.click("#camera")
    while len(server.posts) < 3:
        tab.page.wait_for_timeout(50)
    track = "window.track = document.querySelector('#video').srcObject.getVideoTracks()[0]"
    assert tab.page.evaluate(f"({track}).readyState") == "live"
    tab.page.click("#to-zoo")
    tab.wait("window.track.readyState === 'ended'")
    sent = len(server.posts)
    tab.page.wait_for_timeout(300)
    assert len(server.posts) <= sent + 1, "what was on its way at most"
    tab.page.click("#to-picture")
    assert tab.page.locator("#camera-again").is_visible()
    assert tab.page.locator("#stop").is_hidden()
    assert re.search("found", tab.text("#status")), "its last frame stays"
    assert tab.page.locator("#overlay").bounding_box()["width"] > 300


@pytest.mark.parametrize("asked_ms", [0, 900])
def test_refused_camera_leaves_the_picture_that_is_worked_on(tab: Tab, server: PageServer, asked_ms: int) -> None:
    refuse = "throw new DOMException('no', 'NotAllowedError')"
    tab.page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => {"
        f" await new Promise((done) => setTimeout(done, {asked_ms})); {refuse}; }}; }}"
    )
    server.delay_s = 0.5
    tab.page.set_input_files("#file", ASTRONAUT)
    tab.wait("document.querySelector('#status').textContent.startsWith('Looking')")
    tab.page.click("#camera-again")
    tab.wait("document.querySelector('#notice-title').textContent === 'The camera was not allowed'")
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.text("#status").startswith("1 person found")
    assert tab.page.locator("#desk").get_attribute("aria-busy") == "false"


def test_camera_takes_the_place_of_a_picture(tab: Tab, server: PageServer) -> None:
    server.delay_s = 0.5
    tab.page.set_input_files("#file", ASTRONAUT)
    tab.wait("document.querySelector('#status').textContent.startsWith('Looking')")
    tab.page.click("#camera-again")
    tab.wait("document.querySelector('#status').textContent === 'The camera is on'")
    assert tab.page.locator("#desk").get_attribute("aria-busy") == "false"
    tab.wait("/frames a second/.test(document.querySelector('#rate').textContent)")
    assert tab.page.locator("#photo").is_hidden()
    assert tab.page.locator("#results").is_hidden()


def test_unplugged_camera_is_told(browser: Any, server: PageServer) -> None:
    with open_tab(browser, server.url) as tab:
        tab.page.click("#camera")
        while len(server.posts) < 2:
            tab.page.wait_for_timeout(50)
        tab.page.evaluate(
            "document.querySelector('#video').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))"
        )
        tab.page.wait_for_selector("#notice:not([hidden])")
        assert tab.text("#notice-title") == "The camera has gone"
        assert tab.page.locator("#stop").is_hidden()
