"""How followed people move and how alike they are: a Kalman filter on boxes, and object keypoint similarity.

Each side of a box (centre x and y, width, height) has a filter of its own, of position and velocity, under white noise
of the acceleration. All lengths of the noise are shares of the person's size, the root of the box's area, so that one
setting does for near and far people and for every resolution; all times are seconds, so that it does for every frame
rate, and for frames that are missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton
from posezoo.suppress import person_scores
from posezoo.types import Poses

Doubles = NDArray[np.float64]
Marks = NDArray[np.bool_]
Rows = NDArray[np.intp]

JITTER = 0.06  # of a detector's box
FIRST_SPEED = (1.5, 1.5, 0.3, 0.3)  # a second, of someone seen once
WANDER = (1.0, 1.0, 0.3, 0.3)  # how far velocities stray in a second
OUTLIER = 3.0  # standard deviations, from which on a box counts less
TOLERANCE = 2.0  # standard deviations at which a box is half like the expected one
POSE_SHARE = 2.0  # with all joints seen, the pose counts as much as that many boxes


@dataclass(frozen=True, eq=False)
class Sightings:
    """The N people found in a frame.

    Attributes:
        sides: (N, 4) centre x and y, width and height of the boxes, at least a pixel.
        keypoints_xy: (N, K, 2).
        shown: (N, K) joints that count.
        scores: (N,) of the poses.
    """

    sides: Doubles
    keypoints_xy: Doubles
    shown: Marks
    scores: Doubles

    @classmethod
    def of(cls, poses: Poses, joint_score: float) -> Sightings:
        """What counts of `poses`; joints that score no more than `joint_score` do not."""
        boxes = poses.boxes_xyxy.astype(np.float64)
        low, high = boxes[:, :2], boxes[:, 2:]
        keypoints_xy = poses.keypoints_xy.astype(np.float64)
        shown = (poses.scores > joint_score) & np.isfinite(keypoints_xy).all(axis=2)
        sides = np.concatenate([(low + high) / 2, np.maximum(high - low, 1)], axis=1)
        return cls(sides, keypoints_xy, shown, person_scores(poses))

    def __len__(self) -> int:
        return len(self.sides)

    def where(self, rows: Rows) -> Sightings:
        """Those at `rows`."""
        return Sightings(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Motion:
    """Where T people are thought to be, and how well that is known.

    Attributes:
        sides: (T, 4) centre x and y, width and height of each box.
        speeds: (T, 4) of these, a second.
        variances: (T, 4, 3) of a side, of side and speed together, and of the speed.
    """

    sides: Doubles
    speeds: Doubles
    variances: Doubles

    @classmethod
    def first(cls, sides: Doubles) -> Motion:
        """People seen once."""
        size = sizes(sides)[:, None]
        position = np.broadcast_to((JITTER * size) ** 2, sides.shape)
        speed = (np.array(FIRST_SPEED) * size) ** 2
        return cls(sides, np.zeros_like(sides), np.stack([position, np.zeros_like(sides), speed], axis=2))

    def where(self, rows: Rows) -> Motion:
        """Those at `rows`."""
        return Motion(*(values[rows] for values in vars(self).values()))

    def joined(self, others: Motion) -> Motion:
        """These, then the others."""
        return Motion(*map(np.concatenate, zip(vars(self).values(), vars(others).values(), strict=True)))

    def after(self, seconds: float) -> Motion:
        """Some time later."""
        position, both, speed = np.moveaxis(self.variances, 2, 0)
        stray = (np.array(WANDER) * sizes(self.sides)[:, None]) ** 2 * seconds
        moved = self.sides + self.speeds * seconds
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        variances = (
            position + 2 * both * seconds + speed * seconds**2 + stray * seconds**2 / 3,
            both + speed * seconds + stray * seconds / 2,
            speed + stray,
        )
        return Motion(moved, self.speeds, np.stack(variances, axis=2))

    def seen(self, rows: Rows, sides: Doubles) -> Motion:
        """Those at `rows` found with boxes of `sides` (M, 4).

        A box that is far off (of half the person, say) moves them less than its distance would.
        """
        position, both, speed = np.moveaxis(self.variances[rows], 2, 0)
        off = sides - self.sides[rows]
        spread = np.maximum(position + self._jitter(rows), (off / OUTLIER) ** 2)
        gain, speed_gain = position / spread, both / spread
        moved, speeds, variances = self.sides.copy(), self.speeds.copy(), self.variances.copy()
        moved[rows] += gain * off
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        speeds[rows] += speed_gain * off
        variances[rows] = np.stack([position * (1 - gain), both * (1 - gain), speed - speed_gain * both], axis=2)
        return Motion(moved, speeds, variances)

    def likeness(self, rows: Rows, sides: Doubles) -> Doubles:
        """How well the person at each of `rows` (M,) has a box of `sides` (M, 4): 1 as expected, towards 0 far off."""
        spread = self.variances[rows, :, 0] + self._jitter(rows)
        off = (sides - self.sides[rows]) ** 2 / spread
        return np.asarray(1 / (1 + off.mean(axis=1) / TOLERANCE**2))

    def _jitter(self, rows: Rows) -> Doubles:
        """The variance of a detector's box, (M, 1)."""
        return np.asarray((JITTER * sizes(self.sides[rows])[:, None]) ** 2)


def sizes(sides: Doubles) -> Doubles:
    """The root of each box's area, (N,)."""
    return np.sqrt(sides[:, 2] * sides[:, 3])


def likeness_of_poses(
    skeleton: Skeleton, left_xy: Doubles, right_xy: Doubles, counted: Marks, areas: Doubles, spread: Doubles | float = 0
) -> Doubles:
    """Object keypoint similarity of M pairs of poses.

    Args:
        skeleton: whose sigmas to use.
        left_xy: (M, K, 2).
        right_xy: (M, K, 2).
        counted: (M, K) joints that both have.
        areas: (M,) square pixels.
        spread: (M,) variance, in square pixels, of the place of the whole pose, which is added to each joint's own.

    Returns:
        (M,) in [0, 1]; 0 for a pair without joints in common.
    """
    own = (2 * skeleton.oks_sigmas) ** 2 * areas[:, None]
    squared = np.where(counted, ((left_xy - right_xy) ** 2).sum(axis=2), np.inf)
    near = np.exp(-squared / (2 * (own + np.reshape(spread, (-1, 1)))))
    return np.asarray(near.sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def pose_weight(counted: Marks) -> Doubles:
    """The share of the pose in a likeness of pose and box, (M,): the more joints, the larger; 0 without any."""
    return np.asarray(POSE_SHARE * counted.mean(axis=1) / (1 + POSE_SHARE * counted.mean(axis=1)))


def near_pairs(left: Doubles, right: Doubles, reach: Doubles | float = 0) -> tuple[Rows, Rows]:
    """Which of T and of N boxes may be of one person: the pairs whose centres are no farther apart than they are large.

    Args:
        left: (T, 4) centre x and y, width and height.
        right: (N, 4) likewise.
        reach: (T, 1) pixels that the centres may be farther apart.
    """
    limit = np.maximum(left[:, None, 2:], right[None, :, 2:]).max(axis=2) + reach
    rows, columns = np.nonzero((np.abs(left[:, None, :2] - right[None, :, :2]) <= limit[..., None]).all(axis=2))
    return rows, columns


class Clock:
    """The time of the frames of a video, of which some may not say it. It never goes back.

    Attributes:
        fps: frames a second, for those.
    """

    def __init__(self, fps: float) -> None:
        if not 0 < fps < np.inf:
            raise PosezooError(f"fps must be above 0, but is {fps:g}")
        self.fps = fps
        self._said: float | None = None
        self._passed = 0.0

    def tick(self, time_s: float | None) -> tuple[float, float]:
        """Seconds from the first frame to the next one, and to it from the last one: 0 where a video jumps back.

        Args:
            time_s: what the frame says; None: one frame after the last.
        """
        before = self._said
        said = (0.0 if before is None else before + 1 / self.fps) if time_s is None else float(time_s)
        if not np.isfinite(said):
            raise PosezooError(f"the time of a frame must be a number of seconds, but is {said}")
        self._said = said
        step = 0.0 if before is None else max(said - before, 0.0)
        self._passed += step
        return self._passed, step


def check_skeleton(poses: Poses, skeleton: Skeleton) -> None:
    """Refuse poses of other joints than were announced."""
    if poses.skeleton != skeleton:
        raise PosezooError(f"the poses are of {poses.skeleton.name}, but {skeleton.name} was announced")


def check_setting(name: str, value: float, least: float, most: float = np.inf) -> None:
    """Refuse a number outside of `least` to `most`, and one that is none."""
    if not least <= value <= most:
        wanted = f"between {least:g} and {most:g}" if np.isfinite(most) else f"{least:g} or more"
        raise PosezooError(f"{name} must be {wanted}, but is {value:g}")
