"""Trails behind people, pictures side by side, and themes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posezoo.draw import DEFAULT, THEMES, Theme, Trails, draw_poses, get_theme, side_by_side
from posezoo.errors import PosezooError, UnknownNameError
from posezoo.skeletons import COLORS, get_skeleton, list_skeletons
from posezoo.types import Poses

COCO = get_skeleton("coco17")
IMAGE = np.full((120, 400, 3), 20, np.uint8)


def box_at(x: float, *ids: int, y: float = 60, score: float = 0.0) -> Poses:
    """People of whom nothing but the trail is seen, unless they have a score."""
    count = len(ids)
    joints = np.broadcast_to([x, y], (count, 17, 2))
    boxes = np.broadcast_to([x - 20, y - 40, x + 20, y + 40], (count, 4))
    return Poses(joints, np.full((count, 17), score), boxes, np.ones(count), COCO, ids)


def walked(*ids: int, seconds: float = 2.0, **options) -> Trails:
    """Somebody who walks 150 pixels a second to the right, from 50 on."""
    trails = Trails(COCO, **options)
    for time_s in np.arange(0, seconds + 0.01, 0.1):
        trails.add(box_at(50 + 150 * time_s, *ids), time_s)
    return trails


def drawn(trails: Trails, theme: str | Theme = "default", poses: Poses | None = None) -> np.ndarray:
    return draw_poses(IMAGE, Poses.empty(COCO) if poses is None else poses, trails=trails, theme=theme).astype(int)


def test_a_trail_is_as_long_as_asked_for_and_fades():
    picture = drawn(walked(1, length_s=1.0))
    seen = np.flatnonzero((picture != 20).any(axis=(0, 2)))
    assert 195 <= seen.min() <= 205 and 348 <= seen.max() <= 354  # the last second: from 200 to 350
    brightness = [picture[60, x].sum() for x in (215, 255, 300, 345)]
    assert brightness == sorted(brightness) and brightness[3] > brightness[0] + 150
    np.testing.assert_allclose(picture[60, 347], THEMES["default"].people[0], atol=40)
    columns = [np.abs(picture[:, x] - 20).sum(axis=1) for x in (215, 345)]
    older, newer = (column.sum() / column.max() for column in columns)
    assert older < 0.8 * newer


def test_each_has_a_trail_of_the_own_colour_and_nobody_has_none():
    trails = Trails(COCO)
    for k in range(6):
        both = [box_at(50 + 30 * k, 1, y=30), box_at(50 + 30 * k, 2, y=60), box_at(50 + 30 * k, -1, y=90)]
        boxes = np.concatenate([poses.boxes_xyxy for poses in both])
        trails.add(Poses(np.zeros((3, 17, 2)), np.zeros((3, 17)), boxes, np.ones(3), COCO, [1, 2, -1]), 0.1 * k)
    picture = drawn(trails)
    for y, number in ((30, 0), (60, 1)):
        np.testing.assert_allclose(picture[y, 190], THEMES["default"].people[number], atol=60)
    assert (picture[80:] == 20).all() and len(trails) == 2


def test_who_has_gone_is_forgotten_in_time():
    trails = walked(1, length_s=1.0)
    for time_s, left in ((2.5, 1), (2.9, 1), (3.2, 0)):
        trails.add(Poses.empty(COCO), time_s)
        assert len(trails) == left
    assert (drawn(trails) == 20).all()


def test_trails_do_not_grow_with_the_video():
    trails = Trails(COCO, length_s=1.0)
    for frame in range(3000):
        trails.add(box_at(100, frame // 10), frame / 1000)
    assert len(trails) <= 102 and max(len(way) for way in trails._ways.values()) < 30


def test_frames_without_a_time_follow_each_other():
    timed, untimed = Trails(COCO), Trails(COCO, fps=10)
    for k in range(8):
        timed.add(box_at(50 + 20 * k, 1), 0.1 * k)
        untimed.add(box_at(50 + 20 * k, 1))
    assert np.array_equal(drawn(timed), drawn(untimed))
    timed.reset()
    assert len(timed) == 0 and (drawn(timed) == 20).all()


def test_named_joints_have_trails_of_their_own_over_gaps():
    trails = Trails(COCO, joints=("left_wrist", "right_wrist"))
    rows = [COCO.index("left_wrist"), COCO.index("right_wrist")]
    for k in range(9):
        xy, scores = np.zeros((1, 17, 2)), np.zeros((1, 17))
        xy[0, rows] = [[50 + 30 * k, 30], [50 + 30 * k, 90]]
        scores[0, rows] = 0.9, 0.9 if k % 4 < 2 else 0.1
        trails.add(Poses(xy, scores, [[0, 0, 50, 50]], [1], COCO, [1]), 0.1 * k)
    picture = drawn(trails)
    assert all((picture[y - 2 : y + 3, 100:280] != 20).any(axis=(0, 2)).all() for y in (30, 90))
    assert (picture[45:75] == 20).all()


def test_trails_lie_below_people():
    trails, poses = walked(1), box_at(350, 1, score=0.9)
    alone, both = drawn(Trails(COCO), poses=poses), drawn(trails, poses=poses)
    assert np.array_equal(both[60, 350], alone[60, 350]) and not np.array_equal(both[60, 300], alone[60, 300])


@pytest.mark.parametrize("theme", list(THEMES))
def test_odd_trails_break_nothing(theme):
    trails = Trails(COCO)
    boxes = [[np.nan] * 4, [np.inf] * 4, [1e30, 0, 1e30, 1], [-1e5, 0, -1e5, 9], [5, 5, 5, 5], [0, 0, 9, 9]]
    for k, box in enumerate(boxes):
        trails.add(Poses(np.zeros((1, 17, 2)), np.zeros((1, 17)), [box], [1], COCO, [4]), 0.1 * k)
    assert drawn(trails, theme).shape == IMAGE.shape
    assert draw_poses(np.zeros((1, 1, 3), np.uint8), Poses.empty(COCO), trails=trails).shape == (1, 1, 3)


def test_wrong_trails_are_errors():
    for length_s in (0, -1, np.nan, np.inf):
        with pytest.raises(PosezooError, match="above 0"):
            Trails(COCO, length_s)
    with pytest.raises(UnknownNameError, match="did you mean left_wrist"):
        Trails(COCO, joints=("left_wrst",))
    with pytest.raises(PosezooError, match="hand21"):
        Trails(COCO).add(Poses.empty(get_skeleton("hand21")), 0.0)


# --- side by side


def test_side_by_side_keeps_every_pixel():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (40, 30, 3), np.uint8), rng.integers(0, 256, (25, 50, 3), np.uint8)
    sheet = side_by_side(left, right, gap=6)
    assert sheet.shape == (40, 86, 3)
    assert np.array_equal(sheet[:, :30], left) and np.array_equal(sheet[7:32, 36:], right)
    for rest in (sheet[:, 30:36], sheet[:7, 36:], sheet[32:, 36:]):
        assert (rest == DEFAULT.outline).all()
    swapped = side_by_side(right, left, gap=0)
    assert np.array_equal(swapped[7:32, :50], right) and np.array_equal(swapped[:, 50:], left)


def test_side_by_side_again_into_the_same_array():
    left, right = np.full((20, 30, 3), 50, np.uint8), np.full((10, 30, 3), 90, np.uint8)
    first = side_by_side(left, right)
    out = np.full_like(first, 7)
    assert side_by_side(left, right, out=out) is out and np.array_equal(out, first)
    with pytest.raises(PosezooError, match=r"\(20, 64, 3\), but out has \(20, 60, 3\)"):
        side_by_side(left, right, out=np.zeros((20, 60, 3), np.uint8))
    with pytest.raises(PosezooError, match="side by side"):
        side_by_side(left, right[..., 0])


def test_titles_are_written_on_each():
    left, right = np.full((80, 120, 3), 128, np.uint8), np.full((60, 120, 3), 128, np.uint8)
    bare, titled = side_by_side(left, right), side_by_side(left, right, titles=("before", "after"))
    rows, columns = np.nonzero((bare != titled).any(axis=2))
    on_left, on_right = columns < 120, columns >= 124
    assert on_left.any() and on_right.any() and (on_left | on_right).all()
    assert rows[on_left].min() == 0 and rows[on_right].min() == 10 and rows.max() < 35
    assert (left == 128).all()


# --- themes


def test_themes_are_found_by_name():
    assert get_theme("default") is DEFAULT == Theme() and get_theme(DEFAULT) is DEFAULT
    with pytest.raises(UnknownNameError, match="unknown theme 'colourblind'; did you mean colorblind"):
        draw_poses(IMAGE, Poses.empty(COCO), theme="colourblind")
    with pytest.raises(UnknownNameError, match="did you mean light"):
        side_by_side(IMAGE, IMAGE, theme="ligth")


@pytest.mark.parametrize("name", list(THEMES))
def test_the_colours_of_a_theme_are_colours_and_of_something(name):
    theme = THEMES[name]
    parts = {part for skeleton in map(get_skeleton, list_skeletons()) for part in skeleton.parts}
    assert set(theme.colors) <= {*COLORS, *parts} and len(theme.people) >= 4
    for color in (*theme.colors.values(), *theme.people, theme.outline, theme.rim):
        assert len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color)


def test_without_colours_means_every_skeleton():
    for name in list_skeletons():
        skeleton = get_skeleton(name)
        joints = len(skeleton)
        xy = np.random.default_rng(0).random((1, joints, 2)) * 100 + 10
        poses = Poses(xy, np.ones((1, joints)), [[10, 10, 110, 110]], [1], skeleton)
        for given in (poses, replace(poses, track_ids=[2])):
            picture = draw_poses(np.full((120, 120, 3), 128, np.uint8), given, theme="mono").astype(int)
            assert np.ptp(picture, axis=2).max() <= 24, name


def test_left_and_right_differ_in_brightness_without_colours():
    left, right = (np.dot(THEMES["mono"].colors[side], (0.299, 0.587, 0.114)) for side in ("left", "right"))
    assert left > right + 80
