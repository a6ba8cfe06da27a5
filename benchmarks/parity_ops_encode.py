"""What a network should put out, and how far it is from that: against the zoos' own code."""

from __future__ import annotations

import re
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from parity_ops_read import (
    TOLERANCE,
    Check,
    Doubles,
    Fixture,
    Result,
    array,
    distance,
    make,
    map_result,
    number_result,
    worst,
)

from posezoo.codecs import Codec, HeatmapCodec, IntegralCodec, combined_torch, get_codec
from posezoo.codecs.heatmap import Refine
from posezoo.train.losses import integral_l1

STRIDE = 4  # crop pixels for each map pixel, where a fixture states the map's size alone


def encoded(codec: Codec, crop_xy: Doubles, visible: Doubles, size_wh: tuple[int, int]) -> dict[str, Any]:
    """Targets and weights of one person by a codec on arrays and on tensors, by name."""
    name = type(codec).__name__
    tensors = torch.from_numpy(crop_xy[None]), torch.from_numpy(visible[None])
    targets, weights = combined_torch.encode(codec, *tensors, size_wh)
    return {
        f"{name}.encode": tuple(part[0] for part in codec.encode(crop_xy[None], visible[None], size_wh)),
        f"{name.lower().removesuffix('codec')}_torch.encode": (targets[0].numpy(), weights[0].numpy()),
    }


def target_results(
    what: str, codec: Codec, crop_xy: Doubles, visible: Doubles, wanted: dict[str, Any], fill: ModuleType
) -> list[Result]:
    """Maps of one person, by their samples, sums and highest pixels, and the weights."""
    maps = wanted.get("target") or wanted["encode"]
    weight = array(wanted.get("weight") or wanted["weights"]).reshape(-1)
    joints, height, width = maps["shape"]
    results = []
    for ours, (targets, weights) in encoded(codec, crop_xy, visible, (width * STRIDE, height * STRIDE)).items():
        flat = targets.reshape(joints, -1).astype(np.float64)
        highest = array(wanted["per_joint_argmax"]).astype(int)
        # two pixels may be as high as each other but for rounding: so the height there, not the place
        below_top = flat.max(axis=1) - flat[np.arange(joints), highest]
        results += [
            worst(
                [
                    map_result(what, ours, targets, maps, fill),
                    map_result(what, ours, flat.sum(axis=1), wanted["per_joint_sum"], fill),
                    Result(what, ours, float(below_top.max() / (flat.std() or 1.0)), TOLERANCE),
                ]
            ),
            number_result(f"{what}, weights", ours, weights, weight),
        ]
    return results


def labels(fixture: Fixture) -> tuple[Doubles, Doubles]:
    """Joints (K, 2) in pixels of the crop, and visibility (K,)."""
    joints = array(fixture["joints"])
    return np.ascontiguousarray(joints[:, :2]), np.ascontiguousarray(array(fixture["vis"])[:, 0])


def hrnet_generate_target(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = []
    for key in fixture:
        if match := re.fullmatch(r"(\d+)x(\d+)_s(\d+)", key):
            codec = HeatmapCodec(sigma=float(match[3]))
            results += target_results(f"targets {key}", codec, *labels(fixture), fixture[key], fill)
    return results


REFINES: dict[str, Refine] = {"MSRA": "quarter", "unbiased": "dark", "UDP": "dark", "Megvii": "megvii"}


def encoding_codec(args: dict[str, Any]) -> HeatmapCodec | None:
    """The codec that the arguments of MMPose 0.x for targets mean; None where there is none of the kind."""
    if args.get("target_type", "GaussianHeatmap") != "GaussianHeatmap":
        return None
    encoding = args.get("encoding", "MSRA")
    refine = REFINES["unbiased" if args.get("unbiased_encoding") else encoding]
    return HeatmapCodec(
        refine=refine,
        grid="unbiased" if encoding == "UDP" else "legacy",
        sigma=float(args.get("sigma", 2)),
        blur_kernel=args.get("kernel", [11])[0],
    )


def mmpose_targets(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = []
    for case in fixture["cases"]:
        codec = encoding_codec(case["args"])
        if codec is not None:
            results += target_results(f"targets {case['name']}", codec, *labels(fixture), case, fill)
    return results


def mmpose1_encode(fixture: Fixture, case: dict[str, Any], codec: HeatmapCodec, fill: ModuleType) -> list[Result]:
    """The targets of one codec of MMPose 1.x."""
    keypoints, visible = array(fixture["keypoints"])[0], array(fixture["visible"])[0]
    return target_results(f"targets {case['codec']}", codec, keypoints, visible, case, fill)


# ---- AlphaPose


def alphapose_targets(fixture: Fixture, fill: ModuleType) -> list[Result]:
    crop_xy, visible = labels(fixture)
    codec = HeatmapCodec(sigma=float(fixture["sigma"]))
    results = target_results("targets", codec, crop_xy, visible, fixture, fill)
    _, height, width = fixture["target"]["shape"]
    wanted, weight = array(fixture["integral_target"]), array(fixture["integral_weight"])
    size_wh = width * STRIDE, height * STRIDE
    for ours, (targets, weights) in encoded(get_codec("integral-softmax"), crop_xy, visible, size_wh).items():
        results.append(number_result("coordinates", ours, targets.reshape(-1), wanted))
        results.append(number_result("coordinates, weights", ours, np.repeat(weights, 2), weight))
    return results


def alphapose_l1_joint_regression(fixture: Fixture, fill: ModuleType, norm: Any) -> list[Result]:
    codec, ours = IntegralCodec(norm=norm), "losses.integral_l1"
    maps = torch.from_numpy(make(fixture["input"], fill)).requires_grad_()
    places = (len(maps), maps.shape[1], 2)
    targets, weights = (torch.from_numpy(array(fixture[key]).reshape(places)).float() for key in ("gt", "weight"))
    loss = integral_l1(codec, maps, targets, weights)
    (gradient,) = torch.autograd.grad(loss, maps)
    error = distance(loss.item(), fixture["loss"]) / (abs(fixture["loss"]) or 1.0)
    return [
        Result("loss", ours, error, TOLERANCE),
        map_result("gradient", ours, gradient.numpy(), fixture["grad"], fill),
    ]


CHECKS: dict[str, Check] = {
    "alphapose_l1_joint_regression_sigmoid": partial(alphapose_l1_joint_regression, norm="sigmoid"),
    "alphapose_l1_joint_regression_softmax": partial(alphapose_l1_joint_regression, norm="softmax"),
    "alphapose_targets": alphapose_targets,
    "hrnet_generate_target": hrnet_generate_target,
    "mmpose_targets": mmpose_targets,
}
