"""What a server holds on to: nothing of a picture longer than it is needed."""

from __future__ import annotations

import gc
import logging
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from posezoo.media.images import open_image
from posezoo.serve.settings import Settings
from posezoo.serve.worker import Job
from serve_fakes import picture
from serve_fixtures import post, serving


def alive(kind: type) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


def test_pictures_are_let_go_of_once_they_were_looked_at() -> None:
    with serving() as (client, _):
        worker = client.app.state.service._workers["embedded"]  # type: ignore[attr-defined]
        jobs = [Job(open_image(picture()), keep=keep) for keep in (False, True)]
        worker.submit(jobs)
        plain, kept = [job.done.result(20) for job in jobs]
        assert plain.image_rgb is None and plain.size_wh == (40, 30) and len(plain.poses) == 1
        assert kept.image_rgb is not None and kept.image_rgb.shape == (30, 40, 3)
        assert all(job.encoded is None for job in jobs)


@pytest.mark.parametrize("fails", ["timeout", "error"])
def test_nothing_is_left_of_a_request_that_failed(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Settings(timeout_s=0.3)) as (client, fake):
        assert post(client, picture()).status_code == 200
        gc.collect()
        before = alive(Job)
        gc.disable()
        logging.disable()  # pytest keeps what is logged, with its traceback
        try:
            if fails == "error":
                monkeypatch.setattr(fake, "stream", lambda *_: iter([[][1]]))
            else:
                fake.gate.clear()
            pictures = [("files", ("a.png", picture(), "image/png"))] * 3
            assert client.post("/v1/predict", files=pictures).status_code == (500 if fails == "error" else 504)
            fake.gate.set()
            limit = time.monotonic() + 5
            while alive(Job) > before and time.monotonic() < limit:
                time.sleep(0.01)
            assert alive(Job) <= before
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()
