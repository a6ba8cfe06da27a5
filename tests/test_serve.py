"""The HTTP API in-process: every route, every limit with its status, and what a hostile client might try."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from fastapi.testclient import TestClient

from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.formats.posezoo import to_table
from posezoo.formats.result import Result
from posezoo.media.images import read_image
from posezoo.predict import MIN_SCORE
from posezoo.serve.app import create_app
from posezoo.serve.refusals import STATUS, Refusal
from posezoo.serve.settings import Settings
from posezoo.serve.upload import read_uploads
from posezoo.serve.worker import Capped, Model
from posezoo.suppress import rescore
from posezoo.types import Boxes
from serve_fakes import FakeEstimator, huge_png, one_person, picture

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG = {"Content-Type": "image/png"}
TOKEN = "correct-horse-battery"
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


# routes


def test_probes_tell_that_it_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "models": ["embedded"]}


def test_a_raw_picture_and_a_form_give_the_same_people(client: TestClient) -> None:
    raw = post(client, picture(100)).json()
    form = client.post("/v1/predict", files={"files": ("a.png", picture(100), "image/png")}).json()
    assert raw["results"][0]["people"] == form["results"][0]["people"]
    assert [r["image"] for r in raw["results"] + form["results"]] == ["image", "a.png"]
    assert raw["model"] == "embedded" and raw["skeleton"] == "coco17" and len(raw["joints"]) == 17
    [result] = raw["results"]
    assert (result["width"], result["height"], result["error"]) == (40, 30, None)
    [person] = result["people"]
    assert person["box"] == [0, 0, 40, 30] and person["box_score"] == 0.9 and person["keypoints"][0] == [100, 100, 1]
    assert {"read", "wait", "work", "total"} == set(raw["timing_ms"])


def test_several_pictures_keep_their_order_and_a_bad_one_stops_none(client: TestClient) -> None:
    files = [("files", (name, data)) for name, data in (("a", picture(10)), ("b", b"text"), ("c", picture(30)))]
    answer = client.post("/v1/predict", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["image"] for r in results] == ["a", "b", "c"]
    assert [r["people"][0]["keypoints"][0][0] if r["people"] else None for r in results] == [10, None, 30]
    assert results[1]["error"].startswith("cannot read b: not a picture") and results[1]["width"] is None
    assert results[0]["error"] is results[2]["error"] is None


def test_the_picture_comes_back_drawn_on(client: TestClient) -> None:
    answer = post(client, picture(50, (200, 150)), "?output=picture")
    assert answer.headers["content-type"] == "image/jpeg"
    drawn = read_image(answer.content)
    assert drawn.shape == (150, 200, 3) and np.ptp(drawn) > 20


def test_given_boxes_are_the_people(client: TestClient) -> None:
    for boxes in ([[1, 2, 11, 22], [5, 5, 9, 9]], [[[1, 2, 11, 22], [5, 5, 9, 9]]]):
        [result] = post(client, picture(), f"?boxes={json.dumps(boxes)}").json()["results"]
        assert [person["box"] for person in result["people"]] == [[1, 2, 11, 22], [5, 5, 9, 9]]
    assert post(client, picture(), "?boxes=[]").json()["results"][0]["people"] == []
    files = [("files", (str(number), picture())) for number in range(2)]
    results = client.post("/v1/predict?boxes=[[[1,2,3,4]],null]", files=files).json()["results"]
    assert [r["people"][0]["box"] for r in results] == [[1, 2, 3, 4], [0, 0, 40, 30]]


def test_people_below_the_least_score_are_left_out(client: TestClient) -> None:
    assert len(post(client, picture(), "?min_score=0.89").json()["results"][0]["people"]) == 1
    assert len(post(client, picture(), "?min_score=0.91").json()["results"][0]["people"]) == 0


def test_models_of_the_zoo_and_the_one_that_is_loaded() -> None:
    name = "pose_hrnet_w32.hrnet_coco_256x192"
    with serving(Settings(models=(name, "own.onnx"))) as (client, _):
        models = client.get("/v1/models").json()["models"]
        assert [m["name"] for m in models[:2]] == [name, "own.onnx"] and len(models) > 100
        assert [m["loaded"] for m in models[:3]] == [True, True, False]
        assert set(models[0]) == set(models[1]) == set(models[2])
        row = models[0]
        assert (row["skeleton"], row["joints"], row["input_size_wh"]) == ("coco17", 17, [192, 256])
        assert row["claimed"]["metric"] == "AP" and row["params_m"] == 28.54 and row["licence"]["code"]
        assert post(client, picture(), "?model=own.onnx").json()["model"] == "own.onnx"
        assert client.get("/v1/models/own.onnx").json()["loaded"]
        whole = client.get(f"/v1/models/{name}").json()
        assert whole["arch"] == "pose_hrnet_w32" and whole["weights"] and whole["cost"]["params"] > 28e6


def test_a_keypoint_set(client: TestClient) -> None:
    found = client.get("/v1/skeletons/coco17").json()
    assert found["joints"][1] == "left_eye" and found["sides"][:3] == ["none", "left", "right"]
    assert found["mirror"][:3] == [0, 2, 1] and [0, 1] in found["edges"]
    assert code_of(client.get("/v1/skeletons/coco71"), 404) == "unknown_skeleton"


def test_metrics_count_requests_pictures_and_people() -> None:
    with serving() as (client, _):
        client.post("/v1/predict", files=[("files", ("a", picture())), ("files", ("b", b"text"))])
        post(client, b"text")
        text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['posezoo_requests_total{route="/v1/predict",status="200"}'] == "1.0"
    assert lines['posezoo_requests_total{route="/v1/predict",status="400"}'] == "1.0"
    assert lines['posezoo_request_seconds_count{route="/v1/predict"}'] == "2.0"
    assert lines['posezoo_refused_total{code="bad_image"}'] == "2.0"
    assert (lines["posezoo_images_total"], lines["posezoo_people_total"]) == ("1.0", "1.0")
    assert (lines["posezoo_queue_length"], lines["posezoo_ready"]) == ("0.0", "1.0")


def test_openapi_tells_of_every_error_and_no_page_loads_from_elsewhere(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    predict = document["paths"]["/v1/predict"]["post"]
    assert set(predict["requestBody"]["content"]) >= {"multipart/form-data", "application/octet-stream"}
    told = {code for answer in predict["responses"].values() for code in answer["description"].split(", ")}
    other = {"not_found", "method_not_allowed", "unknown_skeleton"}
    assert set(STATUS) - other <= told
    for path in ("/docs", "/redoc", "/nothing", "/page/../app.py", "/..%2fapp.py"):
        assert code_of(client.get(path)) == "not_found"


def test_the_page_is_served(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200 and "<!doctype html>" in answer.text.lower()
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


# refusals


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


# concurrency


def test_one_picture_that_breaks_the_batch_does_not_take_the_others_with_it() -> None:
    with serving() as (client, fake):
        looked_at = fake.stream

        def breaks(pictures: Any, boxes: Any, look_ahead: int) -> Any:
            pictures = list(pictures)
            if any(each.image_rgb.mean() == 13 for each in pictures):
                raise RuntimeError("unlucky")
            return looked_at(pictures, boxes, look_ahead)

        fake.stream = breaks  # type: ignore[method-assign]
        fake.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            pending = [pool.submit(post, client, picture(shade)) for shade in (11, 12, 13, 14)]
            # 13 may be looked at alone, first, and be gone before the others have come
            while client.app.state.service._taken < 4 and not pending[2].done():  # type: ignore[attr-defined]
                time.sleep(0.002)
            fake.gate.set()
            assert [each.result().status_code for each in pending] == [200, 200, 500, 200]


def test_nobody_waits_behind_a_client_that_hung_up() -> None:
    with serving() as (client, fake):
        fake.gate.clear()
        app, sent = client.app, []
        service = app.state.service  # type: ignore[attr-defined]

        async def talk() -> None:
            messages = [{"type": "http.request", "body": picture(5), "more_body": False}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                while service._taken < 2 or service._waiting() < 1:
                    await asyncio.sleep(0.002)
                return {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "client": None}
            scope |= {"headers": [(b"content-type", b"image/png")], "http_version": "1.1", "scheme": "http"}
            scope |= {
                "raw_path": b"/v1/predict",
                "root_path": "",
                "server": ("testserver", 80),
                "asgi": {"version": "3.0"},
            }
            await app(scope, receive, send)  # type: ignore[operator]

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, client, picture(4))
            assert fake.entered.wait(10)
            asyncio.run(talk())
            assert (sent, service._waiting(), service._taken) == ([], 0, 1)
            assert not first.done()
            fake.gate.set()
            assert first.result().status_code == 200
        assert 'status="499"' in client.get("/metrics").text


def test_twenty_clients_get_their_own_answers_and_share_batches() -> None:
    with serving(Settings(max_queue=64)) as (client, fake), ThreadPoolExecutor(20) as pool:
        fake.gate.clear()
        pending = [pool.submit(post, client, picture(shade)) for shade in range(1, 61)]
        assert fake.entered.wait(10)
        fake.gate.set()
        xs = [each.result().json()["results"][0]["people"][0]["keypoints"][0][0] for each in pending]
        assert xs == list(range(1, 61))
        assert sum(fake.batches) == 60 and len(fake.batches) < 60 and max(fake.batches) <= 8


def test_what_was_taken_is_finished_and_no_more_is_taken() -> None:
    with serving() as (client, fake), ThreadPoolExecutor(2) as pool:
        fake.gate.clear()
        taken = pool.submit(post, client, picture(9))
        assert fake.entered.wait(10)
        client.app.state.service.drain()  # type: ignore[attr-defined]
        assert code_of(client.get("/readyz"), 503) == code_of(post(client, picture()), 503) == "shutting_down"
        assert client.get("/healthz").status_code == 200
        fake.gate.set()
        assert taken.result().status_code == 200


def test_before_the_models_are_loaded_it_lives_but_is_not_ready() -> None:
    loading = threading.Event()

    def opens(name: str, settings: Settings) -> Model:
        assert loading.wait(20)
        raise PosezooError("no such weights")

    failed = threading.Event()
    app = create_app(Settings(), opens, failed.set)
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        assert code_of(client.get("/readyz"), 503) == code_of(post(client, picture()), 503) == "not_ready"
        loading.set()
        assert failed.wait(10)
        with pytest.raises(PosezooError, match="no such weights"):
            app.state.service.wait_ready()


# token, hosts, headers, log


def test_a_token_is_asked_for_all_but_the_probes_and_the_page() -> None:
    with serving(Settings(token=TOKEN)) as (client, _):
        for path in ("/healthz", "/readyz", "/"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/v1/skeletons/coco17", "/metrics", "/openapi.json", "/nothing"):
            answer = client.get(path)
            assert code_of(answer, 401) == "unauthorised" and answer.headers["www-authenticate"] == "Bearer"
        for given in (TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer wrong-wrong", f"Bearer {TOKEN}x", "Bearer \xe9\xe9"):
            answer = client.post(
                "/v1/predict", content=picture(), headers={**PNG, "Authorization": given.encode("latin-1")}
            )  # type: ignore[dict-item]
            assert code_of(answer, 401) == "unauthorised" and TOKEN not in answer.text
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/predict", content=picture(), headers={**PNG, **good}).status_code == 200
        assert client.get("/openapi.json", headers=good).json()["security"] == [{"token": []}]
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_only_its_own_names_where_they_are_given() -> None:
    with serving(Settings(hosts=("localhost", "::1"))) as (client, _):
        for host, status in (
            ("localhost:8000", 200),
            ("LOCALHOST", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
            ("", 421),
        ):
            assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_every_answer_has_the_headers_and_none_is_open_to_other_sites(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nothing"), post(client, picture()), post(client, b"")):
        assert answer.headers["x-content-type-options"] == "nosniff" and "content-security-policy" in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    options = client.options("/v1/predict", headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"})
    assert options.status_code == 405 and "access-control-allow-origin" not in options.headers


def test_markup_in_a_name_stays_json(client: TestClient) -> None:
    name = "<script>alert(1)</script>.png"
    answer = client.post("/v1/predict", files={"files": (name, b"text")})
    assert code_of(answer, 400) == "bad_image" and answer.headers["content-type"] == "application/json"
    assert client.get("/<script>").headers["content-type"] == "application/json"


def test_a_request_is_one_line_of_json(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="posezoo.serve.access"):
        post(client, picture())
        client.get("/a%0ab%1b%5b2J" + "x" * 400)
    good, bad = (json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("access"))
    assert (good["method"], good["path"], good["status"], good["images"], good["people"]) == (
        "POST",
        "/v1/predict",
        200,
        1,
        1,
    )
    assert good["bytes_in"] == len(picture()) and good["ms"] > 0
    assert bad["code"] == "not_found" and len(bad["path"]) <= 200
    assert all("\n" not in record.getMessage() and "\x1b" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"models": ()}, {"max_images": 0}, {"max_queue": -1}, {"timeout_s": 0}, {"max_body_mb": float("nan")}),
        *({"token": "short"}, {"token": "with a space in it"}, {"detector": "follow"}, {"detector": "boxes.json"}),
        *({"weights": Path("a"), "models": ("a", "b")}, {"threads": 0}),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(PosezooError):
        Settings(**wrong)


# the real pair


@pytest.fixture(scope="module")
def real() -> Iterator[TestClient]:
    app = create_app(Settings(threads=1))
    with TestClient(app) as client:
        app.state.service.wait_ready(60)
        yield client


def test_the_same_numbers_as_the_estimator(real: TestClient) -> None:
    names = ["basketball.png", "pedestrians_1.jpg"]
    answer = real.post(
        "/v1/predict", files=[("files", (name, (EXAMPLES / name).read_bytes())) for name in names]
    ).json()
    estimator = Estimator(threads=1)
    for name, result in zip(names, answer["results"], strict=True):
        image = read_image(EXAMPLES / name)
        poses = estimator(image)
        poses = poses[rescore(poses.box_scores, poses.scores) >= MIN_SCORE]
        assert len(poses) >= 1
        wanted = to_table(Result(poses, name, size_wh=(image.shape[1], image.shape[0])))
        assert {key: result[key] for key in ("image", "width", "height", "people")} == {
            key: wanted[key] for key in ("image", "width", "height", "people")
        }


def test_boxes_at_the_edge_of_reason(real: TestClient) -> None:
    data = (EXAMPLES / "basketball.png").read_bytes()
    for boxes, people in (
        ("[[0,0,0,0]]", 1),
        ("[[-1e6,-1e6,1e6,1e6]]", 1),
        ("[[5000,5000,6000,6000]]", 1),
        ("[[0,0,1e38,1e38]]", 1),
    ):
        answer = post(real, data, f"?boxes={boxes}")
        assert answer.status_code in (200, 400), (boxes, answer.text)
        if answer.status_code == 200:
            assert len(answer.json()["results"][0]["people"]) == people


def test_one_pixel_has_nobody_in_it(real: TestClient) -> None:
    assert post(real, picture(7, (1, 1))).json()["results"][0]["people"] == []


def test_limits_are_of_the_server_not_of_the_environment(real: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEZOO_MAX_MEGAPIXELS", "0.00001")
    assert post(real, picture(7, (50, 50))).status_code == 200
    assert replace(Settings(), max_megapixels=1).max_megapixels == 1
