"""The page's second view: the zoo as a table and as a chart."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from page_browser import Tab, open_tab
from page_fixtures import browser
from page_server import EMBEDDED, PageServer, serve_page
from posezoo import list_models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with serve_page({}) as running:
        yield running


@pytest.fixture
def zoo(browser: Any, server: PageServer) -> Iterator[Tab]:
    with open_tab(browser, f"{server.url}") as tab:
        tab.page.click("#to-zoo")
        tab.page.wait_for_selector("#zoo-table tbody tr")
        yield tab


def names(tab: Tab) -> list[str]:
    return tab.page.locator("#zoo-table .name").all_inner_texts()


def figures(tab: Tab, kind: str) -> list[float]:
    return [float(text) for text in tab.page.locator(f"#zoo-table .figure.{kind}").all_inner_texts()]


def test_every_model_is_listed_with_claims_and_measurements_apart(zoo: Tab) -> None:
    assert sorted(names(zoo)) == sorted(list_models())
    assert zoo.text("#zoo-count") == f"{len(list_models())} models"
    assert (
        zoo.page.locator("td[data-label=Claimed] .figure.measured, td[data-label=Measured] .figure.claimed").count()
        == 0
    )
    row = zoo.page.locator("#zoo-table tr", has=zoo.page.locator(f"text={EMBEDDED}"))
    assert row.locator(".tag").inner_text() == "loaded"
    assert row.locator("td[data-label=Claimed]").inner_text() == "–"
    assert float(row.locator(".figure.measured").inner_text()) > 30


def test_search_and_filters_narrow_table_and_chart(zoo: Tab) -> None:
    before = zoo.page.locator(".mark").count()
    assert before > 20
    zoo.page.fill("#search", "resnet50 384x288")
    zoo.frame()
    found = names(zoo)
    assert found and all("resnet50" in name and "384x288" in name for name in found)
    assert zoo.text("#zoo-count") == f"{len(found)} of {len(list_models())} models"
    assert 0 < zoo.page.locator(".mark").count() < before
    zoo.page.fill("#search", "")
    zoo.page.select_option("#by-source", "hrnet")
    zoo.page.select_option("#by-dataset", "mpii")
    zoo.frame()
    expected = {row for row in list_models(source="hrnet", dataset="mpii")}
    assert set(names(zoo)) == expected
    zoo.page.fill("#search", "no such model at all")
    zoo.frame()
    assert names(zoo) == []
    assert "No model here has both" in zoo.page.locator("#chart").text_content()


def test_columns_sort_both_ways(zoo: Tab) -> None:
    head = zoo.page.locator("#zoo-table thead")
    head.get_by_role("button", name="Model").click()
    first = names(zoo)
    arches = [name.partition("_")[0] for name in first]
    assert arches == sorted(arches)
    head.get_by_role("button", name="Model").focus()
    zoo.page.keyboard.press("Enter")
    assert names(zoo) == first[::-1]
    assert zoo.page.evaluate("document.activeElement.dataset.key") == "name", "the focus stays on the column"
    assert head.locator("[aria-sort]").get_attribute("aria-sort") == "descending"
    head.get_by_role("button", name="Params").click()
    sizes = [float(text) for text in zoo.page.locator("td[data-label='Params, M']").all_inner_texts()]
    assert sizes == sorted(sizes)
    zoo.page.select_option("#by-dataset", "coco")
    head.get_by_role("button", name="Claimed").click()
    assert figures(zoo, "claimed") == sorted(figures(zoo, "claimed"), reverse=True)
    head.get_by_role("button", name="Claimed").click()
    assert figures(zoo, "claimed") == sorted(figures(zoo, "claimed"))
    assert zoo.page.locator("td[data-label=Claimed]").last.inner_text() == "–", "what is not known is last either way"


def test_chart_names_points_on_hover_and_by_keys(zoo: Tab, server: PageServer) -> None:
    page = zoo.page
    page.select_option("#chart-y", "coco AP")
    model = "pose_hrnet_w48.hrnet_coco_256x192"
    page.locator(f"#chart .mark[data-name='{model}']").hover(force=True)
    assert model in zoo.text("#chart .tip") and "AP 75.1 claimed, with flip" in zoo.text("#chart .tip")
    page.locator("#chart svg").focus()
    page.keyboard.press("ArrowRight")
    first = zoo.text("#chart p.unseen")
    page.keyboard.press("ArrowRight")
    assert first and zoo.text("#chart p.unseen") != first
    page.keyboard.press("Enter")
    page.wait_for_selector("#entry[open] dl")
    assert page.locator("#entry-name").inner_text() in zoo.text("#chart p.unseen")
    page.keyboard.press("Escape")
    assert page.locator("#entry").is_hidden()


def test_chart_takes_claimed_speeds_and_never_mixes_int8(zoo: Tab) -> None:
    page = zoo.page
    page.select_option("#chart-y", "coco AP")
    axes = page.locator("#chart-x option").all_inner_texts()
    fast = next(axis for axis in axes if axis.startswith("ms, INT8"))
    slow = next(axis for axis in axes if axis.startswith("ms, float32"))
    page.select_option("#chart-x", label=slow)
    assert page.locator(".mark.claimed").count() >= 4
    page.select_option("#chart-x", label=fast)
    assert page.locator(".mark").count() == 0, (
        "the best claims are of floating point, and no speed in INT8 goes with them"
    )
    page.select_option("#chart-x", "gflops")
    page.locator("#legend").get_by_role("button", name="hourglass").click()
    families = page.locator(".mark").evaluate_all(
        "marks => [...new Set(marks.map((mark) => mark.dataset.name.split('_')[0]))]"
    )
    assert families == ["hourglass"]
    assert page.locator("#legend [aria-pressed=true]").inner_text() == "hourglass"


def test_measured_speeds_come_first(browser: Any, server: PageServer) -> None:
    protocol = "onnx fp32, batch 1, 1 thread on a processor"
    usual = [dict(row) for row in server.models]
    for k, row in enumerate(row for row in server.models if row["dataset"] == "coco"):
        speed = {"kind": "measured", "metric": "speed", "value": 10.0 + k, "unit": "people/s", "protocol": protocol}
        row["speeds"] = [*row["speeds"], {**speed, "flip": None}]
    try:
        with open_tab(browser, f"{server.url}#zoo") as tab:
            tab.page.wait_for_selector(".mark")
            assert tab.page.locator("#chart-x option:checked").inner_text() == f"people/s, {protocol}"
            assert "no measured speeds" not in tab.text("#chart-note")
    finally:
        server.models = usual


def test_entry_shows_all_scores_with_their_protocols(zoo: Tab) -> None:
    name = "simple_pose_resnet152_v1d.gluoncv_coco_384x288"
    zoo.page.fill("#search", name)
    zoo.page.locator("#zoo-table .name", has_text=name).click()
    zoo.page.wait_for_selector("#entry dl")
    text = zoo.page.locator("#entry").inner_text()
    assert "AP 76.1" in text and "AP 74.8" in text and "with flip: COCO val2017" in text
    assert "Claimed by gluoncv" in text and "Measured here\n\nnothing" in text
    assert f"posezoo predict photo.jpg -m {name}" in text
    zoo.page.mouse.click(5, 5)
    assert zoo.page.locator("#entry").is_hidden(), "a click beside it closes it"


def test_back_closes_an_entry_and_another_view_does(zoo: Tab, server: PageServer) -> None:
    page = zoo.page
    steps = page.evaluate("history.length")
    page.click("#zoo-table .name >> nth=0")
    page.wait_for_selector("#entry dl")
    page.go_back()
    zoo.wait("!document.querySelector('#entry').open")
    assert page.locator("#zoo").is_visible()
    page.locator("#zoo-table .name >> nth=40").scroll_into_view_if_needed()
    scrolled = page.evaluate("window.scrollY")
    page.click("#zoo-table .name >> nth=40")
    page.wait_for_selector("#entry dl")
    page.keyboard.press("Escape")
    zoo.wait("history.state === null")
    assert page.evaluate("window.scrollY") == scrolled
    assert page.evaluate("history.length") == steps + 1, "the step that is ahead; there is none behind"
    page.click("#zoo-table .name >> nth=40")
    page.wait_for_selector("#entry dl")
    page.evaluate("location.hash = '#picture'")
    zoo.wait("!document.querySelector('#entry').open")
    assert page.locator("#picture").is_visible()


def test_late_answer_leaves_the_entry_that_is_open(zoo: Tab, server: PageServer) -> None:
    late: list[Any] = []
    first, second = names(zoo)[:2]
    zoo.page.route(f"**/v1/models/{first}", lambda route: late.append(route))
    zoo.page.click("#zoo-table .name >> nth=0")
    zoo.wait("document.querySelector('#entry').open")
    zoo.page.keyboard.press("Escape")
    zoo.page.click("#zoo-table .name >> nth=1")
    zoo.page.wait_for_selector("#entry dl")
    late[0].continue_()
    zoo.page.wait_for_timeout(200)
    assert second in zoo.text("#entry pre") and first not in zoo.text("#entry pre")


def test_skip_link_stays_in_the_view(zoo: Tab) -> None:
    zoo.page.focus(".skip")
    zoo.page.keyboard.press("Enter")
    zoo.page.wait_for_timeout(100)
    assert zoo.page.locator("#zoo").is_visible()
    assert zoo.page.evaluate("document.activeElement.id") == "main"


def test_zoo_that_cannot_be_had_is_told(browser: Any, server: PageServer) -> None:
    with open_tab(browser, server.url) as tab:
        tab.page.wait_for_selector("#model option:not([value=''])", state="attached")
        tab.page.route("**/v1/models", lambda route: route.abort())
        tab.page.reload()
        tab.page.wait_for_selector("#notice:not([hidden])")
        assert tab.page.locator("#model").text_content() == "the server's own"
        tab.page.unroute("**/v1/models")
        tab.page.click("#retry")
        tab.page.wait_for_selector("#model option:not([value=''])", state="attached")
        tab.wait("document.querySelectorAll('#by-source option').length > 5")
