"""MMPose's predictions are read: of pictures, of videos, and of its demos, by the names of their joints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import command_line
from format_results import COCO, some_poses, write
from posezoo.errors import PosezooError
from posezoo.formats import Result, read_results
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.types import Poses


def instances(poses: Poses, order: list[int] | None = None) -> list[dict[str, Any]]:
    """What the inferencer says of people; the joints in another order if there is one."""
    rows = order or list(range(len(poses.skeleton)))
    return [
        {
            "keypoints": poses.keypoints_xy[row, rows].tolist(),
            "keypoint_scores": poses.scores[row, rows].tolist(),
            "bbox": [poses.boxes_xyxy[row].tolist()],
            "bbox_score": float(poses.box_scores[row]),
        }
        for row in range(len(poses))
    ]


def meta(skeleton: Skeleton, order: list[int] | None = None, name: str = "coco") -> dict[str, Any]:
    rows = order or list(range(len(skeleton)))
    return {"dataset_name": name, "keypoint_id2name": {str(at): skeleton.joints[row] for at, row in enumerate(rows)}}


def saved(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def assert_same(found: Poses, given: Poses) -> None:
    assert found.skeleton == given.skeleton
    for name in ("keypoints_xy", "scores", "boxes_xyxy", "box_scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(given, name), atol=1e-4)


def test_a_picture(tmp_path: Path) -> None:
    poses = some_poses(COCO, 2, tracked=False)
    (record,) = read_results(saved(tmp_path / "street.json", instances(poses)))
    assert (record.image, record.frame) == ("street", None)
    assert_same(record.poses, poses)
    assert record.poses.track_ids is None


def test_a_video_of_the_inferencer_and_one_of_a_demo(tmp_path: Path) -> None:
    every = [some_poses(COCO, people, people, tracked=False) for people in (1, 0, 2)]
    for path, first, wrap in (
        (tmp_path / "clip.json", 0, lambda rows: rows),
        (tmp_path / "results_clip.json", 1, lambda rows: {"meta_info": meta(COCO), "instance_info": rows}),
    ):
        rows = [{"frame_id": first + n, "instances": instances(poses)} for n, poses in enumerate(every)]
        found = list(read_results(saved(path, wrap(rows))))
        assert [(record.image, record.frame) for record in found] == [("clip", n) for n in range(3)]
        for record, poses in zip(found, every, strict=True):
            assert_same(record.poses, poses)


@pytest.mark.parametrize(("name", "called"), [("aic14", "aic"), ("mpii16", "mpii"), ("mhp16", "mhp")])
def test_the_joints_that_a_demo_names(tmp_path: Path, name: str, called: str) -> None:
    skeleton = get_skeleton(name)
    poses, order = some_poses(skeleton, 2, tracked=False), list(range(len(skeleton)))[::-1]
    table = {"meta_info": meta(skeleton, order, called), "instance_info": instances(poses, order)}
    path = saved(tmp_path / "results_a.json", table)
    for given in (None, name):
        (record,) = read_results(path, skeleton=given)
        assert record.image == "a"
        assert_same(record.poses, poses)
    with pytest.raises(PosezooError, match=r"its joints \(.*\) are not those of coco17"):
        list(read_results(path, skeleton="coco17"))
    table["meta_info"]["keypoint_id2name"]["0"] = "tail"
    with pytest.raises(PosezooError, match=r"its joints \(tail, .*\) are not those of a keypoint set of posezoo"):
        list(read_results(saved(path, table)))


def test_the_command_takes_a_folder_of_them(tmp_path: Path) -> None:
    for name in "ab":
        saved(tmp_path / "in" / f"{name}.json", instances(some_poses(COCO, 2, tracked=False)))
    ran = command_line.run("convert-results", tmp_path / "in", tmp_path / "out", "--to", "openpose")
    assert ran.code == 0 and ran.out.startswith("2 images, 4 people (coco17), mmpose -> openpose")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_keypoints.json", "b_keypoints.json"]
    ran = command_line.run("convert-results", tmp_path / "in", tmp_path / "x.csv", "--to", "csv", "--from", "mmpose")
    assert ran.code == 0
    ran = command_line.run("convert-results", tmp_path / "out", tmp_path / "y", "--to", "mmpose")
    assert ran.code == 2 and "unknown format 'mmpose'" in ran.err
    write("coco", tmp_path / "list.json", [Result(some_poses(COCO), "a.jpg")])
    ran = command_line.run("convert-results", tmp_path / "list.json", tmp_path / "y", "--to", "csv", "--from", "mmpose")
    assert ran.code == 2 and "'keypoint_scores' is None, expected a list" in ran.err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"keypoints": [[1, 2]], "keypoint_scores": [1]}], r"person 0 has 1 keypoints, expected 17 \(coco17\)"),
        ([{"keypoints": [[1, 2]] * 14, "keypoint_scores": [1] * 14}], "aic14 and crowdpose14 would fit: name"),
        ([{"keypoints": [[1, 2, 3]] * 17, "keypoint_scores": [1] * 17}], "keypoint 0 has 3 values, expected 2 numbers"),
        ([{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1]}], "'keypoint_scores' has 1 values, expected 17"),
        ([{"keypoints": 3, "keypoint_scores": [1]}], "person 0: 'keypoints' is 3, expected a list"),
        ([{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 17, "bbox": [1]}], "'bbox' is int, expected 4 numbers"),
        ([{"frame_id": 0, "instances": 3}], "entry 0: 'instances' must be a list"),
        ([{"frame_id": "x", "instances": []}], "'frame_id' is 'x', expected a whole number"),
        ([{"frame_id": 0, "instances": []}, 3], "entry 1 is 3, expected an object with 'instances'"),
        ({"instance_info": 3}, "nor has it one that is called 'instance_info'"),
        ({"instance_info": [], "meta_info": 3}, "nor has it one"),
    ],
)
def test_wrong_files_are_named_with_the_place(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        list(read_results(saved(tmp_path / "a.json", value)))
    assert "\n" not in str(caught.value) and str(tmp_path / "a.json") in str(caught.value)
