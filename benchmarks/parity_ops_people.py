"""Suppression, scores and augmented labels against the zoos' own code."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np
from parity_ops_crop import MAP_SIZE_WH, PIXEL_STD
from parity_ops_read import (
    Doubles,
    Fixture,
    Result,
    array,
    make,
    number_result,
    place_result,
    same_result,
    worst,
)

from posezoo.crop import box_to_center_scale
from posezoo.data.augment import HALF_BODY_SCALE, half_body, mirror
from posezoo.detect.embedded import box_nms
from posezoo.skeletons import get_skeleton
from posezoo.suppress import PARAMETRIC_NMS, oks, oks_nms, parametric_nms, rescore, soft_oks_nms

People = tuple[Doubles, Doubles, Doubles, Doubles]  # keypoints (N, K, 3), scores, areas, boxes_xyxy
SUPPRESS = {"oks_nms": oks_nms, "soft_oks_nms": soft_oks_nms}


def rows(entry: Any) -> list[int]:
    """Indices that a fixture holds as a list or as an array."""
    return entry["data"] if isinstance(entry, dict) else entry


def who_stays(people: People, skeleton: str, function: str, threshold: float, shown: float | None = None) -> Any:
    """The rows that suppression keeps; `shown` is the score above which a joint counts."""
    keypoints, scores, areas, _ = people
    seen = () if shown is None else (keypoints[..., 2], shown)
    sigmas = get_skeleton(skeleton).oks_sigmas
    return SUPPRESS[function](keypoints[..., :2], scores, areas, sigmas, threshold, *seen)


def similarity(people: People, row: int, shown: float | None) -> Any:
    """How alike everyone is to the one in `row`."""
    keypoints, _, areas, _ = people
    seen = () if shown is None else (keypoints[..., 2], shown)
    return oks(keypoints[..., :2], areas, keypoints[row, :, :2], areas[row], get_skeleton("coco17").oks_sigmas, *seen)


def suppression(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """Who stays and who is alike, for each key of a fixture; its thresholds stand in the keys."""
    people: People = make(fixture["people"], fill)
    crowd: People = fill.make_people(10, 14)  # of CrowdPose's joints; what the fixtures do not say
    results = []
    for key, wanted in fixture.items():
        if match := re.fullmatch(r"((?:soft_)?oks_nms)_([\d.]+)", key):
            kept = who_stays(people, "coco17", match[1], float(match[2]))
            results.append(same_result(key, f"suppress.{match[1]}", kept, rows(wanted)))
        elif match := re.fullmatch(r"crowdpose14_oks_nms_([\d.]+)", key):
            kept = who_stays(crowd, "crowdpose14", "oks_nms", float(match[1]))
            results.append(same_result(key, "suppress.oks_nms", kept, rows(wanted)))
        elif match := re.fullmatch(r"crowdpose14_vis([\d.]+)", key):
            kept = who_stays(crowd, "crowdpose14", "oks_nms", 0.5, float(match[1]))
            results.append(same_result(key, "suppress.oks_nms", kept, rows(wanted)))
        elif match := re.fullmatch(r"oks_iou(?:_(\d+))?(_vis([\d.]*))?", key):
            shown = float(match[3] or 0.2) if match[2] else None
            alike = similarity(people, int(match[1] or 0), shown)
            results.append(number_result(key, "suppress.oks", alike, array(wanted)))
        elif match := re.fullmatch(r"box_nms_([\d.]+)", key):
            far_edges = people[3] + np.array([0, 0, 1, 1])  # there a box holds its last pixel
            kept = box_nms(far_edges, people[1], float(match[1]))
            results.append(same_result(key, "detect.embedded.box_nms", kept, rows(wanted)))
    return results


def hrnet_coco_rescore(fixture: Fixture, fill: ModuleType) -> list[Result]:
    keypoints = make(fixture["people"], fill)[0]
    boxes, images = array(fixture["all_boxes"]), np.array(fixture["image_id"])
    scores = rescore(boxes[:, 5], keypoints[..., 2], fixture["in_vis_thre"])
    sigmas = get_skeleton("coco17").oks_sigmas
    results = []
    for name, suppress in (("hard", oks_nms), ("soft", soft_oks_nms)):
        kept: list[int] = []
        for image in np.unique(images):
            mine = np.flatnonzero(images == image)
            threshold = fixture["oks_thre"]
            stay = suppress(keypoints[mine, :, :2], scores[mine], boxes[mine, 4], sigmas, threshold)
            kept += mine[stay].tolist()
        wanted = [person for people in fixture[name] for person in people]
        ours = f"suppress.rescore, {suppress.__name__}"
        first = [person["first_xy"] for person in wanted]
        results.append(number_result(f"scores, {name}", ours, scores[kept], [person["score"] for person in wanted]))
        results.append(place_result(f"who stays, {name}", ours, keypoints[kept, 0, :2], first))
    return results


# the keypoint sets that AlphaPose has numbers for; a fixture says how many joints there are
ALPHAPOSE_SKELETONS = {
    len(get_skeleton(name)): name for name in ("coco17", "hand21", "halpe26", "wholebody133", "halpe136")
}


def alphapose_pose_nms(fixture: Fixture, fill: ModuleType) -> list[Result]:
    ours = "suppress.parametric_nms"
    found: dict[str, list[Result]] = {}
    for case in fixture["cases"]:
        keypoints, scores, _, boxes = make(case["people"], fill)
        skeleton = get_skeleton(ALPHAPOSE_SKELETONS[case["joints"]])
        body = [skeleton.index(joint) for joint in skeleton.parts.get("body", skeleton.joints)]
        numbers = PARAMETRIC_NMS.get(skeleton.name)
        kept, poses, joint_scores = parametric_nms(keypoints[..., :2], keypoints[..., 2], boxes, body, numbers)
        for result in (
            same_result("who stays", ours, kept, case["pick_ids"]),
            place_result("boxes", ours, boxes[kept], case["bboxes"]),
            number_result("scores of boxes", ours, scores[kept], array(case["bbox_scores"])[:, 0]),
            place_result("merged joints", ours, poses, array(case["pose_preds"])),
            number_result("merged scores", ours, joint_scores, array(case["pose_scores"])[..., 0]),
        ):
            found.setdefault(result.what, []).append(result)
    return [worst(results) for results in found.values()]


def hrnet_augment(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """Mirrored labels, and the region around half a body: its middle, and its size without the crop's margin."""
    joints, visible = array(fixture["joints"])[:, :2], array(fixture["vis"])[:, 0]
    skeleton = get_skeleton("coco17")
    width = int(re.findall(r"width (\d+)", fixture["function"])[0])
    picture = np.zeros((1, width, 3), np.uint8)
    labels = joints.astype(np.float32), visible.astype(np.float32)
    _, xy, weights = mirror(picture, *labels, skeleton)
    shown = weights > 0  # it sets the others to 0
    wanted = array(fixture["flip_joints"])[:, :2]
    found, regions = [], []
    for case in fixture["half_body"]:
        half = half_body(np.random.RandomState(case["np_seed"]), *labels, skeleton)
        assert half is not None
        box = np.concatenate([half[0] - half[1] / 2, half[0] + half[1] / 2])
        found.append(np.hstack(box_to_center_scale(box, MAP_SIZE_WH, HALF_BODY_SCALE))[0])
        regions.append(np.concatenate([array(case["result"][0]), array(case["result"][1]) * PIXEL_STD]))
    return [
        place_result("mirrored joints", "augment.mirror", xy[shown], wanted[shown]),
        number_result("mirrored visibility", "augment.mirror", weights, array(fixture["flip_vis"])[:, 0]),
        place_result("halves of bodies, middle and size", "augment.half_body", np.array(found), np.array(regions)),
    ]


CHECKS = {
    "alphapose_pose_nms": alphapose_pose_nms,
    "hrnet_augment": hrnet_augment,
    "hrnet_coco_rescore": hrnet_coco_rescore,
    "hrnet_nms": suppression,
    "mmpose_nms": suppression,
}
