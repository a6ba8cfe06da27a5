"""Fixtures of the page's tests: one browser a module, one server a test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from page_browser import ASTRONAUT, Tab, open_tab, start_chromium
from page_server import PageServer, answer_of, serve_page
from posezoo import Estimator


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from start_chromium()


@cache
def _found() -> dict[str, Any]:
    return answer_of(Estimator(threads=1)(ASTRONAUT), ASTRONAUT.name, (512, 512))


@pytest.fixture
def astronaut() -> dict[str, Any]:
    """What the embedded pair really finds in the picture."""
    return _found()


@pytest.fixture
def server() -> Iterator[PageServer]:
    """One for each test: what the tab of the one before still sends reaches nobody."""
    with serve_page(_found()) as server:
        yield server


@pytest.fixture
def tab(browser: Any, server: PageServer) -> Iterator[Tab]:
    with open_tab(browser, server.url) as opened:
        yield opened
