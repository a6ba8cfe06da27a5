"""Joints that do not jitter: the one euro filter for streams, Savitzky and Golay's for whole sequences.

Both work on each joint of each followed person by itself, and leave scores, boxes, ids and the order of people as they
are. Joints that the network is not sure of (and people without an id) come out as they went in, and pull at no other
frame. One euro: Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems" (CHI 2012). Savitzky and Golay, Analytical Chemistry 36 (1964).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton
from posezoo.track_motion import Clock, Doubles, Marks, check_setting, check_skeleton
from posezoo.types import Poses

JOINT_SCORE = 0.2
MIN_CUTOFF = 1.5  # hertz
BETA = 6.0  # hertz for each body size a second
SPEED_CUTOFF = 1.0  # hertz, the paper's
MAX_GAP = 0.5  # seconds
FPS = 25.0


class OneEuro:
    """Smooths the joints of a video frame by frame, without waiting for later ones.

    A low-pass filter whose cutoff rises with the speed: a joint at rest does not jitter, one that moves fast hardly
    lags. Speeds are in sizes of the person (the root of the box's area) a second, so that one setting does for near
    and far people. A joint that was not seen for `max_gap_s` starts anew; who was not seen for as long is forgotten.

    Example:
        >>> smooth = OneEuro(skeleton)                                                        # doctest: +SKIP
        >>> steady = [smooth(tracker(poses), time_s) for poses, time_s in found]              # doctest: +SKIP
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        min_cutoff: float = MIN_CUTOFF,
        beta: float = BETA,
        speed_cutoff: float = SPEED_CUTOFF,
        max_gap_s: float = MAX_GAP,
        joint_score: float = JOINT_SCORE,
        fps: float = FPS,
    ) -> None:
        """Start with nobody.

        Args:
            skeleton: the joints of all poses to come.
            min_cutoff: hertz, for a joint at rest; lower: less jitter, more lag when it begins to move.
            beta: how many hertz the cutoff rises with each size of the person a second; higher: less lag.
            speed_cutoff: hertz, of the filter of the speed itself.
            max_gap_s: seconds without a joint after which what was known of it says nothing.
            joint_score: joints that score no more than this are left alone.
            fps: frames a second, where a frame does not say its time.

        Raises:
            PosezooError: a setting that cannot be.
        """
        check_setting("min_cutoff", min_cutoff, 1e-6)
        check_setting("beta", beta, 0)
        check_setting("speed_cutoff", speed_cutoff, 1e-6)
        check_setting("max_gap_s", max_gap_s, 0)
        check_setting("joint_score", joint_score, 0, 1)
        self.skeleton, self.min_cutoff, self.beta, self.speed_cutoff = skeleton, min_cutoff, beta, speed_cutoff
        self.max_gap_s, self.joint_score = max_gap_s, joint_score
        self._clock = Clock(fps)
        self._known = _Known.nobody(len(skeleton))

    def reset(self) -> None:
        """Forget everybody, as between two videos."""
        self._clock = Clock(self._clock.fps)
        self._known = _Known.nobody(len(self.skeleton))

    def __call__(self, poses: Poses, time_s: float | None = None) -> Poses:
        """The people of the next frame, their joints smoothed.

        Args:
            poses: with track ids; nobody is a frame too.
            time_s: when the frame was, in seconds; None: one frame after the last.

        Raises:
            PosezooError: poses of other joints, without track ids, or two with the same one.
        """
        ids = _ids_of(poses, self.skeleton)
        now, _ = self._clock.tick(time_s)
        people = np.flatnonzero(ids >= 0)
        before = self._known.of(ids[people])
        given = poses.keypoints_xy[people].astype(np.float64)
        shown = _shown(poses, self.joint_score)[people]
        boxes = poses.boxes_xyxy[people].astype(np.float64)
        size = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1))
        after = self._filter(before, ids[people], given, shown, size, now)
        self._known = self._known.with_those(after, now - self.max_gap_s)
        keypoints_xy = poses.keypoints_xy.copy()
        keypoints_xy[people] = np.where(shown[..., None], after.xy, given)
        return replace(poses, keypoints_xy=keypoints_xy)

    def _filter(
        self, before: _Known, ids: NDArray[np.int64], given: Doubles, shown: Marks, size: Doubles, now: float
    ) -> _Known:
        """What is known after this frame of its M people; joints that are not shown stay as they were."""
        passed = now - before.seen_s
        anew = shown & ~(passed <= self.max_gap_s)  # those never seen were so at minus infinity
        goes_on = shown & ~anew & (passed > 0)
        seconds = np.where(goes_on, passed, 1.0)
        step = np.where(goes_on[..., None], given - before.xy, 0.0)
        speed = before.speed + _weight(self.speed_cutoff, seconds)[..., None] * (
            step / seconds[..., None] - before.speed
        )
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(speed, axis=2) / size[:, None]
        moved = before.xy + _weight(cutoff, seconds)[..., None] * step
        pick = anew[..., None], goes_on[..., None]
        return _Known(
            ids,
            np.select(pick, (given, moved), before.xy),
            np.select(pick, (np.zeros_like(speed), speed), before.speed),
            np.where(shown, now, before.seen_s),
        )


def _weight(cutoff: Doubles | float, seconds: Doubles) -> Doubles:
    """Of a new value in an exponential filter with a cutoff in hertz, after some time."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * cutoff * seconds)))


@dataclass(frozen=True, eq=False)
class _Known:
    """The state of the filters of T people.

    Attributes:
        ids: (T,) of their tracks.
        xy: (T, K, 2) smoothed.
        speed: (T, K, 2) smoothed, pixels a second.
        seen_s: (T, K) when each joint was last shown; minus infinity: never.
    """

    ids: NDArray[np.int64]
    xy: Doubles
    speed: Doubles
    seen_s: Doubles

    @classmethod
    def nobody(cls, joints: int) -> _Known:
        nothing = np.zeros((0, joints, 2))
        return cls(np.zeros(0, np.int64), nothing, nothing, nothing[..., 0])

    def of(self, ids: NDArray[np.int64]) -> _Known:
        """Of these people, in their order; nothing is known of those that are new."""
        row_of = {track: row for row, track in enumerate(self.ids.tolist())}
        rows = np.array([row_of.get(track, -1) for track in ids.tolist()], np.intp)
        old = np.flatnonzero(rows >= 0)
        shape = (len(ids), *self.xy.shape[1:])
        picked = _Known(ids, np.zeros(shape), np.zeros(shape), np.full(shape[:2], -np.inf))
        for name in ("xy", "speed", "seen_s"):
            getattr(picked, name)[old] = getattr(self, name)[rows[old]]
        return picked

    def with_those(self, others: _Known, since: float) -> _Known:
        """The others instead of what was known of them; who has not been seen `since` then is left out."""
        recent = self.seen_s.max(axis=1, initial=-np.inf) >= since
        kept = np.flatnonzero(recent & ~np.isin(self.ids, others.ids))
        columns = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Known(*(np.concatenate([mine[kept], theirs]) for mine, theirs in columns))


def savgol(
    sequence: Sequence[Poses], window: int = 9, order: int = 2, *, joint_score: float = JOINT_SCORE
) -> list[Poses]:
    """Smooth the joints of a whole sequence, looking forward as well as back: no lag.

    Each joint's x and y become those of the polynomial fitted to the frames around it; in the first and last half
    window of a run, those of the polynomial of its first or last whole window. A run ends where the person or the
    joint is missing, and one shorter than the window is fitted with the longest window that goes into it.

    Args:
        sequence: the frames of a video, equally far apart in time, all with track ids.
        window: frames, odd.
        order: of the polynomial, below `window`.
        joint_score: joints that score no more than this are left alone.

    Returns:
        As many frames, with the same people in the same order.

    Raises:
        PosezooError: a window or an order that cannot be; frames without track ids, with one twice, or of several
            keypoint sets.
    """
    if window < 1 or window % 2 == 0:
        raise PosezooError(f"the window must be an odd number of frames, but is {window}")
    if not 0 <= order < window:
        raise PosezooError(f"the order must be at least 0 and below the window of {window} frames, but is {order}")
    check_setting("joint_score", joint_score, 0, 1)
    smoothed = [poses.keypoints_xy.astype(np.float64) for poses in sequence]
    counted = [_shown(poses, joint_score) for poses in sequence]
    for frames, rows in _tracks(sequence):
        xy = np.stack([smoothed[frame][row] for frame, row in zip(frames, rows, strict=True)])
        shown = np.stack([counted[frame][row] for frame, row in zip(frames, rows, strict=True)])
        for joint in range(xy.shape[1]):
            for run in _runs(frames, shown[:, joint]):
                xy[run, joint] = smooth_run(xy[run, joint], window, order)
        for frame, row, joints in zip(frames, rows, xy, strict=True):
            smoothed[frame][row] = joints
    return [replace(poses, keypoints_xy=xy.astype(np.float32)) for poses, xy in zip(sequence, smoothed, strict=True)]


def smooth_run(values: Doubles, window: int, order: int) -> Doubles:
    """Savitzky and Golay's filter along the first axis of (F, ...) values, with polynomials fitted at both ends.

    With fewer values than `window`, of the longest odd window that goes into them; unchanged where the polynomial
    would go through every value.
    """
    window = min(window, len(values) - 1 + len(values) % 2)
    if window <= order:
        return values
    fit = _fit(window, order)
    half = window // 2
    spans = np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, window, axis=0), -1, 0)
    middle = np.tensordot(fit[half], spans, axes=1)
    first = np.tensordot(fit[:half], values[:window], axes=1)
    last = np.tensordot(fit[half + 1 :], values[-window:], axes=1)
    return np.concatenate([first, middle, last])


@cache
def _fit(window: int, order: int) -> Doubles:
    """(window, window) that takes values to those of the polynomial fitted to them."""
    place = np.linspace(-1, 1, window) if window > 1 else np.zeros(1)
    powers = np.vander(place, order + 1)
    return np.asarray(powers @ np.linalg.pinv(powers))


def _tracks(sequence: Sequence[Poses]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Of each followed person, the frames that they are in and their rows there."""
    if not sequence:
        return
    ids = [_ids_of(poses, sequence[0].skeleton) for poses in sequence]
    frames = np.repeat(np.arange(len(ids)), [len(each) for each in ids])
    rows = np.concatenate([np.arange(len(each)) for each in ids])
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    order = order[every[order] >= 0]
    for track in np.split(order, np.flatnonzero(np.diff(every[order])) + 1):
        if len(track):
            yield frames[track], rows[track]


def _runs(frames: NDArray[np.intp], shown: Marks) -> Iterator[NDArray[np.intp]]:
    """The places of each unbroken run of frames in which a joint is shown."""
    places = np.flatnonzero(shown)
    for run in np.split(places, np.flatnonzero(np.diff(frames[places]) != 1) + 1):
        if len(run):
            yield run


def _shown(poses: Poses, joint_score: float) -> Marks:
    """The joints that count, (N, K)."""
    return np.asarray((poses.scores > joint_score) & np.isfinite(poses.keypoints_xy).all(axis=2))


def _ids_of(poses: Poses, skeleton: Skeleton) -> NDArray[np.int64]:
    """The track ids of people that can be smoothed."""
    check_skeleton(poses, skeleton)
    if poses.track_ids is None:
        if len(poses):
            raise PosezooError("only followed people can be smoothed: give the poses to a Tracker first (--track)")
        return np.zeros(0, np.int64)
    known = poses.track_ids[poses.track_ids >= 0]
    if len(np.unique(known)) != len(known):
        twice = int(np.bincount(np.unique(known, return_inverse=True)[1]).argmax())
        raise PosezooError(f"two people of a frame have the track id {np.unique(known)[twice]}")
    return poses.track_ids
