"""Between the network and the results: who is left out, who is who, and joints that do not jitter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posezoo.predict.request import MIN_SCORE, Request
from posezoo.skeletons import Skeleton
from posezoo.stopwatch import Watch
from posezoo.suppress import person_scores
from posezoo.types import Poses

if TYPE_CHECKING:
    from posezoo.estimator import Estimator
    from posezoo.track import Tracker
    from posezoo.track_flow import FlowTracker


class Keep:
    """Leaves out the people who are too doubtful or too small."""

    def __init__(self, request: Request, estimator: Estimator) -> None:
        """The bounds of a request; those that it leaves open depend on the detector."""
        self.score, self.area = _least_score(request, estimator), request.min_box_area

    def __call__(self, poses: Poses) -> Poses:
        """Those who stay, in their order."""
        keep = person_scores(poses) >= self.score
        if self.area > 0:
            keep &= np.prod(poses.boxes_xyxy[:, 2:] - poses.boxes_xyxy[:, :2], axis=1) >= self.area
        return poses if keep.all() else poses[keep]


def _least_score(request: Request, estimator: Estimator) -> float:
    from posezoo.detect.follow import FollowOne
    from posezoo.detect.network import PersonDetector

    if request.min_score is not None:
        return request.min_score
    detector = estimator.detector
    finds = isinstance(detector.detector if isinstance(detector, FollowOne) else detector, PersonDetector)
    return MIN_SCORE if finds else 0.0


class Follow:
    """Gives the people of a sequence their ids, and smooths their joints where that is wanted."""

    def __init__(self, request: Request, skeleton: Skeleton, watch: Watch, first_id: int = 1) -> None:
        """Start with nobody.

        Args:
            request: which tracker, and whether to smooth.
            skeleton: of the poses to come.
            watch: is told of the steps "track" and "smooth".
            first_id: the first id that is given; those before are of an earlier run.
        """
        self.people = 0
        self._watch, self._before = watch, first_id - 1
        if request.track == "flow":
            from posezoo.track_flow import FlowTracker

            self._tracker: FlowTracker | Tracker = FlowTracker(skeleton)
        else:
            from posezoo.track import Tracker

            self._tracker = Tracker(skeleton)
        self._smoother = None
        if request.smooth:
            from posezoo.smooth import OneEuro

            self._smoother = OneEuro(skeleton)

    def __call__(self, poses: Poses, image_rgb: NDArray[np.uint8], time_s: float) -> Poses:
        """The people of the next frame, which was at `time_s`, with their ids."""
        with self._watch("track"):
            poses = self._tracker(poses, image_rgb, time_s)
            assert poses.track_ids is not None
            self.people = max([self.people, *poses.track_ids.tolist()])  # ids count from 1, and none is given twice
            known = poses.track_ids >= 0
            poses = replace(poses, track_ids=poses.track_ids + np.where(known, self._before, 0))
        if self._smoother is not None:
            with self._watch("smooth"):
                poses = self._smoother(poses, time_s)
        return poses
