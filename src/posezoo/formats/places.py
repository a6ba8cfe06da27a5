"""Where the joints of a skeleton stand in formats with an order of their own: by name, for every skeleton.

The neck is the point that a skeleton has there (the middle of the shoulders, or a neck that it labels below the head);
where it has none, it is made: the middle of the shoulders, with the smaller of their two scores. So is the middle of
the hips. A joint made of one that was not placed is not placed either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from posezoo.errors import PosezooError
from posezoo.formats.result import XYS
from posezoo.skeletons import Skeleton, get_skeleton, map_joints

BODY_18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
"""OpenPose's COCO body, which is CMU's too."""

BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
    "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
"""OpenPose's body with feet, BODY_25."""

FACE = (*(f"face-{point}" for point in range(68)), "right_pupil", "left_pupil")
"""OpenPose's face: the 68 points of the other sets, and two more."""

_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND = ("hand_root", *(f"{finger}{joint}" for finger in _FINGERS for joint in range(1, 5)))
LEFT_HAND = tuple(f"left_{joint}" for joint in _HAND)
RIGHT_HAND = tuple(f"right_{joint}" for joint in _HAND)

# one point, many names: what other sets call it, with the set; `aliases.toml` knows the rest
_POINTS = {"neck": (("mpii16", "thorax"), ("aic14", "neck")), "mid_hip": (("mpii16", "pelvis"),)}
_MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


@dataclass(frozen=True, eq=False)
class Fit:
    """How a skeleton fits P places.

    Attributes:
        rows: (P,) the joint of the skeleton at each place; -1 where there is none.
        middles: place -> the two joints that it is made of.
        made: the names of those places.
    """

    rows: np.ndarray
    middles: Mapping[int, tuple[int, int]]
    made: tuple[str, ...]

    def to_places(self, xys: XYS) -> XYS:
        """(N, P, 3) of (N, K, 3): places that have no joint, and joints that were not placed, are 0, 0, 0."""
        placed = np.zeros((len(xys), len(self.rows), 3), np.float32)
        placed[:, self.rows >= 0] = xys[:, self.rows[self.rows >= 0]]
        for place, (one, other) in self.middles.items():
            placed[:, place, :2] = (xys[:, one, :2] + xys[:, other, :2]) / 2
            placed[:, place, 2] = np.minimum(xys[:, one, 2], xys[:, other, 2])
        placed[np.isnan(placed[..., 0])] = 0
        return placed

    def to_joints(self, placed: XYS, joints: int) -> XYS:
        """(K, 3) of (P, 3), the way back: joints that have no place were not placed; made places are left out."""
        xys = np.tile(np.array([np.nan, np.nan, 0], np.float32), (joints, 1))
        xys[self.rows[self.rows >= 0]] = placed[self.rows >= 0]
        return xys


@cache
def fit(places: tuple[str, ...], skeleton: Skeleton) -> Fit:
    """Where each place is found in a skeleton, by name."""
    rows = np.array([_row(place, skeleton) for place in places], np.int64)
    middles = {}
    for place in np.flatnonzero(rows < 0).tolist():
        pair = [_row(joint, skeleton) for joint in _MIDDLES.get(places[place], ())]
        if pair and min(pair) >= 0:
            middles[place] = (pair[0], pair[1])
    return Fit(rows, middles, tuple(places[place] for place in middles))


def _row(place: str, skeleton: Skeleton) -> int:
    for name, joint in _POINTS.get(place, ()):
        known = get_skeleton(name)
        row = int(map_joints(skeleton, known)[known.index(joint)])
        if row >= 0:
            return row
    # a set's own "neck" may be where the head ends
    return skeleton.joints.index(place) if place in skeleton.joints and place != "neck" else -1


def without_place(groups: tuple[tuple[str, ...], ...], skeleton: Skeleton) -> list[str]:
    """The joints of a skeleton that stand at none of the places."""
    held = {row for places in groups for row in fit(places, skeleton).rows.tolist()}
    return [joint for row, joint in enumerate(skeleton.joints) if row not in held]


def check_some_place(groups: tuple[tuple[str, ...], ...], skeleton: Skeleton, format: str) -> None:
    """A file without a single joint is of use to nobody.

    Raises:
        PosezooError: the format has no place for any joint of the skeleton.
    """
    if len(without_place(groups, skeleton)) == len(skeleton):
        raise PosezooError(f"{format} has no place for any joint of {skeleton.name}: choose another format")
