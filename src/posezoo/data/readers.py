"""Every dataset of the catalogue as `People`: by the dataset's own reader, its joints in the skeleton's order.

COCO-style files are read as they are; what other files say is first put into that form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.data import joints as names
from posezoo.data.catalog import Dataset, get_dataset
from posezoo.data.coco_style import BODY_SHARE, People, read_json, to_people
from posezoo.data.mpii import read_mpii, read_trb
from posezoo.data.videos import read_jhmdb, read_posetrack
from posezoo.errors import PosezooError

Reader = Callable[[Path, Path, Dataset], People]

_ASKED_FOR = 100  # pictures, from all over a file, that decide which folder holds them: each takes a look at a disk


def read_dataset(name: str, annotations: Path, images: Path | Sequence[Path]) -> People:
    """The people of one annotation file (or folder of files) of a dataset.

    Args:
        name: of the dataset, such as "mpii".
        annotations: the file; for posetrack18 also the folder of per-video files.
        images: the folder of its pictures, or several that may be it: the one that has most of them is.

    Returns:
        Everybody who is not a crowd, in pixels from 0; `areas` are what the dataset's own evaluation takes.

    Raises:
        UnknownNameError: there is no such dataset.
        PosezooError: the file cannot be read, or is another dataset's, which the message names.
    """
    dataset = get_dataset(name)
    folders = [images] if isinstance(images, Path) else list(images)
    people = READERS[dataset.reader](annotations, folders[0], dataset)
    if dataset.area == "box":
        sides = people.boxes_xyxy[:, 2:] - people.boxes_xyxy[:, :2]
        people = replace(people, areas=sides.prod(axis=1) * np.float32(BODY_SHARE))
    return _in_folder(people, folders)


def _in_folder(people: People, folders: list[Path]) -> People:
    """The pictures looked for in the one of `folders` that has most of them, the first of those that have as many.

    No single picture decides: one that was never downloaded would make all the others missing.
    """
    if len(folders) == 1 or not people.images:
        return people
    if not all(image.is_relative_to(folders[0]) for image in people.images):
        return people
    inner = [image.relative_to(folders[0]) for image in people.images]
    some = inner[:: -(-len(inner) // _ASKED_FOR)]
    folder = max(folders, key=lambda folder: sum((folder / name).is_file() for name in some))
    return people if folder == folders[0] else replace(people, images=tuple(folder / name for name in inner))


def cropped_boxes(people: People) -> np.ndarray:
    """The annotated boxes as HRNet and MMPose 0.x cut them at the picture's edge before they crop people by them.

    x2 = min(width - 1, x1 + w - 1), and so for y: a box loses a pixel even where it ends within the picture. Boxes
    made of a centre and a scale, and those of pictures of unknown size, are as they were.

    Returns:
        (N, 4) float32 xyxy; a box that is empty afterwards is one that they leave out.
    """
    boxes = people.boxes_xyxy.copy()
    last = people.sizes_wh[people.image_row].astype(np.float32) - 1
    known = (last > 0).all(axis=1)
    first = np.maximum(boxes[:, :2], 0)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2] - 1, 0)
    boxes[known] = np.concatenate([first, np.minimum(last, first + sides)], axis=1)[known]
    return boxes


def read_coco(annotations: Path, images: Path, dataset: Dataset) -> People:
    """A COCO-style file; CrowdPose's `crowdIndex` of each picture is kept."""
    content = names.coco_content(read_json(annotations), str(annotations), dataset)
    people = _people(content, str(annotations), images, dataset)
    crowding = [picture.get("crowdIndex") for picture in content["images"]]
    if crowding and None not in crowding:
        people = replace(people, crowd_index=np.array(crowding, np.float32))
    return people


def _people(content: dict[str, Any], where: str, images: Path, dataset: Dataset) -> People:
    columns, count = names.order(content, where, dataset)
    return to_people(content, where, images, dataset.joints, columns, count)


def read_aic(annotations: Path, images: Path, dataset: Dataset) -> People:
    """MMPose's COCO-style file, or AI Challenger's own: a list of pictures with people by name."""
    content = read_json(annotations)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "keypoint_annotations" in content[0]:
        return to_people(_aic_as_coco(content, str(annotations)), str(annotations), images, dataset.joints)
    return _people(names.coco_content(content, str(annotations), dataset), str(annotations), images, dataset)


def _aic_as_coco(content: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """AI Challenger's visibility is 1 visible, 2 hidden, 3 unlabelled, where COCO's is 2, 1, 0; boxes are corners."""
    pictures: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    try:
        for number, picture in enumerate(content):
            pictures.append({"id": number, "file_name": f"{picture['image_id']}.jpg"})
            for person, flat in picture["keypoint_annotations"].items():
                joints = np.array(flat, np.float64).reshape(-1, 3)
                joints[:, 2] = 3 - joints[:, 2]
                x1, y1, x2, y2 = picture["human_annotations"][person]
                box = [x1, y1, x2 - x1, y2 - y1]
                entry = {"id": len(entries), "image_id": number, "bbox": box, "keypoints": joints.reshape(-1).tolist()}
                entries.append(entry)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise PosezooError(
            f"{where} is not in AI Challenger's form (image_id, human_annotations, keypoint_annotations): "
            f"{type(err).__name__} {err}"
        ) from None
    return {"images": pictures, "annotations": entries}


def read_wholebody(annotations: Path, images: Path, dataset: Dataset) -> People:
    """COCO-WholeBody: the body, feet, face and hands of a person in five lists, or all 133 joints in one."""
    where = str(annotations)
    content = names.coco_content(read_json(annotations), where, dataset)
    entries = content["annotations"]
    if not any("face_kpts" in entry for entry in entries):
        return _people(content, where, images, dataset)
    whole = [{**entry, "keypoints": _joined(entry, where)} for entry in entries]
    return to_people({**content, "annotations": whole}, where, images, dataset.joints)


def _joined(entry: Mapping[str, Any], where: str) -> list[float]:
    values: list[float] = []
    for part, count in names.PARTS:
        some = entry.get(part) or [0] * (3 * count)
        if len(some) != 3 * count:
            raise PosezooError(f"{where}: annotation {entry.get('id')} has {len(some) // 3} {part}, expected {count}")
        values += some
    return values


def read_hand(annotations: Path, images: Path, dataset: Dataset) -> People:
    """OneHand10K, or each labelled hand of COCO-WholeBody's people (see `hands_of`)."""
    where = str(annotations)
    content = names.coco_content(read_json(annotations), where, dataset)
    if any("lefthand_kpts" in entry for entry in content["annotations"]):
        content = hands_of(content, where)
    return _people(content, where, images, dataset)


def hands_of(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """COCO-WholeBody's contents as those of a hand dataset: one annotation for each hand that is marked valid.

    The hands of one person follow each other, the left one first. Their ids are twice the person's, and one more for
    the right one. The first joint, which wholebody133 calls the hand's root, is the wrist.
    """
    hands = []
    try:
        for entry in content["annotations"]:
            for right, side in enumerate(("lefthand", "righthand")):
                if not entry.get("iscrowd", 0) and entry.get(f"{side}_valid"):
                    own = {"id": 2 * entry["id"] + right, "image_id": entry["image_id"]}
                    hands.append({**own, "bbox": entry[f"{side}_box"], "keypoints": entry[f"{side}_kpts"]})
    except (AttributeError, KeyError, TypeError) as err:
        raise PosezooError(f"{where} is not a COCO-WholeBody file: {type(err).__name__} {err}") from None
    return {"images": content["images"], "annotations": hands}


READERS: Mapping[str, Reader] = {
    "coco": read_coco,
    "aic": read_aic,
    "wholebody": read_wholebody,
    "hand": read_hand,
    "mpii": read_mpii,
    "trb": read_trb,
    "posetrack": read_posetrack,
    "jhmdb": read_jhmdb,
}
