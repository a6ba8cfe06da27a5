"""OpenPose's JSON: one file an image, `street_keypoints.json`, a frame of a video `street_000000000007_keypoints.json`.

    {"version": 0.1, "people": [{"person_id": [3], "pose_keypoints_2d": [x, y, score, ...],
      "face_keypoints_2d": [], "hand_left_keypoints_2d": [], "hand_right_keypoints_2d": []}],
     "posezoo": {"skeleton": "coco17", "made": ["neck"], "image": "street.jpg", ...}}

The body is OpenPose's COCO body of 18 points ("openpose") or its BODY_25 ("openpose25"); 21 points a hand and 70 a face
are there where the skeleton has them, else these lists are empty, as OpenPose leaves them. Its two pupils stay 0, 0, 0,
as does every point that the skeleton lacks. `person_id` is the track id, -1 where nothing was tracked. "posezoo" is for
what OpenPose has no place for; its readers pass over it. `made` names the points that were made of two joints.
`tracked` is there where people were: -1 then is one who has no id yet, as it is wherever another person has one.

CMU's older form differs by its names and has the body of 18 points only, see `posezoo.formats.cmu`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.errors import PosezooError
from posezoo.formats.places import BODY_18, BODY_25, FACE, LEFT_HAND, RIGHT_HAND, check_some_place, fit
from posezoo.formats.result import (
    DEFAULT_SKELETON,
    XYS,
    Person,
    Result,
    ResultWriter,
    Settings,
    read_key,
    to_result,
    unplaced,
)
from posezoo.formats.values import json_line, numbers, optional, parse_json, rounded_xys, whole
from posezoo.formats.writers import FileEach
from posezoo.skeletons import Skeleton, get_skeleton

VERSION = 0.1
OWN, TRACKED = "posezoo", "tracked"


@dataclass(frozen=True)
class Layout:
    """How a file of this kind is laid out.

    Attributes:
        people: what it calls the list of people.
        parts: what it calls each list of points, the body's first, and which points they are.
        bodies: the bodies that are read; files do not say which it is but by the number of points.
        person_id: whether a person has a place for a track id.
        ending: of the files' names.
    """

    people: str
    parts: Mapping[str, tuple[str, ...]]
    bodies: tuple[tuple[str, ...], ...]
    person_id: bool
    ending: str

    @property
    def body(self) -> str:
        """What it calls the points of the body."""
        return next(iter(self.parts))


_PARTS = {"face_keypoints_2d": FACE, "hand_left_keypoints_2d": LEFT_HAND, "hand_right_keypoints_2d": RIGHT_HAND}
_NAMES = {"people": "people", "bodies": (BODY_18, BODY_25), "person_id": True, "ending": "_keypoints.json"}
OPENPOSE = Layout(parts={"pose_keypoints_2d": BODY_18, **_PARTS}, **_NAMES)  # type: ignore[arg-type]
OPENPOSE_25 = Layout(parts={"pose_keypoints_2d": BODY_25, **_PARTS}, **_NAMES)  # type: ignore[arg-type]


def open_writer(layout: Layout, output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of a file for each image.

    Raises:
        PosezooError: the layout has no place for any joint of the skeleton.
    """
    check_some_place(tuple(layout.parts.values()), skeleton, "OpenPose's format")
    return FileEach(
        output, skeleton, lambda record: to_text(layout, record), settings, settings.ending or layout.ending
    )


def to_text(layout: Layout, record: Result) -> str:
    """The file of a result, one line a person.

    Raises:
        PosezooError: a score is not finite.
    """
    xys, poses = record.xys(), record.poses
    ids = [-1] * len(poses) if poses.track_ids is None else poses.track_ids.tolist()
    rows: list[dict[str, Any]] = [{"person_id": [track_id]} if layout.person_id else {} for track_id in ids]
    for name, places in layout.parts.items():
        found = fit(places, poses.skeleton)
        has = name == layout.body or (found.rows >= 0).any()
        points = rounded_xys(found.to_places(xys)).reshape(len(xys), 3 * len(places))
        for row, flat in zip(rows, points.tolist(), strict=True):
            row[name] = flat if has else []
    lines = ",".join(f"\n {json_line(row)}" for row in rows)
    own = json_line(_own(record, layout))
    return f'{{"version": {VERSION}, "{layout.people}": [{lines}],\n "{OWN}": {own}}}\n'


def _own(record: Result, layout: Layout) -> dict[str, Any]:
    """What the file has no place for."""
    skeleton = record.poses.skeleton
    made = [point for places in layout.parts.values() for point in fit(places, skeleton).made]
    known = {name: value for name, value in record.key().items() if value is not None}
    tracked = {TRACKED: True} if layout.person_id and record.poses.track_ids is not None else {}
    return {"skeleton": skeleton.name, "made": made, **known, **tracked}


def read(layout: Layout, files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The people in each file; of coco17 where neither the caller nor the file names the skeleton."""
    return (from_file(layout, file, skeleton) for file in files)


def from_file(layout: Layout, file: Path, skeleton: Skeleton | None = None) -> Result:
    """The people in one file.

    Args:
        layout: of the file.
        file: its path.
        skeleton: the keypoint set to take the points for; None: the one that the file names, or coco17.

    Raises:
        PosezooError: it is not such a file; the message has the place and the wrong value.
    """
    table, where = parse_json(file)
    rows = table.get(layout.people) if isinstance(table, dict) else None
    if not isinstance(rows, list):
        raise PosezooError(f"{where} has no list '{layout.people}'")
    own = table.get(OWN, {})
    if not isinstance(own, dict):
        raise PosezooError(f"{where}: '{OWN}' is {own!r}, expected an object")
    joints = skeleton or get_skeleton(str(own.get("skeleton", DEFAULT_SKELETON)))
    key = read_key(own, f"{where}, '{OWN}'", file.stem.removesuffix("_keypoints"))
    people = [_person(layout, person, joints, f"{where}, person {row}") for row, person in enumerate(rows)]
    if own.get(TRACKED) is not True and all(person.track_id in (None, -1) for person in people):
        people = [person._replace(track_id=None) for person in people]
    return to_result(key, people, joints, where)


def _person(layout: Layout, person: Any, skeleton: Skeleton, where: str) -> Person:
    if not isinstance(person, dict):
        raise PosezooError(f"{where} is {person!r}, expected an object")
    if layout.body not in person:
        raise PosezooError(f"{where}: '{layout.body}' is missing")
    xys = np.tile(np.array([np.nan, np.nan, 0], np.float32), (len(skeleton), 1))
    for name, places in layout.parts.items():
        flat = numbers(person.get(name, []), None, f"{where}: '{name}'")
        known = layout.bodies if name == layout.body else (places, ())
        fitting = next((points for points in known if 3 * len(points) == len(flat)), None)
        if fitting is None:
            lengths = " or ".join(f"{3 * len(points)} ({len(points)} points)" for points in known)
            raise PosezooError(f"{where}: '{name}' has {len(flat)} values, expected {lengths}")
        if fitting:
            part = _joints(flat, fitting, skeleton)
            xys = np.where(np.isnan(part[:, :1]), xys, part)
    return Person(xys, track_id=_track_id(person.get("person_id"), f"{where}: 'person_id'"))


def _joints(flat: list[float], places: tuple[str, ...], skeleton: Skeleton) -> XYS:
    """(K, 3) joints of a flat list of points."""
    return unplaced(fit(places, skeleton).to_joints(np.array(flat, np.float32).reshape(-1, 3), len(skeleton)))


def _track_id(value: Any, where: str) -> int | None:
    if isinstance(value, list) and len(value) < 2:
        value = value[0] if value else None
    return optional(whole, value, where)
