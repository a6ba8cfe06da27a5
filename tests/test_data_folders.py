"""Joints by name, and what lies in a folder of a dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_fixtures import SAMPLES, content, content_of, read, sample, written
from posezoo.data.catalog import get_dataset
from posezoo.data.check import check_dataset
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError, UnknownNameError
from posezoo.media.images import read_image

# whose files others may read: the joints are the same, or among them
HALPE = ("halpe26", "halpe68", "halpe136")


FITS = {
    ("coco", "ochuman"), ("ochuman", "coco"), ("wholebody133", "coco"), ("wholebody133", "ochuman"),
    ("wholebody133", "hand21"), *((a, b) for a in HALPE for b in HALPE),
}  # fmt: skip


# --- joints by name, and whose file it is


@pytest.mark.parametrize("name", ["coco", "crowdpose", "aic", "mhp", "jhmdb", "mpii_trb", "hand21", "posetrack18"])
def test_joints_are_ordered_by_their_names(shared: Path, name: str, tmp_path: Path) -> None:
    people, (file, folder) = read(shared, name), sample(shared, name)
    file = file if file.is_file() else folder / "annotations/test_posetrack18_val.json"
    people, mixed = read_dataset(name, file, folder), content_of(file)
    (category,) = mixed["categories"]
    turn = np.random.default_rng(3).permutation(len(category["keypoints"]))
    category["keypoints"] = [category["keypoints"][n] for n in turn]
    for entry in mixed["annotations"]:
        entry["keypoints"] = np.reshape(entry["keypoints"], (-1, 3))[turn].reshape(-1).tolist()
    again = read_dataset(name, written(tmp_path, mixed), folder)
    np.testing.assert_array_equal(again.keypoints_xy, people.keypoints_xy)
    np.testing.assert_array_equal(again.weights, people.weights)


def test_a_file_without_names_is_taken_in_the_owners_order(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "crowdpose")
    del file["categories"]
    people = read_dataset("crowdpose", written(tmp_path, file), tmp_path)
    np.testing.assert_array_equal(people.keypoints_xy, read(shared, "crowdpose").keypoints_xy)


@pytest.mark.parametrize("of", SAMPLES)
def test_another_datasets_file_is_called_by_its_name(shared: Path, of: str) -> None:
    file, folder = sample(shared, of)
    own = "halpe" if of.startswith("halpe") else of
    for name in SAMPLES:
        if name == of or (of, name) in FITS:
            assert len(read_dataset(name, file, folder)) > 0
        elif file.is_dir():
            with pytest.raises(PosezooError, match=r"cannot read|wants"):
                read_dataset(name, file, folder)
        else:
            with pytest.raises(PosezooError) as caught:
                read_dataset(name, file, folder)
            message = str(caught.value)
            assert f"has the joints of {own}" in message or f"or {own}" in message, (name, message)
            assert name in message and len(message.splitlines()) == 1


def test_posetrack_file_is_not_cocos(shared: Path) -> None:
    root = shared / "samples/posetrack18"
    with pytest.raises(PosezooError, match=r"has the joints of posetrack18 \(nose, head_bottom.* not those of coco"):
        read_dataset("coco", root / "annotations/test_posetrack18_val.json", root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("coco", '{"images": [{"id": 1', "not valid JSON"),
        ("mpii", "[{", "not valid JSON"),
        ("coco", "[]", "is a list without annotated people; coco wants a COCO-style file"),
        ("coco", "3", "has no 'images' and 'annotations'"),
        ("mpii", "{}", "has no 'images' and 'annotations'; mpii wants"),
        ("mpii", '[{"image": "a", "center": [1, 2], "scale": 1, "joints": [1]}]', "not a list of MPII's people"),
        ("aic", '[{"keypoint_annotations": {}, "a": 1}]', "not in AI Challenger's form"),
        ("coco", '[{"image_id": 1, "keypoints": [], "score": 1}]', "a list of results, not of annotations"),
        ("coco", '{"images": [1], "annotations": []}', "not a COCO keypoint file"),
        ("coco", '{"images": [], "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4]}]}', "image_id 1"),
        ("coco", '{"images": [], "annotations": ["x"]}', "not a COCO keypoint file"),
        ("posetrack18", '{"images": [], "annotations": [{"keypoints": [1, 2, 3]}]}', "has 1 joints, not those"),
        ("wholebody133", '{"images": [], "annotations": [{"id": 5, "face_kpts": [1]}]}', "5 has 0 face_kpts"),
        ("mpii_trb", '{"images": [], "annotations": [{"id": 5}]}', "not MPII-TRB: KeyError 'center'"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        read_dataset(name, written(tmp_path, text), tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in SAMPLES:
        with pytest.raises(PosezooError, match="cannot read"):
            read_dataset(name, tmp_path / "none.json", tmp_path)
    with pytest.raises(PosezooError, match="has no JSON files"):
        read_dataset("posetrack18", tmp_path, tmp_path)


def test_a_file_without_people_is_empty_people(tmp_path: Path) -> None:
    empty = {"images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}], "annotations": []}
    for name in SAMPLES:
        people = read_dataset(name, written(tmp_path, [] if name == "mpii" else empty), tmp_path)
        assert len(people) == 0 and people.boxes_xyxy.shape == (0, 4) and len(people.images) == (name != "mpii")
        assert people.keypoints_xy.shape == (0, len(get_dataset(name).joints), 2)


# --- what lies in a folder


CHECKED = ("coco", "mpii", "jhmdb", "posetrack18")  # an owner's layout of each kind; the others are the slow ones


@pytest.mark.parametrize(
    "name", [name if name in CHECKED else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLES]
)
def test_check_of_a_sample(shared: Path, name: str, tmp_path: Path) -> None:
    folder, split, _, count, labelled, _ = SAMPLES[name]
    report = check_dataset(name, shared / "samples" / folder, draw=tmp_path / "sheet.png")
    (one,) = (s for s in report.splits if s.split == split)
    assert (one.people, one.labelled, one.missing.count) == (count, labelled, 0)
    # two people of PoseTrack18 reach out of their pictures, one of them with a joint
    odd = {finding.what.split()[0]: finding.count for finding in one.odd}
    assert odd == ({"boxes": 2, "people": 1} if name == "posetrack18" else {}) and report.complete == (not odd)
    sheet = read_image(tmp_path / "sheet.png")
    assert report.sheet == tmp_path / "sheet.png" and sheet.shape[1] == 960 and sheet.shape[0] % 344 == 0
    assert len(np.unique(sheet.astype(int) @ (1, 256, 65536))) > 1000  # photographs
    text = "\n".join(report.lines())
    assert text.startswith(f"{name}: ") and f"{count} people, {labelled} with labels" in text and "licence: " in text
    assert json.loads(json.dumps(report.to_dict()))["splits"][0]["people"] == count


def test_check_finds_layouts_and_missing_pictures(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "crowdpose")
    written(tmp_path, file, "data/crowdpose/json/crowdpose_val.json")
    written(tmp_path, [], "data/crowdpose/annotations/det_for_crowd_test_0.1_0.5.json")
    (tmp_path / "data/crowdpose/images").mkdir()
    shutil.copy(shared / "samples/crowdpose/103319.jpg", tmp_path / "data/crowdpose/images")
    report = check_dataset("crowdpose", tmp_path / "data", draw=tmp_path / "sheet.png")
    (val,) = report.splits
    assert (val.split, val.of) == ("val", "CrowdPose, as HigherHRNet and DEKR place it")
    assert (val.missing.count, val.missing.first) == (1, ("106848.jpg",)) and not report.complete
    assert "pictures missing: 1 (106848.jpg), looked for in" in "\n".join(report.lines())
    assert report.absent[0] == "train (json/crowdpose_train.json)" and "YOLOv3" in report.box_files[0]
    assert report.sheet is not None  # of the picture that is there
    (tmp_path / "data/crowdpose/images/103319.jpg").unlink()
    report = check_dataset("crowdpose", tmp_path / "data/crowdpose", draw=tmp_path / "none.png")
    assert report.splits[0].missing.count == 2 and report.sheet is None and not (tmp_path / "none.png").exists()


def test_many_missing_pictures_are_counted_and_three_named(shared: Path, tmp_path: Path) -> None:
    written(tmp_path, content(shared, "mpii"), "annot/valid.json")
    (split,) = check_dataset("mpii", tmp_path).splits
    assert split.missing.count == 5 and len(split.missing.first) == 3
    assert str(split.missing).endswith(", ...)") and split.notes == ("the published val split has 2958 people",)


def test_pictures_are_looked_for_in_each_folder_of_the_layout(shared: Path, tmp_path: Path) -> None:
    written(tmp_path, content(shared, "coco"), "annotations/person_keypoints_val2017.json")
    shutil.copytree(shared / "samples/coco", tmp_path / "images/val2017")
    (split,) = check_dataset("coco", tmp_path).splits
    assert split.missing.count == 0 and split.images == tmp_path / "images/val2017"


def test_check_of_a_named_file(shared: Path, tmp_path: Path) -> None:
    file = written(tmp_path, content(shared, "coco"), "mine.json")
    report = check_dataset("coco", tmp_path, annotations=file, images=shared / "samples/coco")
    assert report.complete and report.splits[0].split == "given" and not report.absent


def test_check_of_nothing(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=r"nothing of aic is in .*annotations/aic_train\.json.* How to get it: http"):
        check_dataset("aic", tmp_path)
    with pytest.raises(PosezooError, match="does not exist"):
        check_dataset("aic", tmp_path / "nowhere")
    with pytest.raises(PosezooError, match="is a file; give the folder"):
        check_dataset("aic", written(tmp_path, "x"))
    with pytest.raises(UnknownNameError, match="unknown split of coco 'vall'; did you mean val"):
        check_dataset("coco", shared / "samples/coco", split="vall")
    with pytest.raises(PosezooError, match="no annotations of the split 'train' of coco"):
        check_dataset("coco", shared / "samples/coco", split="train")
    written(tmp_path, "", "mpii_human_pose_v1_u12_1.mat")
    with pytest.raises(
        PosezooError, match=r"mpii_human_pose_v1_u12_1\.mat, which posezoo does not read.*mpii_annotations\.tar"
    ):
        check_dataset("mpii", tmp_path)


def test_check_of_a_truncated_or_foreign_file(shared: Path, tmp_path: Path) -> None:
    text = sample(shared, "coco")[0].read_text()
    written(tmp_path, text[: len(text) // 2], "annotations/person_keypoints_val2017.json")
    with pytest.raises(PosezooError, match=r"person_keypoints_val2017\.json is not valid JSON"):
        check_dataset("coco", tmp_path)
    written(tmp_path, content(shared, "crowdpose"), "annotations/person_keypoints_val2017.json")
    with pytest.raises(PosezooError, match="has the joints of crowdpose"):
        check_dataset("coco", tmp_path)


def test_odd_annotations_are_found(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "coco")
    sound = file["annotations"][0]
    size = {"width": 640, "height": 425}
    assert {k: file["images"][0][k] for k in size} == size

    def person(number: int, **changes: Any) -> dict[str, Any]:
        return {**sound, "id": number, **changes}

    off = list(sound["keypoints"])
    off[0] = 700.0
    file["annotations"] = [
        person(1),
        person(2, bbox=[10, 10, 0, 5], num_keypoints=0, keypoints=[0] * 51),
        person(3, bbox=[641, 10, 50, 50], keypoints=[0] * 51),
        person(4, bbox=[600, 10, 60, 50], keypoints=[0] * 51),
        person(5, keypoints=off),
        person(6, bbox=[0, 0, 20, 20]),
        person(7),
        person(5, bbox=[1, 2, 3, 4], keypoints=[0] * 51),
        person(8, bbox=[float("nan"), 1, 2, 3], keypoints=[0] * 51),
    ]
    file["images"].append(dict(file["images"][0]))
    written(tmp_path, file, "annotations/person_keypoints_val2017.json")
    (split,) = check_dataset("coco", tmp_path).splits
    found = {finding.what: finding.first for finding in split.odd}
    assert found == {
        "people with numbers that are not finite": ("id 8",),
        "boxes without size": ("id 2",),
        "boxes outside their picture": ("id 3",),
        "boxes that reach beyond their picture": ("id 4",),
        "people with labelled joints outside their picture": ("id 5",),
        "people of whose joints most lie far from their box": ("id 6",),
        "annotations with the id of another": ("id 5",),
        "people who are there twice": ("id 7",),
        "pictures with the id of another": ("id 785",),
    }
    assert "the published val split has 5000 pictures" in split.notes


def test_a_sheet_of_odd_people_is_still_drawn(shared: Path, tmp_path: Path) -> None:
    file = content(shared, "coco")
    file["annotations"] = [{**file["annotations"][0], "bbox": [900, 10, float("nan"), 50], "keypoints": [0] * 51}]
    folder = tmp_path / "coco"
    shutil.copytree(shared / "samples/coco", folder)
    written(folder, file, "test_coco.json")
    assert check_dataset("coco", tmp_path, draw=tmp_path / "sheet.png").sheet is not None
