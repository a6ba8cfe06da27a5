"""Following people: ids that stay through crossings, misses, false people and other boxes; none is given twice."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton, list_skeletons
from posezoo.track import Tracker, best_pairs
from posezoo.track_motion import JITTER, WANDER, Motion
from posezoo.types import Poses
from scenes import COCO, FPS, Scene, Trouble, Walker, around, back, crossing, crowd, make, poses_of

HARD = Trouble(jitter=0.015, box_jitter=0.05, missed=0.1, doubtful=0.1, false=0.5, twice=0.1, halved=0.05)


def run(scene: Scene, tracker: Tracker | None = None) -> list[Poses]:
    tracker = tracker or Tracker(COCO)
    return [tracker(poses, None, time_s) for poses, time_s in zip(scene.found, scene.times, strict=True)]


def by_overlap(found: list[Poses]) -> list[Poses]:
    """What many do: the id of the box of the last frame that is overlapped most, a new one below 0.3."""
    boxes, ids, count = np.zeros((0, 4)), np.zeros(0, np.int64), 0
    followed = []
    for poses in found:
        now = poses.boxes_xyxy.astype(float)
        given = np.full(len(now), -1)
        low = np.maximum(now[:, None, :2], boxes[None, :, :2])
        common = np.maximum(np.minimum(now[:, None, 2:], boxes[None, :, 2:]) - low, 0).prod(axis=2)
        areas, past = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (now, boxes))
        overlap = common / (areas[:, None] + past - common)
        for row, column in sorted(np.argwhere(overlap >= 0.3).tolist(), key=lambda pair: -overlap[tuple(pair)]):
            if given[row] < 0 and ids[column] not in given:
                given[row] = ids[column]
        new = np.flatnonzero(given < 0)
        given[new] = count + np.arange(len(new))
        count += len(new)
        boxes, ids = now, given
        followed.append(replace(poses, track_ids=given))
    return followed


def still(score: float = 0.9, x: float = 300.0, height: float = 200.0) -> Poses:
    """Somebody who stands."""
    xy = Walker(((0, x, 300), (1, x, 300)), height).joints(np.zeros(1))
    return poses_of(xy, around(xy), np.full((1, 17), score), np.ones(1))


def together(*people: Poses) -> Poses:
    columns = ("keypoints_xy", "scores", "boxes_xyxy", "box_scores")
    return Poses(*(np.concatenate([getattr(p, name) for p in people]) for name in columns), COCO)


# ---- scenes


@pytest.mark.parametrize("seed", range(3))
def test_people_who_cross_leave_and_return_keep_their_ids(seed):
    scene = make(back(crossing()), 8, Trouble(), seed)
    followed = run(scene)
    assert scene.switches(followed).switches == 0
    ids = scene.ids(followed)
    assert sorted(ids) == [0, 1, 2, 3] and all(len(own) == 1 for own in ids.values())
    assert set.union(*ids.values()) == {1, 2, 3, 4}


def test_noise_misses_and_false_boxes_cost_few_switches():
    ours = naive = 0
    for seed in range(3):
        scene = make(back(crossing()), 8, HARD, seed)
        followed = run(scene)
        ours += scene.switches(followed).switches
        naive += scene.switches(by_overlap(scene.found)).switches
        real = sum(int((owners >= 0).sum()) for owners in scene.owners)
        assert scene.switches(followed).detections > 0.95 * real
        assert max(poses.track_ids.max(initial=0) for poses in followed) <= 5, "four people, and no id for false ones"
    assert ours <= 4 < 50 < naive


def test_a_crowd_is_followed_better_than_by_overlap():
    for trouble, most in ((Trouble(), 2), (HARD, 10)):
        scene = make(crowd(12, seed=3), 6, trouble, 3)
        ours, naive = scene.switches(run(scene)), scene.switches(by_overlap(scene.found))
        assert ours.switches <= most < naive.switches


@pytest.mark.parametrize("fps", [1.0, 5.0, 50.0])
def test_any_frame_rate(fps):
    scene = make(crossing(), 8, Trouble(missed=0.02), 1, fps)
    assert scene.switches(run(scene)).switches <= 2


def test_frames_without_a_time_are_evenly_spaced():
    scene = make(crossing(), 8, HARD, 0)
    timed = [poses.track_ids.tolist() for poses in run(scene)]
    tracker = Tracker(COCO, fps=FPS)
    assert [tracker(poses).track_ids.tolist() for poses in scene.found] == timed


def test_the_order_of_people_changes_no_ones_id():
    scene = make(crossing(), 4, Trouble(missed=0.1), 2)
    rng = np.random.default_rng(0)
    first, second = Tracker(COCO), Tracker(COCO)
    same: dict[int, int] = {}
    for poses in scene.found:
        order = rng.permutation(len(poses))
        ids, mixed = first(poses).track_ids, second(poses[order])
        np.testing.assert_array_equal(mixed.keypoints_xy, poses.keypoints_xy[order])
        for one, other in zip(ids[order].tolist(), mixed.track_ids.tolist(), strict=True):
            assert same.setdefault(one, other) == other


# ---- one thing at a time


def test_nobody_is_a_frame_too():
    tracker = Tracker(COCO)
    for poses in (Poses.empty(COCO), still(), Poses.empty(COCO)):
        followed = tracker(poses)
        assert followed.track_ids.dtype == np.int64 and len(followed.track_ids) == len(poses)


def test_only_the_ids_are_new():
    poses = together(still(x=100), still(x=500))
    followed = Tracker(COCO)(poses)
    assert followed.track_ids.tolist() == [1, 2] and poses.track_ids is None
    for name in ("keypoints_xy", "scores", "boxes_xyxy", "box_scores"):
        np.testing.assert_array_equal(getattr(followed, name), getattr(poses, name))


@pytest.mark.parametrize("away_s, same", [(0.2, True), (1.5, True), (2.5, False)])
def test_who_is_away_too_long_is_somebody_new(away_s, same):
    tracker = Tracker(COCO, max_age_s=2.0)
    for n in range(5):
        assert tracker(still(), None, n / FPS).track_ids == [1]
    for n in range(5, 5 + int(away_s * FPS)):
        tracker(Poses.empty(COCO), None, n / FPS)
    assert tracker(still(), None, 4 / FPS + away_s).track_ids == [1 if same else 2]


def test_a_walker_out_of_sight_is_expected_farther_on():
    walker = Walker(((0, 100, 300), (4, 700, 300)))
    scene = make([walker], 4, Trouble(), 0)
    tracker = Tracker(COCO)
    hidden = range(40, 65)
    shown = [tracker(Poses.empty(COCO) if n in hidden else poses) for n, poses in enumerate(scene.found)]
    assert {int(k) for poses in shown for k in poses.track_ids} == {1}


def test_another_box_round_the_same_person():
    tracker = Tracker(COCO)
    whole = still()
    legs = np.arange(17) >= 13
    half = replace(whole, boxes_xyxy=whole.boxes_xyxy * [1, 1, 1, 0.75], scores=np.where(legs, 0.05, whole.scores))
    for poses in [whole] * 5 + [half] * 10 + [whole] * 5:
        assert tracker(poses).track_ids == [1]


def test_a_doubtful_pose_is_somebody_when_it_lasts():
    tracker = Tracker(COCO, hits=3)
    doubtful = still(0.3)
    assert [int(tracker(doubtful).track_ids[0]) for _ in range(4)] == [-1, -1, 1, 1]
    blinking = Tracker(COCO, hits=3)
    for _ in range(6):
        assert blinking(doubtful).track_ids == [-1]
        blinking(Poses.empty(COCO))


def test_a_doubtful_pose_keeps_an_id_alive():
    tracker = Tracker(COCO)
    tracker(still(0.9))
    assert [int(tracker(still(0.25)).track_ids[0]) for _ in range(100)] == [1] * 100


def test_a_second_pose_of_somebody_is_never_somebody():
    tracker = Tracker(COCO)
    for _ in range(10):
        assert tracker(together(still(0.8), still(0.9, x=303))).track_ids.tolist() == [-1, 1]


def test_ids_are_never_given_twice():
    tracker = Tracker(COCO, max_age_s=0)
    seen: list[int] = []
    for n in range(20):
        seen += tracker(still(x=100 + 500 * (n % 2))).track_ids.tolist()
        if n == 10:
            tracker.reset()
    assert len(set(seen)) == 20


def test_joints_that_were_not_placed():
    poses = still()
    gone = np.arange(17) >= 11
    holes = replace(
        poses, keypoints_xy=np.where(gone[:, None], np.nan, poses.keypoints_xy), scores=np.where(gone, 0, poses.scores)
    )
    nothing = replace(poses, scores=np.zeros((1, 17)))
    tracker = Tracker(COCO)
    with np.errstate(all="raise"):
        assert [int(tracker(p).track_ids[0]) for p in (poses, holes, poses, nothing, poses)] == [1] * 5


def test_a_clock_that_jumps():
    tracker = Tracker(COCO)
    assert [int(tracker(still(), None, t).track_ids[0]) for t in (10, 10.04, 10.04, 3, 3.04, 900, 900.04)] == [1] * 7
    tracker(Poses.empty(COCO), None, 910)
    assert tracker(still(), None, 910.04).track_ids == [2], "time goes on after it was set back"


@pytest.mark.parametrize("name", list_skeletons())
def test_every_keypoint_set(name):
    skeleton = get_skeleton(name)
    rng = np.random.default_rng(0)
    shape = rng.uniform(-40, 40, (1, len(skeleton), 2))
    tracker = Tracker(skeleton)
    for n in range(30):
        xy = shape + np.array([[[100 + 8 * n, 200]], [[340 - 8 * n, 260]]])
        xy += rng.normal(0, 1.5, xy.shape)
        boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
        poses = Poses(xy, np.full(xy.shape[:2], 0.8), boxes, np.ones(2), skeleton)
        assert tracker(poses).track_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    "setting", [{"sure": 2}, {"max_age_s": -1}, {"hits": 0}, {"fps": 0}, {"joint_score": -1}, {"sure": float("nan")}]
)
def test_settings_that_cannot_be(setting):
    with pytest.raises(PosezooError, match=next(iter(setting))):
        Tracker(COCO, **setting)


def test_what_cannot_be_followed():
    tracker = Tracker(COCO)
    with pytest.raises(PosezooError, match="mpii16"):
        tracker(Poses.empty(get_skeleton("mpii16")))
    with pytest.raises(PosezooError, match="number of seconds"):
        tracker(still(), None, float("nan"))


# ---- parts


def test_the_filter_is_kalmans():
    """Against the textbook's matrices, on one side of a box."""
    rng = np.random.default_rng(0)
    motion = Motion.first(np.array([[50.0, 80.0, 100.0, 100.0]]))
    state, spread = np.array([50.0, 0.0]), np.diag(motion.variances[0, 0, [0, 2]])
    for _ in range(20):
        step = rng.uniform(0.02, 0.1)
        size = np.sqrt(motion.sides[0, 2] * motion.sides[0, 3])
        matrix = np.array([[1, step], [0, 1]])
        noise = (WANDER[0] * size) ** 2 * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        state, spread = matrix @ state, matrix @ spread @ matrix.T + noise
        motion = motion.after(step)
        seen = motion.sides[0] + rng.normal(0, 3, 4)
        size = np.sqrt(motion.sides[0, 2] * motion.sides[0, 3])
        gain = spread[:, 0] / (spread[0, 0] + (JITTER * size) ** 2)
        state, spread = state + gain * (seen[0] - state[0]), spread - np.outer(gain, spread[0])
        motion = motion.seen(np.array([0]), seen[None])
        np.testing.assert_allclose([motion.sides[0, 0], motion.speeds[0, 0]], state)
        np.testing.assert_allclose(motion.variances[0, 0], spread[[0, 0, 1], [0, 1, 1]])


@given(
    rows=st.integers(0, 9), columns=st.integers(0, 9), seed=st.integers(0, 10_000), least=st.sampled_from([0.2, 0.7])
)
@settings(deadline=None)
def test_pairs_are_the_best_there_are(rows, columns, seed, least):
    optimize = pytest.importorskip("scipy.optimize")
    alike = np.random.default_rng(seed).random((rows, columns))
    left, right = best_pairs(alike, least)
    assert len(set(left)) == len(left) and len(set(right)) == len(right) and (alike[left, right] >= least).all()
    worth = np.where(alike >= least, alike, 0)
    best = worth[optimize.linear_sum_assignment(worth, maximize=True)].sum()
    np.testing.assert_allclose(alike[left, right].sum(), best)


@pytest.mark.parametrize("frames", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_is_kept_does_not_grow(frames):
    """People come and go for ever."""
    rng = np.random.default_rng(0)
    tracker = Tracker(COCO)
    sizes = []
    for n in range(frames):
        people = [still(rng.uniform(0.2, 0.95), x) for x in rng.uniform(0, 1200, rng.poisson(3))]
        tracker(together(*people) if people else Poses.empty(COCO), None, n / FPS)
        if n >= 100 and n % 10 == 0:
            sizes.append(len(pickle.dumps(tracker)))
    assert max(sizes[len(sizes) // 2 :]) < 1.5 * max(sizes[: len(sizes) // 2])
