"""`posezoo evaluate` and `posezoo data` as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import run
from posezoo.errors import PosezooError
from posezoo.evaluate import JUDGES, evaluate_predictions
from posezoo.media.images import write_image

RNG = np.random.default_rng(0)
BOX = [20.0, 10.0, 60.0, 120.0]


def person(number: int, image: int) -> dict[str, Any]:
    xy = RNG.uniform([22, 12], [78, 128], (17, 2))
    keypoints = np.column_stack([xy, np.full(17, 2)]).reshape(-1).tolist()
    return {"id": number, "image_id": image, "category_id": 1, "bbox": BOX, "area": 4000.0, "iscrowd": 0,
            "num_keypoints": 17, "keypoints": keypoints}  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two pictures of noise, each with one annotated person."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 140} for n in (1, 2)]
    for image in images:
        write_image(tmp_path / image["file_name"], RNG.integers(0, 255, (140, 100, 3), dtype=np.uint8))
    content = {"images": images, "annotations": [person(1, 1), person(2, 2)], "categories": [{"id": 1}]}
    (tmp_path / "people.json").write_text(json.dumps(content))
    return tmp_path


def truth_as_predictions(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "people.json").read_text())
    return [{"image_id": p["image_id"], "keypoints": p["keypoints"], "score": 0.9} for p in content["annotations"]]


def judge(folder: Path, predictions: object, *more: str) -> Any:
    path = folder / "predictions.json"
    path.write_text(predictions if isinstance(predictions, str) else json.dumps(predictions))
    return run("evaluate", "--predictions", path, "--dataset", "coco", "--annotations", folder / "people.json", *more)


def test_the_truth_is_perfect_and_noise_is_not(dataset: Path) -> None:
    perfect = json.loads(judge(dataset, truth_as_predictions(dataset), "--json").out)
    assert perfect["AP"] == perfect["AR"] == 1.0
    assert perfect["APL"] == -1  # nobody of that size
    noisy = truth_as_predictions(dataset)
    noisy[0]["keypoints"] = [value + 15 for value in noisy[0]["keypoints"]]
    assert json.loads(judge(dataset, noisy, "--json").out)["AP"] < 0.8
    assert "AP50" in judge(dataset, noisy).out


def test_a_judged_file_has_a_report_where_one_is_asked_for(dataset: Path) -> None:
    out = dataset / "judged"
    ran = judge(dataset, truth_as_predictions(dataset), "-o", out)
    assert ran.code == 0 and ran.out.endswith(f"-> {out}\n")
    assert sorted(path.name for path in out.glob("[!.]*")) == ["report.json", "report.txt"]
    report = json.loads((out / "report.json").read_text())
    assert report["metrics"] == json.loads(judge(dataset, truth_as_predictions(dataset), "--json").out)
    assert report["counts"] == {"predictions": 2} and report["metrics"]["APL"] == -1
    text = (out / "report.txt").read_text()
    assert str(dataset / "predictions.json") in text and "\n2 predictions; 2" in text
    assert judge(dataset, truth_as_predictions(dataset), "-o", out).code == 0  # the same again
    ran = judge(dataset, truth_as_predictions(dataset)[:1], "-o", out)
    assert ran.code == 2 and "predictions was " in ran.err and "name another folder (-o DIR" in ran.err
    assert judge(dataset, truth_as_predictions(dataset)[:1], "-o", out, "--fresh").code == 0
    assert json.loads((out / "report.json").read_text())["metrics"]["AR"] == 0.5


def test_a_judged_file_without_a_folder_writes_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset)
    before = sorted(dataset.iterdir())
    assert judge(dataset, truth_as_predictions(dataset)).code == 0
    assert sorted(dataset.iterdir()) == sorted([*before, dataset / "predictions.json"])


def test_nobody_of_a_size_is_a_dash_in_the_table(dataset: Path) -> None:
    lines = dict(line.split() for line in judge(dataset, truth_as_predictions(dataset)).out.splitlines()[:-1])
    assert lines["APL"] == "-" and lines["AP"] == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: [], "the list is empty"),
        (lambda p: json.dumps(p)[:-40], "is cut off"),
        (lambda p: [{**p[0], "image_id": 77}], "of image_id 77"),
        (lambda p: [{**p[0], "keypoints": p[0]["keypoints"][:48]}], "16 is what mhp and mpii have"),
        (lambda p: [p[0], p[0]], "is the same as prediction 0"),
        (lambda p: [{**p[0], "score": float("nan")}], "expected a finite number"),
        (lambda p: [{"image_id": 1, "score": 1.0}], "has no 'keypoints'"),
        (lambda p: {"predictions": p}, "list"),
        (lambda p: "[" * 100000 + "]", "is not valid JSON"),
        (lambda p: json.dumps(p).replace("0.9", "1" * 5000), "is not valid JSON"),
        (lambda p: [{**p[0], "keypoints": [10**400, *p[0]["keypoints"][1:]]}], "a number in the keypoints is beyond"),
        (lambda p: [{**p[0], "score": -(10**400)}], "a number in the score is beyond"),
        (lambda p: [{**p[0], "bbox": 5}], "prediction 0: its bbox is 5, expected 4 numbers"),
        (lambda p: [{**p[0], "bbox": [1, 2, 3]}], "its bbox is [1, 2, 3], expected 4 numbers"),
        (lambda p: [{**p[0], "bbox": list("abcd")}], "'a' in the bbox is no number"),
        (lambda p: [{**p[0], "bbox": [0, 0, None, 1]}], "its bbox has nan"),
    ],
)
def test_bad_predictions_are_one_line_and_exit_code_2(dataset: Path, change: Any, message: str) -> None:
    ran = judge(dataset, change(truth_as_predictions(dataset)))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "coco"], "name a model, or give --predictions"),
        (["embedded", "--dataset", "coco"], "needs --images"),
        (["embedded", "--dataset", "cocoo", "--images", "."], "did you mean coco"),
        (["embedded", "--dataset", "coco", "--images", ".", "--protocol", "hrnets"], "did you mean hrnet"),
        (["embedded", "--dataset", "coco", "--images", ".", "--set", "flipp=true"], "did you mean flip"),
        (["embedded", "--dataset", "coco", "--images", ".", "--protocol", "hrnet"], "--boxes"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(dataset: Path, arguments: list[str], message: str) -> None:
    ran = run("evaluate", *arguments, "--annotations", dataset / "people.json", "-o", dataset / "out")
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert message in ran.err


@pytest.mark.parametrize(
    ("dataset_name", "option", "message"),
    [
        ("jhmdb", "threshold=abc", "threshold must be a number above 0, but is 'abc'"),
        ("jhmdb", "threshold=[1,2]", "threshold must be a number above 0, but is [1, 2]"),
        ("jhmdb", "threshold=-1", "above 0, but is -1"),
        ("mpii_trb", "threshold=nan", "above 0, but is nan"),
        ("hand21", "auc_scale=true", "auc_scale must be a number above 0, but is True"),
        ("jhmdb", "offset=inf", "offset must be a finite number, but is inf"),
        ("coco", "dataset=coco", "unknown option of coco 'dataset'"),
        ("posetrack18", "people=1", "people must be true or false, but is 1"),
        ("crowdpose", "crowd_index=0.1", "crowd_index must be two numbers in 0..1 that rise"),
        ("crowdpose", "crowd_index=[0.8,0.2]", "that rise, such as [0.1, 0.8], but is [0.8, 0.2]"),
        ("crowdpose", "crowd_index=[0.1]", "but is [0.1]"),
        ("crowdpose", "crowd_index=[0.1,0.2,0.3]", "but is [0.1, 0.2, 0.3]"),
        ("crowdpose", "crowd_index=['a','b']", "but is ['a', 'b']"),
    ],
)
def test_a_wrong_option_of_a_metric_is_one_line(dataset: Path, dataset_name: str, option: str, message: str) -> None:
    path = dataset / "predictions.json"
    path.write_text(json.dumps(truth_as_predictions(dataset)))
    words = ["--predictions", path, "--dataset", dataset_name, "--annotations", dataset / "people.json"]
    ran = run("evaluate", *words, "--set", option)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert message in ran.err


@pytest.mark.parametrize("change", [{"foot_score": "x"}, {"foot_score": None}, {"foot_kpts": None}])
def test_wrong_parts_of_a_whole_body_are_one_line(dataset: Path, change: dict[str, Any]) -> None:
    parts = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    whole = {part: [9.0, 9.0, 1.0] * count for part, count in parts.items()}
    content = json.loads((dataset / "people.json").read_text())
    content["annotations"] = [{**content["annotations"][0], **whole}]
    predictions = [{"image_id": 1, "score": 0.9, **whole, **change}]
    with pytest.raises(PosezooError, match="|".join(change)):
        evaluate_predictions(predictions, "wholebody133", content)


def test_annotations_that_nest_without_end_are_one_line(dataset: Path) -> None:
    predictions = truth_as_predictions(dataset)
    (dataset / "people.json").write_text("[" * 100000)
    ran = judge(dataset, predictions)
    assert (ran.code, ran.err.count("\n")) == (2, 1) and "people.json is not valid JSON" in ran.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--protocol", "hrnet", "--boxes", "gt"], "--boxes, --protocol"),
        (["--images", "."], "--images"),
        (["--weights", "x.pth"], "--weights"),
        (["--runtime", "onnx", "--device", "cpu", "--threads", "2"], "--threads, --runtime, --device"),
    ],
)
def test_what_is_a_models_is_not_for_a_file(dataset: Path, words: list[str], named: str) -> None:
    ran = judge(dataset, truth_as_predictions(dataset), *words)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert f"--predictions judges a file as it is: leave out {named}, which is for a model" in ran.err


def test_a_model_is_run_and_judged(dataset: Path) -> None:
    out = dataset / "out"
    common = ["--dataset", "coco", "--images", dataset, "--annotations", dataset / "people.json"]
    ran = run("evaluate", "embedded", *common, "-o", out, "--set", "flip=true", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["metrics"].keys() >= {"AP", "AR"}
    assert "flip" in json.dumps(report["protocol"])
    again = run("evaluate", "--predictions", out / "predictions.json", *common[:2], *common[4:], "--json")
    assert json.loads(again.out)["AP"] == report["metrics"]["AP"]
    for words, said in (
        (["embedded", *common], "protocol flip was True, now False"),
        (
            ["--predictions", out / "predictions.json", *common[:2], *common[4:]],
            " on coco, of a network that ran; name",
        ),
    ):
        ran = run("evaluate", *words, "-o", out)
        assert ran.code == 2 and said in ran.err and str(out / "report.json") in ran.err
    assert json.loads((out / "report.json").read_text())["settings"]["flip"] is True
    ran = run("evaluate", "embedded", *common, "-o", out, "--fresh", "--json")
    assert ran.code == 0 and json.loads((out / "report.json").read_text())["settings"]["flip"] is False


def test_the_python_call_names_options_that_exist(dataset: Path) -> None:
    predictions = truth_as_predictions(dataset)
    with pytest.raises(PosezooError, match="unknown option of coco 'crowd_indx'; did you mean crowd_index"):
        evaluate_predictions(predictions, "coco", dataset / "people.json", crowd_indx=(0.1, 0.8))
    with pytest.raises(PosezooError, match="unknown option of jhmdb 'ofset'; did you mean offset"):
        evaluate_predictions([{"annotation": 0, "keypoints": [0.0] * 45, "score": 1}], "jhmdb", {}, ofset=1)
    with pytest.raises(PosezooError, match="unknown dataset"):
        evaluate_predictions(predictions, "cocoo", dataset / "people.json")
    assert len(JUDGES) == 14


def test_data_check_tells_and_draws(dataset: Path) -> None:
    sheet = dataset / "sheet.png"
    arguments = ["coco", "--root", dataset, "--annotations", dataset / "people.json", "--sheet", sheet]
    ran = run("data", "check", *arguments)
    assert ran.code == 0, ran.err
    assert "2 pictures, 2 people" in ran.out and sheet.is_file()
    (dataset / "2.png").unlink()
    ran = run("data", "check", *arguments, "--json")
    assert ran.code == 2
    assert json.loads(ran.out)["splits"][0]["missing"]["count"] == 1


def test_data_list_has_every_dataset() -> None:
    assert {row["name"] for row in json.loads(run("data", "list", "--json").out)} == set(JUDGES)
