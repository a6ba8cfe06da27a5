"""The HTTP API in-process, with a network that is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from fastapi.testclient import TestClient

from posezoo.serve.app import create_app
from posezoo.serve.refusals import STATUS
from posezoo.serve.settings import Settings
from posezoo.serve.worker import Capped, Model
from serve_fakes import FakeEstimator, one_person

PNG = {"Content-Type": "image/png"}
DEFAULTS = Settings()


@contextmanager
def serving(settings: Settings = DEFAULTS, detector: Any = one_person) -> Iterator[tuple[TestClient, FakeEstimator]]:
    made: list[FakeEstimator] = []

    def opens(name: str, settings: Settings) -> Model:
        capped = Capped(detector, settings.max_people)
        made.append(FakeEstimator(capped, name))
        return Model(name, made[-1], capped, 0.0)  # type: ignore[arg-type]

    app = create_app(settings, opens)
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.service.wait_ready(20)
        yield client, made[0]
        made[0].gate.set()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(Settings(max_body_mb=0.2, max_images=3, max_people=5, max_megapixels=1)) as (client, _):
        yield client


def code_of(answer: Any, status: int | None = None) -> str:
    """The code of an answer that is an error, whose form and status are looked at on the way."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message"} and "\n" not in error["message"] and len(error["message"]) > 8
    assert answer.status_code == STATUS[error["code"]] == (status or answer.status_code)
    return error["code"]


def post(client: TestClient, content: bytes, query: str = "", kind: str = "image/png") -> Any:
    return client.post(f"/v1/predict{query}", content=content, headers={"Content-Type": kind})
