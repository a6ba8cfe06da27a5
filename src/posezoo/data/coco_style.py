"""Reader of annotation files in COCO's keypoint format (cocodataset.org, "Keypoint Detection")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton

Floats = NDArray[np.float32]


BODY_SHARE = 0.53  # of the box, where a file has no area of the person: what MMPose and CrowdPose take
_LONGEST = 40  # characters of a wrong value that a message shows
_COLUMNS = ("image_row", "ids", "boxes_xyxy", "areas", "keypoints_xy", "weights", "index", "heads_xyxy", "track_ids")


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture as part of a video.

    Attributes:
        video: the video's name, that of the folder its pictures are in.
        number: the frame's id in the file.
        labelled: whether its people were annotated.
        ignore_xy: polygons (P, 2) in pixels, within which nobody was annotated.
    """

    video: str
    number: int
    labelled: bool = True
    ignore_xy: tuple[Floats, ...] = ()


@dataclass(frozen=True, eq=False)
class People:
    """The annotated people of a dataset, in columns.

    Attributes:
        images: the I picture files.
        image_ids: (I,) int64, their ids in the annotation file.
        sources: what the file says of where each of the I pictures is from; "" where it says nothing.
        image_row: (N,) int64, which picture each person is in.
        ids: (N,) int64, the annotations' ids.
        boxes_xyxy: (N, 4) float32, pixels of the picture.
        areas: (N,) float32, the person's area in square pixels.
        keypoints_xy: (N, K, 2) float32, pixels of the picture; (0, 0) where unlabelled.
        weights: (N, K) float32 in [0, 1], how far each joint's label is to be trusted; 0: unlabelled.
        skeleton: the K joints.
        index: (N,) int64, which of the file's annotations each person is, from 0.
        sizes_wh: (I, 2) int64, width and height of each picture as the file says; 0 where it says nothing.
        heads_xyxy: (N, 4) float32, the head's box, NaN for those without; None where the dataset has none.
        track_ids: (N,) int64, who is who within a video; None where nobody is tracked.
        crowd_index: (I,) float32, CrowdPose's measure of each picture's crowding; None elsewhere.
        frames: what the file says of each of the I pictures as part of a video; empty where they are photographs.
    """

    images: tuple[Path, ...]
    image_ids: NDArray[np.int64]
    sources: tuple[str, ...]
    image_row: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes_xyxy: Floats
    areas: Floats
    keypoints_xy: Floats
    weights: Floats
    skeleton: Skeleton
    index: NDArray[np.int64]
    sizes_wh: NDArray[np.int64]
    heads_xyxy: Floats | None = None
    track_ids: NDArray[np.int64] | None = None
    crowd_index: Floats | None = None
    frames: tuple[Frame, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def repeats(self, times: Mapping[str, int]) -> NDArray[np.int64]:
        """How often each of the I pictures counts, (I,): as `times` says of its source, else once.

        Raises:
            PosezooError: `times` names a source that no picture has.
        """
        for source in times:
            if source not in self.sources:
                raise unknown_name("source of pictures", source, set(self.sources))
        return np.array([times.get(source, 1) for source in self.sources], np.int64)

    def where(self, keep: NDArray[np.bool_]) -> People:
        """The people that `keep` (N,) marks; every picture stays."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        taken: dict[str, Any] = {name: column[keep] for name, column in columns.items() if column is not None}
        return replace(self, **taken)


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        PosezooError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as err:  # a number of thousands of digits is a ValueError
        raise PosezooError(f"{path} is not valid JSON: {err}") from None
    except OSError as err:
        raise PosezooError(f"cannot read {path}: {err.strerror or err}") from None


def read_people(annotations: Path, images: Path, skeleton: Skeleton, second_opinion: bool = False) -> People:
    """Every person of a COCO-style file who is not a crowd.

    Args:
        annotations: the JSON file, with `images` and `annotations`.
        images: the folder that its `file_name`s are in.
        skeleton: the keypoint set of the file.
        second_opinion: reconcile the labels with a network's, where the file has `teacher_keypoints`.

    Raises:
        PosezooError: the file lacks a field, or has another number of keypoints than the skeleton.
    """
    return to_people(read_json(annotations), str(annotations), images, skeleton, second_opinion=second_opinion)


def to_people(
    content: Any,
    where: str,
    images: Path,
    skeleton: Skeleton,
    columns: NDArray[np.int64] | None = None,
    joints: int | None = None,
    second_opinion: bool = False,
) -> People:
    """Every person of COCO-style contents who is not a crowd.

    Args:
        content: the file, parsed.
        where: what to call it in errors.
        images: the folder that its `file_name`s are in.
        skeleton: the keypoint set wanted.
        columns: (K,) where each joint of the skeleton stands in the file; None: in this order.
        joints: how many keypoints an annotation of the file has; None: K.
        second_opinion: as `read_people`.

    Raises:
        PosezooError: a field is missing or not of its form, or there is another number of keypoints; the message has
            the first picture or annotation of which that is true.
    """
    count = len(skeleton.joints) if joints is None else joints
    try:
        pictures = content["images"]
        index = [n for n, a in enumerate(content["annotations"]) if not a.get("iscrowd", 0)]
        entries = [content["annotations"][n] for n in index]
        row = {picture["id"]: n for n, picture in enumerate(pictures)}
        keypoints = np.zeros((len(entries), count, 3), np.float32)
        boxes = np.zeros((len(entries), 4), np.float32)
        areas = np.zeros(len(entries), np.float32)
        for n, entry in enumerate(entries):
            values = entry.get("keypoints") or [0] * (3 * count)
            if len(values) != 3 * count:
                raise PosezooError(
                    f"{where}: annotation {entry['id']} has {len(values) // 3} keypoints, {skeleton.name} has {count}"
                )
            keypoints[n] = np.reshape(values, (count, 3))
            boxes[n] = _, _, width, height = entry["bbox"]
            areas[n] = entry.get("area") or width * height * BODY_SHARE
        rows = np.array([row[a["image_id"]] for a in entries], np.int64)
        files = tuple(images / picture["file_name"] for picture in pictures)
        ids = np.array([a["id"] for a in entries], np.int64)
        image_ids = np.array([picture["id"] for picture in pictures], np.int64)
        sides = [(picture.get("width") or 0, picture.get("height") or 0) for picture in pictures]
        sizes_wh = np.array(sides, np.int64).reshape(-1, 2)
        sources = tuple(str(picture.get("source", "")) for picture in pictures)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        why = _first_fault(content) or f"{type(err).__name__} {err}"
        raise PosezooError(f"{where} is not a COCO keypoint file: {why}") from None
    boxes[:, 2:] += boxes[:, :2]
    if columns is not None:
        keypoints = keypoints[:, columns]
    weights = (keypoints[..., 2] > 0).astype(np.float32)
    # some files leave numbers behind in joints that they call unlabelled
    xy = np.where(weights[..., None] > 0, keypoints[..., :2], np.float32(0))
    if second_opinion:
        try:
            xy, weights = _with_second_opinion(entries, xy, weights, areas)
        except PosezooError as err:
            raise PosezooError(f"{where}: {err}") from None
    return People(
        files, image_ids, sources, rows, ids, boxes, areas, xy, weights, skeleton, np.array(index, np.int64), sizes_wh
    )


def _first_fault(content: Any) -> str | None:
    """The first picture or annotation with a field that is not of COCO's form, in words; None where each has them all.

    Only asked once reading has failed, so that reading itself is not slowed down by it.
    """
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}, expected an object with 'images' and 'annotations'"
    for kind, plural in (("picture", "images"), ("annotation", "annotations")):
        if not isinstance(content.get(plural), list):
            return f"it has no list of '{plural}'"
        for n, entry in enumerate(content[plural]):
            if not isinstance(entry, Mapping):
                return f"{kind} number {n} is {_short(entry)}, expected an object"
            for field, (fits, expected) in _FIELDS[kind].items():
                if not entry.get("iscrowd") and not fits(entry.get(field)):
                    given = f"{field} {_short(entry[field])}" if field in entry else f"no '{field}'"
                    named = f"number {n}" if field == "id" else entry.get("id")
                    return f"{kind} {named} has {given}, expected {expected}"
    known = {picture["id"] for picture in content["images"]}
    for entry in content["annotations"]:
        if not entry.get("iscrowd") and entry["image_id"] not in known:
            some = ", ".join(map(repr, list(known)[:3])) or "there are none"
            return f"annotation {entry['id']} has image_id {entry['image_id']!r}, expected the id of a picture ({some})"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and value == int(value) if _are_numbers([value]) else False


def _are_numbers(values: Any, count: int | None = None) -> bool:
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and v == v for v in values)
    return numbers and count in (None, len(values))


# of each field: whether a value will do, and what will
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "picture": {
        "id": (_is_whole, "a whole number"),
        "file_name": (lambda value: isinstance(value, str), "a file's name"),
        "width": (lambda value: not value or _is_whole(value), "pixels"),
        "height": (lambda value: not value or _is_whole(value), "pixels"),
    },
    "annotation": {
        "id": (_is_whole, "a whole number"),
        "image_id": (_is_whole, "the id of a picture, a whole number"),
        "bbox": (lambda value: _are_numbers(value, 4), "four numbers: x, y, width and height"),
        "area": (lambda value: not value or _are_numbers([value]), "square pixels"),
        "keypoints": (lambda value: not value or _are_numbers(value), "a flat list of numbers: x, y, v of each"),
    },
}


def _with_second_opinion(
    entries: list[dict[str, Any]], xy: Floats, weights: Floats, areas: Floats
) -> tuple[Floats, Floats]:
    """Labels reconciled with each entry's `teacher_keypoints`; those without any stay as they are."""
    xy, weights = xy.copy(), weights.copy()
    joints = weights.shape[1]
    for n, entry in enumerate(entries):
        teacher = entry.get("teacher_keypoints")
        if not teacher:
            continue
        try:
            second = np.asarray(teacher, np.float32).reshape(-1, 3)
        except (TypeError, ValueError):
            second = np.zeros((0, 3), np.float32)
        if len(second) != joints:
            raise PosezooError(
                f"annotation {entry['id']} has {len(second) or _short(teacher)} teacher_keypoints, expected x, y, score"
                f" of each of the {joints} keypoints, in their order; mend the file, or leave data.second_opinion out"
            )
        human = entry.get("labels") != "teacher"
        first = weights[n] if human else np.zeros_like(weights[n])
        agreement = entry.get("agreement")
        trust = 0.5 if agreement is None else float(agreement)
        xy[n], weights[n] = reconcile(xy[n], first, second[:, :2], second[:, 2], float(areas[n]), trust)
    return xy, weights


def reconcile(
    human_xy: Floats, human: Floats, teacher_xy: Floats, teacher: Floats, area: float, agreement: float,
    close: float = 0.1, sure: float = 0.5, least: float = 0.25,
) -> tuple[Floats, Floats]:  # fmt: skip
    """One label a joint from a crowd worker's and a network's.

    Where both mark a joint within `close` of each other (a share of the square root of the person's area), the label is
    their mean, the network counting by its score. Where they disagree, the network is believed if it is `sure`, and
    otherwise nobody is. Where only one marks it: the network by its score (`least` or more), the human by how well the
    two agree on the rest of the person, which catches people whose left and right were exchanged.

    Args:
        human_xy: (K, 2) pixels.
        human: (K,) 1 where labelled, else 0.
        teacher_xy: (K, 2) pixels.
        teacher: (K,) scores in [0, 1].
        area: of the person, square pixels.
        agreement: of the two over the whole person, in [0, 1].

    Returns:
        xy (K, 2) and weights (K,) in [0, 1]; weight 0: no label.
    """
    distance = np.linalg.norm(human_xy - teacher_xy, axis=-1) / max(area, 1.0) ** 0.5
    share = teacher[:, None]
    marked, seen = human > 0, teacher >= least
    agree, differ = marked & seen & (distance <= close), marked & seen & (distance > close)
    xy = np.where(marked[:, None], human_xy, teacher_xy)
    xy = np.where(agree[:, None], share * teacher_xy + (1 - share) * human_xy, xy)
    xy = np.where(differ[:, None], teacher_xy, xy)
    weights = np.select(
        [agree, differ, marked, seen],
        [np.ones_like(teacher), np.where(teacher >= sure, teacher, 0), np.full_like(teacher, agreement), teacher],
    )
    return (xy * (weights > 0)[:, None]).astype(np.float32), weights.astype(np.float32)
