"""posezoo's own format: one JSON file an image, with everything that a result holds.

    {"format": "posezoo/1", "image": "street.jpg", "width": 640, "height": 480, "skeleton": "coco17",
     "joints": ["nose", "left_eye", ...],
     "people": [
      {"box": [x1, y1, x2, y2], "box_score": 0.98, "score": 0.83, "keypoints": [[x, y, score], ...], "track_id": 3}]}

`joints` names the keypoints once, in their order within each person. Coordinates are pixels of the original image,
(0, 0) the centre of the top left pixel. `score` is the whole person's: the box score times the mean of the joint scores
above 0.2, unless it was read from another tool's file. A joint that was not placed is [null, null, 0.0]. `track_id` is
there when people were tracked. The frame of a video has its number and its seconds from the start too, `"frame": 7,
"time": 0.28`, and `image` is the video. Width and height are null where a file that was converted did not say.

A video has one object a line instead of files, see `posezoo.formats.jsonl`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.errors import PosezooError, unknown_name
from posezoo.formats.result import Key, Person, Result, ResultWriter, Settings, read_key, to_result
from posezoo.formats.values import json_line, number, numbers, optional, parse_json, rounded, whole
from posezoo.formats.writers import FileEach
from posezoo.skeletons import Skeleton, get_skeleton
from posezoo.types import Poses

VERSION = "posezoo/1"

_KEYS = ("format", "image", "width", "height", "skeleton", "joints", "people")
_FRAME_KEYS = ("frame", "time")
RUN = "run"  # of the first line of a video: what made it, see `posezoo.formats.jsonl`
_PERSON_KEYS = ("box", "box_score", "score", "keypoints", "track_id")


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of a file for each image."""
    return FileEach(output, skeleton, to_text, settings)


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The result in each file."""
    return (from_json(file, skeleton) for file in files)


def to_json(poses: Poses, image: str, size_wh: tuple[int, int]) -> str:
    """The file of one image, one line a person.

    Args:
        poses: the people of the image.
        image: its name or path.
        size_wh: its width and height in pixels.

    Raises:
        PosezooError: a box or a score is not finite.
    """
    return to_text(Result(poses, image, size_wh=size_wh))


def to_text(record: Result) -> str:
    """The file of a result, one line a person; errors as of `to_json`."""
    table = to_table(record)
    people = ",".join(f"\n  {json_line(person)}" for person in table.pop("people"))
    lines = [f" {json_line(key)}: {json_line(value)}" for key, value in table.items()]
    return "{\n" + ",\n".join([*lines, f' "people": [{people}]']) + "\n}\n"


def to_table(record: Result) -> dict[str, Any]:
    """What the file holds; errors as of `to_json`."""
    key = {name: value for name, value in record.key().items() if name not in _FRAME_KEYS or value is not None}
    skeleton = record.poses.skeleton
    own = {"skeleton": skeleton.name, "joints": list(skeleton.joints)}
    return {"format": VERSION, **key, **own, "people": _people(record)}


def _people(record: Result) -> list[dict[str, Any]]:
    people = []
    poses = record.poses
    for row, (joints, score) in enumerate(zip(record.joints(), record.scores, strict=True)):
        person: dict[str, Any] = {
            "box": [rounded(v) for v in poses.boxes_xyxy[row].tolist()],
            "box_score": rounded(float(poses.box_scores[row]), 4),
            "score": rounded(score, 4),
            "keypoints": joints,
        }
        if poses.track_ids is not None:
            person["track_id"] = int(poses.track_ids[row])
        people.append(person)
    return people


def from_json(text: str | bytes | os.PathLike[str], skeleton: Skeleton | None = None) -> Result:
    """Read what `to_json` wrote; the joints may stand in any order.

    Args:
        text: the JSON itself, or its file as a `Path`.
        skeleton: the keypoint set, where the file names one that is not posezoo's own.

    Returns:
        The people and their image. Joints that were not placed are NaN.

    Raises:
        PosezooError: it is not such a file; the message has the place and the wrong value.
    """
    return from_table(*parse_json(text, "posezoo file"), skeleton)


def from_table(table: Any, where: str, skeleton: Skeleton | None = None) -> Result:
    """A result from parsed JSON.

    Args:
        table: what `to_table` gave.
        where: what to call its source in errors.
        skeleton: as of `from_json`.

    Raises:
        PosezooError: as of `from_json`.
    """
    key, _ = glance(table, where)
    skeleton = get_skeleton(str(table["skeleton"])) if skeleton is None else skeleton
    order = _order(table["joints"], skeleton, where)
    people = [_person(person, order, f"{where}, person {row}") for row, person in enumerate(table["people"])]
    return to_result(key, people, skeleton, where)


def glance(table: Any, where: str) -> tuple[Key, list[int]]:
    """Whose people parsed JSON is of, and their track ids, without a look at their joints; errors as of `from_json`."""
    if not isinstance(table, dict) or table.get("format") != VERSION:
        found = repr(table.get("format")) if isinstance(table, dict) else f"a {type(table).__name__}"
        raise PosezooError(f"{where} is not in the posezoo format: 'format' is {found}, expected '{VERSION}'")
    _check_keys(table, (*_KEYS, *_FRAME_KEYS, RUN), _KEYS, where)
    if not isinstance(table.get(RUN, {}), dict):
        raise PosezooError(f"{where}: '{RUN}' is {table[RUN]!r}, expected an object")
    key = read_key(table, where)
    if not isinstance(table["people"], list):
        raise PosezooError(f"{where}: 'people' must be a list")
    ids = (_track_id(person, f"{where}, person {row}") for row, person in enumerate(table["people"]))
    return key, [track_id for track_id in ids if track_id is not None]


def _track_id(person: Any, where: str) -> int | None:
    if not isinstance(person, dict):
        raise PosezooError(f"{where} is {person!r}, expected an object")
    return optional(whole, person.get("track_id"), f"{where}: 'track_id'")  # type: ignore[no-any-return]


def _check_keys(table: dict[str, Any], known: Sequence[str], needed: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise PosezooError(f"{where}: {unknown_name('key', key, known)}")
    for key in needed:
        if key not in table:
            raise PosezooError(f"{where}: '{key}' is missing")


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


def _person(person: Any, order: list[int], where: str) -> Person:
    track_id = _track_id(person, where)
    _check_keys(person, _PERSON_KEYS, ("box", "box_score", "keypoints"), where)
    keypoints = person["keypoints"]
    if not isinstance(keypoints, list) or len(keypoints) != len(order):
        got = f"{len(keypoints)} keypoints" if isinstance(keypoints, list) else type(keypoints).__name__
        raise PosezooError(f"{where} has {got}, expected {len(order)}")
    xys = [_keypoint(point, f"{where}, keypoint {k}") for k, point in enumerate(keypoints)]
    return Person(
        np.array(xys, np.float32)[order],
        numbers(person["box"], 4, f"{where}: 'box'"),
        number(person["box_score"], f"{where}: 'box_score'"),
        optional(number, person.get("score"), f"{where}: 'score'"),
        track_id,
    )


def _keypoint(point: Any, where: str) -> list[float]:
    if isinstance(point, list) and len(point) == 3 and point[:2] == [None, None]:
        return [float("nan"), float("nan"), number(point[2], where)]
    return numbers(point, 3, where)
