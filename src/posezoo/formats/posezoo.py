"""posezoo's own format: one JSON file an image, with everything that `Poses` holds.

    {"format": "posezoo/1", "image": "street.jpg", "width": 640, "height": 480, "skeleton": "coco17",
     "joints": ["nose", "left_eye", ...],
     "people": [
      {"box": [x1, y1, x2, y2], "box_score": 0.98, "score": 0.83, "keypoints": [[x, y, score], ...], "track_id": 3}]}

`joints` names the keypoints once, in their order within each person. Coordinates are pixels of the original image,
(0, 0) the centre of the top left pixel. `score` is the whole person's: the box score times the mean of the joint scores
above 0.2. A joint that was not placed is [null, null, 0.0]. `track_id` is there when people were tracked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from posezoo.errors import PosezooError, unknown_name
from posezoo.formats import number, numbers, parse_json, rounded
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.suppress import rescore
from posezoo.types import Poses

VERSION = "posezoo/1"

_KEYS = ("format", "image", "width", "height", "skeleton", "joints", "people")
_PERSON_KEYS = ("box", "box_score", "score", "keypoints", "track_id")


class Record(NamedTuple):
    """What a file holds.

    Attributes:
        poses: the people of the image; none at all is fine.
        image: its name or path, as the user gave it.
        size_wh: its width and height in pixels.
    """

    poses: Poses
    image: str
    size_wh: tuple[int, int]


def to_json(poses: Poses, image: str, size_wh: tuple[int, int]) -> str:
    """The file of one image, one line a person.

    Args:
        poses: the people of the image.
        image: its name or path.
        size_wh: its width and height in pixels.

    Raises:
        PosezooError: a box or a score is not finite.
    """
    head = {
        "format": VERSION,
        "image": image,
        "width": int(size_wh[0]),
        "height": int(size_wh[1]),
        "skeleton": poses.skeleton.name,
        "joints": list(poses.skeleton.joints),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    people = ",".join(f"\n  {json.dumps(person, allow_nan=False)}" for person in _people(poses))
    return "{\n" + ",\n".join([*lines, f' "people": [{people}]']) + "\n}\n"


def _people(poses: Poses) -> list[dict[str, Any]]:
    people = []
    person_scores = rescore(poses.box_scores, poses.scores)
    for row in range(len(poses)):
        person: dict[str, Any] = {
            "box": [rounded(v) for v in poses.boxes_xyxy[row].tolist()],
            "box_score": rounded(float(poses.box_scores[row]), 4),
            "score": rounded(float(person_scores[row]), 4),
            "keypoints": [
                [rounded(x), rounded(y), rounded(score, 4)] if np.isfinite([x, y]).all() else [None, None, 0.0]
                for (x, y), score in zip(poses.keypoints_xy[row].tolist(), poses.scores[row].tolist(), strict=True)
            ],
        }
        if poses.track_ids is not None:
            person["track_id"] = int(poses.track_ids[row])
        people.append(person)
    return people


def from_json(text: str | bytes | os.PathLike[str], skeleton: Skeleton | None = None) -> Record:
    """Read what `to_json` wrote; the joints may stand in any order.

    Args:
        text: the JSON itself, or its file as a `Path`.
        skeleton: the keypoint set, where the file names one that is not posezoo's own.

    Returns:
        The people and their image. Joints that were not placed are NaN.

    Raises:
        PosezooError: it is not such a file; the message has the place and the wrong value.
    """
    table, where = parse_json(text, "posezoo file")
    if not isinstance(table, dict) or table.get("format") != VERSION:
        found = repr(table.get("format")) if isinstance(table, dict) else f"a {type(table).__name__}"
        raise PosezooError(f"{where} is not in the posezoo format: 'format' is {found}, expected '{VERSION}'")
    _check_keys(table, _KEYS, _KEYS, where)
    if not isinstance(table["image"], str):
        raise PosezooError(f"{where}: 'image' is {table['image']!r}, expected a name")
    size_wh = (_whole(table["width"], f"{where}: 'width'"), _whole(table["height"], f"{where}: 'height'"))
    skeleton = get_skeleton(str(table["skeleton"])) if skeleton is None else skeleton
    order = _order(table["joints"], skeleton, where)
    if not isinstance(table["people"], list):
        raise PosezooError(f"{where}: 'people' must be a list")
    rows = [_person(p, len(order), f"{where}, person {i}") for i, p in enumerate(table["people"])]
    tracked = [row["track_id"] for row in rows if row["track_id"] is not None]
    if tracked and len(tracked) != len(rows):
        raise PosezooError(f"{where}: some people have a 'track_id' and some have none")
    if not rows:
        return Record(Poses.empty(skeleton), table["image"], size_wh)
    keypoints = np.array([row["keypoints"] for row in rows], np.float32)[:, order]
    boxes = np.array([row["box"] for row in rows], np.float32)
    box_scores = np.array([row["box_score"] for row in rows], np.float32)
    track_ids = np.array(tracked, np.int64) if tracked else None
    poses = Poses(keypoints[..., :2], keypoints[..., 2], boxes, box_scores, skeleton, track_ids)
    return Record(poses, table["image"], size_wh)


def _check_keys(table: dict[str, Any], known: Sequence[str], needed: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise PosezooError(f"{where}: {unknown_name('key', key, known)}")
    for key in needed:
        if key not in table:
            raise PosezooError(f"{where}: '{key}' is missing")


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PosezooError(f"{where} is {value!r}, expected a whole number")
    return value


def _order(joints: Any, skeleton: Skeleton, where: str) -> list[int]:
    """Where each joint of `skeleton` stands in the file."""
    if not isinstance(joints, list) or not all(isinstance(j, str) for j in joints):
        raise PosezooError(f"{where}: 'joints' must be a list of names")
    for joint in joints:
        if joint not in skeleton.joints:
            raise PosezooError(f"{where}: {unknown_name(f'joint of {skeleton.name}', joint, skeleton.joints)}")
    if sorted(joints) != sorted(skeleton.joints):
        wrong = next(j for j in skeleton.joints if joints.count(j) != 1)
        raise PosezooError(f"{where}: joint '{wrong}' of {skeleton.name} is listed {joints.count(wrong)} times")
    return [joints.index(joint) for joint in skeleton.joints]


def _person(person: Any, joints: int, where: str) -> dict[str, Any]:
    if not isinstance(person, dict):
        raise PosezooError(f"{where} is {person!r}, expected an object")
    _check_keys(person, _PERSON_KEYS, ("box", "box_score", "keypoints"), where)
    keypoints = person["keypoints"]
    if not isinstance(keypoints, list) or len(keypoints) != joints:
        got = f"{len(keypoints)} keypoints" if isinstance(keypoints, list) else type(keypoints).__name__
        raise PosezooError(f"{where} has {got}, expected {joints}")
    track = person.get("track_id")
    if track is not None and (isinstance(track, bool) or not isinstance(track, int) or abs(track) >= 1 << 63):
        raise PosezooError(f"{where}: 'track_id' is {track!r}, expected a whole number")
    return {
        "box": numbers(person["box"], 4, f"{where}: 'box'"),
        "box_score": number(person["box_score"], f"{where}: 'box_score'"),
        "keypoints": [_keypoint(point, f"{where}, keypoint {k}") for k, point in enumerate(keypoints)],
        "track_id": track,
    }


def _keypoint(point: Any, where: str) -> list[float]:
    if isinstance(point, list) and len(point) == 3 and point[:2] == [None, None]:
        return [float("nan"), float("nan"), number(point[2], where)]
    return numbers(point, 3, where)
