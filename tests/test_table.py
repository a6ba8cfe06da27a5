"""What `posezoo list` and `posezoo show` say: the sources' figures, the costs counted, best first."""

from __future__ import annotations

import json

import pytest

import command_line
from posezoo import terminal
from posezoo.errors import PosezooError
from posezoo.zoo import get_entry, list_models
from posezoo.zoo.costs import get_cost
from posezoo.zoo.table import entry_fields, score_table, sort_entries, summary_table

BIG = "simple_pose_resnet152_v1d.gluoncv_coco_384x288"
SMALL = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192"


def run(*arguments: str) -> str:
    result = command_line.run(*arguments)
    assert result.code == 0, result.err
    return result.out


def test_every_entry_has_its_cost() -> None:
    entries = [get_entry(name) for task in ("pose", "detection") for name in list_models(task=task)]
    costs = [get_cost(entry) for entry in entries]
    assert all(cost is not None and 0 < cost.params and 0 < cost.macs <= cost.summary_macs for cost in costs)


def test_costs_are_those_of_the_built_networks() -> None:
    pytest.importorskip("torch")
    from posezoo.models.cost import count_cost

    for name in (BIG, SMALL):
        entry = get_entry(name)
        assert count_cost(entry.arch, 17, entry.input_size_wh) == get_cost(entry)


@pytest.mark.slow
def test_all_costs_are_those_of_the_built_networks() -> None:
    from posezoo.models.cost import count_cost
    from posezoo.skeletons import get_skeleton

    for entry in map(get_entry, list_models()):
        joints = len(get_skeleton(entry.skeleton).joints)
        assert count_cost(entry.arch, joints, entry.input_size_wh) == get_cost(entry), entry.name


def test_counts_come_to_what_the_hrnet_readme_prints() -> None:
    """Its figures are cut or rounded to one digit."""
    seen = 0
    for entry in map(get_entry, list_models(source="hrnet")):
        cost = get_cost(entry)
        if cost is None or not entry.claimed_cost:
            continue
        assert cost.params / 1e6 == pytest.approx(entry.claimed_cost["params"], abs=0.1)
        assert cost.summary_gflops == pytest.approx(entry.claimed_cost["gflops"], abs=0.1), entry.name
        seen += 1
    assert seen == 6


def test_sorting_is_best_first_over_percent_and_fractions() -> None:
    entries = [get_entry(name) for name in list_models()]
    by_ap = sort_entries(entries, "ap", "coco")
    best = [
        max((p for s in e.claimed if s.dataset == "coco" and (p := s.percent("AP")) is not None), default=0.0)
        for e in by_ap
    ]
    assert best == sorted(best, reverse=True)
    params = [cost.params for e in sort_entries(entries, "params") if (cost := get_cost(e))]
    assert params == sorted(params)
    names = [e.name for e in sort_entries(entries, "NAME")]
    assert names == sorted(names)
    with pytest.raises(PosezooError, match="unknown metric 'app'; did you mean AP"):
        sort_entries(entries, "app")


def test_summary_has_a_line_for_each_model() -> None:
    columns, rows = summary_table([get_entry(BIG), get_entry("embedded")])
    first = dict(zip(columns, rows[0], strict=True))
    assert (first["model"], first["HxW"], first["claimed"]) == (BIG, "384x288", "AP 76.1 coco")
    second = dict(zip(columns, rows[1], strict=True))
    assert second["claimed"] == ""
    assert second["measured"].startswith("AP ")


def test_score_table_points_to_each_protocol() -> None:
    entry = get_entry(BIG)
    columns, rows, protocols = score_table([entry], "coco", "AP")
    assert columns[:3] == ["model", "HxW", "AP"]
    assert [row[2] for row in rows] == ["76.1", "74.8"]
    assert [row[-1] for row in rows] == ["[1]", "[1]"]
    assert protocols == [["[1]", entry.claimed[0].protocol]]
    with pytest.raises(PosezooError, match="claims a score on mars"):
        score_table([entry], "mars")


def test_show_tells_everything() -> None:
    text = "\n".join(" ".join(row) for row in entry_fields(get_entry("pose_hrnet_w32.hrnet_coco_256x192")))
    for part in (
        "28.54 M counted, 28.5 M claimed",
        "7.1",
        "coco17",
        "licence weights",
        "AP 0.744",
        "192 wide, 256 high",
    ):
        assert part in text
    assert "None" not in text


def test_list_command() -> None:
    output = run("list", "--family", "hrnet", "--sort", "ap")
    assert output.index("pose_hrnet_w48.") < output.index("pose_hrnet_w32.hrnet_mpii")
    listed = json.loads(run("list", "--keypoints", "halpe136", "--json"))
    assert listed and all(entry["skeleton"] == "halpe136" and entry["cost"]["params"] > 0 for entry in listed)
    named = [entry["name"] for entry in json.loads(run("list", "W32", "--source", "hrnet", "--json"))]
    assert named and all("w32" in name for name in named)
    (by_hash,) = json.loads(run("list", get_entry(BIG).weights[0].urls[0].rpartition("/")[2], "--json"))
    assert by_hash["name"] == BIG
    on_mpii = run("list", "--on", "mpii", "--sort", "mean@0.1")
    assert "Mean@0.1" in on_mpii and "[1] " in on_mpii


def test_detectors_are_found_and_said_to_be_detectors() -> None:
    for arguments in (["yolov3"], ["--family", "yolov3"], ["--source", "darknet"], ["YOLO", "--task", "detection"]):
        found = run("list", *arguments)
        assert {"yolov3.darknet_coco_608", "yolov3_spp.darknet_coco_608"} <= set(found.split()), arguments
        assert "\n2 detectors; " in found and "--detector NAME" in found
    detectors = [entry["name"] for entry in json.loads(run("list", "--task", "detection", "--json"))]
    assert detectors == list_models(task="detection")
    alone = run("list")
    assert "detector" not in alone.lower() and not [name for name in detectors if name in alone]
    assert run("list", "--task", "pose") == alone
    both = run("list", "embedded")
    assert "\n1 model; " in both and both.endswith("(--task detection): person_detector_1.0.embedded_320.\n")
    assert [entry["task"] for entry in json.loads(run("list", "embedded", "--json"))] == ["pose"]


def test_figures_of_one_column_are_in_one_unit() -> None:
    columns, rows, _ = score_table([get_entry(name) for name in list_models()], "coco", "AP")
    figures = [float(row[columns.index("AP")]) for row in rows if row[columns.index("AP")]]
    assert figures == sorted(figures, reverse=True) and min(figures) > 30 and len(figures) > 50
    printed = run("list", "--on", "coco", "--sort", "AP")
    assert "in percent" in printed and " 0.7" not in printed.partition("in percent")[0]
    entry = get_entry("pose_hrnet_w32.hrnet_coco_256x192")
    (row,) = score_table([entry], "coco")[1][:1]
    assert row[2] == "74.4" and (entry.claimed[0].metrics["AP"], entry.claimed[0].unit) == (0.744, "fraction")
    assert "AP 0.744" in run("show", entry.name)
    (listed,) = [e for e in json.loads(run("list", "--on", "coco", "--json")) if e["name"] == entry.name]
    assert (listed["claimed"][0]["metrics"]["AP"], listed["claimed"][0]["unit"]) == (0.744, "fraction")


def test_a_pipe_gets_whole_lines_without_blanks_behind() -> None:
    for arguments in (["list", "--on", "coco"], ["show", BIG]):
        lines = run(*arguments).splitlines()
        assert all(line == line.rstrip() for line in lines)
        assert sum(BIG in line for line in lines) >= 1
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["arch"] == BIG.partition(".")[0]
    assert max(map(len, lines)) > 150


def test_a_narrow_terminal_cuts_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list_models()
    monkeypatch.setattr(terminal, "_width", lambda: 80)
    lines = run("list").splitlines()[: 2 * len(names) + 2]
    assert lines[:2] == ["model", lines[1]] and lines[1].split()[:2] == ["HxW", "keypoints"]
    assert lines[2::2] == names
    assert all(line.startswith("  ") and len(line) <= 80 for line in lines[3::2])
    assert len({line.index("coco17") for line in lines if "coco17" in line}) == 1
    monkeypatch.setattr(terminal, "_width", lambda: 200)
    wide = run("list").splitlines()[1 : len(names) + 1]
    assert [line.split()[0] for line in wide] == names


def test_columns_that_need_a_third_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(terminal, "_width", lambda: 12)
    terminal.print_table(["a", "bb", "c", "d"], [["long_name_of_it", "1", "22222222", "x"], ["b", "10", "3", ""]])
    assert capsys.readouterr().out.splitlines() == [
        *["a", "  bb", "         c d"],
        *["long_name_of_it", "   1", "  22222222 x"],
        *["b", "  10", "         3"],
    ]
    terminal.print_table(["metric", "x"], [])
    assert capsys.readouterr().out == "metric  x\n"


def test_long_values_are_wrapped_and_addresses_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_width", lambda: 60)
    output = run("show", BIG)
    (url,) = get_entry(BIG).weights[0].urls
    assert url in output
    start = output.splitlines()[0].index(BIG)
    for line in output.splitlines():
        assert line[:start].endswith("  ")
        assert len(line) <= 60 or " " not in line[start:]
    assert output.split() == " ".join(part for field in entry_fields(get_entry(BIG)) for part in field).split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "hrnets"], "no model has 'hrnets' in its names"),
        (["list", "--family", "hrnets"], "unknown family 'hrnets'; did you mean hrnet"),
        (["list", "--keypoints", "coco18"], "did you mean coco17"),
        (["list", "--task", "detector"], "unknown task 'detector'; did you mean detection"),
        (["list", "--task", "detection", "--family", "hrnet"], "no model fits --task detection --family hrnet"),
        (["list", "--family", "hrnet", "--source", "gluoncv"], "no model fits --family hrnet --source gluoncv"),
        (["list", "--on", "cocoo"], "did you mean coco"),
        (["list", "--sort", "apx"], "unknown metric 'apx'; did you mean AP"),
        (["show", "pose_hrnet_w31"], "unknown model"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = command_line.run(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
