"""Who is who from frame to frame: ids by how alike poses are and how boxes move.

People are expected where a Kalman filter of their boxes says (`track_motion`), in the pose they were last seen in. What
was found is given to them by the likeness of pose and box, as a whole (the Hungarian method), in rounds: sure poses
first, then doubtful ones, which keep a person's id alive but make a new one only when they last. The rounds are from
Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box" (ECCV 2022); the last look where
somebody was last seen is that of Cao et al., "Observation-Centric SORT" (CVPR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posezoo.evaluate.mot import assignment
from posezoo.skeletons import Skeleton
from posezoo.track_motion import (
    JITTER,
    Clock,
    Doubles,
    Marks,
    Motion,
    Rows,
    Sightings,
    check_setting,
    check_skeleton,
    likeness_of_poses,
    near_pairs,
    pose_weight,
    sizes,
)
from posezoo.types import Poses

NO_ID = -1
"""The id of a pose that is nobody's yet."""

FPS = 25.0
SURE = 0.4  # the score of a pose, its box's times the mean of its joints', from which on it is somebody new at once
JOINT_SCORE = 0.2  # below it a joint says nothing of who somebody is
MAX_AGE = 2.0  # seconds
HITS = 3  # frames in a row that make a doubtful pose somebody
RECENT = 0.5  # seconds; a doubtful pose is nobody who has been away for longer
ALIKE, DOUBTFULLY_ALIKE = 0.3, 0.35  # the least likeness of a sure and of a doubtful pose
AWAY = 0.6  # the share of the likeness that `RECENT` seconds out of sight cost: who was hidden takes nobody's place
DUPLICATE = 0.7  # the likeness to a better pose of the same frame, from which on one is a second box of that person


class Tracker:
    """Gives the people of a video their ids, frame by frame.

    A pose that is surely somebody has an id from the first frame on, since what is written out cannot be mended later.
    A doubtful one that is nobody known has the id -1 until it was found in a few frames in a row; a second pose of
    somebody has it always. An id is never given twice, and who was away for longer than `max_age_s` gets a new one.
    What is kept does not grow with the video.

    Example:
        >>> tracker = Tracker(estimator.skeleton)                            # doctest: +SKIP
        >>> followed = [tracker(poses) for poses in estimator.stream(frames)]  # doctest: +SKIP
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        sure: float = SURE,
        max_age_s: float = MAX_AGE,
        hits: int = HITS,
        fps: float = FPS,
        joint_score: float = JOINT_SCORE,
    ) -> None:
        """Start with nobody.

        Args:
            skeleton: the joints of all poses to come.
            sure: the score of a pose (its box's times the mean of its joints') from which on it is surely somebody.
            max_age_s: how long somebody may be away, in seconds of frames, and keep the id; a pause without frames does
                not count.
            hits: how many frames in a row a doubtful pose must be found in to get an id.
            fps: frames a second, where a frame does not say its time.
            joint_score: joints that score no more than this do not count.

        Raises:
            PosezooError: a setting that cannot be.
        """
        check_setting("sure", sure, 0, 1)
        check_setting("max_age_s", max_age_s, 0)
        check_setting("hits", hits, 1)
        check_setting("joint_score", joint_score, 0, 1)
        self.skeleton, self.sure, self.max_age_s, self.hits = skeleton, sure, max_age_s, hits
        self.joint_score = joint_score
        self._clock = Clock(fps)
        self._next_id = 1
        self._tracks = _Tracks.of(Sightings.of(Poses.empty(skeleton), 0), 0)

    def reset(self) -> None:
        """Forget everybody, as between two videos; ids go on counting."""
        self._clock = Clock(self._clock.fps)
        self._tracks = self._tracks.where(np.zeros(0, np.intp))

    def __call__(self, poses: Poses, image_rgb: NDArray[np.uint8] | None = None, time_s: float | None = None) -> Poses:
        """The people of the next frame with their ids.

        Args:
            poses: nobody is a frame too.
            image_rgb: not looked at; `posezoo.track_flow.FlowTracker` does.
            time_s: when the frame was, in seconds; None: one frame after the last.

        Returns:
            The same people in the same order, with `track_ids`; -1 for a pose that is nobody yet.

        Raises:
            PosezooError: poses of other joints.
        """
        check_skeleton(poses, self.skeleton)
        now, passed = self._clock.tick(time_s)
        found = Sightings.of(poses, self.joint_score)
        tracks = self._tracks.after(passed)
        own = ~duplicates(self.skeleton, found)
        sure = own & (found.scores >= self.sure)
        track_of = self._associate(tracks, found, sure, own, now - passed)
        self._tracks, ids = self._learn(tracks, found, sure, own, track_of, now)
        return replace(poses, track_ids=ids)

    def _associate(self, tracks: _Tracks, found: Sightings, sure: Marks, own: Marks, before_s: float) -> Rows:
        """Which track each pose is of, (N,); -1: none. The last frame was at `before_s`."""
        track_of = np.full(len(found), -1)
        free = np.ones(len(tracks), bool)
        known = tracks.ids != NO_ID

        def give(alike: Doubles, which: Marks, these: Marks, least: float) -> None:
            rows, columns = np.flatnonzero(which & free), np.flatnonzero(these & (track_of < 0))
            if not len(rows) or not len(columns):
                return
            left, right = best_pairs(alike[rows[:, None], columns], least)
            track_of[columns[right]] = rows[left]
            free[rows[left]] = False

        away_s = before_s - tracks.seen_s
        expected = self._likeness(tracks, found) * (1 - AWAY * np.minimum(away_s / RECENT, 1))[:, None]
        give(expected, known, sure, ALIKE)
        give(expected, known & (away_s <= RECENT), ~sure, DOUBTFULLY_ALIKE)
        give(expected, ~known, own, ALIKE)
        if (known & free).any() and (sure & (track_of < 0)).any():
            give(self._likeness(tracks.where_last_seen(), found), known, sure, ALIKE)
        return track_of

    def _likeness(self, tracks: _Tracks, found: Sightings) -> Doubles:
        """How alike each pose is to what is expected of each track, (T, N) in [0, 1]; 0 for what is far away."""
        motion = tracks.motion
        spread = motion.variances[:, :2, 0].mean(axis=1)
        rows, columns = near_pairs(motion.sides, found.sides, 3 * np.sqrt(spread)[:, None])
        counted = tracks.shown[rows] & found.shown[columns]
        areas = (sizes(motion.sides)[rows] ** 2 + sizes(found.sides)[columns] ** 2) / 2
        of_pose = likeness_of_poses(
            self.skeleton,
            (tracks.keypoints_xy + tracks.moved[:, None])[rows],
            found.keypoints_xy[columns],
            counted,
            areas,
            spread[rows],
        )
        weight = pose_weight(counted)
        alike = np.zeros((len(tracks), len(found)))
        alike[rows, columns] = weight * of_pose + (1 - weight) * motion.likeness(rows, found.sides[columns])
        return alike

    def _learn(
        self, tracks: _Tracks, found: Sightings, sure: Marks, own: Marks, track_of: Rows, now: float
    ) -> tuple[_Tracks, NDArray[np.int64]]:
        """The tracks after this frame, and the ids of the poses in it."""
        old, new = np.flatnonzero(track_of >= 0), np.flatnonzero(own & (track_of < 0))
        tracks = tracks.seen(track_of[old], found.where(old), now)
        row_of = track_of.copy()
        if len(new):
            row_of[new] = len(tracks) + np.arange(len(new))
            tracks = tracks.joined(_Tracks.of(found.where(new), now))
        here = np.flatnonzero(row_of >= 0)
        rows = row_of[here]
        earned = rows[(tracks.ids[rows] == NO_ID) & (sure[here] | (tracks.hits[rows] >= self.hits))]
        tracks.ids[earned] = self._next_id + np.arange(len(earned))
        self._next_id += len(earned)
        ids = np.full(len(found), NO_ID)
        ids[here] = tracks.ids[rows]
        kept = (tracks.ids != NO_ID) & (now - tracks.seen_s <= self.max_age_s)
        kept[rows] = True
        return tracks if kept.all() else tracks.where(np.flatnonzero(kept)), ids


def best_pairs(alike: Doubles, least: float) -> tuple[Rows, Rows]:
    """The pairs of rows and columns with the greatest summed likeness, of those that are at least `least` alike."""
    possible = alike >= least
    alone = (possible.sum(axis=1) == 1)[:, None] & (possible.sum(axis=0) == 1)
    rows, columns = np.nonzero(possible & alone)  # nobody else is like them
    open_to = possible.copy()
    open_to[rows, columns] = False
    open_rows, open_columns = np.flatnonzero(open_to.any(axis=1)), np.flatnonzero(open_to.any(axis=0))
    if not len(open_rows):
        return rows, columns
    block = open_rows[:, None], open_columns
    left, right = assignment(np.where(possible[block], -alike[block], 0.0))
    left, right = open_rows[left], open_columns[right]
    made = possible[left, right]
    return np.append(rows, left[made]), np.append(columns, right[made])


def duplicates(skeleton: Skeleton, found: Sightings) -> Marks:
    """Which poses of a frame, (N,), are much like one that scores better: most are second boxes of one person."""
    left, right = near_pairs(found.sides, found.sides)
    better = (found.scores[left] > found.scores[right]) | ((found.scores[left] == found.scores[right]) & (left < right))
    left, right = left[better], right[better]
    areas = (sizes(found.sides)[left] ** 2 + sizes(found.sides)[right] ** 2) / 2
    counted = found.shown[left] & found.shown[right]
    alike = likeness_of_poses(
        skeleton, found.keypoints_xy[left], found.keypoints_xy[right], counted, areas, JITTER**2 * areas
    )
    twice = np.zeros(len(found), bool)
    twice[right[alike > DUPLICATE]] = True
    return twice


@dataclass(frozen=True, eq=False)
class _Tracks:
    """T people that are followed.

    Attributes:
        ids: (T,) int64, `NO_ID` for those that have not earned one.
        hits: (T,) int64, the frames that they were found in.
        seen_s: (T,) when they were last found.
        keypoints_xy: (T, K, 2) when last found.
        shown: (T, K) the joints that counted then.
        moved: (T, 2) how far they are thought to have gone since.
        motion: where they are thought to be.
    """

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    seen_s: Doubles
    keypoints_xy: Doubles
    shown: Marks
    moved: Doubles
    motion: Motion

    @classmethod
    def of(cls, found: Sightings, now: float) -> _Tracks:
        """People found for the first time."""
        count = len(found)
        return cls(
            np.full(count, NO_ID, np.int64),
            np.ones(count, np.int64),
            np.full(count, float(now)),
            found.keypoints_xy,
            found.shown,
            np.zeros((count, 2)),
            Motion.first(found.sides),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, rows: Rows) -> _Tracks:
        """Those at `rows`."""
        motion = self.motion.where(rows)
        return _Tracks(**{name: v[rows] for name, v in vars(self).items() if name != "motion"}, motion=motion)

    def joined(self, others: _Tracks) -> _Tracks:
        """These, then the others."""
        mine, theirs = vars(self), vars(others)
        arrays = {name: np.concatenate([mine[name], theirs[name]]) for name in mine if name != "motion"}
        return _Tracks(**arrays, motion=self.motion.joined(others.motion))

    def after(self, seconds: float) -> _Tracks:
        """Some time later."""
        motion = self.motion.after(seconds)
        return replace(self, motion=motion, moved=self.moved + motion.sides[:, :2] - self.motion.sides[:, :2])

    def where_last_seen(self) -> _Tracks:
        """As if nobody had moved since: who went out of sight may have stopped there, or come back."""
        sides = self.motion.sides - np.pad(self.moved, ((0, 0), (0, 2)))
        return replace(self, motion=replace(self.motion, sides=sides), moved=np.zeros_like(self.moved))

    def seen(self, rows: Rows, found: Sightings, now: float) -> _Tracks:
        """Those at `rows` (M,) found as M people."""
        values = {name: value.copy() for name, value in vars(self).items() if name != "motion"}
        values["hits"][rows] += 1
        values["seen_s"][rows] = now
        values["moved"][rows] = 0
        values["keypoints_xy"][rows], values["shown"][rows] = found.keypoints_xy, found.shown
        return _Tracks(**values, motion=self.motion.seen(rows, found.sides))
