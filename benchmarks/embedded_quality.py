"""What the embedded pair is worth: poses in given boxes, people found, and both together.

    python benchmarks/embedded_quality.py --images DIR --annotations FILE [-o results/embedded_quality.csv]

`--annotations` is a COCO keypoint file. The detector is judged on the pictures in which everybody is boxed
(`complete_person_boxes` true, or no such field); what it finds in a crowd's box counts neither for nor against it.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from posezoo import Boxes, Estimator, get_skeleton
from posezoo.data.coco_style import read_json
from posezoo.detect import get_detector
from posezoo.detect.embedded import PersonDetector
from posezoo.estimator import OKS_NMS, SEEN
from posezoo.evaluate.oks import box_ap, keypoint_ap
from posezoo.files import atomic_path
from posezoo.formats.coco import to_results
from posezoo.media.images import read_image

COLUMNS = ("what", "protocol", "people", "AP", "AP50", "AP75", "APM", "APL", "AR")


def main() -> None:
    """Read the arguments, measure, print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--pose", default="embedded", help="a model of the zoo, or an .onnx file")
    parser.add_argument("--detector", default="embedded")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    truth = read_json(arguments.annotations)
    images = {i["id"]: read_image(arguments.images / i["file_name"]) for i in truth["images"]}
    names = [i["file_name"] for i in truth["images"]]
    people = {key: [a for a in truth["annotations"] if a["image_id"] == key and not a.get("iscrowd")] for key in images}
    rows = [
        *pose_rows(arguments, images, names, people),
        *detector_rows(arguments, truth, images, people),
        *end_to_end_rows(arguments, images, names),
    ]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in COLUMNS))
    Console(width=160).print(table)
    if arguments.output:
        where = f"{platform.machine()}, Python {platform.python_version()}"
        with atomic_path(arguments.output) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, "date", "machine", "command"])
            command = "python benchmarks/embedded_quality.py"
            for row in rows:
                cells = [_cell(row.get(column, "")) for column in COLUMNS]
                writer.writerow([*cells, datetime.date.today().isoformat(), where, command])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def pose_rows(arguments: argparse.Namespace, images: dict, names: list[str], people: dict) -> list[dict[str, Any]]:
    """OKS AP in ground-truth boxes, without and with the flip test."""
    rows = []
    for flip in (False, True):
        estimator = Estimator(arguments.pose, detector=None, flip=flip)
        boxes = [corners([a["bbox"] for a in people[key] if a.get("num_keypoints")]) for key in images]
        poses = estimator(list(images.values()), boxes)
        count = sum(len(p) for p in poses)
        figures = keypoint_ap(arguments.annotations, to_results(poses, names), get_skeleton("coco17"))
        protocol = f"ground-truth boxes, {'flip test' if flip else 'no flip'}, no suppression"
        rows.append({"what": "pose", "protocol": protocol, "people": count, **figures})
    return rows


def detector_rows(arguments: argparse.Namespace, truth: dict, images: dict, people: dict) -> list[dict[str, Any]]:
    """Box AP at every score, and the share of people found at the detector's own threshold."""
    complete = {i["id"] for i in truth["images"] if i.get("complete_person_boxes", True)}
    judged = {
        **truth,
        "images": [i for i in truth["images"] if i["id"] in complete],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in complete],
    }
    detector = the_detector(arguments.detector)
    low = at_score(detector, 0.02)
    results, hits, total, false = [], 0, 0, 0
    for key in complete:
        wanted = corners([a["bbox"] for a in people[key]])
        found = detector([images[key]])[0]
        matched = match(wanted, found)
        hits, total, false = hits + matched, total + len(wanted), false + len(found) - matched
        everything = low([images[key]])[0]
        xywh = np.column_stack([everything.xyxy[:, :2], everything.xyxy[:, 2:] - everything.xyxy[:, :2]])
        results += [
            {"image_id": key, "category_id": 1, "bbox": box, "score": score}
            for box, score in zip(xywh.tolist(), everything.scores.tolist(), strict=True)
        ]
    figures = box_ap(judged, results)
    recall = {"AP": "", "AR": hits / max(total, 1)}
    threshold = f"score {detector.settings.score}, IoU 0.5: recall {hits}/{total}, {false} false boxes"
    return [
        {"what": "detector", "protocol": "box AP, every score", "people": total, **figures},
        {"what": "detector recall", "protocol": threshold, "people": total, **recall},
    ]


def the_detector(name: str) -> PersonDetector:
    """One whose threshold can be set."""
    detector = get_detector(name)
    if not isinstance(detector, PersonDetector):
        raise SystemExit(f"error: {name} has no score to judge it by")
    return detector


def at_score(detector: PersonDetector, score: float) -> PersonDetector:
    """The same detector with another threshold."""
    return replace(detector, settings=replace(detector.settings, score=score))


def corners(boxes_xywh: list[list[float]]) -> np.ndarray:
    """(N, 4) x, y, width, height -> x1, y1, x2, y2."""
    boxes = np.array(boxes_xywh, np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def match(wanted: np.ndarray, found: Boxes) -> int:
    """How many wanted boxes (N, 4) have a found one of their own at IoU 0.5 or more, best score first."""
    free, hits = list(range(len(wanted))), 0
    for box in found.xyxy:
        if not free:
            break
        inner = np.minimum(box[2:], wanted[free, 2:]) - np.maximum(box[:2], wanted[free, :2])
        overlap = np.prod(np.maximum(inner, 0), axis=1)
        areas = np.prod(wanted[free, 2:] - wanted[free, :2], axis=1) + np.prod(box[2:] - box[:2])
        iou = overlap / np.maximum(areas - overlap, 1e-6)
        if iou.max() >= 0.5:
            free.pop(int(iou.argmax()))
            hits += 1
    return hits


def end_to_end_rows(arguments: argparse.Namespace, images: dict, names: list[str]) -> list[dict[str, Any]]:
    """OKS AP of the pipeline as a user runs it: own boxes, suppression, rescoring."""
    rows = []
    for flip in (False, True):
        detector = at_score(the_detector(arguments.detector), 0.1)
        poses = Estimator(arguments.pose, detector=detector, flip=flip)(list(images.values()))
        count = sum(len(p) for p in poses)
        figures = keypoint_ap(arguments.annotations, to_results(poses, names), get_skeleton("coco17"))
        how = "flip test" if flip else "no flip"
        protocol = f"own boxes from score 0.1, {how}, OKS-NMS {OKS_NMS} by joints above {SEEN}, rescored"
        rows.append({"what": "end to end", "protocol": protocol, "people": count, **figures})
    return rows


if __name__ == "__main__":
    main()
