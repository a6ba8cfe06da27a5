"""Readers of videos: PoseTrack18, of one file a video or one a split, and Sub-JHMDB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from posezoo.data import joints as names
from posezoo.data.catalog import Dataset
from posezoo.data.coco_style import Frame, People, read_json, to_people
from posezoo.errors import PosezooError


def read_posetrack(annotations: Path, images: Path, dataset: Dataset) -> People:
    """PoseTrack18: the folder of its per-video files, in the order of their names, or MMPose's file of a whole split.

    Each person's head box, each frame's number and ignore regions are kept. Who has no box, or no joints at all,
    cannot be cropped and is left out, as MMPose does; `index` still counts them.
    """
    files = sorted(annotations.glob("*.json")) if annotations.is_dir() else [annotations]
    if not files:
        raise PosezooError(f"{annotations} has no JSON files; posetrack18 wants the folder of per-video files")
    pictures: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for file in files:
        content = names.coco_content(read_json(file), str(file), dataset)
        own = content["annotations"]
        columns, count = names.order(content, str(file), dataset)
        pictures += content["images"]
        for entry in own:
            joints = np.reshape(_flat(entry, count, str(file)), (-1, 3))[columns]
            entries.append({**entry, "keypoints": joints.reshape(-1).tolist()})
    kept = np.array([n for n, entry in enumerate(entries) if "bbox" in entry and any(entry["keypoints"])], np.int64)
    parts = {"images": pictures, "annotations": [entries[n] for n in kept]}
    people = to_people(parts, str(annotations), images, dataset.joints)
    chosen = [parts["annotations"][n] for n in people.index]
    return replace(
        people,
        index=kept[people.index],
        heads_xyxy=_heads(chosen, str(annotations)),
        track_ids=np.array([entry.get("track_id", -1) for entry in chosen], np.int64),
        frames=_frames(pictures, str(annotations)),
    )


def _flat(entry: Any, count: int, where: str) -> list[float]:
    if not isinstance(entry, dict):
        raise PosezooError(f"{where} has an annotation that is not an object: {entry!r}")
    values = entry.get("keypoints") or [0] * (3 * count)
    if len(values) != 3 * count:
        raise PosezooError(f"{where}: annotation {entry.get('id')} has {len(values) // 3} keypoints, expected {count}")
    return values


def _heads(entries: list[dict[str, Any]], where: str) -> np.ndarray:
    """`bbox_head`, which is x, y, width, height; NaN for those without."""
    try:
        heads = np.array([e.get("bbox_head") or [np.nan] * 4 for e in entries], np.float32).reshape(-1, 4)
    except (TypeError, ValueError) as err:
        raise PosezooError(f"{where} has a 'bbox_head' that is not x, y, width, height: {err}") from None
    heads[:, 2:] += heads[:, :2]
    return heads


def _frames(pictures: list[dict[str, Any]], where: str) -> tuple[Frame, ...]:
    try:
        return tuple(
            Frame(
                video=PurePosixPath(picture["file_name"]).parent.name or str(picture.get("vid_id", "")),
                number=int(picture.get("frame_id", picture["id"])),
                labelled=bool(picture.get("is_labeled", True)),
                ignore_xy=tuple(
                    np.column_stack([x, y]).astype(np.float32)
                    for x, y in zip(
                        polygons(picture.get("ignore_regions_x")),
                        polygons(picture.get("ignore_regions_y")),
                        strict=True,
                    )
                ),
            )
            for picture in pictures
        )
    except (KeyError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} has a frame that cannot be read: {type(err).__name__} {err}") from None


def polygons(values: Any) -> list[list[float]]:
    """A list of polygons' x or y; a single polygon may stand there without the outer list."""
    if not values:
        return []
    return values if isinstance(values[0], list) else [values]


def read_jhmdb(annotations: Path, images: Path, dataset: Dataset) -> People:
    """MMPose's COCO-style files of Sub-JHMDB. Joints and boxes count from 1 there, as in MATLAB; here from 0."""
    where = str(annotations)
    content = names.coco_content(read_json(annotations), where, dataset)
    columns, count = names.order(content, where, dataset)
    people = to_people(content, where, images, dataset.joints, columns, count)
    tracks = [content["annotations"][n].get("track_id", 0) for n in people.index]
    return replace(
        people,
        boxes_xyxy=people.boxes_xyxy - 1,
        keypoints_xy=np.where(people.weights[..., None] > 0, people.keypoints_xy - 1, np.float32(0)),
        track_ids=np.array(tracks, np.int64),
        frames=_frames(content["images"], where),
    )
