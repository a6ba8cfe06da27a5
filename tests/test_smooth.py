"""Smoothing joints: the papers' filters, per person and joint, and what they leave alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.smooth import OneEuro, savgol, smooth_run
from posezoo.track import Tracker
from posezoo.types import Poses
from scenes import COCO, FPS, Trouble, Walker, crossing, make


def person(xy: np.ndarray, track: int = 1, score: float = 0.9) -> Poses:
    """One person with all joints at the same place, in a box of 100 x 100."""
    joints = np.broadcast_to(np.asarray(xy, float), (1, 17, 2))
    return Poses(joints, np.full((1, 17), score), [[0, 0, 100, 100]], [1.0], COCO, [track])


def walk(jitter: float = 0.015, seconds: float = 4) -> tuple[list[Poses], list[Poses]]:
    """Somebody who stands, walks and stands: as found, with ids, and as it was."""
    walker = Walker(((0, 200, 400), (1, 200, 400), (3, 700, 400), (4, 700, 400)))
    scene = make([walker], seconds, Trouble(jitter=jitter), 0)
    tracker = Tracker(COCO)
    return [tracker(poses, None, t) for poses, t in zip(scene.found, scene.times, strict=True)], scene.truth


def error(found: list[Poses], truth: list[Poses]) -> float:
    off = [a.keypoints_xy - b.keypoints_xy for a, b in zip(found, truth, strict=True)]
    return float(np.sqrt(np.mean(np.square(off))))


def jerk(found: list[Poses]) -> float:
    return float(np.sqrt(np.mean(np.diff([p.keypoints_xy for p in found], n=2, axis=0) ** 2)))


def literal(values: np.ndarray, times: np.ndarray, min_cutoff: float, beta: float, speed_cutoff: float, size: float):
    """The algorithm of the paper, for one point (F, 2)."""
    smoothed, speed = [values[0]], np.zeros(2)
    for n in range(1, len(values)):
        rate = 1 / (times[n] - times[n - 1])
        speed_now = (values[n] - smoothed[-1]) * rate
        share = 1 / (1 + rate / (2 * np.pi * speed_cutoff))
        speed = share * speed_now + (1 - share) * speed
        cutoff = min_cutoff + beta * np.hypot(*speed) / size
        share = 1 / (1 + rate / (2 * np.pi * cutoff))
        smoothed.append(share * values[n] + (1 - share) * smoothed[-1])
    return np.array(smoothed)


# ---- one euro


def test_one_euro_is_the_papers():
    rng = np.random.default_rng(0)
    values, times = rng.normal(0, 3, (40, 2)).cumsum(axis=0), rng.uniform(0.02, 0.1, 40).cumsum()
    smooth = OneEuro(COCO, min_cutoff=1.2, beta=2.0, speed_cutoff=0.9)
    found = [smooth(person(xy), time_s).keypoints_xy[0, 3] for xy, time_s in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, literal(values, times, 1.2, 2.0, 0.9, 100.0), atol=1e-4)


def test_one_euro_steadies_without_falling_behind():
    found, truth = walk()
    smooth = OneEuro(COCO)
    steady = [smooth(poses, n / FPS) for n, poses in enumerate(found)]
    assert jerk(steady) < 0.65 * jerk(found)
    assert error(steady, truth) < error(found, truth)
    for before, after in zip(found, steady, strict=True):
        np.testing.assert_array_equal(after.scores, before.scores)
        np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy)
        np.testing.assert_array_equal(after.track_ids, before.track_ids)


def test_each_person_has_a_filter_of_their_own_whatever_the_order():
    scene = make(crossing(), 4, Trouble(missed=0.1), 0)
    tracker = Tracker(COCO)
    found = [tracker(poses) for poses in scene.found]
    together, apart = OneEuro(COCO), {track: OneEuro(COCO) for track in range(1, 9)}
    for n, poses in enumerate(found):
        both = together(poses[::-1], n / FPS)[::-1]
        for row, track in enumerate(poses.track_ids.tolist()):
            alone = apart[track](poses[row], n / FPS)
            np.testing.assert_array_equal(both.keypoints_xy[row], alone.keypoints_xy[0])


def test_doubtful_joints_and_people_without_an_id_are_left_alone():
    smooth = OneEuro(COCO)
    smooth(person([10, 10]))
    np.testing.assert_array_equal(smooth(person([90, 90], score=0.1)).keypoints_xy, person([90, 90]).keypoints_xy)
    np.testing.assert_array_equal(smooth(person([90, 90], track=-1)).keypoints_xy, person([90, 90]).keypoints_xy)
    after = smooth(person([10, 10])).keypoints_xy
    np.testing.assert_array_equal(after, person([10, 10]).keypoints_xy)
    holes = replace(person([10, 10]), keypoints_xy=np.full((1, 17, 2), np.nan), scores=np.zeros((1, 17)))
    with np.errstate(all="raise"):
        assert np.isnan(smooth(holes).keypoints_xy).all()
        np.testing.assert_array_equal(smooth(person([10, 10])).keypoints_xy, after)


def test_a_gap_counts_by_its_length():
    def last(gap_s: float) -> float:
        smooth = OneEuro(COCO, max_gap_s=0.5)
        smooth(person([0, 0]), 0.0)
        return float(smooth(person([10, 0]), gap_s).keypoints_xy[0, 0, 0])

    assert last(0.04) < last(0.2) < last(0.4) < 10
    assert last(0.6) == 10, "after too long a gap a joint starts anew"


def test_time_that_stands_still_or_jumps_back():
    smooth = OneEuro(COCO)
    places = [smooth(person([x, 0]), t).keypoints_xy[0, 0, 0] for x, t in ((0, 5), (4, 5.04), (8, 5.04), (8, 1))]
    assert places[1] == places[2] == places[3] and 0 < places[1] < 4
    assert places[3] < smooth(person([8, 0]), 1.04).keypoints_xy[0, 0, 0] < 8


def test_the_dead_are_forgotten():
    smooth = OneEuro(COCO)
    sizes = []
    for n in range(300):
        smooth(person([n, 0], track=n), n / FPS)
        sizes.append(len(pickle.dumps(smooth)))
    assert max(sizes[100:]) <= 1.01 * max(sizes[:100])
    smooth(Poses.empty(COCO), 1000.0)
    assert len(pickle.dumps(smooth)) < min(sizes)


@pytest.mark.parametrize(
    "setting", [{"min_cutoff": 0}, {"beta": -1}, {"speed_cutoff": 0}, {"max_gap_s": -1}, {"fps": 0}]
)
def test_settings_that_cannot_be(setting):
    with pytest.raises(PosezooError, match=next(iter(setting))):
        OneEuro(COCO, **setting)


@pytest.mark.parametrize("smooth", [OneEuro(COCO), lambda poses: savgol([person([0, 0]), poses])])
def test_people_that_cannot_be_smoothed(smooth):
    poses = person([0, 0])
    with pytest.raises(PosezooError, match="Tracker"):
        smooth(replace(poses, track_ids=None))
    with pytest.raises(PosezooError, match="mpii16"):
        smooth(Poses.empty(get_skeleton("mpii16")))
    twice = Poses(*(np.concatenate([v, v]) for v in (poses.keypoints_xy, poses.scores, poses.boxes_xyxy)),
                  [1, 1], COCO, [7, 7])  # fmt: skip
    with pytest.raises(PosezooError, match="track id 7"):
        smooth(twice)


# ---- Savitzky and Golay


@pytest.mark.parametrize("window, order", [(5, 2), (9, 3), (7, 0), (1, 0), (11, 10)])
def test_savgol_is_scipys(window, order):
    signal = pytest.importorskip("scipy.signal")
    values = np.random.default_rng(0).normal(0, 50, (30, 2)).cumsum(axis=0)
    wanted = signal.savgol_filter(values, window, order, axis=0, mode="interp")
    np.testing.assert_allclose(smooth_run(values, window, order), wanted, atol=1e-8)
    found = savgol([person(xy) for xy in values], window, order)
    np.testing.assert_allclose([p.keypoints_xy[0, 5] for p in found], wanted, atol=1e-3)


def test_polynomials_stay_what_they_are():
    frames = np.arange(25.0)
    values = np.stack([3 + 2 * frames - 0.1 * frames**2, 100 - frames], axis=1)
    np.testing.assert_allclose(smooth_run(values, 9, 2), values, atol=1e-9)
    np.testing.assert_allclose(smooth_run(values[:4], 9, 2), values[:4], atol=1e-9)


def test_gaps_are_not_smoothed_over():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 10, (40, 2))
    sequence = [person(xy) for xy in values]
    sequence[15] = Poses.empty(COCO)
    scores = np.full((1, 17), 0.9)
    scores[0, 4] = 0.1
    sequence[28] = replace(sequence[28], scores=scores)
    found = savgol(sequence, 7, 2)
    assert [len(p) for p in found] == [len(p) for p in sequence]
    after, places = [p.keypoints_xy[0] if len(p) else None for p in found], np.arange(16, 40)
    np.testing.assert_allclose([after[n][0] for n in range(15)], smooth_run(values[:15], 7, 2), atol=1e-4)
    np.testing.assert_allclose([after[n][0] for n in places], smooth_run(values[16:], 7, 2), atol=1e-4)
    np.testing.assert_allclose([after[n][4] for n in range(16, 28)], smooth_run(values[16:28], 7, 2), atol=1e-4)
    np.testing.assert_allclose(after[28][4], values[28], atol=1e-5)


def test_the_whole_sequence_is_steadier_and_nearer():
    found, truth = walk()
    assert error(savgol(found), truth) < 0.7 * error(found, truth)
    assert jerk(savgol(found)) < 0.4 * jerk(found)


def test_people_are_found_by_id_not_by_place():
    scene = make(crossing(), 3, Trouble(), 0)  # what is found comes in another order in each frame
    tracker = Tracker(COCO)
    found = [tracker(poses) for poses in scene.found]
    together = savgol(found)
    for track in (1, 2, 3):
        alone = savgol([poses[poses.track_ids == track] for poses in found])
        for one, every in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.keypoints_xy, every.keypoints_xy[every.track_ids == track])


def test_short_and_empty_sequences():
    assert savgol([]) == []
    assert [len(p) for p in savgol([Poses.empty(COCO)] * 3)] == [0, 0, 0]
    one = person([3, 4])
    np.testing.assert_array_equal(savgol([one], 9, 2)[0].keypoints_xy, one.keypoints_xy)


@pytest.mark.parametrize("window, order, match", [(4, 2, "odd"), (0, 0, "odd"), (5, 5, "order"), (5, -1, "order")])
def test_windows_that_cannot_be(window, order, match):
    with pytest.raises(PosezooError, match=match):
        savgol([person([0, 0])], window, order)
