"""The catalogue and its readers on real samples of every dataset; whose file it is, what is missing, what is odd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_fixtures import SAMPLES, content, content_of, read, sample, written
from posezoo.crop import box_to_center_scale
from posezoo.data.catalog import find, get_dataset, list_datasets
from posezoo.data.mpii import crop_center_scale
from posezoo.data.readers import READERS, cropped_boxes, hands_of, read_dataset
from posezoo.errors import UnknownNameError
from posezoo.skeletons import get_skeleton
from posezoo.zoo import get_entry, list_models

# --- the catalogue


def test_every_dataset_of_the_zoos_is_in_the_catalogue() -> None:
    assert set(list_datasets()) == set(SAMPLES)
    judged = {score.dataset for name in list_models() for score in get_entry(name).claimed}
    assert judged <= set(list_datasets()) | {""}
    for name in list_datasets():
        dataset = get_dataset(name)
        assert dataset is get_dataset(name) and dataset.reader in READERS
        assert dataset.joints in dataset.sets or dataset.file_sets
        splits = {split for layout in dataset.layouts for split in layout.splits}
        assert {dataset.split, *dataset.people, *dataset.images} <= splits
        every = [paths for layout in dataset.layouts for paths in layout.splits.values()]
        assert all(len(paths) >= 2 and not any(Path(path).is_absolute() for path in paths) for paths in every)
        boxes = {box.file for box in dataset.box_files}
        assert dataset.boxes == "gt" or dataset.boxes in boxes or dataset.boxes.startswith("detector: ")
        assert dataset.licence and dataset.get and dataset.home.startswith("http")


def test_an_unknown_dataset_has_a_near_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset 'crowdpos'; did you mean crowdpose"):
        get_dataset("crowdpos")


def test_nothing_heavy_is_imported_with_the_readers() -> None:
    heavy = ("cv2", "torch", "onnxruntime", "hotcoco")
    code = f"import posezoo.data.check, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- the readers, on the samples


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read_as_a_whole(shared: Path, name: str) -> None:
    folder, split, file, count, labelled, joints = SAMPLES[name]
    dataset = get_dataset(name)
    found = next(f for f in find(dataset, shared / "samples" / folder) if f.split == split)
    assert found.annotations == shared / "samples" / folder / file
    people = read_dataset(name, found.annotations, found.images)
    seen = people.weights > 0
    assert (len(people), int(seen.any(1).sum()), int(seen.sum())) == (count, labelled, joints)
    assert people.skeleton == dataset.joints and all(image.is_file() for image in people.images)
    assert people.keypoints_xy.shape == (count, len(dataset.joints), 2) and people.weights.dtype == np.float32
    assert not people.keypoints_xy[people.weights == 0].any()
    assert people.index.tolist() == list(range(count)) and len(set(people.ids.tolist())) == count
    # the joints are in the boxes of their people, but for the few that the annotators placed just beyond
    box = people.boxes_xyxy[:, None]
    inside = ((people.keypoints_xy >= box[..., :2]) & (people.keypoints_xy <= box[..., 2:])).all(-1)
    assert inside[seen].mean() > 0.9


@pytest.mark.parametrize("name", ["coco", "ochuman", "crowdpose", "aic", "mhp", "halpe136", "hand21"])
def test_coco_style_numbers_are_those_of_the_file(shared: Path, name: str) -> None:
    people, file = read(shared, name), content(shared, name)
    for row, entry in enumerate(file["annotations"]):
        joints = np.reshape(entry["keypoints"], (-1, 3)).astype(np.float32)
        seen = joints[:, 2] > 0
        assert (people.weights[row] == seen).all() and (people.keypoints_xy[row][seen] == joints[seen, :2]).all()
        x, y, w, h = entry["bbox"]
        np.testing.assert_allclose(people.boxes_xyxy[row], [x, y, x + w, y + h], rtol=1e-6)
        area = 0.53 * w * h if name in ("crowdpose", "aic", "mhp") else entry["area"]
        np.testing.assert_allclose(people.areas[row], area, rtol=1e-5)
        assert people.image_ids[people.image_row[row]] == entry["image_id"] and people.ids[row] == entry["id"]
    sizes = [[picture["width"], picture["height"]] for picture in file["images"]]
    assert people.sizes_wh.tolist() == sizes


def test_crowdpose_has_a_crowd_index(shared: Path) -> None:
    np.testing.assert_allclose(read(shared, "crowdpose").crowd_index, [0.33, 0.39])
    assert read(shared, "coco").crowd_index is None


def test_crowds_are_left_out_but_counted(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "coco")
    file["annotations"][0]["iscrowd"] = 1
    people = read_dataset("coco", written(tmp_path, file), tmp_path)
    assert len(people) == 13 and people.index[0] == 1
    few = people.where(people.index % 2 == 0)
    assert few.index.tolist() == [2, 4, 6, 8, 10, 12] and len(few.images) == 4 and few.heads_xyxy is None


def test_ai_challengers_own_form_is_that_of_mmpose(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "aic")
    names = {picture["id"]: Path(picture["file_name"]).stem for picture in file["images"]}
    pictures: dict[int, dict[str, Any]] = {
        number: {"image_id": name, "human_annotations": {}, "keypoint_annotations": {}}
        for number, name in names.items()
    }
    for entry in file["annotations"]:
        x, y, w, h = entry["bbox"]
        joints = [3 - value if n % 3 == 2 else value for n, value in enumerate(entry["keypoints"])]
        pictures[entry["image_id"]]["human_annotations"][f"human{entry['id']}"] = [x, y, x + w, y + h]
        pictures[entry["image_id"]]["keypoint_annotations"][f"human{entry['id']}"] = joints
    # the first person of this picture as AI Challenger's example file has it
    assert pictures[1]["keypoint_annotations"]["human4"] == [
        313, 201, 1, 312, 313, 2, 320, 424, 1, 406, 197, 2, 431, 286, 2, 459, 269, 1, 375, 447, 2, 0, 0, 3, 0, 0, 3,
        416, 441, 1, 0, 0, 3, 0, 0, 3, 395, 74, 1, 372, 170, 1,
    ]  # fmt: skip
    own = read_dataset("aic", written(tmp_path, list(pictures.values())), shared / "samples/aic")
    theirs = read(shared, "aic")
    for field in ("boxes_xyxy", "keypoints_xy", "weights", "areas", "image_row"):
        np.testing.assert_array_equal(getattr(own, field), getattr(theirs, field))
    assert own.images == theirs.images


def test_mpii_centres_and_scales_are_hrnets(parity: Path, tmp_path: Path) -> None:
    fixture = json.loads((parity / "ops" / "hrnet_mpii_db.json").read_text())
    given, wanted = fixture["annotation"], fixture["db"]
    centers, scales = crop_center_scale([p["center"] for p in given], [p["scale"] for p in given])
    assert centers.tolist() == [entry["center"]["data"] for entry in wanted]
    assert scales.tolist() == [entry["scale"]["data"][0] for entry in wanted]
    people = read_dataset("mpii", written(tmp_path, given), tmp_path)
    joints = np.reshape(wanted[0]["joints_3d"]["data"], (16, 3))[:, :2]
    visible = np.reshape(wanted[0]["joints_3d_vis"]["data"], (16, 3))[:, 0]
    np.testing.assert_array_equal(people.weights[0], visible)
    np.testing.assert_array_equal(people.keypoints_xy[0], joints * visible[:, None])
    # what the pipeline crops by such a box is HRNet's region
    found, regions_wh = box_to_center_scale(people.boxes_xyxy[:1], (256, 256))
    np.testing.assert_allclose(found[0], wanted[0]["center"]["data"], atol=1e-4)
    np.testing.assert_allclose(regions_wh[0] / 200, wanted[0]["scale"]["data"], rtol=1e-6)
    assert (people.boxes_xyxy[1] == -2).all()  # no centre: a box without size
    assert people.image_row.tolist() == [0, 1] and people.heads_xyxy is None


def test_mpii_heads_come_from_the_file_beside(parity: Path, tmp_path: Path) -> None:
    person = {"image": "a.jpg", "center": [5.0, 5.0], "scale": 1.0}  # without joints, as in the test file
    file = written(tmp_path, [person] * 20)
    shutil.copy(parity / "ops" / "mpii_gt_valid_synthetic.mat", tmp_path / "gt_valid.mat")
    people = read_dataset("mpii", file, tmp_path)
    boxes = json.loads((parity / "ops" / "hrnet_mpii_pckh.json").read_text())["headboxes_src"]
    corners = np.reshape(boxes["data"], boxes["shape"]) if isinstance(boxes, dict) else np.array(boxes)
    assert people.heads_xyxy is not None
    np.testing.assert_allclose(people.heads_xyxy[3], np.array(corners)[:, :, 3].reshape(-1) - 1, rtol=1e-6)
    assert not people.weights.any() and len(people.images) == 1
    assert read_dataset("mpii", written(tmp_path, [person] * 3), tmp_path).heads_xyxy is None


def test_trb_boxes_are_the_crops_of_mmpose(shared: Path, tmp_path: Path) -> None:
    file, people = content(shared, "mpii_trb"), read(shared, "mpii_trb")
    centers, regions_wh = box_to_center_scale(people.boxes_xyxy, (256, 256))
    np.testing.assert_allclose(centers, [e["center"] for e in file["annotations"]], atol=1e-3)
    np.testing.assert_allclose(regions_wh[:, 0], [256 / e["scale"] for e in file["annotations"]], rtol=1e-5)
    assert people.heads_xyxy is None
    file["annotations"][1]["headbox"] = [1, 2, 30, 40]
    headed = read_dataset("mpii_trb", written(tmp_path, file), tmp_path).heads_xyxy
    assert headed is not None and headed[1].tolist() == [1, 2, 30, 40] and np.isnan(headed[0]).all()
    # MPII's people are the same, pixels counted from 1 there
    mpii = read(shared, "mpii")
    row = mpii.images.index(people.images[people.image_row[0]])
    wrists = [get_skeleton(s).index("left_wrist") for s in ("trb40", "mpii16")]
    np.testing.assert_allclose(people.keypoints_xy[0, wrists[0]], mpii.keypoints_xy[row, wrists[1]] + 1)


def test_jhmdb_counts_from_zero(shared: Path) -> None:
    people, file = read(shared, "jhmdb"), content(shared, "jhmdb")
    for row, entry in enumerate(file["annotations"]):
        joints_xy = np.reshape(entry["keypoints"], (15, 3))[:, :2]
        np.testing.assert_allclose(people.keypoints_xy[row], joints_xy - 1, rtol=1e-5)
        x, y, w, h = entry["bbox"]
        assert people.boxes_xyxy[row].tolist() == [x - 1, y - 1, x - 1 + w, y - 1 + h]
        assert cropped_boxes(people)[row].tolist() == [x - 1, y - 1, x + w - 2, y + h - 2]
    assert [frame.video for frame in people.frames][:2] == [f"Frisbee_catch_f_cm_np1_ri_med_{n}" for n in (0, 1)]
    assert people.frames[0].number == 2280001 and people.frames[0].labelled


def test_boxes_are_cut_as_the_zoos_cut_them(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "coco")
    boxes = [[-5, -6, 20, 30], [600, 400, 100, 100], [10, 20, 30.5, 1], [700, 10, 5, 5]]
    file["annotations"] = [{**file["annotations"][0], "id": n, "bbox": box} for n, box in enumerate(boxes)]
    people = read_dataset("coco", written(tmp_path, file), tmp_path)
    cut = cropped_boxes(people).tolist()  # of a picture of 640x425
    assert cut[0] == [0, 0, 19, 29] and cut[1] == [600, 400, 639, 424] and cut[2] == [10, 20, 39.5, 20]
    assert cut[3][2] < cut[3][0]


def test_posetrack_by_video_and_merged_are_the_same_people(shared: Path) -> None:
    root = shared / "samples/posetrack18"
    apart = read(shared, "posetrack18")
    merged = read_dataset("posetrack18", root / "annotations/test_posetrack18_val.json", root)
    a, b = np.argsort(apart.ids), np.argsort(merged.ids)
    for field in ("ids", "boxes_xyxy", "keypoints_xy", "weights", "heads_xyxy", "track_ids"):
        np.testing.assert_array_equal(getattr(apart, field)[a], getattr(merged, field)[b])
    assert [frame.video for frame in apart.frames] == ["003418_mpii_test", "009473_mpii_test", "012834_mpii_test"]
    one = json.loads((root / "annotations/val/009473_mpii_test.json").read_text())
    row = int(np.flatnonzero(apart.ids == 1009473000000)[0])
    assert apart.heads_xyxy is not None and apart.heads_xyxy[row].tolist() == [648, 253, 648 + 138, 253 + 103]
    frame = apart.frames[1]
    assert frame.number == one["images"][0]["frame_id"] and len(frame.ignore_xy) == 2
    assert frame.ignore_xy[0][:2].tolist() == [[1907, 228], [1820, 237]]
    assert apart.where(apart.ids == 1009473000001).track_ids.tolist() == [1]  # type: ignore[union-attr]


def test_posetrack_people_without_box_or_joints_are_left_out(shared: Path, tmp_path: Path) -> None:
    file = content_of(shared / "samples/posetrack18/annotations/val/009473_mpii_test.json")
    first, second = file["annotations"]
    unboxed = {key: value for key, value in first.items() if key != "bbox"}
    file["annotations"] = [unboxed, {**first, "id": 7, "keypoints": []}, second]
    written(
        tmp_path / "val", {"images": file["images"], "categories": file["categories"]}, "000001.json"
    )  # unpublished
    written(tmp_path / "val", file, "000002.json")
    people = read_dataset("posetrack18", tmp_path / "val", tmp_path)
    assert people.ids.tolist() == [second["id"]] and people.index.tolist() == [2] and len(people.images) == 2


@pytest.mark.parametrize("name", ["halpe26", "halpe68"])
def test_parts_of_halpe_are_picked_by_name(shared: Path, name: str, tmp_path: Path) -> None:
    whole, part = read(shared, "halpe136"), read(shared, name)
    for column, joint in enumerate(part.skeleton.joints):
        at = whole.skeleton.index(joint)
        np.testing.assert_array_equal(part.keypoints_xy[:, column], whole.keypoints_xy[:, at])
        np.testing.assert_array_equal(part.weights[:, column], whole.weights[:, at])
    # and from a file that was cut down to this set
    file = content(shared, name)
    columns = [whole.skeleton.index(joint) for joint in part.skeleton.joints]
    for entry in file["annotations"]:
        entry["keypoints"] = np.reshape(entry["keypoints"], (136, 3))[columns].reshape(-1).tolist()
    again = read_dataset(name, written(tmp_path, file), tmp_path)
    np.testing.assert_array_equal(again.keypoints_xy, part.keypoints_xy)


def test_whole_body_is_joined_from_its_parts(shared: Path, tmp_path: Path) -> None:
    people, file = read(shared, "wholebody133"), content(shared, "wholebody133")
    entry = file["annotations"][0]
    starts = {
        "nose": ("keypoints", 0), "left_big_toe": ("foot_kpts", 0), "right_heel": ("foot_kpts", 5),
        "face-0": ("face_kpts", 0), "face-67": ("face_kpts", 67),
        "right_hand_root": ("righthand_kpts", 0), "right_pinky_finger4": ("righthand_kpts", 20),
    }  # fmt: skip
    for joint, (part, at) in starts.items():
        xyv = np.reshape(entry[part], (-1, 3))[at].astype(np.float32)
        found = people.keypoints_xy[0, people.skeleton.index(joint)]
        assert xyv[2] > 0 and (found == xyv[:2]).all(), joint
    left = [people.skeleton.index(joint) for joint in people.skeleton.parts["left_hand"]]
    assert not people.weights[0, left].any()
    # a file that has all 133 in one list
    flat = {**file, "annotations": []}
    for person in file["annotations"]:
        parts = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
        joined = [value for part in parts for value in person[part]]
        plain = {key: value for key, value in person.items() if not key.endswith("_kpts")}
        flat["annotations"].append({**plain, "keypoints": joined})
    again = read_dataset("wholebody133", written(tmp_path, flat), tmp_path)
    np.testing.assert_array_equal(again.keypoints_xy, people.keypoints_xy)


def test_hands_of_whole_bodies(shared: Path) -> None:
    file = content(shared, "wholebody133")
    hands = read_dataset("hand21", *sample(shared, "wholebody133"))
    valid = [(e, side) for e in file["annotations"] for side in ("lefthand", "righthand") if e[f"{side}_valid"]]
    assert len(hands) == len(valid) == 10 and len(hands_of(file, "x")["annotations"]) == 10
    for row, (entry, side) in enumerate(valid):
        joints = np.reshape(entry[f"{side}_kpts"], (21, 3)).astype(np.float32)
        np.testing.assert_array_equal(hands.keypoints_xy[row], joints[:, :2] * (joints[:, 2:] > 0))
        x, y, w, h = entry[f"{side}_box"]
        np.testing.assert_allclose(hands.boxes_xyxy[row], [x, y, x + w, y + h], rtol=1e-6)
        assert hands.ids[row] == 2 * entry["id"] + (side == "righthand")
