"""MMPose's predictions (1.x), which are read and not written: a file a picture or video, called as that is.

    [{"keypoints": [[x, y], ...], "keypoint_scores": [score, ...], "bbox": [[x1, y1, x2, y2]], "bbox_score": 0.9}, ...]
    [{"frame_id": 0, "instances": [{"keypoints": [[x, y], ...], ...}, ...]}, ...]
    {"meta_info": {"keypoint_id2name": {"0": "nose", ...}, ...}, "instance_info": [...]}

The first is the inferencer's of a picture, the second its of a video. The third is that of the demos: one of the two
with the names of the joints, called results_street.json, and with frames that are counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from posezoo.errors import PosezooError
from posezoo.formats.result import DEFAULT_SKELETON, XYS, Key, Person, Result, to_result, unplaced
from posezoo.formats.values import number, numbers, optional, parse_json, whole
from posezoo.skeletons import Skeleton, get_skeleton, list_skeletons


class Joints(NamedTuple):
    """What the keypoints of a file are.

    Attributes:
        skeleton: the keypoint set.
        order: where each of its joints stands in the file.
    """

    skeleton: Skeleton
    order: list[int]


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The people in each file; of coco17 where neither the caller nor the file names the joints."""
    return chain.from_iterable(from_file(file, skeleton) for file in files)


def from_file(file: Path, skeleton: Skeleton | None = None) -> Iterator[Result]:
    """The people in one file: of a picture, or of each frame.

    Args:
        file: its path.
        skeleton: the keypoint set; None: the one whose joints the file names, or coco17 where it names none.

    Raises:
        PosezooError: it is not such a file; the message has the place and the wrong value.
    """
    content, where = parse_json(file)
    of_demo = isinstance(content, dict)
    entries = content.get("instance_info") if of_demo else content
    meta = content.get("meta_info", {}) if of_demo else {}
    image = file.stem.removeprefix("results_") if of_demo else file.stem
    if not isinstance(entries, list) or not isinstance(meta, dict):
        raise PosezooError(f"{where} is no list of people or frames, nor has it one that is called 'instance_info'")
    joints = _joints(meta, skeleton, where)
    if not any(isinstance(entry, dict) and "instances" in entry for entry in entries):
        yield to_result(Key(image), _people(entries, joints, where), joints.skeleton, where)
        return
    frames = [_frame(entry, f"{where}, entry {row}") for row, entry in enumerate(entries)]
    first = int(of_demo and min(frames) == 1)
    for row, (frame, entry) in enumerate(zip(frames, entries, strict=True)):
        at = f"{where}, entry {row}"
        yield to_result(Key(image, frame - first), _people(entry["instances"], joints, at), joints.skeleton, at)


def _frame(entry: Any, where: str) -> int:
    if not isinstance(entry, dict) or "instances" not in entry:
        raise PosezooError(f"{where} is {entry!r:.60}, expected an object with 'instances'")
    return whole(entry.get("frame_id"), f"{where}: 'frame_id'", 0)


def _joints(meta: dict[str, Any], skeleton: Skeleton | None, where: str) -> Joints:
    """The joints that a file names, or those of the skeleton in its own order."""
    named = meta.get("keypoint_id2name")
    if not isinstance(named, dict):
        skeleton = skeleton or get_skeleton(DEFAULT_SKELETON)
        return Joints(skeleton, list(range(len(skeleton))))
    names = [named.get(str(row)) for row in range(len(named))]
    # two sets may have the same joints
    known = sorted(list_skeletons(), key=lambda name: not name.startswith(str(meta.get("dataset_name"))))
    for each in [skeleton] if skeleton else map(get_skeleton, known):
        if set(each.joints) == set(names):
            return Joints(each, [names.index(joint) for joint in each.joints])
    wanted = f"those of {skeleton.name}" if skeleton else "those of a keypoint set of posezoo"
    raise PosezooError(f"{where}: its joints ({', '.join(map(str, names[:3]))}, ...; {len(names)}) are not {wanted}")


def _people(entries: Any, joints: Joints, where: str) -> list[Person]:
    if not isinstance(entries, list):
        raise PosezooError(f"{where}: 'instances' must be a list")
    return [_person(entry, joints, f"{where}, person {row}") for row, entry in enumerate(entries)]


def _person(entry: Any, joints: Joints, where: str) -> Person:
    if not isinstance(entry, dict):
        raise PosezooError(f"{where} is {entry!r:.60}, expected an object")
    for key in ("keypoints", "keypoint_scores"):
        if not isinstance(entry.get(key), list):
            raise PosezooError(f"{where}: '{key}' is {entry.get(key)!r:.60}, expected a list")
    points = entry["keypoints"]
    if len(points) != len(joints.order):
        others = [name for name in list_skeletons() if len(get_skeleton(name)) == len(points)]
        hint = f"; {' and '.join(others)} would fit: name the skeleton" if others else ""
        wanted = f"{len(joints.order)} ({joints.skeleton.name})"
        raise PosezooError(f"{where} has {len(points)} keypoints, expected {wanted}{hint}")
    xy = [numbers(point, 2, f"{where}, keypoint {row}") for row, point in enumerate(points)]
    scores = numbers(entry["keypoint_scores"], len(points), f"{where}: 'keypoint_scores'")
    xys: XYS = np.column_stack([np.array(xy, np.float32), np.array(scores, np.float32)])
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 1:
        (box,) = box
    return Person(
        unplaced(xys[joints.order]),
        None if box is None else numbers(box, 4, f"{where}: 'bbox'"),
        optional(number, entry.get("bbox_score"), f"{where}: 'bbox_score'"),
    )
