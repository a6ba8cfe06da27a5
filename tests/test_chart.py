"""The chart: which accuracies a speed is drawn at, that the page needs nothing but itself, and that all is in it."""

# ruff: noqa: F401, F811 -- a fixture is imported, and asked for by its name
from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from page_browser import Tab, open_tab
from page_fixtures import browser
from posezoo.bench.chart import check, draw, names_beside, page, spec, task_of, tips, told
from posezoo.bench.points import CLAIMED, MEASURED, is_int8, points_of
from posezoo.bench.rows import Row, read_csv, with_facts, write_csv
from posezoo.errors import PosezooError
from posezoo.zoo import get_entry

RESNET = "simple_pose_resnet50_v1b.gluoncv_coco_256x192"
HRNET = "pose_hrnet_w32.hrnet_coco_256x192"
EMBEDDED = "mobile_pose_fpn_1.75.embedded_256x192"
HALPE = "fastpose_resnet50_wide.alphapose_halpe136_256x192"


def a_row(entry: str | None, speed: float = 10.0, **changes: Any) -> Row:
    values = dict(
        model=entry or "net.onnx", runtime="onnx", precision="fp32", batch_size=1, threads=1, device="cpu",
        latency_ms=1e3 / speed, images_per_second=speed, data="dummy", weights="random", flip=False, input="256x192",
        entry=entry, spread=0.05, wall_ms=1e3 / speed, cpu_ms=1e3 / speed, memory_mb=None, calls=30,
    )  # fmt: skip
    return Row(**{**values, **changes})


def some_rows() -> list[Row]:
    return [
        a_row(RESNET),
        a_row(RESNET, 5.0, flip=True),
        a_row(RESNET, 30.0, precision="int8", runtime="openvino", model="resnet </script>.xml"),
        a_row(HRNET, 3.0, flip=True),
        a_row(EMBEDDED, 60.0, weights="own"),
        a_row(HALPE, 8.0, flip=True),
    ]


def some_points() -> list[dict[str, Any]]:
    return points_of(with_facts(some_rows()))[0]


def claims(entry: str, flip: bool) -> set[float]:
    return {s.percent("AP") for s in get_entry(entry).claimed if "AP" in s.metrics and (s.flip or False) == flip}  # type: ignore[misc]


def test_a_speed_is_drawn_at_its_own_accuracy() -> None:
    points = some_points()
    by = {(p["model"], p["precision"], p["flip"]): p for p in points if p["kind"] == CLAIMED}
    entry = get_entry(RESNET)
    plain = {s.flip: s.percent("AP") for s in entry.claimed if "AP" in s.metrics and s.flip is not None}
    quantised = [s.percent("AP") for s in entry.claimed if is_int8(s) and "AP" in s.metrics]
    assert by[RESNET, "fp32", False]["AP"] == plain[False] != plain[True] == by[RESNET, "fp32", True]["AP"]
    assert [by[RESNET, "int8", False]["AP"]] == quantised and quantised[0] < plain[False]  # type: ignore[operator]
    assert by[RESNET, "int8", False]["file"] == "resnet </script>.xml" and by[RESNET, "fp32", False]["file"] is None
    assert Counter((p["model"], p["precision"], p["flip"]) for p in points)[RESNET, "fp32", False] == 1, "said twice"
    assert by[HRNET, "fp32", True]["AP"] in claims(HRNET, True)


def test_claimed_and_measured_are_apart() -> None:
    points = some_points()
    (ours,) = (p for p in points if p["model"] == EMBEDDED)
    assert ours["kind"] == MEASURED and ours["dataset"] == "coco_dev" and ours["weights"] == "own"
    assert ours["AP"] in [s.percent("AP") for s in get_entry(EMBEDDED).measured if s.flip is False]
    assert told(ours) == "measured here, on coco_dev" and task_of(ours) == task_of({"dataset": "coco"})
    assert {told(p) for p in points if p["kind"] == CLAIMED} == {"claimed by its zoo"}
    assert told({"kind": MEASURED, "dataset": "coco"}) == "measured here"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (a_row(HRNET), "the AP is with flip only"),
        (a_row(HRNET, precision="int8"), "no AP is known of the network in int8"),
        (a_row("pose_resnet_50.mpii"), "unknown"),
        (a_row(None), "does not say which model"),
        (a_row("mobile_pose_mobilenetv3_small.gluoncv_coco_256x192", precision="int8"), "in int8"),
        (a_row("simple_pose_resnet50_v1b.hrnet_mpii_256x256"), "no source gives an AP"),
    ],
)
def test_what_has_no_accuracy_is_left_out_and_said(row: Row, reason: str) -> None:
    if reason == "unknown":
        with pytest.raises(PosezooError, match="unknown model"):
            points_of(with_facts([row]))
        return
    points, left_out = points_of(with_facts([row, row]))
    assert points == [] and len(left_out) == 1 and reason in left_out[0] and "2" in left_out[0]


def test_points_from_a_file_are_the_same(tmp_path: Path) -> None:
    write_csv(tmp_path / "r.csv", some_rows())
    assert points_of(read_csv(tmp_path / "r.csv")) == points_of(with_facts(some_rows()))


def test_what_is_not_known_is_not_told() -> None:
    known, unknown = (points_of(with_facts([a_row(RESNET, spread=spread)]))[0][0] for spread in (0.05, None))
    assert "(spread 5%), CPU" in tips(known)["speed"]
    assert tips(unknown)["speed"] == tips(known)["speed"].replace(" (spread 5%)", "")
    network = "simple_pose of gluoncv, 256x192"
    assert re.fullmatch(rf"{network}, [\d.]+ M parameters, [\d.]+ G multiply-adds", tips(known)["network"])
    assert tips({**known, "params_m": None})["network"] == network


def test_names_do_not_lie_on_each_other() -> None:
    points = [
        {**p, "task": "t", "told": "x", "setting": "s", "AP": 70 - n, "images_per_second": 2.0**n, "short": f"n{n}" * 5}
        for n, p in enumerate([some_points()[0]] * 8)
    ]
    wide, narrow = (names_beside(points, size) for size in ((2000, 900), (300, 200)))
    assert all(any(pair) and not all(pair) for pair in wide)
    assert 0 < sum(map(any, narrow)) < len(points)
    beaten = [{**points[0], "AP": 80.0, "images_per_second": 9.0}, {**points[1], "AP": 60.0, "images_per_second": 9.0}]
    assert [any(pair) for pair in names_beside(beaten, (2000, 900))] == [True, False]
    assert names_beside([], (10, 10)) == []


def test_hovering_tells_every_column() -> None:
    point = next(p for p in some_points() if p["file"])
    every = " ".join(tips({**point, "memory_mb": 77.0}).values())
    shown = {"model", "file", "family", "zoo", "dataset", "protocol", "input", "runtime", "precision", "device"}
    shown |= {
        "weights",
        "data",
        "processor",
        "machine",
        "versions",
        "date",
        "params_m",
        "gmacs",
        "batch_size",
        "threads",
    }
    assert [key for key in shown if str(point[key]) not in every] == []
    numbers = ("70.6 %", "claimed by its zoo", "without flip", "30 images/s", "33.33 ms", "spread 5%", "77 MB")
    assert [text for text in numbers if text not in every] == []
    assert "with flip" in tips(next(p for p in some_points() if p["flip"]))["AP"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    path = tmp_path_factory.mktemp("chart") / "chart.html"
    draw(path, some_points())
    return path


def embedded_spec(path: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script id="spec" type="application/json">(.*?)</script>', path.read_text(), re.S)
    return json.loads(text)


def test_page_holds_every_row(drawn: Path) -> None:
    found = embedded_spec(drawn)
    (values,) = (each for each in datasets(found) if each)
    assert len(values) == len(some_points())
    for point, value in zip(some_points(), values, strict=True):
        assert {key: value[key] for key in point} == point
    text = drawn.read_text()
    assert text.split("<details>")[1].split("</details>")[0].count("<tr>") == 1 + len(some_points())
    assert "resnet </script>.xml" not in text
    assert some_points()[0]["versions"] in text and "<!--" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def datasets(found: Any) -> list[list[dict[str, Any]]]:
    """Every list of rows in a chart."""
    if isinstance(found, dict):
        inline = found.get("datasets", {}).values()
        own = [found["data"]["values"]] if "values" in (found.get("data") or {}) else []
        return [*inline, *own] or [rows for value in found.values() for rows in datasets(value)]
    return [rows for value in found for rows in datasets(value)] if isinstance(found, list) else []


def test_page_is_self_contained(drawn: Path) -> None:
    text = drawn.read_text()
    addresses = set(re.findall(r"https?://[^\"'`\s)<>]+", text))
    assert {address.split("/")[2] for address in addresses} <= {"www.w3.org"}, "names of XML's, not addresses"
    page_only = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"\b(src|href)=|@import|url\(", page_only)
    assert not re.search(r"<script[^>]+src=", text)


def test_marks_tell_claimed_from_measured(drawn: Path) -> None:
    found = embedded_spec(drawn)
    layers = [layer for layer in found["layer"] if "shape" in layer.get("encoding", {})]
    assert [layer["mark"].get("filled", False) for layer in layers] == [False, True]
    for layer, kind in zip(layers, (CLAIMED, MEASURED), strict=True):
        assert kind in json.dumps(layer["transform"])
        shape = layer["encoding"]["shape"]
        assert dict(zip(shape["scale"]["domain"], shape["scale"]["range"], strict=True)) == {
            "claimed by its zoo": "circle",
            "measured here, on coco_dev": "diamond",
        }
    assert [each["field"] for each in layers[0]["encoding"]["tooltip"]] == [
        f"tips.{title}" for title in tips(some_points()[0])
    ]
    menus = menus_of(found)
    assert menus["only_task"]["value"] == task_of({"dataset": "coco"})
    assert menus["only_setting"]["bind"]["options"][0] is None


def menus_of(found: dict[str, Any]) -> dict[str, Any]:
    return {p["name"]: p for p in found["params"] if p["name"].startswith("only_")}


def picture(**only: str | None) -> str:
    """The chart as SVG with other choices than what it begins with."""
    vl_convert = pytest.importorskip("vl_convert")
    pytest.importorskip("altair")
    found = spec(some_points())
    for column, choice in only.items():
        menus_of(found)[f"only_{column}"]["value"] = choice
    return vl_convert.vegalite_to_svg(found, vl_version="6.4")


def labels(svg: str) -> list[list[str]]:
    """What is to be read along each axis, x and y."""
    axes = re.findall(r'<g class="mark-text role-axis-label".*?</g>', svg, re.S)
    return [re.findall(r'<text[^>]* opacity="1">([^<]+)</text>', axis) for axis in axes]


def test_legend_draws_the_marks_as_the_chart_does() -> None:
    symbols = re.findall(r'<g class="mark-symbol role-legend-symbol".*?</g>', picture(), re.S)
    told_by = [re.search(r'fill="([^"]+)"', each) for each in symbols[-2:]]
    assert [found is not None and found[1] != "transparent" for found in told_by] == [False, True]
    assert all('stroke="#888"' in each for each in symbols[-2:])


@pytest.mark.parametrize(
    ("only", "low", "high"),
    [
        ({}, 2, 100),
        ({"task": "Halpe Full-Body"}, 5, 13),  # one point, at 8
        ({"flipped": "with flip"}, 2.5, 6.5),  # two, at 3 and 5
        ({"task": "Halpe Full-Body", "zoo": "hrnet"}, 1, 100),  # none
    ],
)
def test_axes_have_a_scale_whatever_is_shown(only: dict[str, str], low: float, high: float) -> None:
    across, up = labels(picture(**only))
    assert 3 <= len(across) <= 12 and 3 <= len(up) <= 20
    assert all(low <= float(text) <= high for text in across) and all(0 < float(text) < 100 for text in up)


def test_where_no_network_is_left_it_is_said() -> None:
    said = "no network has all of these"
    assert said in picture(task="Halpe Full-Body", zoo="hrnet")
    assert said not in picture() and said not in picture(task="Halpe Full-Body")


def test_accuracies_of_several_tasks_are_not_compared(drawn: Path) -> None:
    found = embedded_spec(drawn)
    menus = menus_of(found)
    assert menus["only_task"]["bind"]["options"] == ["COCO keypoints 2017", "Halpe Full-Body"]
    assert menus["only_zoo"]["bind"]["labels"][0] == "all"
    (line,) = (layer for layer in found["layer"] if layer["mark"]["type"] == "line")
    assert {each["field"] for each in line["encoding"]["detail"]} == {"task", "told"}
    assert [each["groupby"] for each in line["transform"] if "window" in each] == [["task", "told"]]


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_page_fits_the_window(drawn: Path, browser: Any, width: int) -> None:
    with open_tab(browser, drawn.as_uri(), viewport={"width": width, "height": 844}) as tab:
        tab.page.wait_for_selector("#chart svg [aria-roledescription=point]")
        for menu in tab.page.locator("#menus select").all():
            begins = menu.input_value()
            for choice in menu.locator("option").all_inner_texts():
                menu.select_option(label=choice)
                tab.frame()
                assert cut_off(tab) == [], f"{choice} at {width} px"
            menu.select_option(begins)
        tab.frame()
        points = tab.page.locator("#chart [aria-roledescription=point]").all()
        assert len(points) == 4
        for point in points:
            point.hover()
            tab.frame()
            box = tab.page.locator("#vg-tooltip-element.visible").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= 844
        tab.page.locator("summary", has_text="All points").click()
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width


def cut_off(tab: Tab) -> list[str]:
    """The texts of the chart that do not lie within it."""
    return tab.page.evaluate("""() => {
      const frame = document.querySelector("#chart svg").getBoundingClientRect();
      const texts = [...document.querySelectorAll("#chart svg text")];
      const seen = texts.filter((text) => text.getAttribute("opacity") !== "0");
      const boxes = seen.map((text) => [text.textContent, text.getBoundingClientRect()]);
      return boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1).map(([text]) => text);
    }""")


@pytest.mark.slow
def test_page_says_what_its_parts_are(drawn: Path, browser: Any) -> None:
    with open_tab(browser, drawn.as_uri()) as tab:
        tab.page.wait_for_selector("#chart svg [aria-roledescription=point]")
        assert tab.page.get_by_role("main").locator("h1, #chart, table").count() == 3
        chart = tab.page.locator("#chart [role=graphics-document]")
        assert "average precision against images per second" in chart.get_attribute("aria-label")
        tab.page.wait_for_selector('#chart summary[aria-label="Save the chart"]')
        tab.page.select_option("[name=only_task]", label="Halpe Full-Body")
        tab.page.select_option("[name=only_zoo]", label="hrnet")
        tab.page.get_by_text("no network has all of these").wait_for()


def test_a_picture_shows_what_the_page_begins_with(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    draw(tmp_path / "c.svg", some_points())
    text = (tmp_path / "c.svg").read_text()
    assert "COCO" in text and "onnx fp32, batch 1" in text and "claimed by its zoo" in text
    draw(tmp_path / "c.png", some_points())
    from posezoo.media import read_image

    image = read_image(tmp_path / "c.png")
    assert image.shape[0] > 800 and image.shape[1] > 1500 and tuple(image[2, -3]) == (255, 255, 255)
    assert '"zoom"' not in json.dumps(spec(some_points())), "nothing to click in a picture"


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    with pytest.raises(PosezooError, match=r"not .*chart\.gif"):
        draw(tmp_path / "chart.gif", some_points())
    with pytest.raises(PosezooError, match="nothing to draw"):
        draw(tmp_path / "chart.html", [])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(PosezooError, match=r"posezoo\[chart\]"):
        check("a.html")


def test_page_text_is_escaped() -> None:
    pytest.importorskip("altair")
    points = [{**p, "model": "<b>", "command": "a <i>"} for p in some_points()]
    text = page(points, "var x = '</script>';")
    assert "<td>&lt;b&gt;" in text and "<code>a &lt;i&gt;" in text and "'<\\/script>'" in text
