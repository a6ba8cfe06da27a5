"""What is wrong with a COCO-style file is said of the very annotation or picture that is at fault."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from posezoo.data.coco_style import read_people, to_people
from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton

COCO = get_skeleton("coco17")
PICTURE = {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}
PERSON = {"id": 42, "image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": [5, 6, 2] * 17}
GONE = object()


def changed(kind: str, **fields: Any) -> dict[str, Any]:
    """A file of two pictures and three annotations, the second of each kind changed."""
    content = {
        "images": [{**PICTURE, "id": 6}, dict(PICTURE)],
        "annotations": [{**PERSON, "id": 41}, dict(PERSON), {"iscrowd": 1, "id": "crowd"}],
    }
    entry = copy.deepcopy(content[kind][1])
    content[kind][1] = {key: value for key, value in {**entry, **fields}.items() if value is not GONE}
    return content


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("annotations", {"bbox": GONE}, "annotation 42 has no 'bbox', expected four numbers: x, y, width and height"),
        ("annotations", {"bbox": [1, 2, 3]}, r"annotation 42 has bbox \[1, 2, 3\], expected four numbers"),
        ("annotations", {"bbox": 5, "area": 2}, r"annotation 42 has bbox 5, expected four numbers"),
        ("annotations", {"bbox": ["1", "b", 3, 4]}, r"annotation 42 has bbox \['1', 'b', 3, 4\], expected"),
        (
            "annotations",
            {"image_id": 424242},
            r"annotation 42 has image_id 424242, expected the id of a picture \(6, 7\)",
        ),
        ("annotations", {"image_id": GONE}, "annotation 42 has no 'image_id', expected the id of a picture"),
        ("annotations", {"id": "abc"}, "annotation number 1 has id 'abc', expected a whole number"),
        ("annotations", {"id": GONE}, "annotation number 1 has no 'id', expected a whole number"),
        ("annotations", {"area": "big"}, "annotation 42 has area 'big', expected square pixels"),
        ("annotations", {"keypoints": [[1, 2, 2]] * 51}, r"annotation 42 has keypoints .*, expected a flat list"),
        ("annotations", {"keypoints": ["x"] * 51}, r"annotation 42 has keypoints .*\.\.\., expected a flat list"),
        ("images", {"id": "img7"}, "picture number 1 has id 'img7', expected a whole number"),
        ("images", {"id": None}, "picture number 1 has id None, expected a whole number"),
        ("images", {"file_name": GONE}, "picture 7 has no 'file_name', expected a file's name"),
        ("images", {"file_name": 3}, "picture 7 has file_name 3, expected a file's name"),
        ("images", {"width": "wide"}, "picture 7 has width 'wide', expected pixels"),
        ("images", {"height": float("nan")}, "picture 7 has height nan, expected pixels"),
    ],
)
def test_the_entry_at_fault_is_named(kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PosezooError, match=f"^x.json is not a COCO keypoint file: {message}") as caught:
        to_people(changed(kind, **fields), "x.json", Path(), COCO)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it is a list, expected an object with 'images' and 'annotations'"),
        ({"images": []}, "it has no list of 'annotations'"),
        ({"annotations": []}, "it has no list of 'images'"),
        ({"images": [1], "annotations": []}, "picture number 0 is 1, expected an object"),
        ({"images": [], "annotations": ["x"]}, "annotation number 0 is 'x', expected an object"),
    ],
)
def test_what_is_no_such_file(content: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        to_people(content, "x.json", Path(), COCO)


def test_what_a_file_may_leave_out() -> None:
    people = to_people(changed("annotations", keypoints=None), "x.json", Path(), COCO)
    assert people.ids.tolist() == [41, 42] and not people.weights[1].any()
    assert people.areas.tolist() == pytest.approx([0.53 * 1200] * 2)
    people = to_people(changed("images", width=GONE, height=None), "x.json", Path(), COCO)
    assert people.sizes_wh.tolist() == [[640, 480], [0, 0]]


@pytest.mark.parametrize(
    ("teacher", "given"),
    [([1, 2, 0.9] * 16, "16"), ([[1, 2, 0.9]] * 12, "12"), ([1, 2], r"\[1, 2\]"), (["a"] * 51, r"\['a', .*\.\.\.")],
)
def test_teachers_of_other_joints_are_refused(tmp_path: Path, teacher: list[Any], given: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(changed("annotations", teacher_keypoints=teacher)))
    message = rf"x\.json: annotation 42 has {given} teacher_keypoints, expected x, y, score of each of the 17 keypoints"
    with pytest.raises(PosezooError, match=message):
        read_people(tmp_path / "x.json", tmp_path, COCO, second_opinion=True)
    assert len(read_people(tmp_path / "x.json", tmp_path, COCO)) == 2


@pytest.mark.parametrize("teacher", [[9, 9, 0.8] * 17, [[9, 9, 0.8]] * 17])
def test_teachers_may_be_flat_or_by_joint(teacher: list[Any]) -> None:
    content = changed("annotations", teacher_keypoints=teacher, labels="teacher")
    people = to_people(content, "x.json", Path(), COCO, second_opinion=True)
    assert (people.keypoints_xy[1] == 9).all() and people.weights[1] == pytest.approx(0.8)
