"""`Boxes` and `Poses`: shapes are checked, nothing can be changed, length 0 is legal, slices stay whole."""

from __future__ import annotations

import dataclasses
import pickle
from copy import deepcopy

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.types import Boxes, Poses

COCO = get_skeleton("coco17")


def some_boxes(count: int = 4) -> Boxes:
    corner = np.arange(2 * count).reshape(count, 2)
    return Boxes(np.hstack([corner, corner + 10]), np.linspace(0.1, 0.9, count))


def some_poses(count: int = 4, tracked: bool = True) -> Poses:
    rng = np.random.default_rng(count)
    boxes = some_boxes(count)
    ids = np.arange(count) * 7 if tracked else None
    return Poses(rng.random((count, 17, 2)) * 100, rng.random((count, 17)), boxes.xyxy, boxes.scores, COCO, ids)


def test_boxes_keep_what_they_are_given():
    boxes = Boxes([[1, 2, 3, 4], [5, 6, 5, 6]], [0.25, 0.5])
    assert boxes.xyxy.dtype == boxes.scores.dtype == np.float32
    assert boxes.xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 5, 6]] and boxes.scores.tolist() == [0.25, 0.5]
    assert Boxes([[1, 2, 3, 4]]).scores.tolist() == [1]


@pytest.mark.parametrize(
    ("xyxy", "scores", "message"),
    [
        ([1, 2, 3, 4], None, r"boxes_xyxy must have shape \(any, 4\), but has \(4,\)"),
        ([[1, 2, 3]], None, r"\(any, 4\), but has \(1, 3\)"),
        ([[0, 0, 1, 1], [3, 0, 1, 1]], None, "box 1 has a negative size"),
        ([[0, 5, 1, 1]], None, "box 0 has a negative size"),
        ([[0, 0, np.nan, 1]], None, "box 0 is not finite"),
        ([[0, 0, np.inf, 1]], None, "box 0 is not finite"),
        ([[0, 0, 1, 1]], [0.5, 0.5], r"box scores must have shape \(1\), but has \(2,\)"),
        ([[0, 0, 1, 1], [0, 0, 1, 1]], [0.5, np.nan], "box score 1 is not finite"),
    ],
)
def test_wrong_boxes_are_errors(xyxy, scores, message):
    with pytest.raises(PosezooError, match=message):
        Boxes(xyxy, scores)


@pytest.mark.parametrize("empty", [Boxes.empty(), Boxes([]), Boxes(np.zeros((0, 4)), [])])
def test_no_box_is_legal(empty):
    assert len(empty) == 0 and empty.xyxy.shape == (0, 4) and empty.scores.shape == (0,)
    assert len(empty[:3]) == len(empty[[]]) == len(empty[np.zeros(0, bool)]) == 0


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]), (-1, [3]), (np.int64(2), [2]), (slice(1, 3), [1, 2]), (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0], [2, 0]), ([], []), (np.array([3, 3]), [3, 3]), (np.array([True, False, False, True]), [0, 3]),
        (slice(9, 12), []),
    ],
)  # fmt: skip
def test_slices_keep_people_whole(index, rows, tracked):
    boxes, poses = some_boxes(), some_poses(tracked=tracked)
    assert boxes[index].xyxy.tolist() == boxes.xyxy[rows].tolist() if rows else len(boxes[index]) == 0
    taken = poses[index]
    assert len(taken) == len(rows) and taken.skeleton is COCO
    for field in ("keypoints_xy", "scores", "boxes_xyxy", "box_scores"):
        assert getattr(taken, field).shape == (len(rows), *getattr(poses, field).shape[1:])
        assert getattr(taken, field).tolist() == getattr(poses, field)[np.array(rows, int)].tolist()
    assert taken.track_ids is None if not tracked else taken.track_ids.tolist() == [7 * r for r in rows]


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError):
        some_poses()[4]
    with pytest.raises(IndexError):
        some_boxes()[np.array([True])]


def test_people_one_by_one():
    poses = some_poses(3)
    people = list(poses)
    assert [len(p) for p in people] == [1, 1, 1]
    assert np.array_equal(np.concatenate([p.keypoints_xy for p in people]), poses.keypoints_xy)
    assert list(Poses.empty(COCO)) == []


@pytest.mark.parametrize("name", ["coco17", "hand21", "halpe136"])
def test_nobody_is_legal(name):
    skeleton = get_skeleton(name)
    poses = Poses.empty(skeleton)
    assert len(poses) == 0 and poses.keypoints_xy.shape == (0, len(skeleton), 2) and poses.track_ids is None
    assert poses.scores.shape == (0, len(skeleton)) and poses.boxes_xyxy.shape == (0, 4)
    assert len(Poses([], [], [], [], skeleton, [])) == 0
    assert repr(poses) == f"Poses(0 people, skeleton={name})"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoints_xy", np.zeros((2, 16, 2)), r"keypoints_xy must have shape \(any, 17, 2\), but has \(2, 16, 2\)"),
        ("keypoints_xy", np.zeros((2, 17, 3)), r"but has \(2, 17, 3\)"),
        ("keypoints_xy", np.zeros((17, 2)), r"but has \(17, 2\)"),
        ("scores", np.zeros((2, 16)), r"scores must have shape \(2, 17\), but has \(2, 16\)"),
        ("scores", np.zeros((3, 17)), r"\(2, 17\), but has \(3, 17\)"),
        ("boxes_xyxy", np.zeros((2, 5)), r"boxes_xyxy must have shape \(2, 4\)"),
        ("box_scores", np.zeros((2, 1)), r"box_scores must have shape \(2\)"),
        ("track_ids", [1], r"track_ids must have shape \(2\), but has \(1,\)"),
    ],
)
def test_arrays_that_do_not_belong_together_are_errors(field, value, message):
    with pytest.raises(PosezooError, match=message):
        dataclasses.replace(some_poses(2), **{field: value})


def test_nothing_can_be_changed_from_within_or_without():
    xyxy = np.array([[1.0, 2, 3, 4]], np.float32)
    boxes = Boxes(xyxy)
    xyxy[:] = 0
    assert boxes.xyxy.tolist() == [[1, 2, 3, 4]]
    poses = some_poses(2)
    for array in (boxes.xyxy, boxes.scores, poses.keypoints_xy, poses.scores, poses.track_ids, poses[0].scores):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        poses.scores = poses.scores


def test_poses_travel_between_processes():
    poses = some_poses(2)
    copy = pickle.loads(pickle.dumps(poses))
    assert copy.skeleton == COCO and np.array_equal(copy.keypoints_xy, poses.keypoints_xy)
    for each in (copy, pickle.loads(pickle.dumps(Boxes([[1, 2, 3, 4]]))), deepcopy(poses)):
        assert not any(array.flags.writeable for array in vars(each).values() if isinstance(array, np.ndarray))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("skeleton", "coco17", "skeleton must be what get_skeleton gives, but is 'coco17'"),
        ("track_ids", [1.5, 2], "track_ids must be whole numbers, not float64"),
        ("track_ids", ["a", "b"], r"track_ids must be \(2\) numbers: list, "),
        ("scores", "high", r"scores must be \(2, 17\) numbers: str, "),
    ],
)
def test_what_is_no_array_of_numbers(field, value, message):
    with pytest.raises(PosezooError, match=message):
        dataclasses.replace(some_poses(2), **{field: value})
