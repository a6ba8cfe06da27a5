"""COCO keypoint results: one JSON list for all images, as https://cocodataset.org/#format-results has it.

    [{"image_id": 785, "category_id": 1, "keypoints": [x1, y1, s1, x2, y2, s2, ...], "score": 0.83}, ...]

`image_id` is a number where the image's file name is one (000000000785.jpg), as in COCO itself, and for the frames of a
video; else the file name. The third number of a keypoint is its score; 0, 0, 0 is a joint that was not placed. COCO's
evaluation takes a result that has a box for a box result, so boxes are not written; nor are images without people.
Keypoints follow the order of the skeleton, which the file does not name.

AlphaPose's lists (`posezoo.formats.alphapose`) differ by fields that may be there or not, so one reader takes both.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from posezoo.errors import PosezooError
from posezoo.formats.result import (
    DEFAULT_SKELETON,
    Key,
    Person,
    Result,
    ResultWriter,
    Settings,
    group,
    to_result,
    unplaced,
)
from posezoo.formats.values import (
    json_line,
    list_items,
    number,
    numbers,
    optional,
    parse_json,
    rounded,
    rounded_xys,
    whole,
)
from posezoo.formats.writers import FileEach, ImageIds, NumberOrName, json_list
from posezoo.skeletons import Skeleton, get_skeleton, list_skeletons
from posezoo.types import Poses

PERSON = 1


def open_writer(output: Path, skeleton: Skeleton, settings: Settings) -> ResultWriter:
    """The writer of one list, or of one list each image."""
    ids = ImageIds(settings.video, names_of)

    def of(record: Result) -> list[dict[str, Any]]:
        return entries(record, ids(record))

    if settings.per_frame:
        return FileEach(output, skeleton, lambda record: list_text(of(record)), settings)
    return json_list(output, skeleton, of)


def names_of(image: str) -> list[NumberOrName]:
    """What an image may be called, best first: the number that its file name is, its name."""
    digits = _digits(image)
    return [PurePath(image).name] if digits is None else [digits, PurePath(image).name]


def _digits(image: str) -> int | None:
    """The number that a file name is, or has after the set as COCO's of 2014 have: COCO_val2014_000000000139.jpg."""
    # \d would take the digits of other scripts too
    found = re.fullmatch(r"(?:COCO_[a-z]+20[0-9]{2}_)?([0-9]{1,18})", PurePath(image).stem)
    return int(found[1]) if found else None


def image_ids(images: Sequence[str]) -> list[NumberOrName]:
    """What the file calls each image: the number that its file name is, else the file name; both only if unique.

    Where two images would get one number they get their file names, and where they would get one name, their paths.

    Raises:
        PosezooError: an image is listed twice.
    """
    known = [_digits(image) for image in images]
    times, named = Counter(known), Counter(PurePath(image).name for image in images)
    ids: list[NumberOrName] = []
    for image, digits in zip(images, known, strict=True):
        if digits is not None and times[digits] == 1:
            ids.append(digits)
        else:
            name = PurePath(image).name
            ids.append(name if named[name] == 1 else image)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise PosezooError(f"image {twice} is listed twice, and COCO results tell images apart by name")
    return ids


def entries(record: Result, image_id: NumberOrName) -> list[dict[str, Any]]:
    """The entries of one image.

    Raises:
        PosezooError: a score is not finite.
    """
    return [
        {"image_id": image_id, "category_id": PERSON, "keypoints": flat, "score": rounded(score, 4)}
        for flat, score in zip(flat_keypoints(record), record.scores, strict=True)
    ]


def flat_keypoints(record: Result) -> list[list[float]]:
    """x, y, score of each joint in turn, for each person; 0, 0, 0 where one was not placed."""
    xys = rounded_xys(record.xys())
    xys[np.isnan(xys[..., 0])] = 0
    return xys.reshape(len(xys), 3 * len(record.poses.skeleton)).tolist()


def to_results(poses: Sequence[Poses], images: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of the list, image after image.

    Args:
        poses: the people of each image.
        images: the name or path of each image.

    Raises:
        PosezooError: an image is listed twice, or a score is not finite.
    """
    records = zip(poses, images, image_ids(images), strict=True)
    return list(chain.from_iterable(entries(Result(people, image), key) for people, image, key in records))


def to_json(poses: Sequence[Poses], images: Sequence[str]) -> str:
    """The file of all images, one line a person; arguments and errors as of `to_results`."""
    return list_text(to_results(poses, images))


def list_text(results: Sequence[dict[str, Any]]) -> str:
    """A list of entries, a line each."""
    return "[\n" + ",\n".join(map(json_line, results)) + "\n]\n" if results else "[]\n"


def from_json(text: str | bytes | os.PathLike[str], skeleton: Skeleton) -> dict[NumberOrName, Poses]:
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
    people: dict[NumberOrName, list[Person]] = {}
    for image_id, person in _rows(results, skeleton, where):
        people.setdefault(image_id, []).append(person)
    records = (to_result(Key(str(key)), rows, skeleton, f"{where}, image {key}") for key, rows in people.items())
    return {key: record.poses for key, record in zip(people, records, strict=True)}


def read(files: Sequence[Path], skeleton: Skeleton | None) -> Iterator[Result]:
    """The people of each image of COCO or AlphaPose lists; of coco17 where no skeleton is given.

    A person's score is in `Result.person_scores`, and its box score too: such a list has no other.
    """
    joints = skeleton or get_skeleton(DEFAULT_SKELETON)
    first: dict[NumberOrName, Path] = {}

    def rows() -> Iterator[tuple[Key, Person]]:
        for file in files:
            for image_id, person in _rows(list_items(file), joints, str(file)):
                # frame 0 of two videos would become one picture
                if first.setdefault(image_id, file) is not file:
                    raise PosezooError(
                        f"image {image_id} is in both {first[image_id]} and {file}: such lists do not say of which "
                        "video or run their images are, so give one file at a time"
                    )
                yield Key(str(image_id)), person

    for key, people in group(rows()):
        yield to_result(key, people, joints, f"image {key.image}")


def _rows(results: Iterable[Any], skeleton: Skeleton, where: str) -> Iterator[tuple[NumberOrName, Person]]:
    for row, entry in enumerate(results):
        at = f"{where}, result {row}"
        if not isinstance(entry, dict):
            raise PosezooError(f"{at} is {entry!r}, expected an object")
        for key in ("image_id", "keypoints", "score"):
            if key not in entry:
                raise PosezooError(f"{at}: '{key}' is missing")
        image_id = entry["image_id"]
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            raise PosezooError(f"{at}: 'image_id' is {image_id!r}, expected a number or a file name")
        name = "box" if "box" in entry else "bbox"  # AlphaPose's, and COCO's
        yield (
            image_id,
            Person(
                _keypoints(entry, skeleton, at),
                _box(entry.get(name), f"{at}: '{name}'"),
                score=number(entry["score"], f"{at}: 'score'"),
                track_id=_track_id(entry.get("idx"), f"{at}: 'idx'"),
            ),
        )


def _keypoints(entry: dict[str, Any], skeleton: Skeleton, at: str) -> Any:
    """(K, 3) of an entry; a whole body's parts one after the other, if they come apart as in COCO-WholeBody."""
    flat = entry["keypoints"]
    if "foot_kpts" in entry:
        from posezoo.evaluate.predictions import keypoint_list

        flat = keypoint_list(entry)
    if isinstance(flat, list) and len(flat) != 3 * len(skeleton):
        others = [name for name in list_skeletons() if 3 * len(get_skeleton(name)) == len(flat)]
        hint = f"; {' and '.join(others)} would fit: name the skeleton" if others else ""
        expected = f"{3 * len(skeleton)} numbers ({len(skeleton)} joints of {skeleton.name})"
        raise PosezooError(f"{at}: 'keypoints' has {len(flat)} values, expected {expected}{hint}")
    checked = numbers(flat, 3 * len(skeleton), f"{at}: 'keypoints'")
    return unplaced(np.array(checked, np.float32).reshape(-1, 3))


def _box(xywh: Any, where: str) -> list[float] | None:
    if xywh is None:
        return None
    x, y, width, height = numbers(xywh, 4, where)
    if width < 0 or height < 0:
        raise PosezooError(f"{where} has a negative size: {xywh}")
    return [x, y, x + width, y + height]


def _track_id(value: Any, where: str) -> int | None:
    """A whole number, also alone in a list, as some trackers leave it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return optional(whole, value, where)
