"""Following people by optical flow: pictures that move, and the rules that it shares with the other tracker."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.track_flow import FlowTracker
from posezoo.types import Poses
from scenes import COCO, Trouble, Walker, around, back, crossing, make, poses_of

SIZE_WH = (320, 180)
SHRINK = 0.25


@cache
def texture(width: int, height: int, seed: int) -> np.ndarray:
    """Blotches large and small, for a flow to hold on to."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    blotches = sum(size * cv2.GaussianBlur(noise, (0, 0), size) for size in (2, 6, 16))
    return cv2.normalize(blotches, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def small(poses: Poses) -> Poses:
    return replace(poses, keypoints_xy=poses.keypoints_xy * SHRINK, boxes_xyxy=poses.boxes_xyxy * SHRINK)


def picture(truth: Poses, ground: np.ndarray) -> np.ndarray:
    """People as patches of texture, each with their own, the first in front."""
    image = ground.copy()
    for row in range(len(truth))[::-1]:
        left, top, right, bottom = (round(float(v)) for v in truth.boxes_xyxy[row])
        patch = texture(90, 90, int(truth.track_ids[row]) + 10)[: bottom - top, : right - left]
        x, y = max(left, 0), max(top, 0)
        part = patch[y - top :, x - left :][: image.shape[0] - y, : image.shape[1] - x]
        image[y : y + part.shape[0], x : x + part.shape[1]] = part
    return image


def still(x: float, score: float = 0.9) -> Poses:
    xy = Walker(((0, x, 90), (1, x, 90)), 80).joints(np.zeros(1))
    return poses_of(xy, around(xy), np.full((1, 17), score), np.ones(1))


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    return texture(*SIZE_WH, 0)


def test_people_who_cross_keep_their_ids(ground):
    scene = make(back(crossing()), 5, Trouble(), 0)
    tracker = FlowTracker(COCO)
    followed = [
        tracker(small(found), picture(small(truth), ground))
        for found, truth in zip(scene.found, scene.truth, strict=True)
    ]
    assert scene.switches(followed).switches <= 2
    assert max(poses.track_ids.max(initial=0) for poses in followed) <= 5
    for found, poses in zip(scene.found, followed, strict=True):
        np.testing.assert_array_equal(poses.scores, found.scores)


def test_a_camera_that_jumps_takes_people_along():
    """A whole body's width from one frame to the next: without the flow nobody would be known again."""
    wide = texture(460, 180, 1)
    tracker = FlowTracker(COCO)
    first = tracker(still(220), wide[:, :320])
    moved = tracker(still(196), wide[:, 24:344])
    assert first.track_ids.tolist() == moved.track_ids.tolist() == [1]
    np.testing.assert_allclose(tracker.expected_boxes(wide[:, 48:368]).xyxy[0, [0, 2]], [156, 188], atol=12)


def test_expected_boxes_are_of_the_next_frame_and_cost_no_step(ground):
    tracker, plain = FlowTracker(COCO), FlowTracker(COCO)
    assert len(tracker.expected_boxes(ground)) == 0
    frames = [np.roll(ground, 5 * n, axis=1) for n in range(6)]
    for n, frame in enumerate(frames):
        boxes = tracker.expected_boxes(frame)
        poses = still(100 + 5 * n)
        assert tracker(poses, frame).track_ids.tolist() == plain(poses, frame).track_ids.tolist() == [1]
        if n:
            centre = (boxes.xyxy[0, :2] + boxes.xyxy[0, 2:]) / 2
            np.testing.assert_allclose(centre[0], 100 + 5 * n, atol=3)


def test_misses_up_to_the_queue(ground):
    for away, wanted in ((4, 1), (5, 2)):
        tracker = FlowTracker(COCO, frames=5)
        tracker(still(100), ground)
        for _ in range(away):
            tracker(Poses.empty(COCO), ground)
        assert tracker(still(100), ground).track_ids == [wanted]


def test_sure_doubtful_and_second_poses(ground):
    tracker = FlowTracker(COCO)
    assert tracker(still(100, 0.3), ground).track_ids == [-1]
    assert tracker(still(100), ground).track_ids == [1]
    assert tracker(still(100, 0.3), ground).track_ids == [1]
    a, b = still(100, 0.8), still(101, 0.9)
    both = Poses(*(np.concatenate([getattr(p, n) for p in (a, b)]) for n in ("keypoints_xy", "scores", "boxes_xyxy")),
                 [1, 1], COCO)  # fmt: skip
    assert sorted(tracker(both, ground).track_ids.tolist()) == [-1, 1]
    tracker.reset()
    assert tracker(still(100), ground).track_ids == [2]


def test_pictures_of_another_size_and_joints_outside(ground):
    tracker = FlowTracker(COCO)
    poses = still(5)
    gone = np.arange(17) >= 15
    poses = replace(
        poses, scores=np.where(gone, 0, poses.scores), keypoints_xy=np.where(gone[:, None], np.nan, poses.keypoints_xy)
    )
    with np.errstate(invalid="raise"):
        for image in (ground, ground[:90], ground, np.zeros((4, 3000, 3), np.uint8)):
            assert tracker(poses, image).track_ids == [1]


def test_what_cannot_be_followed(ground):
    with pytest.raises(PosezooError, match="image_rgb"):
        FlowTracker(COCO)(still(100))
    with pytest.raises(PosezooError, match="mpii16"):
        FlowTracker(COCO)(Poses.empty(get_skeleton("mpii16")), ground)
    with pytest.raises(PosezooError, match="frames"):
        FlowTracker(COCO, frames=0)


@pytest.mark.slow
def test_what_is_kept_does_not_grow(ground):
    rng = np.random.default_rng(0)
    tracker = FlowTracker(COCO)
    sizes = []
    for n in range(10_000):
        tracker(still(rng.uniform(0, 320), rng.uniform(0.2, 0.9)), ground[:64, :64])
        if n % 20 == 0:
            sizes.append(len(pickle.dumps(tracker._past)))
    assert max(sizes[250:]) <= max(sizes[:250])
