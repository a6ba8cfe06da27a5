"""Reader of annotation files in COCO's keypoint format (cocodataset.org, "Keypoint Detection")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError, unknown_name
from posezoo.skeletons import Skeleton

Floats = NDArray[np.float32]


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
        columns = ("image_row", "ids", "boxes_xyxy", "areas", "keypoints_xy", "weights")
        taken: dict[str, Any] = {name: getattr(self, name)[keep] for name in columns}
        return replace(self, **taken)


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        PosezooError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
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
    content = read_json(annotations)
    try:
        pictures, entries = content["images"], [a for a in content["annotations"] if not a.get("iscrowd", 0)]
        row = {picture["id"]: n for n, picture in enumerate(pictures)}
        count = len(skeleton.joints)
        keypoints = np.zeros((len(entries), count, 3), np.float32)
        boxes = np.zeros((len(entries), 4), np.float32)
        for n, entry in enumerate(entries):
            values = entry.get("keypoints") or [0] * (3 * count)
            if len(values) != 3 * count:
                raise PosezooError(
                    f"{annotations}: annotation {entry['id']} has {len(values) // 3} keypoints, "
                    f"{skeleton.name} has {count}"
                )
            keypoints[n] = np.reshape(values, (count, 3))
            boxes[n] = entry["bbox"]
        boxes[:, 2:] += boxes[:, :2]
        areas = np.array([a.get("area") or a["bbox"][2] * a["bbox"][3] * 0.53 for a in entries], np.float32)
        rows = np.array([row[a["image_id"]] for a in entries], np.int64)
        files = tuple(images / picture["file_name"] for picture in pictures)
        ids = np.array([a["id"] for a in entries], np.int64)
        sources = tuple(str(picture.get("source", "")) for picture in pictures)
    except (KeyError, TypeError, ValueError) as err:
        raise PosezooError(f"{annotations} is not a COCO keypoint file: {type(err).__name__} {err}") from None
    xy, weights = keypoints[..., :2], (keypoints[..., 2] > 0).astype(np.float32)
    if second_opinion:
        xy, weights = _with_second_opinion(entries, xy, weights, areas)
    image_ids = np.array([picture["id"] for picture in pictures], np.int64)
    return People(files, image_ids, sources, rows, ids, boxes, areas, xy, weights, skeleton)


def _with_second_opinion(
    entries: list[dict[str, Any]], xy: Floats, weights: Floats, areas: Floats
) -> tuple[Floats, Floats]:
    """Labels reconciled with each entry's `teacher_keypoints`; those without any stay as they are."""
    xy, weights = xy.copy(), weights.copy()
    for n, entry in enumerate(entries):
        teacher = entry.get("teacher_keypoints")
        if not teacher:
            continue
        second = np.asarray(teacher, np.float32).reshape(-1, 3)
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
