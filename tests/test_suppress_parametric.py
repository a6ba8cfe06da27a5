"""Parametric pose NMS: what AlphaPose's own code kept and merged, and what must hold for any poses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.suppress import PARAMETRIC_NMS, ParametricNms, parametric_nms

SKELETONS = {17: "coco17", 21: "hand21", 26: "halpe26", 133: "wholebody133", 136: "halpe136"}


def body(name: str) -> list[int] | None:
    skeleton = get_skeleton(name)
    return [skeleton.index(joint) for joint in skeleton.parts["body"]] if "body" in skeleton.parts else None


@pytest.mark.parametrize("number", range(7))
def test_the_reference_keeps_and_merges_the_same(parity, number):
    from fill import make_people

    case = json.loads((parity / "ops" / "alphapose_pose_nms.json").read_text())["cases"][number]
    keypoints, _, _, boxes = make_people(case["n"], case["joints"])
    name = SKELETONS[case["joints"]]
    kept, poses, scores = parametric_nms(
        keypoints[..., :2], keypoints[..., 2], boxes, body(name), PARAMETRIC_NMS.get(name)
    )
    assert kept.tolist() == case["pick_ids"]
    np.testing.assert_allclose(boxes[kept], case["bboxes"], atol=1e-4)
    wanted = [np.reshape(pose["data"], pose["shape"]) for pose in case["pose_preds"]]
    np.testing.assert_allclose(poses, wanted, atol=1e-4)
    np.testing.assert_allclose(scores, [pose["data"] for pose in case["pose_scores"]], atol=1e-6)


def test_nobody_and_one_person():
    kept, poses, scores = parametric_nms(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)))
    assert (kept.shape, poses.shape, scores.shape) == ((0,), (0, 17, 2), (0, 17))
    alone = np.arange(34.0).reshape(1, 17, 2)
    kept, poses, scores = parametric_nms(alone, np.full((1, 17), 0.5), [[0, 0, 40, 40]])
    assert kept.tolist() == [0]
    np.testing.assert_allclose(poses, alone)
    np.testing.assert_allclose(scores, 0.5)


def test_three_copies_become_their_weighted_mean():
    base = np.random.default_rng(0).uniform(0, 200, (1, 5, 2))
    poses = base + np.array([0, 1, -2])[:, None, None]
    scores = np.array([0.9, 0.6, 0.3])[:, None] * np.ones((3, 5))
    kept, merged, merged_scores = parametric_nms(poses, scores, [[0, 0, 200, 200]] * 3)
    assert kept.tolist() == [0]
    np.testing.assert_allclose(merged[0], base[0] + (0.9 * 0 + 0.6 * 1 + 0.3 * -2) / 1.8)
    np.testing.assert_allclose(merged_scores[0], (0.81 + 0.36 + 0.09) / 1.8)


def test_joints_that_nobody_saw_stay_where_the_surest_pose_has_them():
    poses = np.random.default_rng(1).uniform(0, 200, (1, 4, 2)).repeat(2, axis=0)
    poses[1] += 1
    scores = np.array([[0.9, 0.9, 0.9, 0.0], [0.8, 0.8, 0.8, 0.0]])
    kept, merged, merged_scores = parametric_nms(poses, scores, [[0, 0, 200, 200]] * 2)
    assert kept.tolist() == [0]
    np.testing.assert_allclose(merged[0, 3], poses[0, 3])
    assert merged_scores[0, 3] == 0


def test_small_people_side_by_side_are_not_merged():
    """Twelve pixels apart and twenty high: near in pixels, but not as people."""
    poses = np.random.default_rng(2).uniform(0, 20, (1, 17, 2)).repeat(2, axis=0)
    poses[1, :, 0] += 12
    boxes = [[0, 0, 20, 20], [12, 0, 32, 20]]
    assert parametric_nms(poses, np.full((2, 17), 0.9), boxes)[0].tolist() == [0, 1]


def test_only_the_joints_asked_for_decide():
    poses = np.random.default_rng(3).uniform(0, 200, (1, 6, 2)).repeat(2, axis=0)
    poses[1, 3:] += 100
    arguments = (poses, np.full((2, 6), 0.9), [[0, 0, 200, 200]] * 2)
    strict = ParametricNms(threshold=2.0)
    assert len(parametric_nms(*arguments, settings=strict)[0]) == 2
    assert len(parametric_nms(*arguments, joints=[0, 1, 2], settings=strict)[0]) == 1
    assert len(parametric_nms(*arguments, joints=np.array([1, 1, 1, 0, 0, 0], bool), settings=strict)[0]) == 1


def test_poses_without_boxes_are_an_error():
    with pytest.raises(PosezooError, match="as many boxes"):
        parametric_nms(np.zeros((2, 17, 2)), np.zeros((2, 17)), np.zeros((1, 4)))


@given(count=st.integers(0, 10), seed=st.integers(0, 1000))
def test_literally_the_paper(count, seed):
    """The similarity of the paper, joint by joint, decides who stays; the kept are the surest of their groups."""
    rng = np.random.default_rng(seed)
    poses = rng.uniform(0, 100, (count, 1, 2)) + rng.normal(0, 6, (count, 7, 2))
    scores, boxes = rng.uniform(0.05, 1, (count, 7)), np.concatenate([poses.min(1) - 9, poses.max(1) + 9], axis=1)
    boxes = boxes.reshape(count, 4)
    numbers = ParametricNms()

    def similarity(pose: int, reference: int) -> float:
        total = 0.0
        for joint in range(7):
            dx, dy = poses[pose, joint] - poses[reference, joint]
            width, height = boxes[pose, 2] - boxes[pose, 0], boxes[pose, 3] - boxes[pose, 1]
            if abs(dx) <= width * 0.1 / 2 and abs(dy) <= height * 0.1 / 2:
                total += math.tanh(scores[pose, joint] / 0.1) * math.tanh(scores[reference, joint] / 0.1)
            total += numbers.weight * math.exp(-(dx * dx + dy * dy) / numbers.spread)
        return total / 7

    left, wanted = sorted(range(count), key=lambda row: -scores[row].mean()), []
    while left:
        best = left.pop(0)
        wanted.append(best)
        left = [row for row in left if similarity(row, best) < numbers.threshold]
    kept, merged, merged_scores = parametric_nms(poses, scores, boxes)
    assert kept.tolist() == wanted
    assert np.isfinite(merged).all()
    assert ((merged_scores >= 0.05) & (merged_scores <= 1)).all()
