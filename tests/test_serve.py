"""The HTTP API in-process: every route, every limit with its status, and what a hostile client might try."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from fastapi.testclient import TestClient

from command_line import run
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.formats.posezoo import to_table
from posezoo.formats.result import Result
from posezoo.media.images import read_image
from posezoo.predict import MIN_SCORE
from posezoo.serve.app import create_app
from posezoo.serve.refusals import STATUS
from posezoo.serve.settings import Settings
from posezoo.serve.worker import Capped, Model
from posezoo.suppress import person_scores
from posezoo.zoo import get_entry
from serve_fakes import FakeEstimator, one_person, picture
from serve_fixtures import PNG, client, code_of, post, serving

EXAMPLES = Path(__file__).parents[1] / "examples"
TOKEN = "correct-horse-battery"


# ---- routes


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


@pytest.mark.parametrize("name", ["embedded", "res50_coco_256x192", "2f544338", "simple_pose_resnet152_v1d"])
def test_an_entry_is_found_by_every_name_that_the_command_line_knows(name: str) -> None:
    with serving(Settings(models=("own.onnx",))) as (client, _):
        found = client.get(f"/v1/models/{name}")
        assert found.status_code == 200, found.text
        assert found.json()["name"] == get_entry(name).name and found.json()["loaded"] is False


def test_help_names_every_detector_that_a_server_can_have() -> None:
    from posezoo.detect import DETECTORS

    told = " ".join(run("serve", "--help").out.split())
    assert [name for name in DETECTORS if name != "follow" and not re.search(rf"\b{name}[, ]", told)] == []


def test_names_that_are_no_pose_network_are_refused_with_the_way_out(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(name: str) -> str:
        answer = client.get(f"/v1/models/{name}")
        assert code_of(answer, 404) == "unknown_model"
        return answer.json()["error"]["message"]

    with pytest.raises(PosezooError) as several:
        get_entry("pose_hrnet_w32")
    assert told("pose_hrnet_w32") == str(several.value) and "could be" in str(several.value)
    assert told("yolov3-spp").startswith("'yolov3-spp' is yolov3_spp.darknet_coco_608, which finds people")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("")  # whether it is there is none of a client's business
    assert told("secret.txt") == "the zoo has no model 'secret.txt': /v1/models lists them"


def test_a_name_given_at_the_start_is_that_of_the_loaded_model() -> None:
    def opens(name: str, settings: Settings) -> Model:
        capped = Capped(one_person, settings.max_people)
        whole = get_entry(name).name
        return Model(whole, FakeEstimator(capped, whole), capped, 0.0)  # type: ignore[arg-type]

    app = create_app(Settings(), opens)
    with TestClient(app) as client:
        app.state.service.wait_ready(20)
        found = client.get("/v1/models/embedded").json()
        assert found["name"] == get_entry("embedded").name and found["loaded"] is True
        assert client.get(f"/v1/models/{found['name']}").json() == found


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


# ---- concurrency


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


# ---- token, hosts, headers, log


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
        *({"weights": Path("a"), "models": ("a", "b")}, {"threads": 0}, {"max_megapixels": float("inf")}),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(PosezooError):
        Settings(**wrong)


# ---- the real pair


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
        poses = poses[person_scores(poses) >= MIN_SCORE]
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
