"""Every dataset of the catalogue as `People`: by the dataset's own reader, its joints in the skeleton's order.

COCO-style files are read as they are; what other files say is first put into that form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data import joints as names
from posezoo.data.catalog import Dataset, get_dataset
from posezoo.data.coco_style import BODY_SHARE, People, read_json, to_people
from posezoo.data.mpii import read_mpii, read_trb
from posezoo.data.videos import read_jhmdb, read_posetrack
from posezoo.errors import PosezooError

Reader = Callable[[Path, Path, Dataset], People]
Form = Callable[[Any, str, Dataset], dict[str, Any]]

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


def cropped_boxes(people: People, lost: int = 1) -> np.ndarray:
    """The annotated boxes as HRNet, GluonCV and MMPose cut them at the picture's edge before they crop people by them.

    x2 = min(width - 1, x1 + w - lost), and so for y. Those of pictures of unknown size are as they were.

    Args:
        people: whose boxes were drawn; one made of a centre and a scale may reach beyond the picture, and nobody cuts
            it.
        lost: pixels by which a box is smaller even where it ends within the picture: 1 in HRNet and GluonCV, and in
            MMPose before it was mended there, 0 since.

    Returns:
        (N, 4) float32 xyxy; a box that is empty afterwards is one that they leave out.
    """
    boxes = people.boxes_xyxy.copy()
    last = people.sizes_wh[people.image_row].astype(np.float32) - 1
    known = (last > 0).all(axis=1)
    first = np.maximum(boxes[:, :2], 0)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2] - lost, 0)
    boxes[known] = np.concatenate([first, np.minimum(last, first + sides)], axis=1)[known]
    return boxes


def coco_form(content: Any, where: str, dataset: Dataset) -> tuple[dict[str, Any], NDArray[np.int64], int]:
    """What a file of a dataset says in COCO's form, and which joint is which in it: the same to readers and to judges.

    Args:
        content: the file, parsed.
        where: what to call it in errors.
        dataset: whose it should be; of those that are read by `FORMS` or are in COCO's form anyway.

    Returns:
        contents; then as `joints.order`: (K,) where each joint of the skeleton stands, and how many a person has.

    Raises:
        PosezooError: it is another dataset's, which the message names, or not of its form.
    """
    form: Form = FORMS.get(dataset.reader, names.coco_content)
    content = form(content, where, dataset)
    return content, *names.order(content, where, dataset)


def read_coco(annotations: Path, images: Path, dataset: Dataset) -> People:
    """A file that `coco_form` knows; CrowdPose's `crowdIndex` of each picture is kept."""
    where = str(annotations)
    content, columns, count = coco_form(read_json(annotations), where, dataset)
    people = to_people(content, where, images, dataset.joints, columns, count)
    crowding = [picture.get("crowdIndex") for picture in content["images"]]
    if crowding and None not in crowding:
        people = replace(people, crowd_index=np.array(crowding, np.float32))
    return people


def of_aic(content: Any, where: str, dataset: Dataset) -> dict[str, Any]:
    """MMPose's COCO-style file, or AI Challenger's own: a list of pictures with people by name."""
    if isinstance(content, list) and content and isinstance(content[0], dict) and "keypoint_annotations" in content[0]:
        return _aic_as_coco(content, where)
    return names.coco_content(content, where, dataset)


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


def of_wholebody(content: Any, where: str, dataset: Dataset) -> dict[str, Any]:
    """COCO-WholeBody: the body, feet, face and hands of a person in five lists, or all 133 joints in one."""
    content = names.coco_content(content, where, dataset)
    try:
        if any("face_kpts" in entry for entry in content["annotations"]):
            whole = [{**entry, "keypoints": _joined(entry, where)} for entry in content["annotations"]]
            return {**content, "annotations": whole}
    except TypeError as err:
        raise PosezooError(f"{where} is not a COCO-WholeBody file: {err}") from None
    return content


def _joined(entry: Mapping[str, Any], where: str) -> list[float]:
    values: list[float] = []
    for part, count in names.PARTS:
        some = entry.get(part) or [0] * (3 * count)
        if len(some) != 3 * count:
            raise PosezooError(f"{where}: annotation {entry.get('id')} has {len(some) // 3} {part}, expected {count}")
        values += some
    return values


def of_hands(content: Any, where: str, dataset: Dataset) -> dict[str, Any]:
    """OneHand10K, or each labelled hand of COCO-WholeBody's people (see `hands_of`)."""
    content = names.coco_content(content, where, dataset)
    try:
        if any("lefthand_kpts" in entry for entry in content["annotations"]):
            return hands_of(content, where)
    except TypeError as err:
        raise PosezooError(f"{where} is not a file of hands: {err}") from None
    return content


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


FORMS: Mapping[str, Form] = {"aic": of_aic, "wholebody": of_wholebody, "hand": of_hands}
"""What puts files into COCO's form that may be in another one, by the name of the dataset's reader."""

READERS: Mapping[str, Reader] = {
    "coco": read_coco,
    **dict.fromkeys(FORMS, read_coco),
    "mpii": read_mpii,
    "trb": read_trb,
    "posetrack": read_posetrack,
    "jhmdb": read_jhmdb,
}
