"""One person, followed: after the first frame the box comes from the pose of the frame before, and nothing is detected.

The box is that of the last pose's sure joints, enlarged, since a person is larger than the joints. Where the pose is
unsure, or nobody has told it, the next frame is looked at by the detector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posezoo.detect import Detector
from posezoo.errors import PosezooError
from posezoo.types import Boxes, Poses

SURE_JOINT = 0.2  # joints below it do not count, as in the rescoring of poses
LEAST_SCORE = 0.35
LEAST_JOINTS = 5
ENLARGE = 1.25


class FollowOne:
    """Follows one person through the frames of a video; each frame's poses have to be told before the next frame.

    Attributes:
        detector: finds the person where it is not known where to look.
        least_score: a pose whose joints' mean score is below it is not followed.
        enlarge: how much larger than the joints' box the next box is.
        detections: how often the detector was asked.

    Example:
        >>> follow = FollowOne(get_detector("embedded"))       # doctest: +SKIP
        >>> for frame in source:                                # doctest: +SKIP
        ...     (boxes,) = follow([frame.image_rgb])
        ...     follow.tell(estimator(frame.image_rgb, boxes))
    """

    def __init__(self, detector: Detector, least_score: float = LEAST_SCORE, enlarge: float = ENLARGE) -> None:
        """Nobody is followed yet.

        Raises:
            PosezooError: a setting is out of range.
        """
        if not 0 <= least_score <= 1 or not 1 <= enlarge <= 4:
            raise PosezooError(f"follow: least_score must be in 0..1 and enlarge in 1..4, not {least_score}, {enlarge}")
        self.detector, self.least_score, self.enlarge, self.detections = detector, least_score, enlarge, 0
        self._next: Boxes | None = None
        self._last: NDArray | None = None
        self._score = 1.0

    def reset(self) -> None:
        """Forget the person, as before another video."""
        self._next = self._last = None

    def tell(self, poses: Poses) -> None:
        """The poses of the last frame, so that the next one need not be detected; nobody is fine.

        Args:
            poses: those in the box that this gave; of several, the best is followed.
        """
        self._next = None
        sure = poses.scores >= SURE_JOINT
        means = np.where(sure, poses.scores, 0).sum(axis=1) / np.maximum(sure.sum(axis=1), 1)
        good = (sure.sum(axis=1) >= min(LEAST_JOINTS, sure.shape[1])) & (poses.scores.mean(axis=1) >= self.least_score)
        if not good.any():
            return
        row = int(np.where(good, means, -1.0).argmax())
        joints = poses.keypoints_xy[row][sure[row]].astype(np.float64)
        if not np.isfinite(joints).all():
            return
        low, high = joints.min(axis=0), joints.max(axis=0)
        middle, half = (low + high) / 2, np.maximum(high - low, 1.0) * self.enlarge / 2
        self._last = np.concatenate([middle - half, middle + half])
        self._next = Boxes(self._last[None], np.array([self._score]))

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """One box an image, or none; only the first has the pose of the frame before, further ones are detected."""
        given = names if names is not None else [None] * len(images_rgb)
        return [self._one(image, name) for image, name in zip(images_rgb, given, strict=True)]

    def _one(self, image_rgb: NDArray[np.uint8], name: str | None) -> Boxes:
        box, self._next = self._next, None
        if box is not None:
            height, width = image_rgb.shape[:2]
            xyxy = np.clip(box.xyxy, 0, [width, height, width, height])
            if (xyxy[:, 2:] > xyxy[:, :2]).all():
                return Boxes(xyxy, box.scores)
        self.detections += 1
        (found,) = self.detector([image_rgb], names=[name])
        chosen = found[self._choose(found)] if len(found) else found
        self._score = float(chosen.scores[0]) if len(chosen) else 1.0
        return chosen

    def _choose(self, found: Boxes) -> int:
        """The box that overlaps most with where the person was last; where none does, the best."""
        if self._last is None:
            return 0
        sides = np.minimum(found.xyxy[:, 2:], self._last[2:]) - np.maximum(found.xyxy[:, :2], self._last[:2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        areas = np.prod(found.xyxy[:, 2:] - found.xyxy[:, :2], axis=1) + np.prod(self._last[2:] - self._last[:2])
        return int(np.argmax(shared / np.maximum(areas - shared, 1e-9)))
