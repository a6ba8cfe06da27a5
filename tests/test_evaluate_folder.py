"""What a run leaves in its folder and takes up there, and what it says before the network has seen a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluate_fixtures import Oracle, in_box, pictures_with_people, predictions, run
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.evaluate.protocol import Protocol
from posezoo.evaluate.run import run_evaluation
from posezoo.lock import locked


@pytest.fixture
def dataset(tmp_path):
    return pictures_with_people(tmp_path)


def changed(dataset, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = json.loads(dataset.annotations.read_text())
    change(content)
    dataset.annotations.write_text(json.dumps(content))
    return content


def boxes(dataset, times: int = 1):
    """A file with everybody's box, so many times."""
    rows = [{"image_id": e["image_id"], "category_id": 1, "bbox": e["bbox"], "score": 0.9} for e in dataset.entries]
    file = dataset.annotations.with_name("found.json")
    file.write_text(json.dumps(rows * times))
    return Protocol(boxes=str(file), rescoring="none")


# ---- before the work


def test_what_cannot_be_judged_is_said_before_the_work(dataset, tmp_path):
    """MPII's people without the sizes of their heads."""
    joints = {"joints": [[50, 50]] * 16, "joints_vis": [1] * 16, "center": [100, 100], "scale": 0.5}
    file = tmp_path / "valid.json"
    file.write_text(json.dumps([{"image": "000000000001.png", **joints}]))
    oracle = Oracle(lambda name, boxes: (np.zeros((len(boxes), 16, 2)), np.ones((len(boxes), 16))), "mpii16")
    with pytest.raises(PosezooError, match="person 0 has no 'headbox'"):
        run_evaluation(oracle, "mpii", dataset.images, file, Protocol(), dataset.out)
    assert oracle.seen == [] and not dataset.out.exists()


@pytest.mark.parametrize("unlabelled", ["pictures alone", "people without joints"])
def test_a_split_without_labels_is_written_for_its_server(dataset, unlabelled):
    protocol = boxes(dataset)
    if unlabelled == "pictures alone":
        changed(dataset, lambda content: content.pop("annotations"))
    else:
        changed(dataset, lambda content: [entry.pop("keypoints") for entry in content["annotations"]])
    report = run(Oracle(in_box), dataset, protocol)
    assert report.metrics == {} and report.counts["predictions"] == 12
    assert report.notes == [f"not judged, as nobody in {dataset.annotations} is labelled: predictions.json is for the "
                            "dataset's server"]  # fmt: skip
    assert report.notes[0] in report.text() and report.protocol in report.text()
    assert "fraction" not in report.text()  # no table without a figure
    assert len(predictions(dataset)) == 12
    assert predictions(dataset)[0].keys() == {"image_id", "category_id", "keypoints", "score"}
    assert json.loads((dataset.out / "report.json").read_text())["metrics"] == {}


def test_a_box_that_is_there_twice_is_judged_twice(dataset):
    report = run(Oracle(in_box), dataset, boxes(dataset, times=2))
    assert report.counts["predictions"] == 24 and 0 < report.metrics["AP"] <= 1
    dataset.out = dataset.out.with_name("copies")
    changed(dataset, lambda c: c["annotations"].append({**c["annotations"][0], "id": 99}))
    assert run(Oracle(in_box), dataset).counts["predictions"] == 13


# ---- of an estimator that is open already


def stopped(oracle, dataset) -> None:
    oracle.error = 3
    with pytest.raises(KeyboardInterrupt):
        run(oracle, dataset)


def test_another_estimators_work_is_not_gone_on_with(dataset):
    wrong = Oracle(lambda name, boxes: (np.zeros((len(boxes), 17, 2)), np.full((len(boxes), 17), 0.9)))
    weights = dataset.annotations.with_name("weights.pth")
    weights.write_bytes(b"1")
    wrong.opened = "some_model", str(weights)
    stopped(wrong, dataset)
    right = Oracle(in_box)
    report = run(right, dataset)
    assert len(right.seen) == 6 and report.metrics["AP"] == 1.0
    assert "weights was" in report.notes[0] and str(weights) in report.notes[0]
    wrong.error = None
    with pytest.raises(PosezooError, match=r"is the result of oracle on coco: weights was .*, now .*weights\.pth"):
        run(wrong, dataset)
    other = Oracle(in_box)
    other.spec = replace(other.spec, mean=(0.5, 0.5, 0.5))
    with pytest.raises(PosezooError, match="is the result of oracle on coco: weights was"):
        run(other, dataset)


def test_an_estimator_of_unknown_weights_begins_anew(dataset):
    first, second = Oracle(in_box), Oracle(in_box)
    first.opened = second.opened = None
    stopped(first, dataset)
    assert run(second, dataset).metrics["AP"] == 1.0
    assert len(second.seen) == 6
    with pytest.raises(PosezooError, match="the weights of this estimator are not known, so that it may be another"):
        run(second, dataset)
    assert run(second, dataset, resume=False).metrics["AP"] == 1.0


def test_an_estimator_knows_what_it_was_opened_by():
    assert Estimator("embedded", detector=None, runtime="onnx", device="cpu").opened == ("embedded", None)


# ---- the folder


def test_two_runs_do_not_write_to_one_folder(dataset):
    other = Oracle(in_box)
    with locked(dataset.out, "-o"):
        with pytest.raises(PosezooError, match=f"another evaluation is at work in {dataset.out}: wait for it, or"):
            run(other, dataset)
    assert other.seen == []
    assert run(other, dataset).metrics["AP"] == 1.0
    (taken := dataset.out.with_name("file")).write_text("")
    dataset.out = taken
    with pytest.raises(PosezooError, match="is a file"):
        run(other, dataset)


@pytest.mark.parametrize(
    "text",
    [
        '{"arguments":5}\n',
        "[" * 100000 + "\n",
        "7\n",
        '{"arguments":ARGUMENTS}\n{"row":"x","predictions":[]}\n',
        '{"arguments":ARGUMENTS}\n{"row":1,"predictions":5}\n',
        '{"arguments":ARGUMENTS}\n{"row":1,"predictions":[5]}\n',
    ],
)
def test_a_journal_that_no_run_wrote_is_begun_anew(dataset, text):
    arguments = json.dumps(run(Oracle(in_box), dataset).arguments)
    (dataset.out / "running.0of1.jsonl").write_text(text.replace("ARGUMENTS", arguments))
    again = Oracle(in_box)
    assert run(again, dataset).metrics["AP"] == 1.0
    assert len(again.seen) == 6


def test_a_report_is_json_where_nobody_could_be_judged(tmp_path):
    from posezoo.evaluate.report_files import judge_file

    person = {"joints": [[9, 9]] * 16, "joints_vis": [1] * 9 + [0] + [1] * 6, "headbox": [0, 0, 30, 40]}
    people, found = tmp_path / "people.json", tmp_path / "found.json"
    people.write_text(json.dumps([{**person, "image": "a.jpg", "center": [1, 1], "scale": 1}]))
    found.write_text(json.dumps([{"annotation": 0, "keypoints": [8, 8, 1] * 16, "score": 1}]))
    report = judge_file(found, "mpii", people, out_dir=tmp_path / "out")
    assert np.isnan(report.metrics["Head"])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    stored = json.loads((tmp_path / "out/report.json").read_text(), parse_constant=refuse)
    assert stored["metrics"]["Head"] is None and stored["metrics"]["Mean"] == pytest.approx(100)
    assert "Head" in report.text()
    (tmp_path / "out/report.json").write_text("[" * 100000)
    with pytest.raises(PosezooError, match="does not say which run it is of"):
        judge_file(found, "mpii", people, out_dir=tmp_path / "out")
