"""How much each joint counts in the loss of its labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import unknown_name
from posezoo.skeletons import Skeleton
from posezoo.train.recipe import TargetPart

_NAMED = 4  # joints of one weight that are named


def joint_weights(skeleton: Skeleton, target: TargetPart) -> NDArray[np.float64]:
    """The weight of each joint, (K,): 1, or the skeleton's own, times that of every part that it is in.

    Raises:
        UnknownNameError: the skeleton has no such part; the message has the nearest name.
    """
    weights = np.array(skeleton.joint_weights if target.joint_weights else np.ones(len(skeleton)), np.float64)
    for part, weight in target.part_weights.items():
        if part not in skeleton.parts:
            raise unknown_name(f"part of {skeleton.name}", part, skeleton.parts)
        weights[[skeleton.index(joint) for joint in skeleton.parts[part]]] *= weight
    return weights


def weights_in_words(skeleton: Skeleton, target: TargetPart) -> str:
    """Such as "all alike", or "left_wrist, right_wrist 1.5; the other 15 1"."""
    weights = joint_weights(skeleton, target)
    others = int((weights == 1).sum())
    if others == len(weights):
        return "all alike"
    groups = [
        f"{_listed([joint for joint, own in zip(skeleton.joints, weights, strict=True) if own == weight])} {weight:g}"
        for weight in sorted({*weights.tolist()} - {1.0}, reverse=True)
    ]
    return "; ".join([*groups, *([f"the other {others} 1"] if others else [])])


def _listed(joints: list[str]) -> str:
    more = len(joints) - _NAMED
    return ", ".join(joints[:_NAMED]) + (f" and {more} more" if more > 0 else "")
