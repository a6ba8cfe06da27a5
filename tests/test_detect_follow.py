"""One person followed from frame to frame: who is looked for anew, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from posezoo.detect import get_detector
from posezoo.detect.follow import FollowOne
from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.types import Boxes, Poses

FRAME = np.zeros((200, 300, 3), np.uint8)
COCO17 = get_skeleton("coco17")


class Two:
    """Finds two people at fixed places."""

    def __init__(self, boxes: Sequence[Sequence[float]] = ((10, 10, 60, 110), (200, 20, 260, 140))) -> None:
        self.boxes, self.calls = np.array(boxes, float).reshape(-1, 4), 0

    def __call__(self, images_rgb, names=None) -> list[Boxes]:
        self.calls += 1
        return [Boxes(self.boxes, np.linspace(0.9, 0.6, len(self.boxes))) for _ in images_rgb]


def pose(low: tuple[float, float], high: tuple[float, float], score: float = 0.8, sure: int = 17) -> Poses:
    """Joints on a line from corner to corner; only the first `sure` have this score."""
    xy = np.linspace(low, high, sure)
    xy = np.concatenate([xy, np.full((17 - sure, 2), 299.0)])[None]
    scores = np.where(np.arange(17) < sure, score, 0.01)[None]
    return Poses(xy, scores, np.array([[*low, *high]]), np.ones(1), COCO17)


def test_the_detector_looks_once() -> None:
    detector = Two()
    follow = FollowOne(detector)
    (found,) = follow([FRAME])
    assert found.xyxy.tolist() == [[10, 10, 60, 110]] and found.scores[0] == pytest.approx(0.9)
    for step in range(1, 6):
        follow.tell(pose((20 + step, 20), (60 + step, 100)))
        (found,) = follow([FRAME])
        assert found.xyxy[0] == pytest.approx([15 + step, 10, 65 + step, 110])
        assert found.scores[0] == pytest.approx(0.9)
    assert detector.calls == follow.detections == 1


@pytest.mark.parametrize(
    "told",
    [
        Poses.empty(COCO17),
        pose((20, 20), (60, 100), score=0.1),
        pose((20, 20), (60, 100), score=0.3),
        pose((20, 20), (60, 100), sure=3),
        pose((-90, -90), (-50, -40)),
        None,
    ],
)
def test_it_looks_again_where_the_pose_is_unsure_or_gone(told: Poses | None) -> None:
    detector = Two()
    follow = FollowOne(detector)
    follow([FRAME])
    if told is not None:
        follow.tell(told)
    follow([FRAME])
    assert detector.calls == 2


def test_unsure_joints_do_not_stretch_the_box() -> None:
    follow = FollowOne(Two())
    follow.tell(pose((20, 20), (60, 100), sure=12))
    assert follow([FRAME])[0].xyxy[0] == pytest.approx([15, 10, 65, 110])


def test_it_finds_the_same_person_again_and_forgets_on_reset() -> None:
    follow = FollowOne(Two())
    follow.tell(pose((205, 30), (255, 130)))
    follow([FRAME])
    follow.tell(Poses.empty(COCO17))
    assert follow([FRAME])[0].xyxy.tolist() == [[200, 20, 260, 140]]  # not the detector's best
    follow.reset()
    assert follow([FRAME])[0].xyxy.tolist() == [[10, 10, 60, 110]]


def test_the_surest_of_several_poses_is_followed() -> None:
    follow = FollowOne(Two())
    unsure, sure = pose((20, 20), (60, 100), score=0.5), pose((100, 20), (140, 100), score=0.9)
    parts = [[p.keypoints_xy, p.scores, p.boxes_xyxy, p.box_scores] for p in (unsure, sure)]
    follow.tell(Poses(*map(np.concatenate, zip(*parts, strict=True)), COCO17))
    assert follow([FRAME])[0].xyxy[0] == pytest.approx([95, 10, 145, 110])


def test_frames_of_one_call_have_no_poses_between_them() -> None:
    detector = Two()
    follow = FollowOne(detector)
    follow.tell(pose((20, 20), (60, 100)))
    found = follow([FRAME, FRAME], names=["a#0", "a#1"])
    assert [boxes.xyxy[0].tolist() for boxes in found] == [[15, 10, 65, 110], [10, 10, 60, 110]]
    assert detector.calls == 1 and follow([]) == []


def test_nobody_is_nobody() -> None:
    follow = FollowOne(Two([]))
    assert [len(boxes) for boxes in follow([FRAME, FRAME])] == [0, 0]
    follow.tell(Poses.empty(COCO17))
    assert len(follow([FRAME])[0]) == 0 and follow.detections == 3


def test_by_name() -> None:
    follow = get_detector("follow:whole")
    assert isinstance(follow, FollowOne)
    assert follow([FRAME])[0].xyxy.tolist() == [[0, 0, 300, 200]]
    assert isinstance(get_detector("follow"), FollowOne)
    with pytest.raises(PosezooError, match="unknown detector 'wole'; did you mean whole"):
        get_detector("follow:wole")
    with pytest.raises(PosezooError, match="least_score must be in 0"):
        FollowOne(follow, least_score=2)
