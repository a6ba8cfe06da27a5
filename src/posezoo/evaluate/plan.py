"""Who is to be looked for where: the pictures of a dataset with the boxes that a protocol takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posezoo.data.coco_style import People
from posezoo.data.pictures import MISSING, look_at
from posezoo.data.readers import cropped_boxes
from posezoo.detect.boxes_file import BoxesFile
from posezoo.detect.embedded import box_nms
from posezoo.errors import PosezooError
from posezoo.evaluate.predictions import BY_ANNOTATION
from posezoo.evaluate.protocol import Protocol
from posezoo.types import Boxes


@dataclass(frozen=True, eq=False)
class Task:
    """What is looked for in one picture.

    Attributes:
        row: of the picture in the dataset.
        path: its file.
        image_id: its id in the annotations.
        size_wh: the width and height that those state of it, 0 where they state none.
        boxes: of the people to look at; at least one.
        annotations: which of the file's annotations they are; None where each has no prediction of its own.
    """

    row: int
    path: Path
    image_id: int
    size_wh: tuple[int, int]
    boxes: Boxes
    annotations: NDArray[np.int64] | None = None


def plan(people: People, dataset: str, protocol: Protocol) -> list[Task]:
    """The pictures in which somebody is looked for, in the dataset's order.

    Annotated people without a single labelled joint are left out, as HRNet, GluonCV and MMPose do.

    Raises:
        PosezooError: the file of detections cannot be read or is of other pictures; no box at all.
    """
    tasks = list(_annotated(people, dataset, protocol) if protocol.on_ground_truth else _detected(people, protocol))
    if not tasks:
        raise PosezooError(f"there is no box in {len(people.images)} pictures of {dataset}: nobody to look for")
    return tasks


def _annotated(people: People, dataset: str, protocol: Protocol) -> Iterator[Task]:
    boxes = cropped_boxes(people, int(protocol.cut_pixel)) if protocol.cut_boxes else people.boxes_xyxy
    wanted: NDArray[np.bool_] = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    single = dataset in BY_ANNOTATION
    if not single:
        wanted = wanted & np.any(people.weights > 0, axis=1)
    order = np.argsort(people.image_row, kind="stable")
    order = order[wanted[order]]
    starts = np.flatnonzero(np.diff(people.image_row[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        image = int(people.image_row[rows[0]])
        found = Boxes(boxes[rows])
        kept = _kept(found, protocol)
        own = people.index[rows[kept]] if single else None
        yield _task(people, image, found[kept], own)


def _detected(people: People, protocol: Protocol) -> Iterator[Task]:
    file = BoxesFile.read(protocol.boxes)
    known = 0
    for row, found in enumerate(file.find_each(people.image_ids.tolist(), people.images)):
        if found is None:
            continue
        known += 1
        found = found[np.flatnonzero(found.scores >= np.float32(protocol.box_threshold))]
        found = found[_kept(found, protocol)]
        if len(found):
            yield _task(people, row, found)
    if not known:
        example = next(iter(file.by_name), None)
        named = f"it has, for example, '{example}'" if example is not None else "it is empty"
        raise PosezooError(f"{protocol.boxes} has boxes for none of the {len(people.images)} pictures ({named})")


def _task(people: People, row: int, boxes: Boxes, annotations: NDArray[np.int64] | None = None) -> Task:
    width, height = people.sizes_wh[row].tolist()
    return Task(row, people.images[row], int(people.image_ids[row]), (width, height), boxes, annotations)


def _kept(boxes: Boxes, protocol: Protocol) -> NDArray[np.int64]:
    """The rows that the suppression of boxes leaves."""
    if protocol.nms != "box":
        return np.arange(len(boxes))
    return np.sort(box_nms(boxes.xyxy, boxes.scores, protocol.nms_threshold))


def present(tasks: Sequence[Task], most: float) -> tuple[list[Task], dict[str, str]]:
    """The tasks whose picture is there and the one that was annotated, and the others' files with why.

    Raises:
        PosezooError: more than the share `most` of them is not.
    """
    sizes_wh = np.array([task.size_wh for task in tasks], np.int64)
    looks = look_at([task.path for task in tasks], sizes_wh)
    missing = {
        str(task.path): "no such file" if one.fault == MISSING else one.told.removeprefix(str(task.path)).lstrip(": ")
        for task, one in zip(tasks, looks, strict=True)
        if one.fault
    }
    refuse_missing(missing, len(tasks), most)
    return [task for task, one in zip(tasks, looks, strict=True) if not one.fault], missing


def refuse_missing(missing: Mapping[str, str], pictures: int, most: float) -> None:
    """Stop where the share of pictures that are missing leaves a figure without meaning.

    Raises:
        PosezooError: it is above `most`.
    """
    if len(missing) <= most * pictures:
        return
    file, why = next(iter(missing.items()))
    raise PosezooError(
        f"{len(missing)} of {pictures} pictures cannot be used, more than {most:.0%}; the first: {file} ({why}); "
        "is the folder of pictures the right one?"
    )
