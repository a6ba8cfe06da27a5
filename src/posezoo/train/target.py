"""What a recipe's target means: the codec, the loss, and how much each joint counts in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.codecs import CODECS, Codec, CombinedCodec, HeatmapCodec, IntegralCodec, get_codec
from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton
from posezoo.train.recipe import TargetPart

_NAMED = 4  # joints of one weight that are named


def make_codec(target: TargetPart, skeleton: Skeleton) -> Codec:
    """The codec of a recipe; its stride is 4 until `at_stride` knows better.

    Raises:
        PosezooError: an unknown codec, one for other joints, or a loss that it has no use for.
    """
    codec = get_codec(target.codec_name)
    if isinstance(codec, IntegralCodec):
        if target.loss == "ohkm":
            raise PosezooError(f'target.loss = "ohkm" is for heatmaps, and target.codec = "{target.codec}" has none')
        return codec
    if isinstance(codec, CombinedCodec):
        _check_joints(target.codec, codec, skeleton)
        refine: Any = target.refine
        return replace(codec, heatmap=_as_wide(replace(codec.heatmap, refine=refine), target.sigma))
    assert isinstance(codec, HeatmapCodec)
    return _as_wide(codec, target.sigma)


def _as_wide(codec: HeatmapCodec, sigma: float) -> HeatmapCodec:
    # the blur of "dark" is about as wide as the Gaussians: 11 for sigma 2, 17 for sigma 3
    return replace(codec, sigma=sigma, blur_kernel=max(codec.blur_kernel, 2 * round(3 * sigma) - 1))


def _check_joints(name: str, codec: CombinedCodec, skeleton: Skeleton) -> None:
    """Refuse a combined codec that would read some joints of a face or a hand as heatmaps, or a foot as an integral."""
    near = {*skeleton.parts.get("body", ()), *skeleton.parts.get("feet", ())}
    if near == set(skeleton.joints[: codec.heatmap_joints]) and len(skeleton) > len(near):
        return
    fitting = [n for n, c in CODECS.items() if isinstance(c, CombinedCodec) and c.heatmap_joints == len(near)]
    advice = f"use {fitting[0]}" if fitting and len(skeleton) > len(near) else 'use "heatmap" or "integral-sigmoid"'
    raise PosezooError(
        f'target.codec = "{name}" is for {codec.heatmap_joints} joints of body and feet, and a face or hands; '
        f"{skeleton.name} has {len(near)} of {len(skeleton)}: {advice}"
    )


def loss_in_words(skeleton: Skeleton, target: TargetPart) -> str:
    """Such as "mse of heatmaps".

    Raises:
        PosezooError: see `make_codec`.
    """
    codec = make_codec(target, skeleton)
    maps = "mse of heatmaps" if target.loss == "mse" else f"mse of the {target.hardest} worst heatmaps of each person"
    if isinstance(codec, IntegralCodec):
        return "L1 of places, with symmetric gradients"
    if not isinstance(codec, CombinedCodec):
        return maps
    times = "" if target.integral_weight == 1 else f"{target.integral_weight:g} times "
    near, far = codec.heatmap_joints, len(skeleton) - codec.heatmap_joints
    return f"{maps}, of {near} joints; {times}L1 of the places of the other {far}, with symmetric gradients"


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
