"""Several datasets on one skeleton: which number of which file ends up in which joint, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posezoo.data.mixed import read_sources
from posezoo.data.readers import read_dataset
from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.train.recipe import DataPart

PARTS = (("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))


def place(person: int, joint: int) -> tuple[int, int]:
    """Where a test file has a joint: no two joints of a file share a place."""
    return 10 + 1000 * person + joint, 20 + 1000 * person + joint


def flat(person: int, joints: range) -> list[int]:
    return [number for joint in joints for number in (*place(person, joint), 2)]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))


def coco_file(folder: Path, name: str, people: int, joints: int, stated: list[str] | None = None, **more: Any) -> str:
    """A file of one person a picture; returns its path within `folder`."""
    entries = []
    for n in range(people):
        entry = {
            "id": 100 + n,
            "image_id": n,
            "iscrowd": 0,
            "bbox": [n, 1, 50 + n, 60],
            "area": 700 + n,
            "category_id": 1,
        }
        entries.append({**entry, "keypoints": flat(n, range(joints)), **{k: v(n) for k, v in more.items()}})
        picture(folder / "images" / f"{name}{n}.png")
    category = {"id": 1, "name": "person", **({"keypoints": stated} if stated else {})}
    images = [{"id": n, "file_name": f"{name}{n}.png", "width": 4, "height": 4} for n in range(people)]
    content = {"images": images, "annotations": entries, "categories": [category]}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return f"{name}.json"


def whole_body(folder: Path, name: str, people: int) -> str:
    """A file of COCO-WholeBody's form."""
    starts = np.cumsum([0, *(count for _, count in PARTS)])
    runs = {part: range(start, start + count) for (part, count), start in zip(PARTS, starts, strict=False)}
    more: dict[str, Any] = {
        part: (lambda n, run=run: flat(n, run)) for part, run in runs.items() if part != "keypoints"
    }
    more |= {f"{side}hand_valid": (lambda n, odd=odd: n % 2 == odd) for odd, side in enumerate(("left", "right"))}
    more |= {f"{side}hand_box": lambda n: [5, 6, 30, 40] for side in ("left", "right")}
    return coco_file(folder, name, people, 17, **more)


def mpii_file(folder: Path, name: str, people: int) -> str:
    """A file of HRNet's form; MPII counts pixels from 1."""
    content = []
    for n in range(people):
        joints = [[x + 1, y + 1] for x, y in (place(n, joint) for joint in range(16))]
        entry = {
            "image": f"{name}{n}.png",
            "center": [100, 100],
            "scale": 1.0,
            "joints": joints,
            "joints_vis": [1] * 16,
        }
        content.append(entry)
        picture(folder / "images" / f"{name}{n}.png")
    (folder / f"{name}.json").write_text(json.dumps(content))
    return f"{name}.json"


def source(file: str, dataset: str | None = None, **more: Any) -> dict[str, Any]:
    return {"dataset": dataset, "annotations": file, "images": "images", **more}


def data(folder: Path, skeleton: str, *sources: dict[str, Any], **more: Any) -> DataPart:
    return DataPart.model_validate({"root": folder, "skeleton": skeleton, "train": sources, "least_side": 0, **more})


def labelled(people: Any, row: int) -> dict[str, tuple[int, int]]:
    """The labelled joints of a person by name."""
    found = zip(people.skeleton.joints, people.keypoints_xy[row].tolist(), people.weights[row], strict=True)
    return {joint: (int(x), int(y)) for joint, (x, y), weight in found if weight}


def test_every_joint_lands_under_its_own_name(tmp_path: Path) -> None:
    given = data(
        tmp_path,
        "halpe136",
        source(coco_file(tmp_path, "halpe", 2, 136), "halpe136"),
        source(whole_body(tmp_path, "whole", 1), "wholebody133"),
        source(coco_file(tmp_path, "coco", 3, 17), "coco"),
        source(mpii_file(tmp_path, "mpii", 1), "mpii"),
    )
    mixed = read_sources(given, given.train)
    people = mixed.people
    assert people.skeleton is get_skeleton("halpe136") and len(people) == 7
    assert mixed.source_row.tolist() == [0, 0, 1, 2, 2, 2, 3]
    halpe, whole, coco, mpii = (get_skeleton(n).joints for n in ("halpe136", "wholebody133", "coco17", "mpii16"))

    assert labelled(people, 1) == {joint: place(1, n) for n, joint in enumerate(halpe)}

    middles = {"neck": ("left_shoulder", "right_shoulder"), "hip": ("left_hip", "right_hip")}
    for row, number, names in ((2, 0, whole), (5, 2, coco)):
        wanted = {joint: place(number, n) for n, joint in enumerate(names)}
        for middle, (a, b) in middles.items():
            wanted[middle] = tuple((p + q) // 2 for p, q in zip(wanted[a], wanted[b], strict=True))
        assert labelled(people, row) == wanted
        assert people.weights[row, halpe.index("head")] == 0

    spelled = {"head_top": "head", "thorax": "neck", "pelvis": "hip", "upper_neck": None}
    at = {spelled.get(joint, joint): place(0, n) for n, joint in enumerate(mpii)}
    assert labelled(people, 6) == {joint: xy for joint, xy in at.items() if joint}

    assert people.ids.tolist() == [100, 101, 100, 100, 101, 102, 0]
    assert people.areas[:6].tolist() == [700, 701, 700, 700, 701, 702]
    assert people.boxes_xyxy[5].tolist() == [2, 1, 54, 61]
    assert [people.images[row].name for row in people.image_row] == [
        "halpe0.png", "halpe1.png", "whole0.png", "coco0.png", "coco1.png", "coco2.png", "mpii0.png",
    ]  # fmt: skip
    assert all(image.is_file() for image in people.images)


@pytest.mark.parametrize("skeleton", ["halpe26", "halpe68", "halpe136"])
def test_bodies_and_hands_teach_one_whole_body(tmp_path: Path, skeleton: str) -> None:
    given = data(
        tmp_path,
        skeleton,
        source(coco_file(tmp_path, "halpe", 1, 136), skeleton),
        source(whole_body(tmp_path, "whole", 2), "wholebody133"),
        source("whole.json", "hand21"),
        source(coco_file(tmp_path, "single", 1, 21), "hand21"),
    )
    mixed = read_sources(given, given.train)
    people, joints = mixed.people, get_skeleton(skeleton).joints
    assert mixed.source_row.tolist() == [0, 1, 1, 2, 2, 3]
    halpe, hand = get_skeleton("halpe136").joints, get_skeleton("hand21").joints
    assert labelled(people, 0) == {joint: place(0, halpe.index(joint)) for joint in joints}
    # the left hand of the first person, the right one of the second, and one of nobody knows which side
    for row, number, side, first in ((3, 0, "left", 91), (4, 1, "right", 112), (5, 0, "right", 0)):
        root = "wrist" if skeleton == "halpe26" else "hand_root"
        named = [f"{side}_{root if joint == 'wrist' else joint}" for joint in hand]
        wanted = {joint: place(number, first + n) for n, joint in enumerate(named) if joint in joints}
        assert len(wanted) == (1 if skeleton == "halpe26" else 21)
        assert labelled(people, row) == wanted
    assert people.boxes_xyxy[3].tolist() == [5, 6, 35, 46], "a hand's own box"
    assert ["nothing says which hand each of 1 is" in note for note in mixed.notes] == [False] * 4 + [True]


def test_one_hand_stays_one_hand(tmp_path: Path) -> None:
    given = data(tmp_path, "hand21", source(whole_body(tmp_path, "whole", 2), "hand21"))
    assert read_sources(given, given.train).people.weights.sum(1).tolist() == [21, 21]


def test_a_file_of_ones_own_is_read_by_the_names_it_states(tmp_path: Path) -> None:
    joints = get_skeleton("coco17").joints
    backwards = list(reversed(joints))
    few = ["left_knee", "Right Knee", "nose"]
    files = [coco_file(tmp_path, "plain", 1, 17), coco_file(tmp_path, "turned", 1, 17, backwards)]
    files.append(coco_file(tmp_path, "few", 1, 3, few))
    given = data(tmp_path, "coco17", *map(source, files))
    people = read_sources(given, given.train).people
    assert labelled(people, 0) == {joint: place(0, n) for n, joint in enumerate(joints)}
    assert labelled(people, 1) == {joint: place(0, n) for n, joint in enumerate(backwards)}
    assert labelled(people, 2) == {"left_knee": place(0, 0), "right_knee": place(0, 1), "nose": place(0, 2)}


def test_names_are_read_as_the_skeleton_spells_them(tmp_path: Path) -> None:
    few = ["nose", "face-3", "Left Thumb1"]
    given = data(tmp_path, "wholebody133", source(coco_file(tmp_path, "few", 1, 3, few)))
    people = read_sources(given, given.train).people
    assert labelled(people, 0) == {"nose": place(0, 0), "face-3": place(0, 1), "left_thumb1": place(0, 2)}


def test_the_second_opinion_follows_the_files_own_order(tmp_path: Path) -> None:
    backwards = list(reversed(get_skeleton("coco17").joints))
    teacher = [number for n in range(17) for number in (n + 500, n + 600, 0.9)]
    file = coco_file(
        tmp_path,
        "x",
        1,
        17,
        backwards,
        teacher_keypoints=lambda n: teacher,
        labels=lambda n: "teacher",
        agreement=lambda n: None,
    )
    given = data(tmp_path, "coco17", source(file), second_opinion=True)
    people = read_sources(given, given.train).people
    np.testing.assert_allclose(people.keypoints_xy[0, :, 0], [500 + 16 - n for n in range(17)])
    np.testing.assert_allclose(people.weights, 0.9)
    assert read_sources(given, given.train, second_opinion=False).people.keypoints_xy[0, 0, 0] == place(0, 16)[0]


def test_shares_and_repeats_say_how_often(tmp_path: Path) -> None:
    a, b = coco_file(tmp_path, "a", 2, 17), coco_file(tmp_path, "b", 1, 17)
    content = json.loads((tmp_path / a).read_text())
    content["images"][1]["source"] = "everyday"
    (tmp_path / a).write_text(json.dumps(content))
    given = data(
        tmp_path, "coco17", source(a, share=0.5), source(b, "coco", share=3, domain="street"), source(b, "coco"),
        repeat={"everyday": 4}, validate=source(b),
    )  # fmt: skip
    mixed = read_sources(given, given.train)
    assert mixed.order_weights.tolist() == [0.5, 2.0, 3.0, 1.0]
    assert mixed.domains == ("", "street", "coco")
    assert given.validate_on is not None
    assert read_sources(given, (given.validate_on,)).order_weights.tolist() == [1.0], "repeats are of training"
    wrong = data(tmp_path, "coco17", source(a), repeat={"evryday": 4})
    with pytest.raises(PosezooError, match="unknown source of pictures 'evryday'; did you mean everyday"):
        read_sources(wrong, wrong.train)


def test_small_and_unlabelled_people_are_left_out(tmp_path: Path) -> None:
    def some(n: int) -> list[int]:
        return [*flat(n, range(n)), *[0] * (3 * (17 - n))]

    file = coco_file(tmp_path, "x", 4, 17, keypoints=some, bbox=lambda n: [0, 0, 5 * n, 100])
    given = data(tmp_path, "coco17", source(file), least_joints=2, least_side=8)
    assert read_sources(given, given.train).people.ids.tolist() == [102, 103]
    assert read_sources(given, given.train, least_joints=1, least_side=0).people.ids.tolist() == [101, 102, 103]
    assert read_sources(given, given.train, least_side=12).people.ids.tolist() == [103]
    with pytest.raises(PosezooError, match=r"x\.json: none of 4 people has 5 labelled joints of coco17.*lower data\."):
        read_sources(given, given.train, least_joints=5)


def test_people_without_labels_are_let_in_by_the_key_that_the_refusal_names(tmp_path: Path) -> None:
    given = data(tmp_path, "coco17", source(coco_file(tmp_path, "x", 3, 17, keypoints=lambda n: [])))
    with pytest.raises(PosezooError, match=r"none of 3 people has 1 labelled joints .*data\.least_joints = 0"):
        read_sources(given, given.train)
    let_in = given.model_copy(update={"least_joints": 0})
    assert len(read_sources(let_in, let_in.train).people) == 3


def test_joints_that_the_skeleton_lacks_do_not_count_as_labelled(tmp_path: Path) -> None:
    def face_only(n: int) -> list[int]:
        return [*flat(n, range(5)), *[0] * 36]

    given = data(tmp_path, "mpii16", source(coco_file(tmp_path, "x", 1, 17, keypoints=face_only), "coco"))
    with pytest.raises(PosezooError, match="none of 1 people has 1 labelled joints of mpii16"):
        read_sources(given, given.train)


def test_missing_pictures_are_counted_listed_and_refused(tmp_path: Path) -> None:
    a, b = coco_file(tmp_path, "a", 10, 17), coco_file(tmp_path, "b", 2, 17)
    for n in (1, 3, 5, 7):
        (tmp_path / "images" / f"a{n}.png").unlink()
    given = data(tmp_path, "coco17", source(a), source(b), max_missing=0.4)
    mixed = read_sources(given, given.train)
    assert mixed.people.ids.tolist() == [100, 102, 104, 106, 108, 109, 100, 101]
    assert mixed.source_row.tolist() == [0] * 6 + [1] * 2 and len(mixed.order_weights) == 8
    (note,) = (note for note in mixed.notes if "pictures are missing" in note)
    assert "a.json: 4 of 10 pictures are missing" in note and "4 people are left out" in note
    assert all(f"a{n}.png" in note for n in (1, 3, 5)) and "a7.png" not in note and "1 more" in note
    strict = given.model_copy(update={"max_missing": 0.39})
    with pytest.raises(PosezooError, match=r"4 of 10 pictures are missing .*a1\.png.* and 1 more.*data\.max_missing"):
        read_sources(strict, strict.train)
    nothing = data(tmp_path, "coco17", source(b, images="elsewhere"), max_missing=1)
    with pytest.raises(PosezooError, match=r"2 of 2 pictures are missing .*elsewhere.*nobody is left"):
        read_sources(nothing, nothing.train)


def test_a_picture_without_people_may_be_missing(tmp_path: Path) -> None:
    file = coco_file(tmp_path, "x", 2, 17)
    content = json.loads((tmp_path / file).read_text())
    content["images"].append({"id": 9, "file_name": "empty.png", "width": 4, "height": 4})
    (tmp_path / file).write_text(json.dumps(content))
    given = data(tmp_path, "coco17", source(file), max_missing=0)
    assert len(read_sources(given, given.train).people) == 2


@pytest.mark.parametrize(
    ("skeleton", "file", "dataset", "messages"),
    [
        ("mpii16", "coco", None, ["has 17 joints (nose, left_eye", "mpii16 has 16 joints (right_ankle", "dataset"]),
        ("mpii16", "bare", None, ["has the joints of coco", "17 a person", "mpii16 has 16 joints (right_ankle"]),
        ("coco17", "mpii", None, ["has the joints of mpii", "dataset"]),
        ("coco17", "list", None, ["list.json", "is not a COCO keypoint file"]),
        ("halpe136", "coco", "mpii", ["has the joints of coco", "mpii"]),
        ("mpii16", "hands", "hand21", []),
        ("hand21", "coco", "coco", ["has 17 joints (nose", "hand21 has 21 joints (wrist"]),
    ],
)  # fmt: skip
def test_other_joints_are_refused_with_both_lists(
    tmp_path: Path, skeleton: str, file: str, dataset: str | None, messages: list[str]
) -> None:
    coco_file(tmp_path, "coco", 1, 17, list(get_skeleton("coco17").joints))
    coco_file(tmp_path, "bare", 1, 17)
    coco_file(tmp_path, "hands", 1, 21)
    mpii_file(tmp_path, "mpii", 1)
    (tmp_path / "list.json").write_text("[1, 2]")
    given = data(tmp_path, skeleton, source(f"{file}.json", dataset))
    if not messages:  # a hand has a wrist
        assert labelled(read_sources(given, given.train).people, 0) == {"right_wrist": place(0, 0)}
        return
    with pytest.raises(PosezooError) as caught:
        read_sources(given, given.train)
    text = str(caught.value)
    assert all(message in text for message in messages), text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("people", "keypoints", "message"),
    [
        (0, None, r"x\.json\): nobody is annotated in it"),
        (2, lambda n: [float("nan"), *flat(n, range(17))[1:]], r"person 100 has a box or a joint that is not finite"),
        (2, lambda n: [1] * 16, r"annotation 100 has 16 numbers as its keypoints, not three"),
    ],
)
def test_labels_that_nobody_can_learn_from(tmp_path: Path, people: int, keypoints: Any, message: str) -> None:
    file = coco_file(tmp_path, "x", people, 17, **({"keypoints": keypoints} if keypoints else {}))
    given = data(tmp_path, "coco17", source(file, "coco"))
    with pytest.raises(PosezooError, match=message):
        read_sources(given, given.train)


def test_a_split_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    coco_file(tmp_path, "x", 2, 17)
    (tmp_path / "x.json").rename(tmp_path / "coco" / "annotations" / "person_keypoints_val2017.json")
    (tmp_path / "images").rename(tmp_path / "coco" / "val2017")
    given = data(tmp_path, "coco17", {"dataset": "coco", "split": "val"})
    people = read_sources(given, given.train).people
    assert len(people) == 2 and all(image.is_file() for image in people.images)
    for split, message in (
        (None, "say which split .*train.*; .* has val"),
        ("vall", "unknown split of coco 'vall'; did you mean val"),
        ("train", r"has no train split of coco; it would be .*person_keypoints_train2017\.json"),
    ):
        wrong = data(tmp_path, "coco17", {"dataset": "coco", "split": split})
        with pytest.raises(PosezooError, match=message):
            read_sources(wrong, wrong.train)
    homeless = data(tmp_path, "coco17", {"dataset": "coco", "annotations": "x.json"})
    with pytest.raises(PosezooError, match="give the images' folder too"):
        read_sources(homeless, homeless.train)


def test_what_every_source_knows_is_kept_and_what_only_some_know_is_not(tmp_path: Path) -> None:
    def headed(name: str) -> str:
        return coco_file(tmp_path, name, 1, 14, crowdIndex=lambda n: 0.5)

    a, b = headed("a"), headed("b")
    for file in (a, b):
        content = json.loads((tmp_path / file).read_text())
        content["images"][0]["crowdIndex"] = 0.25
        (tmp_path / file).write_text(json.dumps(content))
    both = data(tmp_path, "crowdpose14", source(a, "crowdpose"), source(b, "crowdpose"))
    crowding = read_sources(both, both.train).people.crowd_index
    assert crowding is not None and crowding.tolist() == [0.25, 0.25]
    one = data(tmp_path, "crowdpose14", source(a, "crowdpose"), source(coco_file(tmp_path, "c", 1, 17), "coco"))
    assert read_sources(one, one.train).people.crowd_index is None


def test_the_samples_of_every_dataset_mix(shared: Path) -> None:
    root = shared / "samples"
    given = data(
        root, "halpe136",
        {"dataset": "halpe136", "annotations": "halpe/test_halpe.json", "images": "coco"},
        {"dataset": "wholebody133", "split": "sample"},
        {"dataset": "hand21", "split": "sample"},
        {"dataset": "crowdpose", "split": "sample"},
        {"dataset": "aic", "split": "sample"},
        {"dataset": "mpii", "split": "sample"},
    )  # fmt: skip
    mixed = read_sources(given, given.train)
    whole = read_dataset("wholebody133", root / "coco" / "test_coco_wholebody.json", root / "coco")
    whole = whole.where((whole.weights > 0).any(1))
    rows = mixed.source_row == 1
    assert rows.sum() == len(whole)
    for joint in ("left_small_toe", "face-30", "right_pinky_finger4"):
        a, b = mixed.people.skeleton.index(joint), whole.skeleton.index(joint)
        np.testing.assert_array_equal(mixed.people.keypoints_xy[rows, a], whole.keypoints_xy[:, b])
    assert (np.bincount(mixed.source_row) > 0).all() and len(mixed.notes) == 7
    head = mixed.people.weights[:, mixed.people.skeleton.index("head")]
    assert head[mixed.source_row == 3].any() and head[mixed.source_row == 5].any() and not head[rows].any()
