"""The HTTP API in-process: every limit with its status, and what a hostile client might send."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from fastapi.testclient import TestClient

from posezoo.serve.refusals import Refusal
from posezoo.serve.settings import Settings
from posezoo.serve.upload import read_uploads
from posezoo.types import Boxes
from serve_fakes import huge_png, picture
from serve_fixtures import PNG, client, code_of, post, serving

# ---- refusals


def test_wrong_methods(client: TestClient) -> None:
    for method, path, allow in (("GET", "/v1/predict", "POST"), ("PUT", "/healthz", "GET"), ("POST", "/", "GET, HEAD")):
        answer = client.request(method, path)
        assert code_of(answer, 405) == "method_not_allowed" and answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"this is text", "not a picture"),
        (b"", "empty"),
        (picture(kind=".jpg")[:200], "cut off"),
        (picture()[:40], "cut off"),
        (b"\xff\xd8\xff", "cut off or damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (picture()[:45] + b"\0" * 30 + picture()[75:], "image: "),
    ],
)
def test_what_is_no_picture(client: TestClient, content: bytes, says: str) -> None:
    for answer in (post(client, content), client.post("/v1/predict", files={"files": ("image", content or b"")})):
        if not content and answer.request.headers["content-type"].startswith("multipart"):
            says = "empty"
        assert code_of(answer, 400) == "bad_image"
        assert says in answer.json()["error"]["message"]


def test_one_pixel_is_a_picture(client: TestClient) -> None:
    result = post(client, picture(7, (1, 1))).json()["results"][0]
    assert (result["width"], result["height"], len(result["people"])) == (1, 1, 1)


def test_a_header_that_asks_for_gigabytes_is_refused_before_decoding(client: TestClient) -> None:
    answer = post(client, huge_png())
    assert code_of(answer, 413) == "too_many_pixels"
    assert "100000x100000 is 10000 megapixels, more than the limit of 1" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        *(
            "min_score=2",
            "min_score=nan",
            "min_score=x",
            "flip=perhaps",
            "output=pdf",
            "min-score=0.5",
            "url=http://a/b",
        ),
        *("boxes=[[1,2,3]]", "boxes={}", "boxes=[[1,2,3,4]", "boxes=[[1,2,1e999,4]]", "boxes=[[9,9,1,1]]"),
        *("boxes=3", "boxes=[[[1,2,3,4]],null]", "boxes=[[1,2,3,%22x%22]]", "boxes=" + "[" * 3000),
    ],
)
def test_options_that_are_wrong(client: TestClient, query: str) -> None:
    assert code_of(post(client, picture(), f"?{query}"), 400) == "bad_option"


def test_a_misspelt_option_is_told_its_name(client: TestClient) -> None:
    assert "did you mean min_score?" in post(client, picture(), "?min-score=0.5").json()["error"]["message"]


def test_only_models_that_were_loaded(client: TestClient, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    for name in (str(model), "pose_hrnet_w32.hrnet_coco_256x192", "http://127.0.0.1:1/a.onnx", "../a", ""):
        answer = client.post("/v1/predict", params={"model": name}, content=picture(), headers=PNG)
        assert code_of(answer, 404) == "unknown_model" and "embedded" in answer.json()["error"]["message"]
        known = name.startswith("pose_hrnet")  # to the catalogue, which opens nothing
        assert client.get(f"/v1/models/{name}").status_code == (200 if known else 404)


def test_no_file_of_the_server_can_be_named(client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(77))
    # as the body, as the name of an upload, and as an option
    assert code_of(post(client, str(secret).encode()), 400) == "bad_image"
    answer = client.post("/v1/predict", files={"files": (str(secret), b"")})
    assert code_of(answer, 400) == "bad_image" and str(tmp_path) not in answer.text
    assert code_of(post(client, picture(), f"?boxes={secret}"), 400) == "bad_option"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_types_that_are_not_read(client: TestClient, kind: str) -> None:
    assert code_of(post(client, picture(), kind=kind), 415) == "unsupported_type"


def test_a_damaged_form(client: TestClient) -> None:
    kind = "multipart/form-data; boundary=B"
    part = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + picture() + b"\r\n"
    for content in (
        b"",
        b"--B--\r\n",
        b"no form at all",
        part,
        part[:60],
        part.replace(b"files", b"photo") + b"--B--\r\n",
    ):
        assert code_of(post(client, content, kind=kind), 400) == "bad_body"
    assert code_of(post(client, part, kind="multipart/form-data"), 400) == "bad_body"
    assert post(client, part + b"--B--\r\n", kind=kind).status_code == 200


def test_limits_of_a_request(client: TestClient) -> None:
    assert code_of(post(client, b"\xff\xd8\xff" + b"0" * 250_000), 413) == "too_large"
    files = [("files", (str(number), picture())) for number in range(4)]
    assert code_of(client.post("/v1/predict", files=files), 422) == "too_many_images"
    boxes = json.dumps([[0, 0, 9, 9]] * 6)
    assert code_of(post(client, picture(), f"?boxes={boxes}"), 422) == "too_many_people"
    files = files[:2]
    assert code_of(client.post("/v1/predict?output=picture", files=files), 400) == "bad_option"


def test_a_crowd_that_the_detector_finds_is_too_many_people() -> None:
    def crowd(images: Any, names: Any = None) -> list[Boxes]:
        return [Boxes([[0, 0, 9, 9]] * (9 if image.mean() > 100 else 2)) for image in images]

    with serving(Settings(max_people=5), crowd) as (client, _):
        assert code_of(post(client, picture(200)), 422) == "too_many_people"
        files = [("files", (str(shade), picture(shade))) for shade in (200, 50)]
        crowded, few = client.post("/v1/predict", files=files).json()["results"]
        assert "9 people" in crowded["error"] and len(few["people"]) == 2


def test_the_body_is_refused_while_it_comes() -> None:
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"x" * 100_000

    for kind, headers in (
        ("image/jpeg", {}),
        ("multipart/form-data; boundary=B", {}),
        ("image/png", {"content-length": "9999999"}),
    ):
        taken = 0
        with pytest.raises(Refusal) as refused:
            asyncio.run(read_uploads({"content-type": kind, **headers}, pieces(), Settings(max_body_mb=1)))
        expected = ("bad_body", 1) if "boundary" in kind else ("too_large", 0 if headers else 11)
        assert (refused.value.code, taken) == expected


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(20)
        yield b""

    from posezoo.serve.app import _read

    class Request:
        headers = {"content-type": "image/png"}  # noqa: RUF012

        def stream(self) -> AsyncIterator[bytes]:
            return never()

    with pytest.raises(Refusal) as refused:
        asyncio.run(_read(Request(), Settings(timeout_s=0.05)))  # type: ignore[arg-type]
    assert refused.value.code == "slow_upload"


def test_a_full_queue_and_a_slow_model() -> None:
    with serving(Settings(max_queue=2, timeout_s=1.0)) as (client, fake), ThreadPoolExecutor(4) as pool:
        fake.gate.clear()
        first = pool.submit(post, client, picture(1))
        assert fake.entered.wait(10)
        second = pool.submit(post, client, picture(2))
        service = client.app.state.service  # type: ignore[attr-defined]
        while service._taken < 2:
            time.sleep(0.002)
        busy = post(client, picture(3))
        assert code_of(busy, 429) == "busy" and int(busy.headers["retry-after"]) >= 1
        assert [code_of(each.result(), 504) for each in (first, second)] == ["timeout", "timeout"]
        assert service._waiting() == 0  # what nobody waits for has gone, with its memory
        fake.gate.set()
        assert post(client, picture(4)).json()["results"][0]["people"][0]["keypoints"][0][0] == 4
        assert sum(fake.batches) == 2  # the second was never looked at


def test_a_model_that_fails_is_ours_to_answer_for(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as (client, fake):
        fake.fail = RuntimeError("out of memory at 0x7f")
        answer = post(client, picture())
        assert code_of(answer, 500) == "internal" and "0x7f" not in answer.text
        assert "0x7f" in caplog.text and answer.headers["x-content-type-options"] == "nosniff"
        fake.fail = None
        assert post(client, picture()).status_code == 200


def test_flip_is_asked_of_the_model_and_refused_where_it_cannot() -> None:
    with serving() as (client, fake):
        assert post(client, picture(), "?flip=true").status_code == 200 and fake.flips == [True]
        assert post(client, picture()).status_code == 200 and fake.flips == [True, False]
        fake.spec.output = "joints"
        assert code_of(post(client, picture(), "?flip=true"), 400) == "bad_option"
