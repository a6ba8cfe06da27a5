"""Pose suppression: the numbers of the HRNet and MMPose code, and what must hold for any input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.suppress import oks, oks_nms, person_scores, rescore, soft_oks_nms
from posezoo.types import Poses

COCO = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
CROWDPOSE = np.array([79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89, 79, 79]) / 1000


def people(joints: int, count: int = 12):
    from fill import make_people

    keypoints, scores, areas, _ = make_people(count, joints)
    return keypoints[..., :2], keypoints[..., 2], scores, areas


@pytest.mark.parametrize("zoo", ["hrnet", "mmpose"])
def test_suppression_keeps_what_the_reference_keeps(parity, zoo):
    fixture = json.loads((parity / "ops" / f"{zoo}_nms.json").read_text())
    poses, _, scores, areas = people(17)
    for threshold in (0.9, 0.5, 0.2):
        kept = oks_nms(poses, scores, areas, COCO, threshold)
        assert kept.tolist() == fixture[f"oks_nms_{threshold}"]
        soft = fixture[f"soft_oks_nms_{threshold}"]
        wanted = soft["data"] if isinstance(soft, dict) else soft
        assert soft_oks_nms(poses, scores, areas, COCO, threshold).tolist() == wanted


def test_suppression_of_crowdpose_poses(parity):
    fixture = json.loads((parity / "ops" / "mmpose_nms.json").read_text())
    poses, joint_scores, scores, areas = people(14, count=10)
    assert oks_nms(poses, scores, areas, CROWDPOSE, 0.5).tolist() == fixture["crowdpose14_oks_nms_0.5"]
    kept = oks_nms(poses, scores, areas, CROWDPOSE, 0.5, joint_scores, 0.2)
    assert kept.tolist() == fixture["crowdpose14_vis0.2"]


def test_similarity_equals_the_reference(parity):
    fixture = json.loads((parity / "ops" / "hrnet_nms.json").read_text())
    poses, joint_scores, _, areas = people(17)
    plain = oks(poses, areas, poses[0], areas[0], COCO)
    np.testing.assert_allclose(plain, fixture["oks_iou_0"]["data"], rtol=1e-9, atol=0)
    visible = oks(poses, areas, poses[0], areas[0], COCO, joint_scores, 0.2)
    np.testing.assert_allclose(visible, fixture["oks_iou_0_vis0.2"]["data"], rtol=1e-9, atol=0)
    single = json.loads((parity / "ops" / "mmpose_nms.json").read_text())["oks_iou_vis"]["data"]
    np.testing.assert_allclose(visible, single, rtol=1e-6, atol=0)


def test_rescoring_then_suppression_gives_the_reference_results(parity):
    fixture = json.loads((parity / "ops" / "hrnet_coco_rescore.json").read_text())
    poses, joint_scores, _, _ = people(17)
    boxes = np.array(fixture["all_boxes"]["data"]).reshape(-1, 6)
    scores = rescore(boxes[:, 5], joint_scores, fixture["in_vis_thre"])
    images = np.array(fixture["image_id"])
    for name, suppress in (("hard", oks_nms), ("soft", soft_oks_nms)):
        for image, wanted in zip(np.unique(images), fixture[name], strict=True):
            rows = np.flatnonzero(images == image)
            kept = rows[suppress(poses[rows], scores[rows], boxes[rows, 4], COCO, fixture["oks_thre"])]
            np.testing.assert_allclose(scores[kept], [w["score"] for w in wanted], rtol=1e-9)
            np.testing.assert_allclose(poses[kept, 0], [w["first_xy"] for w in wanted], rtol=1e-9)


@pytest.mark.parametrize("suppress", [oks_nms, soft_oks_nms])
def test_nobody_and_one_person(suppress):
    assert suppress(np.zeros((0, 17, 2)), [], [], COCO).tolist() == []
    assert suppress(np.ones((1, 17, 2)), [0.5], [100.0], COCO).tolist() == [0]
    assert suppress(np.ones((1, 17, 2)), [0.5], [0.0], COCO, joint_scores=np.ones((1, 17)), score_threshold=2) == [0]


def test_nobody_has_no_score_and_no_similarity():
    assert rescore([], np.zeros((0, 17))).shape == (0,)
    assert oks(np.zeros((0, 17, 2)), [], np.zeros((17, 2)), 1.0, COCO).shape == (0,)


def test_a_pose_without_confident_joints_scores_zero():
    scores = rescore([0.5, 1.0], [[0.1, 0.2], [0.3, 0.1]], threshold=0.2)
    np.testing.assert_allclose(scores, [0.0, 0.3])


def test_few_joints_make_no_sure_person():
    joints = np.zeros((4, 17))
    joints[0, 3], joints[1, :5], joints[2, :], joints[3, 0:2] = 0.9, 0.9, 0.9, (0.19, 0.1)
    poses = Poses(np.zeros((4, 17, 2)), joints, np.tile([0, 0, 9, 9], (4, 1)), [0.5] * 4, get_skeleton("coco17"))
    np.testing.assert_allclose(person_scores(poses), [0.5 * 0.9 / 5, 0.45, 0.45, 0], atol=1e-6)
    few = Poses(
        np.zeros((1, 2, 2)),
        [[0.9, 0.1]],
        [[0, 0, 9, 9]],
        [1.0],
        Skeleton("two", ("a", "b"), oks_sigmas=np.ones(2), joint_weights=np.ones(2)),
    )
    np.testing.assert_allclose(person_scores(few), [0.5], atol=1e-6)
    assert person_scores(Poses.empty(get_skeleton("coco17"))).shape == (0,)


def test_a_pose_without_a_counted_joint_is_unlike_anything():
    poses = np.zeros((2, 3, 2))
    alike = oks(poses, [1, 1], poses[0], 1, [0.1] * 3, [[0.1, 0.1, 0.1], [0.1, 0.9, 0.1]], 0.5)
    np.testing.assert_array_equal(alike, [0.0, 1.0])


def test_soft_suppression_keeps_twenty_unless_told():
    poses = np.arange(30.0)[:, None, None] * np.full((1, 2, 2), 1000.0)
    arguments = (poses, np.linspace(1, 0.1, 30), np.full(30, 50.0), [0.1, 0.1])
    assert soft_oks_nms(*arguments).tolist() == list(range(20))
    assert soft_oks_nms(*arguments, max_people=30).tolist() == list(range(30))


def test_duplicates_leave_the_best_one():
    poses = np.repeat(np.arange(34.0).reshape(1, 17, 2), 3, axis=0)
    assert oks_nms(poses, [0.3, 0.9, 0.5], [400.0] * 3, COCO).tolist() == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((2, 17)), [1, 1], [1, 1]),
        (np.zeros((2, 17, 2)), [1], [1, 1]),
        (np.zeros((2, 17, 2)), [1, 1], [1]),
        (np.zeros((2, 14, 2)), [1, 1], [1, 1]),
    ],
)
def test_arrays_that_do_not_belong_together_are_an_error(arguments):
    with pytest.raises(PosezooError, match="poses"):
        oks_nms(*arguments, COCO)


def test_a_threshold_without_joint_scores_is_an_error():
    with pytest.raises(PosezooError, match="scores of the joints"):
        oks(np.zeros((1, 17, 2)), [1], np.zeros((17, 2)), 1, COCO, score_threshold=0.2)


@given(count=st.integers(0, 12), seed=st.integers(0, 1000), threshold=st.floats(0.05, 0.95))
def test_kept_poses_are_unlike_each_other_and_cover_the_rest(count, seed, threshold):
    rng = np.random.default_rng(seed)
    poses = rng.uniform(0, 60, (count, 1, 2)) + rng.normal(0, 8, (count, 5, 2))
    scores, areas, sigmas = rng.random(count), rng.uniform(500, 4000, count), np.full(5, 0.1)
    kept = oks_nms(poses, scores, areas, sigmas, threshold)
    assert np.all(np.diff(scores[kept]) <= 0)
    alike = np.array([oks(poses, areas, poses[k], areas[k], sigmas) for k in kept]).reshape(len(kept), count)
    for row, k in enumerate(kept):
        assert np.all(alike[row, np.setdiff1d(kept, k)] <= threshold)
    gone = np.setdiff1d(np.arange(count), kept)
    for lost in gone:
        better = scores[kept] >= scores[lost]
        assert (alike[better, lost] > threshold).any()
