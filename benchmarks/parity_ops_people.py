"""Suppression, scores, mirrored labels and metrics against the zoos' own code."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from parity_ops_read import (
    Doubles,
    Fixture,
    Result,
    array,
    make,
    number_result,
    place_result,
    same_result,
)

from posezoo.data.augment import mirror
from posezoo.detect.embedded import box_nms
from posezoo.evaluate.oks import keypoint_ap
from posezoo.skeletons import get_skeleton
from posezoo.suppress import oks, oks_nms, rescore, soft_oks_nms

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


def hrnet_augment(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """Mirrored labels. How a half of a body becomes a box is another rule here, and left out."""
    joints, visible = array(fixture["joints"])[:, :2], array(fixture["vis"])[:, 0]
    width = int(re.findall(r"width (\d+)", fixture["function"])[0])
    picture = np.zeros((1, width, 3), np.uint8)
    _, xy, weights = mirror(picture, joints.astype(np.float32), visible.astype(np.float32), get_skeleton("coco17"))
    shown = weights > 0  # it sets the others to 0
    wanted = array(fixture["flip_joints"])[:, :2]
    return [
        place_result("mirrored joints", "augment.mirror", xy[shown], wanted[shown]),
        number_result("mirrored visibility", "augment.mirror", weights, array(fixture["flip_vis"])[:, 0]),
    ]


# ---- metrics

# datasets that are evaluated as COCO is: whole persons, areas as annotated
METRIC_SKELETONS = {"coco": "coco17", "ochuman": "coco17", "halpe136": "halpe136"}


def our_name(metric: str) -> str:
    """AP50 for "AP .5", APM for "AP (M)"."""
    return re.sub(r"[ .()]", "", f"{metric}0" if metric.endswith(".5") else metric)


def metrics_examples(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """Average precision; the annotations lie where the fixture says, seen from beside the folder of fixtures."""
    beside = Path(str(fill.__file__)).resolve().parent.parent
    results = []
    for name, example in fixture["examples"].items():
        annotations = beside / example["annotations"]
        if example["dataset"] in METRIC_SKELETONS and annotations.is_file():
            skeleton = get_skeleton(METRIC_SKELETONS[example["dataset"]])
            got = keypoint_ap(annotations, example["predictions"], skeleton)
            ours = [got[our_name(metric)] for metric in example["metrics"]]
            results.append(number_result(name, "evaluate.oks.keypoint_ap", ours, list(example["metrics"].values())))
    return results


CHECKS = {
    "hrnet_augment": hrnet_augment,
    "hrnet_coco_rescore": hrnet_coco_rescore,
    "hrnet_nms": suppression,
    "metrics_examples": metrics_examples,
    "mmpose_nms": suppression,
}
