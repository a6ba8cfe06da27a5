"""Drawing: what is drawn where, in which colour, how wide and how faint; and that nothing breaks it."""

from __future__ import annotations

import itertools
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from posezoo.draw import THEMES, Theme, draw_poses
from posezoo.errors import PosezooError, UnknownNameError
from posezoo.skeletons import get_skeleton, list_skeletons
from posezoo.types import Poses

COCO = get_skeleton("coco17")
# a person who stands in the unit square and faces us, so the person's left is on our right
STANDING = np.array(
    [
        [0.50, 0.08], [0.54, 0.06], [0.46, 0.06], [0.58, 0.08], [0.42, 0.08], [0.66, 0.22], [0.34, 0.22], [0.78, 0.38],
        [0.22, 0.38], [0.82, 0.54], [0.18, 0.54], [0.60, 0.54], [0.40, 0.54], [0.62, 0.76], [0.38, 0.76], [0.62, 0.97],
        [0.38, 0.97],
    ]
)  # fmt: skip


def person(size: float = 200, at=(20.0, 10.0), score: float = 0.9) -> Poses:
    xy = STANDING * size + at
    box = [at[0], at[1], at[0] + size, at[1] + size]
    return Poses([xy], np.full((1, 17), score), [box], [0.9], COCO)


def together(*people: Poses) -> Poses:
    parts = {k: np.concatenate([getattr(p, k) for p in people]) for k in ("keypoints_xy", "scores")}
    boxes = {k: np.concatenate([getattr(p, k) for p in people]) for k in ("boxes_xyxy", "box_scores")}
    return Poses(**parts, **boxes, skeleton=people[0].skeleton)


def grey(height: int = 240, width: int = 260, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def between(poses: Poses, a: str, b: str, share: float = 0.5) -> tuple[int, int]:
    """(row, column) of the pixel a share of the way along a limb."""
    x, y = (1 - share) * poses.keypoints_xy[0, COCO.index(a)] + share * poses.keypoints_xy[0, COCO.index(b)]
    return round(float(y)), round(float(x))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_it_is_a_new_picture_and_the_old_one_stays():
    image = grey()
    image.flags.writeable = False
    drawn = draw_poses(image, person())
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and (image == 128).all()
    assert 0.02 < changed(image, drawn).mean() < 0.2
    drawn[0] = 0  # and it can be drawn on


def test_nobody_leaves_the_picture_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for poses in (Poses.empty(COCO), person(score=0.1)):
        assert np.array_equal(draw_poses(image, poses, boxes=False), image)
        assert draw_poses(image, poses) is not image


def test_limbs_have_the_colour_of_their_side():
    drawn = draw_poses(grey(), person())
    for a, b, side in [
        ("left_hip", "left_knee", "left"),
        ("right_hip", "right_knee", "right"),
        ("left_elbow", "left_wrist", "left"),
        ("left_shoulder", "right_shoulder", "center"),
    ]:
        np.testing.assert_allclose(drawn[between(person(), a, b)], COCO.side_color(side), atol=2)


def test_an_outline_makes_it_legible_on_its_own_colour():
    for side in ("left", "center"):
        image = np.full((240, 260, 3), COCO.side_color(side), np.uint8)
        drawn = draw_poses(image, person()).astype(int)
        assert (image.astype(int) - drawn).sum(axis=2).max() > 150


def test_joints_are_discs_with_a_light_rim():
    drawn, poses = draw_poses(grey(), person()), person()
    x, y = poses.keypoints_xy[0, COCO.index("left_knee")]
    np.testing.assert_allclose(drawn[round(float(y)), round(float(x))], COCO.side_color("left"), atol=2)
    around = drawn[round(float(y)), round(float(x)) - 6 : round(float(x)) + 7].astype(int)
    assert around.min(axis=1).max() > 200  # nearly white on either side of the middle


def test_low_scores_fade_and_lower_ones_vanish():
    poses, image = person(), grey(value=0)
    knee, hip = COCO.index("left_knee"), COCO.index("left_hip")
    at = between(poses, "left_hip", "left_knee")
    brightness = []
    for score in (0.9, 0.5, 0.3, 0.21, 0.19):
        scores = np.full((1, 17), 0.9)
        scores[0, [hip, knee]] = score
        faded = Poses(poses.keypoints_xy, scores, poses.boxes_xyxy, poses.box_scores, COCO)
        brightness.append(int(draw_poses(image, faded)[at].sum()))
    assert brightness == sorted(brightness, reverse=True) and len(set(brightness)) == 5
    assert brightness[3] > 60 and brightness[4] == 0
    assert draw_poses(image, faded, joint_score=0.1)[at].sum() > 60


def test_one_doubtful_end_is_enough_to_fade_or_hide_a_limb():
    poses = person()
    scores = np.full((1, 17), 0.9)
    scores[0, COCO.index("left_knee")] = 0.1
    drawn = draw_poses(grey(), Poses(poses.keypoints_xy, scores, poses.boxes_xyxy, poses.box_scores, COCO))
    assert (drawn[between(poses, "left_hip", "left_knee")] == 128).all()
    assert (drawn[between(poses, "left_elbow", "left_wrist")] != 128).any()


def test_lines_grow_with_the_person():
    widths = []
    for size in (60, 200, 600):
        poses = person(size, at=(10, 10))
        image = grey(size + 20, size + 20)
        row = between(poses, "left_hip", "left_knee", 0.4)[0]
        widths.append(int(changed(image, draw_poses(image, poses))[row, : round(10 + size / 2)].sum()))
    assert widths[0] < widths[1] < widths[2] and widths[2] > 2.2 * widths[1]


@pytest.mark.parametrize("size", [1, 3, 6, 10, 16])
def test_tiny_people_stay_within_reach_of_their_box(size):
    image = grey(60, 60)
    drawn = changed(image, draw_poses(image, person(size, at=(20.3, 20.7))))
    rows, columns = np.nonzero(drawn)
    assert len(rows) and rows.min() >= 18 and columns.min() >= 18
    assert rows.max() <= 23 + size and columns.max() <= 23 + size


def test_places_are_finer_than_a_pixel():
    image = grey()
    drawings = [draw_poses(image, person(at=(20 + shift, 10.0))).astype(float) for shift in (0, 0.25, 0.5, 1)]
    for one, other in itertools.pairwise(drawings):
        assert not np.array_equal(one, other)
    # a whole pixel further, it is the same drawing a pixel further; the centre of mass follows the fractions
    np.testing.assert_allclose(drawings[3][:, 1:], drawings[0][:, :-1], atol=1)
    columns = np.arange(image.shape[1])
    middles = [(np.abs(d - 128).sum(axis=(0, 2)) * columns).sum() / np.abs(d - 128).sum() for d in drawings]
    np.testing.assert_allclose(np.array(middles) - middles[0], [0, 0.25, 0.5, 1], atol=0.12)


def test_near_people_are_drawn_over_far_ones():
    far, near = person(120, at=(70, 30)), person(220, at=(20, 5))
    both, only_near = (draw_poses(grey(), p) for p in (together(near, far), near))
    swapped = draw_poses(grey(), together(far, near))
    assert np.array_equal(both, swapped)
    covered = (only_near == COCO.side_color("left")).all(axis=2)
    assert covered.sum() > 200 and np.array_equal(both[covered], only_near[covered])


def test_boxes_are_drawn_when_asked_for():
    image, poses = grey(), person()
    plain, framed = draw_poses(image, poses), draw_poses(image, poses, boxes=True)
    left, _, _, bottom = poses.boxes_xyxy[0].astype(int)
    assert (plain[bottom - 40, left] == 128).all() and (framed[bottom - 40, left] > 180).all()
    assert np.array_equal(
        framed[between(poses, "left_hip", "left_knee")], plain[between(poses, "left_hip", "left_knee")]
    )


def test_what_was_asked_for_is_drawn_into():
    image, poses = grey(), person()
    expected = draw_poses(image, poses)
    sheet = np.zeros((240, 600, 3), np.uint8)  # as beside another picture: rows lie apart
    into = sheet[:, 300:560]
    assert draw_poses(image, poses, out=into) is into and np.array_equal(into, expected)
    assert not sheet[:, :300].any() and not sheet[:, 560:].any() and (image == 128).all()
    assert draw_poses(image, poses, out=image) is image and np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((240, 261, 3), np.uint8), r"shape \(240, 260, 3\) into one of shape \(240, 261, 3\)"),
        (np.zeros((240, 260, 3), np.float32), "can only draw into .* float32"),
        (np.zeros((240, 260, 3), np.uint8)[:, ::-1], "do not lie side by side"),
        (np.broadcast_to(np.zeros(3, np.uint8), (240, 260, 3)), "read-only"),
    ],
)
def test_what_cannot_be_drawn_into_is_an_error(out, message):
    with pytest.raises(PosezooError, match=message):
        draw_poses(grey(), person(), out=out)


@pytest.mark.parametrize("size", [40, 300, 1100])
def test_only_what_was_touched_is_blended_and_all_of_it(size, monkeypatch):
    image = np.random.default_rng(size).integers(0, 256, (size + 30, size + 30, 3), np.uint8)
    poses = person(size, at=(15.4, 15.2))
    drawn = draw_poses(image, poses)
    monkeypatch.setattr("posezoo.draw.layer._touched", lambda layer, *_: [(0, 0, *whole(layer))])
    assert np.array_equal(drawn, draw_poses(image, poses))


def whole(layer) -> tuple[int, int]:
    return layer.rgba.shape[1] // layer.zoom, layer.rgba.shape[0] // layer.zoom


def test_a_theme_by_name_and_in_one_colour_a_person():
    at, other = between(person(), "left_hip", "left_knee"), between(person(), "right_hip", "right_knee")
    light = draw_poses(grey(), person(), theme="light")
    np.testing.assert_allclose(light[at], THEMES["light"].colors["left"], atol=2)
    mine = Theme(people=((10, 200, 30), (200, 10, 30)))
    first = draw_poses(grey(), person(), theme=mine, color_by="person")
    np.testing.assert_allclose(first[between(person(), "left_hip", "right_hip")], (10, 200, 30), atol=2)
    assert first[at].sum() > first[other].sum() + 100  # lighter on the left, darker on the right


def test_an_id_has_its_colour_wherever_it_stands():
    def of(*ids: int, theme: str = "default") -> np.ndarray:
        far, near = person(120, at=(70, 30)), person(220, at=(20, 5))
        poses = replace(together(far, near)[list(range(len(ids)))], track_ids=ids)
        return draw_poses(grey(), poses, theme=theme)[between(far, "left_hip", "right_hip")]

    assert np.array_equal(of(7, 3)[:3], of(7)[:3]) and not np.array_equal(of(7), of(8))
    np.testing.assert_allclose(of(7), THEMES["default"].people[6], atol=2)
    np.testing.assert_allclose(of(-1), (173, 181, 189), atol=2)  # nobody yet
    assert np.array_equal(of(0), of(len(THEMES["default"].people)))


def test_sides_can_be_told_in_a_video_too():
    tracked = replace(person(), track_ids=[4])
    assert np.array_equal(draw_poses(grey(), tracked, ids=False, color_by="side"), draw_poses(grey(), person()))
    with pytest.raises(UnknownNameError, match="did you mean person"):
        draw_poses(grey(), tracked, color_by="persons")


def test_the_fast_theme_draws_plain_lines_and_fades_nothing():
    poses = person(score=0.3)
    drawn = draw_poses(grey(), poses, boxes=True, theme="fast")
    assert drawn[between(poses, "left_hip", "left_knee")].tolist() == list(COCO.side_color("left"))
    colors = {tuple(c) for c in drawn[changed(grey(), drawn)].tolist()}
    assert {COCO.side_color(side) for side in ("left", "right", "center")} <= colors and len(colors) == 4  # and the box


def test_the_fast_theme_is_faster():
    image, poses = grey(700, 700), person(640)

    def least(theme: str) -> float:
        taken = []
        for _ in range(15):
            started = time.process_time()
            draw_poses(image, poses, theme=theme, out=image)
            taken.append(time.process_time() - started)
        return min(taken)

    assert 2 * least("fast") < least("default")


def test_a_theme_changes_colours_and_widths():
    green = Theme(colors={"left": (0, 200, 0)}, line=0.04, outline_alpha=0)
    drawn, usual = draw_poses(grey(), person(), theme=green), draw_poses(grey(), person())
    at = between(person(), "left_hip", "left_knee")
    assert drawn[at].tolist() == [0, 200, 0]
    np.testing.assert_allclose(drawn[between(person(), "right_hip", "right_knee")], COCO.side_color("right"), atol=2)
    assert changed(grey(), drawn).sum() > changed(grey(), usual).sum()


def test_fingers_and_faces_are_finer_than_limbs_and_left_out_when_tiny():
    skeleton = get_skeleton("wholebody133")
    rng = np.random.default_rng(1)
    hand = np.isin(skeleton.joints, skeleton.parts["left_hand"])

    def drawn_pixels(size: float, joints: np.ndarray) -> int:
        xy = rng.random((1, 133, 2)) * size + 5
        poses = Poses(xy, np.where(joints, 0.9, 0)[None], [[5, 5, 5 + size, 5 + size]], [1], skeleton)
        image = grey(round(size) + 10, round(size) + 10)
        return int(changed(image, draw_poses(image, poses)).sum())

    assert drawn_pixels(300, hand) > 500
    assert drawn_pixels(30, hand) == 0
    assert drawn_pixels(30, np.isin(skeleton.joints, skeleton.parts["body"])) > 50


def test_a_body_is_drawn_the_same_with_and_without_hands_and_face():
    whole, body = get_skeleton("wholebody133"), person()
    legs = np.isin(COCO.joints, COCO.parts["lower_body"])
    xy, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
    xy[:, :17], scores[:, :17] = body.keypoints_xy, np.where(legs, 0.9, 0)
    only_legs = Poses(body.keypoints_xy, scores[:, :17], body.boxes_xyxy, body.box_scores, COCO)
    same = Poses(xy, scores, body.boxes_xyxy, body.box_scores, whole)
    assert np.array_equal(draw_poses(grey(), same), draw_poses(grey(), only_legs))


@pytest.mark.parametrize("name", list_skeletons())
def test_every_set_can_be_drawn(name):
    skeleton = get_skeleton(name)
    rng = np.random.default_rng(0)
    joints = len(skeleton)
    xy = rng.random((3, joints, 2)) * (150, 220) + 20
    poses = Poses(xy, rng.random((3, joints)), [[20, 20, 170, 240]] * 3, [0.9, 0.5, 0.1], skeleton)
    image = grey(260, 200)
    drawn = draw_poses(image, poses, boxes=True)
    colors = {tuple(c) for c in drawn.reshape(-1, 3).tolist()}
    assert changed(image, drawn).mean() > 0.05
    assert any(skeleton.color(joint) in colors for joint in skeleton.joints)


def test_grey_values_stay_exact_away_from_the_person():
    image = np.random.default_rng(3).integers(0, 256, (240, 260, 3), np.uint8)
    drawn = draw_poses(image, person(100, at=(100, 100)))
    assert np.array_equal(drawn[:90], image[:90]) and np.array_equal(drawn[:, :100], image[:, :100])


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 17, 2), elements=st.floats(width=32)),
    hnp.arrays(np.float32, (2, 17), elements=st.floats(width=32)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0, 1e-3, 5, 1e4, 1e30]),
)
def test_no_number_breaks_it(xy, scores, size_hw, box):
    poses = Poses(xy, scores, [[0, 0, box, box], [-box, 1, 2, 1]], [1, np.nan], COCO, [1, -5])
    image = grey(*size_hw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_poses(image, poses, boxes=True, names=True).shape == image.shape


@pytest.mark.parametrize("box", [[np.nan] * 4, [np.inf, 0, np.inf, 1], [50, 50, 50, 50]])
def test_a_person_without_a_proper_box_has_the_size_of_the_joints(box):
    poses = person()
    odd = Poses(poses.keypoints_xy, poses.scores, [box], [1], COCO, [3])
    drawn = draw_poses(grey(), odd)
    assert (drawn[between(poses, "left_hip", "left_knee")] != 128).any()


def test_joints_far_outside_draw_no_stray_line():
    poses = person()
    xy = poses.keypoints_xy.copy()
    xy[0, COCO.index("left_knee")] = (1e6, 1e6)
    drawn = draw_poses(grey(), Poses(xy, poses.scores, poses.boxes_xyxy, poses.box_scores, COCO))
    right_of_body = drawn[140:, 200:]
    assert (right_of_body == 128).all()
    assert (drawn[between(poses, "right_hip", "right_knee")] != 128).any()


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (1, 1, 3), (1, 300, 3)])
def test_the_smallest_pictures(shape):
    poses = replace(person(), track_ids=[3])
    for theme in THEMES:
        drawn = draw_poses(np.zeros(shape, np.uint8), poses, boxes=True, names=True, theme=theme)
        assert drawn.shape == shape


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\)"),
        ([[1]], "got list"),
    ],
)
def test_what_is_no_picture_is_an_error(image, message):
    with pytest.raises(PosezooError, match=message):
        draw_poses(image, person())
