"""Who is who by optical flow: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking" (ECCV 2018), 3.2.

The joints of the last frames are carried along by the flow of the picture to where they are now, and each pose found
takes the id of the carried one that it is most like, greedily; one that is like none is somebody new. The flow is
OpenCV's DIS (Kroeger et al., ECCV 2016) of pictures made small. Poses of older frames are carried on from frame to
frame, so that one flow a frame does for all of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton
from posezoo.track import JOINT_SCORE, NO_ID, SURE, duplicates
from posezoo.track_motion import (
    Doubles,
    Marks,
    Sightings,
    check_setting,
    check_skeleton,
    likeness_of_poses,
    near_pairs,
    sizes,
)
from posezoo.types import Boxes, Poses

FRAMES = 15  # how many of the last frames are remembered
ALIKE = 0.3  # the least similarity of a pose found and a carried one
FLOW_SIDE = 512  # pixels, the longer side of the pictures that the flow is of
BOX_MARGIN = 0.15  # the paper's, of the size of a carried pose on each side


class FlowTracker:
    """Gives the people of a video their ids, frame by frame, with an eye on the pictures.

    It needs no model of how people move, so a camera that pans or shakes does not disturb it; but somebody out of sight
    is carried along by whatever moves there, and it takes longer than `posezoo.track.Tracker`. Ids mean the same: a
    sure pose has one at once, a doubtful one that is nobody known has -1, and none is given twice.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        sure: float = SURE,
        frames: int = FRAMES,
        alike: float = ALIKE,
        joint_score: float = JOINT_SCORE,
    ) -> None:
        """Start with nobody.

        Args:
            skeleton: the joints of all poses to come.
            sure: the score of a pose (its box's times the mean of its joints') from which on it is surely somebody.
            frames: how many frames somebody may be away and keep the id.
            alike: the least similarity of a pose and one of an earlier frame that are the same person's.
            joint_score: joints that score no more than this do not count.

        Raises:
            PosezooError: a setting that cannot be.
        """
        check_setting("sure", sure, 0, 1)
        check_setting("frames", frames, 1)
        check_setting("alike", alike, 0, 1)
        check_setting("joint_score", joint_score, 0, 1)
        self.skeleton, self.sure, self.alike, self.joint_score = skeleton, sure, alike, joint_score
        self._past: deque[_Carried] = deque(maxlen=frames)
        self._flow = _Flow()
        self._ahead = False  # the past has already been carried to the frame that comes next
        self._next_id = 1

    def reset(self) -> None:
        """Forget everybody, as between two videos; ids go on counting."""
        self._past.clear()
        self._flow, self._ahead = _Flow(), False

    def expected_boxes(self, image_rgb: NDArray[np.uint8]) -> Boxes:
        """Boxes round the people of the last frame as they are in the next one (the paper's joint propagation).

        Add them to a detector's to find people whom it misses there; then call with what was found in the frame.

        Args:
            image_rgb: (H, W, 3), the next frame.
        """
        self._carry(image_rgb)
        last = self._past[-1] if self._past else None
        if last is None or not len(last.ids):
            return Boxes.empty()
        joints = np.where(last.found.shown[..., None], last.found.keypoints_xy, np.nan)
        some = last.found.shown.any(axis=1)
        low, high = np.nanmin(joints[some], axis=1), np.nanmax(joints[some], axis=1)
        margin = BOX_MARGIN * (high - low)
        return Boxes(np.concatenate([low - margin, high + margin], axis=1), np.clip(last.found.scores[some], 0, 1))

    def __call__(self, poses: Poses, image_rgb: NDArray[np.uint8] | None = None, time_s: float | None = None) -> Poses:
        """The people of the next frame with their ids.

        Args:
            poses: nobody is a frame too.
            image_rgb: (H, W, 3), the frame.
            time_s: not looked at.

        Returns:
            The same people in the same order, with `track_ids`; -1 for a doubtful pose that is nobody known.

        Raises:
            PosezooError: no image, or poses of other joints.
        """
        check_skeleton(poses, self.skeleton)
        if image_rgb is None:
            raise PosezooError("following people by optical flow needs the pictures: give image_rgb, or use Tracker")
        self._carry(image_rgb)
        self._ahead = False
        found = Sightings.of(poses, self.joint_score)
        own = ~duplicates(self.skeleton, found)
        sure = own & (found.scores >= self.sure)
        ids = self._match(found, sure)
        new = np.flatnonzero(sure & (ids == NO_ID))
        ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        somebody = np.flatnonzero(ids != NO_ID)
        self._past.append(_Carried(ids[somebody], found.where(somebody)))
        return replace(poses, track_ids=ids)

    def _carry(self, image_rgb: NDArray[np.uint8]) -> None:
        """Take the people of the last frames to where the flow has them in this one."""
        if not self._ahead:
            self._flow.look(image_rgb)
            for _ in range(len(self._past)):
                self._past.append(self._past.popleft().moved(self._flow))
        self._ahead = True

    def _match(self, found: Sightings, sure: Marks) -> NDArray[np.int64]:
        """The ids of the poses, (N,): that of the carried pose each is most like, the sure ones first."""
        ids = np.full(len(found), NO_ID)
        past = [carried for carried in reversed(self._past) if len(carried.ids)]  # the newest win among equals
        if not past or not len(found):
            return ids
        known = np.concatenate([carried.ids for carried in past])
        before = Sightings(*map(np.concatenate, zip(*(vars(c.found).values() for c in past), strict=True)))
        left, right = near_pairs(before.sides, found.sides)
        areas = (sizes(before.sides)[left] ** 2 + sizes(found.sides)[right] ** 2) / 2
        alike = likeness_of_poses(
            self.skeleton,
            before.keypoints_xy[left],
            found.keypoints_xy[right],
            before.shown[left] & found.shown[right],
            areas,
        )
        taken: set[int] = set()
        for pair in np.lexsort((-alike, ~sure[right])):
            track, row = int(known[left[pair]]), right[pair]
            if alike[pair] >= self.alike and ids[row] == NO_ID and track not in taken:
                ids[row] = track
                taken.add(track)
        return ids


@dataclass(frozen=True, eq=False)
class _Carried:
    """The people of an earlier frame where they are thought to be now: `ids` (N,), and what was found of them."""

    ids: NDArray[np.int64]
    found: Sightings

    def moved(self, flow: _Flow) -> _Carried:
        """A frame later. A box goes with the middle of its joints."""
        before = self.found.keypoints_xy
        after = flow.carry(before)
        steps = np.where(self.found.shown[..., None], after - before, 0).sum(axis=1)
        sides = self.found.sides.copy()
        sides[:, :2] += steps / np.maximum(self.found.shown.sum(axis=1), 1)[:, None]
        return replace(self, found=replace(self.found, sides=sides, keypoints_xy=after))


class _Flow:
    """How the picture moved from the last frame to this one."""

    def __init__(self) -> None:
        self._engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._last: NDArray[np.uint8] | None = None
        self._field: NDArray[np.float32] | None = None
        self._scale = 1.0

    def look(self, image_rgb: NDArray[np.uint8]) -> None:
        """Go on to the next frame. After the first one, or one of another size, nothing is known to have moved."""
        height, width = image_rgb.shape[:2]
        self._scale = min(1.0, FLOW_SIDE / max(height, width))
        size_wh = max(round(width * self._scale), 16), max(round(height * self._scale), 16)
        grey = cv2.cvtColor(cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        same = self._last is not None and self._last.shape == grey.shape
        self._field = self._engine.calc(self._last, grey, None) if same else None
        self._last = grey

    def carry(self, points_xy: Doubles) -> Doubles:
        """Points (..., 2) of the last frame, in its pixels, as they are in this one."""
        if self._field is None:
            return points_xy
        height, width = self._field.shape[:2]
        place = np.nan_to_num(np.rint(points_xy * self._scale), nan=0, posinf=0, neginf=0)
        x, y = (np.clip(place[..., axis], 0, most - 1).astype(np.intp) for axis, most in ((0, width), (1, height)))
        return points_xy + self._field[y, x] / self._scale
