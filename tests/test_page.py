"""The page of the server in a real browser: a picture in, people on a canvas, files out, errors in plain words."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import REPOSITORY
from page_browser import ASTRONAUT, Tab, choose, open_tab, pixel
from page_fixtures import astronaut, browser, server, tab
from page_server import EMBEDDED, PAGE, PageServer
from posezoo.draw import DEFAULT
from posezoo.formats.posezoo import from_json
from posezoo.predict import MIN_SCORE
from posezoo.skeletons import COLORS, get_skeleton

LEFT, RIGHT = (38, 166, 255), (255, 122, 48)


def set_range(tab: Tab, name: str, value: float) -> None:
    tab.page.locator(name).fill(str(value))


def joint(server: PageServer, person: int, name: str) -> tuple[float, float]:
    answer = server.answer
    x, y, _ = answer["results"][0]["people"][person]["keypoints"][answer["joints"].index(name)]
    return x, y


def score(server: PageServer, person: int, name: str) -> str:
    """As it is shown."""
    answer = server.answer
    return f"{answer['results'][0]['people'][person]['keypoints'][answer['joints'].index(name)][2]:.2f}"


def at_joint(tab: Tab, server: PageServer, person: int, name: str) -> list[int]:
    return pixel(tab.page, *joint(server, person, name), 512)


def test_files_hold_no_outside_address_and_nothing_inline() -> None:
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert {"index.html", "page.css", "page.js"} <= {path.name for path in files}
    for path in files:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|url\(|@import|from "https?:""", text), path.name
        assert len(text.splitlines()) <= 400, path.name
    html = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle\s*=|\son\w+\s*=|<script(?![^>]*\ssrc=)", html)
    assert sum(path.stat().st_size for path in files) < 120_000


def test_every_module_is_asked_for_at_once() -> None:
    html = (PAGE / "index.html").read_text("utf-8")
    assert {f"{name}.js" for name in re.findall(r'rel="modulepreload" href="(\w+)\.js"', html)} | {"page.js"} == {
        path.name for path in PAGE.glob("*.js")
    }


def test_page_begins_with_the_score_of_predict() -> None:
    assert f'id="people-score" type="range" min="0" max="1" step="0.01" value="{MIN_SCORE}"' in (
        PAGE / "index.html"
    ).read_text("utf-8")


def test_page_has_the_colours_of_the_drawing() -> None:
    code = (PAGE / "skeleton.js").read_text("utf-8")
    for side, rgb in {**COLORS, **{side: get_skeleton("coco17").side_color(side) for side in COLORS}}.items():
        assert f'{side}: "#{bytes(rgb).hex()}"' in code
    assert f"OPAQUE_SCORE = {DEFAULT.opaque_score}" in code
    assert f"FAINTEST = {DEFAULT.faintest}" in code


def test_picture_is_sent_as_it_is_and_its_people_are_drawn(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    assert tab.text("#status") == "1 person found, 3 more below the score, 93 ms."
    ((path, headers, body),) = server.posts
    assert body == ASTRONAUT.read_bytes()
    assert headers["content-type"] == "image/png"
    assert path == f"/v1/predict?flip=false&min_score=0&output=json&model={EMBEDDED}"
    assert tab.page.locator("#photo").evaluate("photo => photo.naturalWidth") == 512
    for name, colour in (("left_shoulder", LEFT), ("right_shoulder", RIGHT), ("left_eye", LEFT), ("right_ear", RIGHT)):
        assert np.abs(np.array(at_joint(tab, server, 1, name)[:3]) - colour).max() < 30, name
    assert pixel(tab.page, 500, 20, 512)[3] == 0
    middle = np.mean([joint(server, 1, "left_shoulder"), joint(server, 1, "right_shoulder")], axis=0)
    assert pixel(tab.page, *middle, 512)[3] > 60  # a limb


def test_joints_are_named_on_hover(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    box = tab.page.locator("#overlay").bounding_box()
    x, y = joint(server, 1, "left_shoulder")
    tab.page.mouse.move(box["x"] + (x + 2) / 512 * box["width"], box["y"] + y / 512 * box["height"])
    assert tab.text("#tip").startswith(f"left shoulder {score(server, 1, 'left_shoulder')}")
    assert "person 2" in tab.text("#tip")
    assert tab.page.locator("tr.marked th").inner_text() == "left shoulder"
    tab.page.mouse.move(box["x"] + 5, box["y"] + 0.9 * box["height"])
    assert tab.page.locator("#tip").is_hidden()
    tab.page.locator(".joints th:text-is('nose')").hover()
    assert tab.text("#tip").startswith("nose")


def test_sliders_leave_out_joints_and_people(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    assert at_joint(tab, server, 1, "right_knee")[3] == 0
    set_range(tab, "#joint-score", 0.05)
    tab.wait("document.querySelectorAll('.joints tr.below').length === 0")
    tab.frame()
    assert at_joint(tab, server, 1, "right_knee")[3] > 0
    set_range(tab, "#joint-score", 0.9)
    tab.frame()
    assert at_joint(tab, server, 1, "left_shoulder")[3] == 0
    person = server.answer["results"][0]["people"][1]
    sure = sum(joint[2] >= 0.9 for joint in person["keypoints"])
    assert tab.text("[data-person='1'] .about") == f"score {person['score']:.2f}, {sure} of 17 joints" and sure < 3
    set_range(tab, "#people-score", 1)
    assert tab.text("#status").startswith("Nobody found, 4 more below the score")
    assert tab.page.locator(".person:visible").count() == 0
    set_range(tab, "#people-score", 0)
    assert tab.page.locator(".person:visible").count() == 4
    assert len(server.posts) == 1, "a slider must not ask the server again"


def test_limbs_boxes_and_names_can_be_switched(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    count = "() => { const c = document.querySelector('#overlay'); const d = c.getContext('2d')"
    count += (
        ".getImageData(0, 0, c.width, c.height).data; let n = 0; for (let k = 3; k < d.length; k += 4) n += d[k] > 0;"
    )
    count += " return n; }"

    def painted() -> int:
        tab.frame()
        return tab.page.evaluate(count)

    both = painted()
    tab.page.uncheck("#limbs")
    dots = painted()
    assert 0 < dots < 0.6 * both
    tab.page.check("#boxes")
    boxes = painted()
    assert boxes > dots
    x1, y1, _, y2 = server.answer["results"][0]["people"][1]["box"]
    assert pixel(tab.page, x1, (y1 + y2) / 2, 512)[3] > 0
    tab.page.check("#names")
    assert painted() > boxes


def test_json_can_be_read_back(tab: Tab, server: PageServer, tmp_path: Path) -> None:
    choose(tab.page, ASTRONAUT)
    with tab.page.expect_download() as waiting:
        tab.page.click("#save-json")
    assert waiting.value.suggested_filename == "astronaut.json"
    waiting.value.save_as(tmp_path / "a.json")
    result = from_json(tmp_path / "a.json")
    people = [person for person in server.answer["results"][0]["people"] if person["score"] >= MIN_SCORE]
    assert len(result.poses) == len(people) == 1
    assert result.size_wh == (512, 512)
    np.testing.assert_allclose(result.poses.keypoints_xy[0], np.array(people[0]["keypoints"])[:, :2], atol=1e-4)
    np.testing.assert_allclose(result.poses.boxes_xyxy, [person["box"] for person in people], atol=1e-4)


def test_png_is_the_whole_picture_with_its_people(tab: Tab, server: PageServer, tmp_path: Path) -> None:
    choose(tab.page, ASTRONAUT)
    with tab.page.expect_download() as waiting:
        tab.page.click("#save-png")
    assert waiting.value.suggested_filename == "astronaut_poses.png"
    waiting.value.save_as(tmp_path / "a.png")
    drawn, plain = cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(ASTRONAUT))
    assert drawn.shape == plain.shape
    assert np.abs(drawn[:60].astype(int) - plain[:60]).max() <= 1, "where nobody is, it is the picture"
    x, y = joint(server, 1, "left_shoulder")
    assert np.abs(drawn[round(y), round(x), ::-1].astype(int) - LEFT).max() < 30


REFUSALS = [
    (400, "bad_image", "The server could not read this as a picture", False),
    (400, "bad_option", "The server did not take an option", False),
    (404, "unknown_model", "The server has no such model", False),
    (413, "too_large", "The picture is too large for this server", False),
    (413, "too_many_pixels", "The picture has too many pixels for this server", False),
    (415, "unsupported_type", "This is no kind of picture that the server reads", False),
    (429, "busy", "The server is busy", True),
    (500, "internal", "The server failed", True),
    (503, "not_ready", "The server is not ready", True),
    (503, "shutting_down", "The server is shutting down", True),
    (504, "timeout", "It took too long, and the server gave up", True),
]


def test_refusals_are_told_in_plain_words(tab: Tab, server: PageServer) -> None:
    for status, code, title, again in REFUSALS:
        message = f"the very line of {code} <b>&"
        server.refusals = [(status, code, message, {"Retry-After": "3"} if status == 429 else {})]
        tab.page.set_input_files("#file", ASTRONAUT)
        tab.wait(f"document.querySelector('#notice-title').textContent === {json.dumps(title)}")
        assert tab.page.locator("#notice").is_visible()
        assert message in tab.text("#notice-detail")
        assert tab.page.locator("#retry").is_visible() == again, code
        assert tab.text("#status") == "No result"
        assert ("Try again in 3 s." in tab.text("#notice-detail")) == (status == 429)
    tab.page.click("#retry")
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.page.locator("#notice").is_hidden()
    assert len(server.posts) == len(REFUSALS) + 1


def test_error_beside_a_picture_is_told(tab: Tab, server: PageServer) -> None:
    server.answer["results"][0].update(error="astronaut.png ends early", people=[])
    tab.page.set_input_files("#file", ASTRONAUT)
    tab.page.wait_for_selector("#notice:not([hidden])")
    assert "ends early" in tab.text("#notice-detail")


def test_server_that_is_gone_and_one_that_answers_rubbish(tab: Tab) -> None:
    tab.page.route("**/v1/predict*", lambda route: route.abort())
    tab.page.set_input_files("#file", ASTRONAUT)
    tab.page.wait_for_selector("#notice:not([hidden])")
    assert tab.text("#notice-title") == "The server does not answer"
    tab.page.unroute("**/v1/predict*")
    tab.page.route("**/v1/predict*", lambda route: route.fulfill(status=200, body="{"))
    tab.page.click("#retry")
    tab.wait("document.querySelector('#notice-title').textContent.includes('broke off')")
    tab.page.unroute("**/v1/predict*")
    tab.page.route("**/v1/predict*", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
    tab.page.click("#retry")
    tab.wait("document.querySelector('#notice-title').textContent === 'The server failed'")
    assert "502" in tab.text("#notice-detail")


def test_token_is_asked_for_and_kept(browser: Any, server: PageServer) -> None:
    server.token = "a-good-token"
    with open_tab(browser, server.url) as tab:
        tab.page.wait_for_selector("#token-form:not([hidden])")
        assert tab.text("#notice-title") == "This server asks for a token"
        assert tab.page.evaluate("document.activeElement.id") == "token"
        tab.page.keyboard.type("wrong-token")
        tab.page.keyboard.press("Enter")
        tab.wait("document.querySelector('#notice-title').textContent.includes('does not take this')")
        tab.page.fill("#token", server.token)
        tab.page.keyboard.press("Enter")
        tab.wait(f"document.querySelector('#model').value === '{EMBEDDED}'")
        choose(tab.page, ASTRONAUT)
        assert server.posts[0][1]["authorization"] == "Bearer a-good-token"
        tab.page.reload()
        tab.wait(f"document.querySelector('#model').value === '{EMBEDDED}'")
        assert tab.page.locator("#notice").is_hidden()


GIVE = """([name, type, text, event]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
  const init = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(event === "paste"
    ? new ClipboardEvent("paste", { ...init, clipboardData: data })
    : new DragEvent(event, { ...init, dataTransfer: data }));
}"""


def test_picture_can_be_dropped_and_pasted_and_a_text_is_refused(tab: Tab, server: PageServer) -> None:
    small = cv2.imencode(".png", cv2.imread(str(ASTRONAUT))[::8, ::8])[1].tobytes()
    data = base64.b64encode(small).decode()
    tab.page.evaluate(GIVE, ["a.png", "image/png", data, "dragover"])
    assert tab.page.locator("#cover").is_visible()
    tab.page.evaluate(GIVE, ["a.png", "image/png", data, "drop"])
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.page.locator("#cover").is_hidden()
    tab.page.goto(f"{server.url}#zoo")
    tab.page.evaluate(GIVE, ["b.png", "image/png", data, "paste"])
    tab.wait("document.querySelector('#photo').alt === 'b.png'")
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.page.locator("#picture").is_visible(), "a picture brings its view with it"
    assert [body for _, _, body in server.posts] == [small, small]
    tab.page.evaluate(GIVE, ["notes.txt", "text/plain", "aGVsbG8=", "drop"])
    assert tab.text("#notice-title") == "notes.txt is not a picture"
    assert len(server.posts) == 2


def test_newer_picture_wins(tab: Tab, server: PageServer) -> None:
    server.delay_s = 0.4
    tab.page.set_input_files("#file", ASTRONAUT)
    tab.wait("document.querySelector('#status').textContent.startsWith('Looking')")
    server.answer["results"][0]["people"] = server.answer["results"][0]["people"][1:2]
    tab.page.set_input_files("#file", REPOSITORY / "examples" / "grace_hopper.jpg")
    tab.page.wait_for_selector("#results:not([hidden])")
    assert tab.text("#status").startswith("1 person found")
    assert tab.page.locator("#photo").get_attribute("alt") == "grace_hopper.jpg"
    tab.page.wait_for_timeout(150)
    assert tab.page.locator(".person").count() == 1


HOLD = """() => {
  const decode = HTMLImageElement.prototype.decode;
  const held = new Promise((done) => { window.goOn = done; });
  HTMLImageElement.prototype.decode = function () {
    const decoded = decode.call(this); // it rejects once the element is given another picture
    decoded.catch(() => {});
    return held.then(() => decoded);
  };
}"""


def test_newer_picture_wins_while_the_first_is_decoded(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    tab.page.evaluate(HOLD)
    tab.page.set_input_files("#file", ASTRONAUT)
    assert tab.text("#status") == "Looking for people…", "nothing of the last picture stands while one is decoded"
    assert tab.page.locator("#desk").get_attribute("aria-busy") == "true"
    assert tab.page.locator("#results").is_hidden()
    assert at_joint(tab, server, 1, "left_shoulder")[3] == 0
    tab.page.set_input_files("#file", REPOSITORY / "examples" / "grace_hopper.jpg")
    tab.page.evaluate("window.goOn()")
    tab.page.wait_for_selector("#results:not([hidden])")
    tab.page.wait_for_timeout(150)
    assert tab.page.locator("#photo").is_visible()
    assert tab.text("#status").startswith("1 person found") and "cannot show" not in tab.text("#status")
    assert tab.page.locator("#desk").get_attribute("aria-busy") == "false"
    assert len(server.posts) == 2


def test_names_stay_in_the_picture(tab: Tab, server: PageServer) -> None:
    tab.page.evaluate("""() => {
      const write = CanvasRenderingContext2D.prototype.fillText;
      window.words = [];
      CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        const { width, height } = this.canvas;
        window.words.push({ text, left: x, right: x + this.measureText(text).width, y, width, height });
        write.call(this, text, x, y);
      };
    }""")
    (person,) = people = server.answer["results"][0]["people"][1:2]
    joints, edges = server.answer["joints"], {"left_wrist": (508, 200), "right_wrist": (3, 250), "nose": (250, 1)}
    for k, name in enumerate(joints):
        person["keypoints"][k] = [*edges.get(name, (520, 100)), 0.9]  # the others are not in the picture
    server.answer["results"][0]["people"] = people
    tab.page.check("#names")
    choose(tab.page, ASTRONAUT)
    tab.frame()
    with tab.page.expect_download():
        tab.page.click("#save-png")
    words = tab.page.evaluate("window.words")
    assert {word["text"] for word in words} == {name.replace("_", " ") for name in edges}
    assert {word["width"] for word in words} > {512}, "in the PNG as well"
    for word in words:
        assert 0 <= word["left"] and word["right"] <= word["width"], word
        assert 5 <= word["y"] <= word["height"] - 5, word


def test_joint_pointed_out_stays_in_sight_when_enlarged(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    tab.page.focus("#overlay")
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowRight")
    for _ in range(4):
        tab.page.keyboard.press("+")
        stage, tip = (tab.page.locator(name).bounding_box() for name in ("#stage", "#tip"))
        for at, size in (("x", "width"), ("y", "height")):
            assert stage[at] <= tip[at] and tip[at] + tip[size] <= stage[at] + stage[size]


def luminance(rgb: list[float]) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb[:3])]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(browser: Any, server: PageServer, scheme: str) -> None:
    script = """(name) => {
      const node = document.querySelector(name);
      let [ground, opacity] = [null, 1];
      for (let at = node; at; at = at.parentElement) {
        const style = getComputedStyle(at);
        opacity *= style.opacity;
        ground ??= style.backgroundColor.endsWith(", 0)") ? null : style.backgroundColor;
      }
      return [getComputedStyle(node).color, ground, opacity];
    }"""
    with open_tab(browser, server.url, color_scheme=scheme) as tab:
        choose(tab.page, ASTRONAUT)
        for name in ("nav [aria-current]", ".joints tr.below th", ".joints tr.below td", ".tag"):
            if name == ".tag":
                tab.page.goto(f"{server.url}#zoo")
                tab.page.wait_for_selector(name)
            colour, ground, opacity = tab.page.evaluate(script, name)
            ink, paper = (np.array([float(n) for n in re.findall(r"[\d.]+", c)]) for c in (colour, ground))
            low, high = sorted([luminance(opacity * ink + (1 - opacity) * paper), luminance(paper)])
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_models_that_are_not_there_yet_are_awaited(browser: Any, server: PageServer) -> None:
    with open_tab(browser, "about:blank") as tab:
        waiting: list[Any] = []
        tab.page.route("**/v1/models", lambda route: waiting.append(route))
        tab.page.goto(server.url)
        while not waiting:
            tab.page.wait_for_timeout(20)
        assert tab.page.locator("#model").text_content() == "loading…"
        waiting[0].continue_()
        tab.wait(f"document.querySelector('#model').value === '{EMBEDDED}'")
        assert "loading" not in tab.page.locator("#model").text_content()
        tab.problems.clear()


def test_model_and_flip_ask_again(tab: Tab, server: PageServer) -> None:
    choose(tab.page, ASTRONAUT)
    options = tab.page.locator("#model option").all_inner_texts()
    assert options == ["pose_hrnet_w32.hrnet_coco_256x192", EMBEDDED] or options[0] == EMBEDDED
    with tab.page.expect_response("**/v1/predict*"):
        tab.page.select_option("#model", "pose_hrnet_w32.hrnet_coco_256x192")
    with tab.page.expect_response("**/v1/predict*"):
        tab.page.check("#flip")
    assert "flip=true" in server.posts[-1][0] and "model=pose_hrnet_w32" in server.posts[-1][0]


def test_keys_alone_lead_to_a_result_and_through_its_joints(tab: Tab, server: PageServer) -> None:
    page, reached, choosers = tab.page, [], []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[:4] == ["Skip to the content", "posezoo", "to-picture", "to-zoo"]
    assert reached[4:] == ["choose", "camera", "model", "flip", "people-score"]
    page.keyboard.press("ArrowRight")
    assert tab.text("#people-score-out") == f"{MIN_SCORE + 0.01:.2f}"
    page.focus("#choose")
    page.keyboard.press("Enter")
    while not choosers:
        page.wait_for_timeout(20)
    choosers[0].set_files(ASTRONAUT)
    page.wait_for_selector("#results:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "choose-again", "the button that had the focus is gone"
    page.locator("#overlay").focus()
    nose = f"nose {score(server, 1, 'nose')}, person 2"
    for key, text in (("ArrowRight", nose), ("ArrowRight", "left eye"), ("ArrowLeft", "nose")):
        page.keyboard.press(key)
        assert tab.text("#spoken").startswith(text)
    ring = page.evaluate("getComputedStyle(document.querySelector('#stage')).outlineStyle")
    assert ring == "solid"
    page.keyboard.press("+")
    assert page.evaluate("document.querySelector('#stage').scrollWidth > document.querySelector('#stage').clientWidth")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("name", ["coco17", pytest.param("wholebody133", marks=pytest.mark.slow)])
def test_hundred_people(tab: Tab, server: PageServer, name: str) -> None:
    random = np.random.default_rng(0)
    skeleton = get_skeleton(name)
    corners = random.uniform(0, 400, (100, 2))
    points = np.dstack(
        [
            corners[:, None] + random.uniform(0, 100, (100, len(skeleton), 2)),
            random.uniform(0.3, 1, (100, len(skeleton))),
        ]
    )
    people = [
        {"box": [*corner, *(corner + 100)], "box_score": 0.9, "score": 0.8, "keypoints": rows.tolist()}
        for corner, rows in zip(corners, points, strict=True)
    ]
    server.answer.update(skeleton=skeleton.name, joints=list(skeleton.joints))
    server.answer["results"][0]["people"] = people
    people[3]["keypoints"][5] = [None, None, 0.0]
    tab.page.check("#names")
    choose(tab.page, ASTRONAUT)
    assert tab.text("#status").startswith("100 people found")
    assert tab.page.locator(".person").count() == 100
    assert tab.page.locator(".joints").count() == 1, "a table is made when it is opened"
    tab.page.click(".person[data-person='3'] summary")
    tab.page.wait_for_selector("[data-person='3'] .joints")
    assert tab.page.locator("[data-person='3'] [data-joint='5'] td").all_inner_texts() == ["–", "–", "0.00"]
    milliseconds = tab.page.evaluate("""async () => {
      const start = performance.now();
      document.querySelector('#boxes').click();
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return performance.now() - start;
    }""")
    assert milliseconds < 3000


def test_phone_and_dark(browser: Any, server: PageServer) -> None:
    look = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
    with open_tab(browser, server.url, device_scale_factor=2, **look) as tab:
        choose(tab.page, ASTRONAUT)
        wide = "document.documentElement.scrollWidth"
        assert tab.page.evaluate(wide) == 360
        red, green, blue = map(
            int, re.findall(r"\d+", tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        )
        assert max(red, green, blue) < 50
        box = tab.page.locator("#overlay").bounding_box()
        assert box["width"] <= 360
        assert tab.page.evaluate("document.querySelector('#overlay').width") == round(2 * box["width"])
        x, y = joint(server, 1, "nose")
        tab.page.touchscreen.tap(box["x"] + x / 512 * box["width"], box["y"] + y / 512 * box["height"])
        assert tab.text("#tip").startswith("nose")
        heights = tab.page.evaluate("[...document.querySelectorAll('#picture button')].map((b) => b.offsetHeight)")
        assert all(high == 0 or high >= 32 for high in heights), "large enough for a finger"
        tab.page.goto(f"{server.url}#zoo")
        tab.page.wait_for_selector("#zoo-table tbody tr")
        assert tab.page.evaluate(wide) == 360


@pytest.mark.slow
def test_large_picture_is_only_shown_smaller(tab: Tab, server: PageServer, tmp_path: Path) -> None:
    width, height = 7000, 4600
    cv2.imwrite(str(tmp_path / "large.jpg"), np.full((height, width, 3), 90, np.uint8))
    result = server.answer["results"][0]
    result["size_wh"] = [width, height]
    for person in result["people"]:
        person["box"] = [v * 8 for v in person["box"]]
        person["keypoints"] = [[x * 8, y * 8, score] for x, y, score in person["keypoints"]]
    choose(tab.page, tmp_path / "large.jpg")
    assert tab.page.evaluate("document.querySelector('#overlay').width") < 1300
    assert server.posts[0][2] == (tmp_path / "large.jpg").read_bytes()
    with tab.page.expect_download() as waiting:
        tab.page.click("#save-png")
    waiting.value.save_as(tmp_path / "large.png")
    drawn = cv2.imread(str(tmp_path / "large.png"))
    assert drawn.shape == (height, width, 3)
    x, y = joint(server, 1, "right_shoulder")
    assert np.abs(drawn[round(y), round(x), ::-1].astype(int) - RIGHT).max() < 30


def test_answer_is_plain_json(astronaut: dict[str, Any]) -> None:
    assert json.loads(json.dumps(astronaut)) == astronaut
    assert len(astronaut["results"][0]["people"]) == 4
