"""COCO keypoint results: one JSON list for all images, as https://cocodataset.org/#format-results has it.

    [{"image_id": 785, "category_id": 1, "keypoints": [x1, y1, s1, x2, y2, s2, ...], "score": 0.83}, ...]

`image_id` is a number where the image's file name is one (000000000785.jpg), as in COCO itself; else the file name. The
third number of a keypoint is its score. COCO's evaluation takes a result that has a box for a box result, so boxes are
not written; nor are images without people. Keypoints follow the order of the skeleton, which the file does not name.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from posezoo.errors import PosezooError
from posezoo.formats import number, numbers, parse_json, rounded
from posezoo.skeletons import Skeleton
from posezoo.suppress import rescore
from posezoo.types import Poses

PERSON = 1


def image_ids(images: Sequence[str]) -> list[int | str]:
    """What the file calls each image: the number that its file name is, else the file name; both only if unique.

    Where two images would get one number they get their file names, and where they would get one name, their paths.

    Raises:
        PosezooError: an image is listed twice.
    """
    paths = [PurePath(image) for image in images]
    # isdigit alone would take the digits of other scripts
    known = [int(p.stem) if re.fullmatch(r"[0-9]{1,18}", p.stem) else None for p in paths]
    times, named = Counter(known), Counter(p.name for p in paths)
    ids: list[int | str] = []
    for image, path, digits in zip(images, paths, known, strict=True):
        if digits is not None and times[digits] == 1:
            ids.append(digits)
        else:
            ids.append(path.name if named[path.name] == 1 else image)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise PosezooError(f"image {twice} is listed twice, and COCO results tell images apart by name")
    return ids


def to_results(poses: Sequence[Poses], images: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of the list, image after image.

    Args:
        poses: the people of each image.
        images: the name or path of each image.

    Raises:
        PosezooError: an image is listed twice, or a score is not finite.
    """
    results: list[dict[str, Any]] = []
    for people, key in zip(poses, image_ids(images), strict=True):
        person_scores = rescore(people.box_scores, people.scores)
        for row in range(len(people)):
            placed = np.isfinite(people.keypoints_xy[row]).all(axis=1)
            xy = np.where(placed[:, None], people.keypoints_xy[row], 0)
            triples = np.column_stack([xy, np.where(placed, people.scores[row], 0)])
            flat = [rounded(v, 4 if i % 3 == 2 else 2) for i, v in enumerate(triples.ravel().tolist())]
            score = rounded(float(person_scores[row]), 4)
            results.append({"image_id": key, "category_id": PERSON, "keypoints": flat, "score": score})
    return results


def to_json(poses: Sequence[Poses], images: Sequence[str]) -> str:
    """The file of all images, one line a person; arguments and errors as of `to_results`."""
    lines = ",\n".join(json.dumps(r, ensure_ascii=False, allow_nan=False) for r in to_results(poses, images))
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def from_json(text: str | bytes | os.PathLike[str], skeleton: Skeleton) -> dict[int | str, Poses]:
    """Read COCO results, whoever wrote them.

    Args:
        text: the JSON itself, or its file as a `Path`.
        skeleton: which keypoint set it is; the file does not say.

    Returns:
        The people of each image by its image_id, in order of first mention. The box of a person is its "bbox" if it
        has one, else the extent of its joints with a score above 0; the box score is its "score".

    Raises:
        PosezooError: it is not such a file; the message has the entry and the wrong value.
    """
    results, where = parse_json(text, "COCO results")
    if not isinstance(results, list):
        raise PosezooError(f"{where}: expected a list of results, but it is a {type(results).__name__}")
    people: dict[int | str, list[tuple[list[float], list[float], float]]] = {}
    for row, entry in enumerate(results):
        at = f"{where}, result {row}"
        if not isinstance(entry, dict):
            raise PosezooError(f"{at} is {entry!r}, expected an object")
        for key in ("image_id", "keypoints", "score"):
            if key not in entry:
                raise PosezooError(f"{at}: '{key}' is missing")
        key = entry["image_id"]
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise PosezooError(f"{at}: 'image_id' is {key!r}, expected a number or a file name")
        flat = numbers(entry["keypoints"], 3 * len(skeleton.joints), f"{at}: 'keypoints'")
        box = _box(entry.get("bbox"), flat, f"{at}: 'bbox'")
        people.setdefault(key, []).append((flat, box, number(entry["score"], f"{at}: 'score'")))
    return {key: _poses(rows, skeleton) for key, rows in people.items()}


def _box(xywh: Any, flat: list[float], where: str) -> list[float]:
    if xywh is not None:
        x, y, width, height = numbers(xywh, 4, where)
        if width < 0 or height < 0:
            raise PosezooError(f"{where} has a negative size: {xywh}")
        return [x, y, x + width, y + height]
    points = np.reshape(flat, (-1, 3))
    points = points[points[:, 2] > 0, :2] if (points[:, 2] > 0).any() else points[:, :2]
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def _poses(rows: list[tuple[list[float], list[float], float]], skeleton: Skeleton) -> Poses:
    keypoints = np.array([flat for flat, _, _ in rows], np.float32).reshape(len(rows), -1, 3)
    boxes = np.array([box for _, box, _ in rows], np.float32)
    scores = np.array([score for _, _, score in rows], np.float32)
    return Poses(keypoints[..., :2], keypoints[..., 2], boxes, scores, skeleton)
