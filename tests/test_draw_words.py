"""Words on pictures: who is numbered and where, which joints are named, and that nothing is hidden under them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posezoo.draw import THEMES, draw_poses
from posezoo.draw.labels import Places, text, write
from posezoo.skeletons import get_skeleton
from posezoo.types import Poses

COCO = get_skeleton("coco17")
STANDING = np.array(
    [
        [0.50, 0.08], [0.54, 0.06], [0.46, 0.06], [0.58, 0.08], [0.42, 0.08], [0.66, 0.22], [0.34, 0.22], [0.78, 0.38],
        [0.22, 0.38], [0.82, 0.54], [0.18, 0.54], [0.60, 0.54], [0.40, 0.54], [0.62, 0.76], [0.38, 0.76], [0.62, 0.97],
        [0.38, 0.97],
    ]
)  # fmt: skip


def people(*ids: int, size: float = 120, step: float = 140, at=(20.0, 40.0), score: float = 0.9) -> Poses:
    corners = np.array(at) + np.arange(len(ids))[:, None] * (step, 0)
    boxes = np.concatenate([corners, corners + size], axis=1)
    joints = STANDING * size + corners[:, None]
    return Poses(joints, np.full((len(ids), 17), score), boxes, np.full(len(ids), 0.9), COCO, ids)


def grey(height: int = 200, width: int = 460) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def words(poses: Poses, image: np.ndarray | None = None, **options) -> tuple[np.ndarray, np.ndarray]:
    """The picture with words, and the pixels that they changed."""
    image = grey() if image is None else image
    options = {"ids": True, **options}
    bare = draw_poses(image, poses, **{**options, "ids": False, "names": False})
    drawn = draw_poses(image, poses, **options)
    return drawn, (drawn != bare).any(axis=2)


def extent(marks: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(marks)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_an_id_stands_above_its_box_on_a_ground_of_the_persons_colour():
    poses = people(12)
    drawn, written = words(poses)
    left, top, right, bottom = extent(written)
    assert left == 20 and 20 < top and bottom <= 40 and right < 60
    ground = drawn[top : bottom + 1, left : right + 1].reshape(-1, 3)
    assert (ground == THEMES["default"].people[11]).all(axis=1).mean() > 0.5
    assert (ground.sum(axis=1) < 150).mean() > 0.03  # the ink is dark on it
    assert not np.array_equal(drawn, words(people(24))[0])  # of the same colour, but it says something else


def test_nobody_without_an_id_is_numbered():
    for poses in (people(-1), people(-7), replace(people(3), track_ids=None)):
        assert not words(poses)[1].any()
    both = words(people(5, -1))[1]
    assert both[:, :150].any() and not both[:, 150:].any()


def test_who_is_not_to_be_seen_is_not_numbered():
    unsure = people(5, score=0.1)
    assert not words(unsure)[1].any() and words(unsure, boxes=True)[1].any()
    for at in ((-300.0, 40.0), (600.0, 40.0), (20.0, -300.0), (20.0, 500.0)):
        assert not words(people(5, at=at), boxes=True)[1].any()


@pytest.mark.parametrize("at", [(-60.0, -60.0), (400.0, -60.0), (-60.0, 150.0), (400.0, 150.0)])
def test_labels_stay_in_the_picture(at):
    poses = people(1234, at=at)
    _, inside = words(poses)
    size = text("1234", 0.375).size_wh
    left, top, right, bottom = extent(inside)
    assert (right - left + 1, bottom - top + 1) == size


def test_labels_do_not_cover_each_other_nor_joints():
    crowd = people(*range(1, 9), step=9)
    drawn, written = words(crowd)
    grounds = [(drawn == color).all(axis=2) & written for color in THEMES["default"].people[:8]]
    for ground in (g for g in grounds if g.sum() > 40):
        left, top, right, bottom = extent(ground)
        assert sum(other[top : bottom + 1, left : right + 1].sum() for other in grounds) == ground.sum()
    assert sum(ground.sum() > 40 for ground in grounds) >= 3
    columns, rows = np.rint(crowd.keypoints_xy.reshape(-1, 2)).astype(int).T
    assert not written[rows, columns].any()


def test_a_person_without_a_box_is_numbered_at_the_joints():
    odd = replace(people(3), boxes_xyxy=np.full((1, 4), np.nan, np.float32))
    left, top, _, _ = extent(words(odd)[1])
    joints = odd.keypoints_xy[0].min(axis=0)
    assert abs(left - joints[0]) < 2 and joints[1] - 20 < top < joints[1]


def test_joints_are_named_beside_them_as_far_as_there_is_room():
    image = grey(700, 800)
    large, small = people(1, size=500, at=(150.0, 100.0)), people(1, size=40, at=(150.0, 100.0))
    drawn, written = words(large, image, ids=False, names=True)
    columns, rows = np.rint(large.keypoints_xy[0]).astype(int).T
    assert not written[rows, columns].any()
    for joint, way in (("left_wrist", 1), ("right_wrist", -1), ("left_knee", 1), ("right_knee", -1)):
        x, y = columns[COCO.index(joint)], rows[COCO.index(joint)]
        assert written[y - 3 : y + 4, min(x, x + 40 * way) : max(x, x + 40 * way)].mean() > 0.4, joint
    assert (drawn != image).any() and not words(small, image, ids=False, names=True)[1].any()


def test_limbs_are_named_before_fingers_and_faces():
    skeleton = get_skeleton("wholebody133")
    xy, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
    xy[0, :17], scores[0, :17] = STANDING * 500 + (150, 100), 0.9
    hand = np.isin(skeleton.joints, skeleton.parts["left_hand"])
    xy[0, hand], scores[0, hand] = xy[0, skeleton.index("left_wrist")] + np.arange(21)[:, None] * (0.5, 2), 0.9
    poses = Poses(xy, scores, [[150, 100, 650, 600]], [0.9], skeleton)
    body = replace(poses, scores=np.where(np.arange(133) < 17, scores, 0))
    image = grey(700, 800)
    with_hand, without = (words(p, image, ids=False, names=True)[1] for p in (poses, body))
    y = round(float(xy[0, skeleton.index("left_wrist"), 1]))
    assert (with_hand & without)[: y - 20].sum() == without[: y - 20].sum()  # all of the upper body has kept its name
    assert with_hand[y - 20 : y + 70].sum() > without[y - 20 : y + 70].sum()


@pytest.mark.parametrize("word", ["12", "right_hip", "0.93", "x"])
@pytest.mark.parametrize("scale", [0.36, 0.6, 1.0])
def test_a_word_is_in_the_middle_of_its_ground(word, scale):
    image, placed = grey(60, 180), text(word, scale)
    write(image, placed, 5, 8, (0, 0, 0), (255, 255, 255))
    left, top, right, bottom = extent(image[..., 0] != 128)
    assert (left, top, right - left + 1, bottom - top + 1) == (5, 8, *placed.size_wh)
    _, highest, _, lowest = extent(image[..., 0] > 150)
    above, below = highest - top, bottom - lowest
    assert abs(above - below) <= 1 and min(above, below) >= 2, (above, below)


def test_a_word_at_the_edge_is_cut_off():
    image = grey(10, 12)
    write(image, text("left_shoulder", 1.0), 4, 3, (0, 0, 0), (255, 255, 255))
    assert (image[:3] == 128).all() and (image[3:, 4:] != 128).any()
    write(image, text("left_shoulder", 1.0), 50, 50, (0, 0, 0), (255, 255, 255))


def test_a_place_is_given_once():
    free = Places(grey(40, 40))
    assert free.find((20, 12), [(-5, -5)]) == (0, 0)
    assert free.find((20, 12), [(2, 2), (25, 35)]) == (20, 28)
    assert free.find((20, 12), [(0, 0), (30, 30)]) is None
    assert Places(grey(4, 4)).find((20, 12), [(0, 0)]) == (0, 0)  # larger than the picture
