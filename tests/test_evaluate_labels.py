"""Judges take a file's labels as its reader does: joints by name, and every form that the catalogue lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posezoo.data.catalog import get_dataset
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError
from posezoo.evaluate import evaluate_predictions
from posezoo.evaluate.oks import keypoint_ap
from posezoo.evaluate.predictions import BY_ANNOTATION

RNG = np.random.default_rng(3)
FULL = {
    "coco": ("AP", 1), "crowdpose": ("AP", 1), "aic": ("AP", 1), "halpe26": ("AP", 1), "wholebody133": ("AP", 1),
    "jhmdb": ("PCK/Mean", 1), "halpe136": ("AP", 1), "hand21": ("PCK", 1), "mpii_trb": ("Mean_acc", 1),
    "posetrack18": ("Total", 100),
}  # fmt: skip


def made(dataset: str, shuffled: bool) -> dict[str, Any]:
    """Three people in two pictures, COCO-style; the joints in the skeleton's order, or as the file names them."""
    joints = get_dataset(dataset).joints.joints
    order = RNG.permutation(len(joints)) if shuffled else np.arange(len(joints))
    entries = []
    for number in range(3):
        box = [20.0 + 90 * number, 10.0, 80.0, 160.0]
        labels = np.column_stack([RNG.uniform(box[:2], np.add(box[:2], box[2:]), (len(joints), 2)), [2] * len(joints)])
        entries.append(
            {"id": number, "image_id": number // 2, "bbox": box, "area": 12000.0,
             "keypoints": labels[order].ravel().tolist(), "headbox": [0, 0, 12, 9],
             "bbox_head": [0, 0, 12, 9], "center": [99, 99], "scale": 1.0}
        )  # fmt: skip
    sides = {"width": 320, "height": 200, "crowdIndex": 0.5}
    pictures = [{"id": number, "file_name": f"v/{number}.jpg", "frame_id": number, **sides} for number in range(2)]
    return {
        "images": pictures,
        "annotations": entries,
        "categories": [{"id": 1, "name": "person", "keypoints": [joints[n] for n in order]}],
    }


def truth(dataset: str, file: Path) -> list[dict[str, Any]]:
    """What the reader says, as predictions."""
    people, predictions = read_dataset(dataset, file, file.parent), []
    for n in range(len(people)):
        keypoints = np.column_stack([people.keypoints_xy[n].astype(float), people.weights[n]]).ravel().tolist()
        image = int(people.image_ids[people.image_row[n]])
        of = {"annotation": int(people.index[n])} if dataset in BY_ANNOTATION else {"image_id": image}
        predictions.append({**of, "keypoints": keypoints, "score": 0.9})
    return predictions


def judged(dataset: str, file: Path) -> float:
    return evaluate_predictions(truth(dataset, file), dataset, file)[FULL[dataset][0]]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dataset", FULL)
def test_joints_go_by_the_names_that_a_file_states(tmp_path: Path, dataset: str, shuffled: bool) -> None:
    file = tmp_path / "people.json"
    file.write_text(json.dumps(made(dataset, shuffled)))
    assert judged(dataset, file) == pytest.approx(FULL[dataset][1])


def test_so_do_those_of_a_file_of_no_known_dataset(tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    file.write_text(json.dumps(made("coco", True)))
    assert keypoint_ap(file, truth("coco", file), get_dataset("coco").joints)["AP"] == pytest.approx(1)


def test_another_datasets_joints_are_refused_though_they_are_as_many(tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    file.write_text(json.dumps(made("crowdpose", False)))
    with pytest.raises(PosezooError, match=r"has the joints of crowdpose .* not those of aic"):
        evaluate_predictions(truth("crowdpose", file), "aic", file)


def test_ai_challengers_own_list_is_judged(tmp_path: Path) -> None:
    people = {f"human{n}": [20 + 90 * n, 10, 100 + 90 * n, 170] for n in range(2)}
    labels = {name: [[x1 + 4 * n, y1 + 9 * n, 1 + n % 2] for n in range(14)] for name, (x1, y1, *_) in people.items()}
    flat = {name: [value for joint in joints for value in joint] for name, joints in labels.items()}
    file = tmp_path / "own.json"
    file.write_text(json.dumps([{"image_id": "a", "human_annotations": people, "keypoint_annotations": flat}]))
    assert judged("aic", file) == pytest.approx(1)


def test_the_hands_of_whole_bodies_are_judged(tmp_path: Path) -> None:
    hand = np.column_stack([RNG.uniform(30, 60, (21, 2)), [1] * 21]).ravel().tolist()
    person = {"id": 7, "image_id": 1, "bbox": [0, 0, 99, 99], "keypoints": [9, 9, 2] * 17, "face_kpts": [9, 9, 2] * 68}
    person |= {f"{side}_kpts": hand for side in ("lefthand", "righthand")}
    person |= {"lefthand_valid": False, "righthand_valid": True, "righthand_box": [30, 30, 30, 30]}
    file = tmp_path / "whole.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [person, person]}))
    assert [each["annotation"] for each in truth("hand21", file)] == [0, 1]
    assert judged("hand21", file) == 1


def test_ignored_regions_of_posetrack_in_every_form_that_is_read(tmp_path: Path) -> None:
    file, content = tmp_path / "people.json", made("posetrack18", False)
    ignored = [[0, 400, 400, 0], [0, 0, 400, 400]]
    figures = []
    for x, y in (([ignored[0]], [ignored[1]]), ignored, (None, None)):
        content["images"][0] |= {"ignore_regions_x": x, "ignore_regions_y": y}
        file.write_text(json.dumps(content))
        predictions = truth("posetrack18", file)
        predictions[0]["keypoints"][3::3] = [300.0] * 16
        figures.append(evaluate_predictions(predictions, "posetrack18", file)["Total"])
    assert figures[0] == figures[1] == pytest.approx(100)  # whoever is wrong is where nobody is judged
    assert figures[2] < 90


def test_pictures_without_annotations_judge_nobody(tmp_path: Path) -> None:
    file = tmp_path / "image_info.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": []}))
    for dataset in ("coco", "jhmdb", "posetrack18"):
        joints = len(get_dataset(dataset).joints)
        of = {"annotation": 0} if dataset in BY_ANNOTATION else {"image_id": 1}
        with pytest.raises(PosezooError, match="has pictures but no 'annotations'"):
            evaluate_predictions([{**of, "keypoints": [1, 1, 1] * joints, "score": 1}], dataset, file)
