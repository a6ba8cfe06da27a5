"""Where people came from: the last moments of their way, by id, fading and thinning with time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.draw.layer import Image, Limb, Shapes, draw_shapes, draw_straight, lay_over, open_layer
from posezoo.draw.paint import person_color
from posezoo.draw.person import areas
from posezoo.draw.themes import Theme
from posezoo.errors import PosezooError
from posezoo.skeletons import Color, Skeleton
from posezoo.track_motion import Clock, check_skeleton
from posezoo.types import Poses

_FINENESS = 24  # points of a trail, at most about so many
_OPAQUE = 0.9  # of its newest end
_WIDE = 1.5  # of its newest end, in widths of a limb
_THINNEST = 0.3  # of its oldest end, as a share of the newest's width


class _Point(NamedTuple):
    """Where somebody was: P points, nan where one was not seen."""

    time_s: float
    xy: NDArray[np.float64]
    size: float


class Trails:
    """The last moments of everybody with an id, to be drawn below them. Who has gone is forgotten when these are over.

    Example:
        >>> trails = Trails(estimator.skeleton, length_s=1.0)   # doctest: +SKIP
        >>> trails.add(poses, frame.time_s)                     # doctest: +SKIP
        >>> draw_poses(image_rgb, poses, trails=trails)         # doctest: +SKIP
    """

    def __init__(
        self,
        skeleton: Skeleton,
        length_s: float = 1.0,
        *,
        joints: Sequence[str] = (),
        joint_score: float = 0.2,
        fps: float = 25.0,
    ) -> None:
        """Start with nobody.

        Args:
            skeleton: the joints of all poses to come.
            length_s: how far back a trail goes, in seconds.
            joints: a trail for each of these; none: one for the middle of the box.
            joint_score: where a joint scores less, its trail has a gap that is bridged.
            fps: frames a second, where a frame does not say its time.

        Raises:
            PosezooError: a length or rate that cannot be.
            UnknownNameError: the skeleton has no such joint.
        """
        if not 0 < length_s < np.inf:
            raise PosezooError(f"the length of a trail must be above 0 seconds, but is {length_s:g}")
        self.skeleton, self.length_s, self.joint_score = skeleton, length_s, joint_score
        self._rows = [skeleton.index(joint) for joint in joints]
        self._clock = Clock(fps)
        self._now = 0.0
        self._ways: dict[int, deque[_Point]] = {}

    def __len__(self) -> int:
        return len(self._ways)

    def reset(self) -> None:
        """Forget everybody, as between two videos."""
        self._clock = Clock(self._clock.fps)
        self._ways.clear()

    def add(self, poses: Poses, time_s: float | None = None) -> None:
        """Note where everybody with an id is in the next frame.

        Args:
            poses: nobody is a frame too.
            time_s: when the frame was, in seconds; None: one frame after the last.

        Raises:
            PosezooError: poses of other joints.
        """
        check_skeleton(poses, self.skeleton)
        self._now, _ = self._clock.tick(time_s)
        if poses.track_ids is not None and len(poses):
            places, sizes = self._places(poses), areas(poses.boxes_xyxy) ** 0.5
            for row in np.flatnonzero(poses.track_ids >= 0).tolist():
                way = self._ways.setdefault(int(poses.track_ids[row]), deque())
                if len(way) > 1 and self._now - way[-2].time_s < self.length_s / _FINENESS:
                    way.pop()
                way.append(_Point(self._now, places[row], float(sizes[row])))
        for number, way in list(self._ways.items()):
            while way and way[0].time_s < self._now - self.length_s:
                way.popleft()
            if not way:
                del self._ways[number]

    def _places(self, poses: Poses) -> NDArray[np.float64]:
        """(N, P, 2) pixels; nan where unknown."""
        if not self._rows:
            boxes = poses.boxes_xyxy.astype(np.float64)
            places = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
        else:
            seen = poses.scores[:, self._rows] >= self.joint_score
            places = np.where(seen[..., None], poses.keypoints_xy[:, self._rows].astype(np.float64), np.nan)
        return np.where(np.abs(places) < 1e6, places, np.nan)

    def draw(self, canvas: Image, theme: Theme) -> None:
        """Draw all trails on a picture, in place; `draw_poses` does."""
        theme = replace(theme, outline_alpha=0)  # what is many lines, and no more than a hint, has none
        for number, way in self._ways.items():
            places = np.stack([point.xy for point in way])  # (times, P, 2)
            ages = (self._now - np.array([point.time_s for point in way])) / self.length_s
            line = _WIDE * max(theme.thinnest, theme.line * min(way[-1].size, 2.0 * max(canvas.shape[:2])))
            for xy in places.swapaxes(0, 1):
                there = np.isfinite(xy).all(axis=1)
                _draw_way(canvas, xy[there], ages[there], line, person_color(theme, number), theme)


def _draw_way(
    canvas: Image, xy: NDArray[np.float64], ages: NDArray[np.float64], line: float, color: Color, theme: Theme
) -> None:
    """One trail from its oldest point to its newest; ages go from 1 to 0."""
    if len(xy) < 2:
        return
    left = (1 - (ages[:-1] + ages[1:]) / 2).tolist()
    widths = [max(line * (_THINNEST + (1 - _THINNEST) * share), 0.6) for share in left]
    shapes = Shapes([Limb(k, k + 1, color, _OPAQUE * share, widths[k]) for k, share in enumerate(left)], [])
    if not theme.blended:
        draw_straight(canvas, xy, shapes)
        return
    layer = open_layer(canvas, xy, margin=2 * line + 3)
    if layer is not None:
        draw_shapes(layer, xy, shapes, theme)
        lay_over(canvas, layer, xy, shapes)
