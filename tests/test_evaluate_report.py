"""A report as it is printed: units, claims beside what was measured, and nobody to judge."""

from __future__ import annotations

from dataclasses import replace

from posezoo.evaluate.report import Report
from posezoo.zoo import Score


def test_claims_stand_beside_and_never_among_what_was_measured():
    report = Report(
        model="m",
        dataset="crowdpose",
        protocol="how",
        settings={},
        metrics={"AP": 0.5, "AR": 0.61, "APE": -1.0, "APMedium": 0.25, "AP50": 0.75},
        claimed=[
            Score("crowdpose", {"AP": 63.7, "AP50": 80.8}, "boxes of YOLOv3", flip=True),
            Score("crowdpose", {"APE": 0.739}, "another", unit="fraction"),
        ],
        counts={"images": 2, "people": 3},
    )
    columns, rows, notes = report.table()
    assert columns == ["crowdpose, percent", "measured", "claimed [1]", "claimed [2]"]
    assert rows == [
        ["AP", "50.00", "63.70", ""],
        ["AP50", "75.00", "80.80", ""],
        ["APE", "-", "", "73.90"],
        ["APMedium", "25.00", "", ""],
        ["AR", "61.00", "", ""],
    ]
    assert notes == ["measured: how", "[1] claimed: boxes of YOLOv3, with flip", "[2] claimed: another"]
    assert report.text().splitlines()[2].split() == ["AP", "50.00", "63.70"]
    bare = replace(report, claimed=(), dataset="mpii", metrics={"Mean": 88.5, "EPE": 12.0})
    assert bare.table()[1] == [["Mean", "88.50"], ["EPE", "12.00 px"]]


def test_a_table_has_each_figure_once_and_a_dash_for_nobody():
    parts = {f"{part}/{name}": value for part in ("body", "wholebody") for name, value in (("AP", 0.5), ("APM", -1.0))}
    whole = Report(
        model="m",
        dataset="wholebody133",
        protocol="how",
        settings={},
        metrics={**parts, "AP": 0.5, "APM": -1.0},
        claimed=[Score("wholebody133", {"AP": 55.4}, "its page")],
    )
    assert whole.table()[1] == [
        ["body/AP", "50.00", ""],
        ["wholebody/AP", "50.00", "55.40"],
        ["body/APM", "-", ""],
        ["wholebody/APM", "-", ""],
    ]
    assert whole.to_dict()["metrics"]["APM"] == -1
    assert whole.to_dict()["metrics"]["AP"] == 0.5
