"""Boxes, affines and crops against those of the zoos' own code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from parity_ops_read import (
    GREY_LEVELS,
    MEAN_GREY_LEVEL,
    Doubles,
    Fixture,
    Result,
    array,
    make,
    place_result,
    sampled_distance,
    worst,
)

from posezoo.crop import (
    Grid,
    box_to_affine,
    box_to_center_scale,
    center_scale_to_affine,
    crop_images,
    invert_affine,
    normalise,
    transform_points,
)
from posezoo.zoo import Entry, get_entry, list_models

PIXEL_STD = 200.0  # HRNet and MMPose 0.x state regions in units of this many pixels
BOX_SCALE = 1.25
MAP_SIZE_WH = (48, 64)  # of fixtures that do not say
BOXES = "crop.box_to_center_scale"
AFFINE = "crop.center_scale_to_affine"
POINTS = "crop.transform_points"
CROPS = "crop.crop_images"


def case_affine(case: dict[str, Any], unit: float, rotation: float, grid: Grid = "legacy") -> Doubles:
    """The affine of a case's own centre, region and rotation, (1, 2, 3)."""
    region = array(case["scale"]) * unit
    return center_scale_to_affine(array(case["center"])[None], region[None], case["output_size"], rotation, grid)


def regions(fixture: Fixture, boxes_xyxy: Doubles, size_wh: tuple[int, int], unit: float) -> list[Result]:
    """The centres and regions that boxes become."""
    centers, regions_wh = box_to_center_scale(boxes_xyxy, size_wh, BOX_SCALE)
    return [
        place_result("centres of boxes", BOXES, centers, array(fixture["center"])),
        place_result("regions around boxes", BOXES, regions_wh, array(fixture["scale"]) * unit),
    ]


def xyxy(boxes_xywh: Any) -> Doubles:
    boxes = np.array(boxes_xywh, np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def hrnet_xywh2cs(fixture: Fixture, fill: ModuleType) -> list[Result]:
    width, height = (int(n) for n in re.findall(r"(\d+)/(\d+)", fixture["function"])[0])
    return regions(fixture, xyxy(fixture["boxes_xywh"]), (width, height), PIXEL_STD)


def matrices(fixture: Fixture, unit: float) -> list[Result]:
    """The affines of a fixture's cases, either way."""
    found: dict[str, list[Result]] = {}
    for case in fixture["cases"]:
        if case.get("kind") == "get_warp_matrix":  # that function counts angles the other way
            what, affine = "affine, unbiased grid", case_affine(case, unit, -case["rot"], "unbiased")
        else:
            what, affine = "affine", case_affine(case, unit, case["rot"])
        inverse = bool(case.get("inv"))
        if inverse:
            what, affine = f"{what}, inverse", invert_affine(affine)
        ours = "crop.invert_affine" if inverse else AFFINE
        found.setdefault(what, []).append(affine_result(what, ours, affine, case["matrix"], case["output_size"]))
    return [worst(results) for results in found.values()]


def affine_result(what: str, ours: str, affine: Doubles, wanted: Any, size_wh: Sequence[int]) -> Result:
    """Two affines, by where they put the corners of a rectangle."""
    corners = np.array([[[0, 0], [1, 0], [0, 1], [1, 1]]]) * np.array(size_wh)
    return place_result(what, ours, transform_points(affine, corners), transform_points(array(wanted)[None], corners))


def hrnet_affine(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = matrices(fixture, PIXEL_STD)
    for key in fixture:
        if match := re.fullmatch(r"transform_preds_(\d+)x(\d+)", key):
            results.append(points_back(fixture, key, (int(match[1]), int(match[2])), "legacy"))
    return results


def mmpose_affine(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = matrices(fixture, PIXEL_STD)
    grids: dict[str, Grid] = {"transform_preds": "legacy", "transform_preds_udp": "unbiased"}
    for key, grid in grids.items():
        results.append(points_back(fixture, key, MAP_SIZE_WH, grid))
    return results


def distinct_cases(fixture: Fixture) -> list[dict[str, Any]]:
    """One case for each box of a fixture, in order."""
    found: dict[tuple[float, ...], dict[str, Any]] = {}
    for case in fixture["cases"]:
        found.setdefault((*case["center"]["data"], *case["scale"]["data"]), case)
    return list(found.values())


def points_back(fixture: Fixture, key: str, size_wh: tuple[int, int], grid: Grid) -> Result:
    """Points of a map, back on the photograph, for each box."""
    points = array(fixture["points"])
    got = []
    for case in distinct_cases(fixture):
        to_map = case_affine({**case, "output_size": size_wh}, PIXEL_STD, 0.0, grid)
        got.append(transform_points(invert_affine(to_map), points[None])[0])
    return place_result(f"points back, {grid} grid", POINTS, got, array(fixture[key]))


def alphapose_affine(fixture: Fixture, fill: ModuleType) -> list[Result]:
    return matrices(fixture, 1.0)


def crop_results(what: str, got: list[Any], references: list[list[dict[str, Any]]], fill: ModuleType) -> list[Result]:
    """Crops, each against the nearest of its references, at the samples and on the whole, in grey levels."""
    largest = mean = 0.0
    for crop, choices in zip(got, references, strict=True):
        at_samples, of_means = min(sampled_distance(crop, choice, fill) for choice in choices)
        largest, mean = max(largest, at_samples), max(mean, of_means)
    return [
        Result(what, CROPS, largest, GREY_LEVELS),
        Result(f"{what}, mean", CROPS, mean, MEAN_GREY_LEVEL),
    ]


def hrnet_crop(fixture: Fixture, fill: ModuleType) -> list[Result]:
    image = make(fixture["image"], fill)
    got, references = [], []
    for case in fixture["cases"]:
        got.append(crop_images(image, case_affine(case, PIXEL_STD, case["rot"]), case["output_size"])[0])
        # of more than one version of OpenCV
        references.append([value for key, value in case.items() if key.startswith("crop")])
    return crop_results("crops", got, references, fill)


def mmpose1_topdown_affine(fixture: Fixture, fill: ModuleType) -> list[Result]:
    image = make(fixture["image"], fill)
    results = []
    for udp in sorted({case["use_udp"] for case in fixture["cases"]}):
        cases = [case for case in fixture["cases"] if case["use_udp"] == udp]
        grid: Grid = "unbiased" if udp else "legacy"
        affines, crops, grown = [], [], []
        for case in cases:
            height, width = case["crop"]["shape"][:2]
            affine = box_to_affine([case["box"]], (width, height), BOX_SCALE, 0.0, grid)
            affines.append(
                affine_result(f"affine, {grid} grid", "crop.box_to_affine", affine, case["matrix"], (width, height))
            )
            crops.append(crop_images(image, affine, (width, height))[0])
            grown.append(box_to_center_scale([case["box"]], (width, height), BOX_SCALE)[1][0])
        results.append(worst(affines))
        region = array([case["fixed_scale"] for case in cases])
        results.append(place_result(f"regions around boxes, {grid} grid", BOXES, grown, region))
        results += crop_results(f"crops, {grid} grid", crops, [[case["crop"]] for case in cases], fill)
    return results


def entry_of(source: str, arch: str) -> Entry:
    """A zoo's entry of an architecture, for what all of that kind there have in common."""
    return get_entry(next(name for name in list_models(source=source) if name.startswith(f"{arch}.")))


def normalised_results(
    what: str, crops: Any, entry: Entry, wanted: list[dict[str, Any]], fill: ModuleType
) -> list[Result]:
    """Crops as the network gets them by an entry's mean, deviation and channels; in grey levels."""
    channels: Any = entry.channels
    planes = normalise(np.asarray(crops), entry.mean, entry.std, channels)
    at_samples, of_means = np.max([sampled_distance(p, w, fill) for p, w in zip(planes, wanted, strict=True)], axis=0)
    levels = 255 * max(entry.std)
    ours = f"crop.normalise, {entry.name}"
    return [
        Result(what, ours, float(at_samples * levels), GREY_LEVELS),
        Result(f"{what}, mean", ours, float(of_means * levels), MEAN_GREY_LEVEL),
    ]


def alphapose_simple_transform(fixture: Fixture, fill: ModuleType) -> list[Result]:
    image, boxes = make(fixture["image"], fill), np.array(fixture["boxes_xyxy"], float)
    _, height, width = fixture["cases"][0]["input"]["shape"]
    crops = crop_images(image, box_to_affine(boxes, (width, height), BOX_SCALE), (width, height))
    centers, regions_wh = box_to_center_scale(boxes, (width, height), BOX_SCALE)
    grown = np.concatenate([centers - regions_wh / 2, centers + regions_wh / 2], axis=1)
    wanted = [case["input"] for case in fixture["cases"]]
    return [
        *regions(fixture, boxes, (width, height), 1.0),
        place_result("grown boxes", BOXES, grown, [case["bbox_out"] for case in fixture["cases"]]),
        *normalised_results(
            "crops as the network gets them", crops, entry_of("alphapose", "fastpose_resnet50"), wanted, fill
        ),
    ]


def gluoncv_detector_to_simple_pose(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """The numbers that the pixels become. How it cuts (the clipped box, stretched, bicubic) is not done here."""
    image = make(fixture["image"], fill)
    _, _, height, width = fixture["pose_input"]["shape"]
    crops = []
    for box in fixture["upscaled"]:
        left, top, right, bottom = (int(side) for side in box)
        crops.append(cv2.resize(image[top:bottom, left:right], (width, height), interpolation=cv2.INTER_CUBIC))
    return normalised_results(
        "its own crops, normalised", crops, entry_of("gluoncv", "simple_pose_resnet50_v1b"), fixture["per_box"], fill
    )


CHECKS = {
    "alphapose_affine": alphapose_affine,
    "alphapose_simple_transform": alphapose_simple_transform,
    "gluoncv_detector_to_simple_pose": gluoncv_detector_to_simple_pose,
    "hrnet_affine": hrnet_affine,
    "hrnet_crop": hrnet_crop,
    "hrnet_xywh2cs": hrnet_xywh2cs,
    "mmpose1_topdown_affine": mmpose1_topdown_affine,
    "mmpose_affine": mmpose_affine,
}
