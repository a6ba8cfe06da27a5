"""What a detector learns from and is judged by: boxes of people in COCO-style files, whatever else these have."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.categories import Personhood, find_people
from posezoo.data.coco_style import People, read_json, to_people
from posezoo.data.pictures import look_for_faults
from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.train.fit import box_file
from posezoo.train.recipe import DataPart

_SHOWN = 3  # categories that a note names


@dataclass(frozen=True, eq=False)
class Boxed:
    """The boxed people of a file.

    Attributes:
        people: those in pictures that can be used; every picture of the file stays among `people.images`.
        pictures: (P,) rows of the pictures that can be used, with people or without.
        notes: what a reader of the log should know, a line each.
    """

    people: People
    pictures: NDArray[np.int64]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a detector is judged by.

    Attributes:
        truth: COCO-style contents of people alone, for `posezoo.evaluate.oks.box_ap`.
        people: they, and the pictures.
        pictures: (P,) rows of the pictures that can be used; the others are in `truth`, and nobody is found in them.
        category_id: what people are in `truth`, and have to be in results.
        notes: what a reader of the log should know, a line each.
    """

    truth: dict[str, Any]
    people: People
    pictures: NDArray[np.int64]
    category_id: int
    notes: tuple[str, ...]


def read_training(data: DataPart) -> Boxed:
    """What `data.train` names; pictures without people are learnt from, too.

    Raises:
        PosezooError: it is not one COCO-style file, has nobody to learn from, does not say which category people are,
            or has more pictures that are missing or of another size than `data.max_missing` allows.
    """
    path, folder = box_file(data, "train")
    where = str(path)
    _, which, people = _read(data, path, folder, where)
    every = np.arange(len(people.images))
    if not len(people):
        raise PosezooError(f"{where}: {_nobody(which, f'{len(every)} pictures')}")
    pictures, told = _usable(people, every, where, data.max_missing)
    left = people.where(np.isin(people.image_row, pictures))
    notes = (_summary(where, left, pictures), *_not_people(where, which))
    if told:
        gone = f"{len(people) - len(left)} people are left out"
        if not len(left):
            raise PosezooError(f"{told}: nobody is left")
        notes = (*notes, f"{told}; {gone}")
    return Boxed(left, pictures, notes)


def read_judged(data: DataPart) -> Judged | None:
    """The pictures of `data.validate` in which everybody is boxed; None without it.

    Raises:
        PosezooError: as `read_training`; of the people, those in pictures that can be used are looked for.
    """
    if data.validate_on is None:
        return None
    path, folder = box_file(data, "validate")
    where = f"data.validate: {path}"
    content, which, people = _read(data, path, folder, where)
    whole = np.array([bool(picture.get("complete_person_boxes", True)) for picture in content["images"]], bool)
    rows = np.flatnonzero(whole)
    people = people.where(whole[people.image_row])
    if not len(people):
        of = f"{len(whole)} pictures" if whole.all() else f"the {len(rows)} of {len(whole)} whose people all are boxed"
        raise PosezooError(f"{where}: {_nobody(which, of)}")
    pictures, told = _usable(people, rows, where, data.max_missing)
    if not np.isin(people.image_row, pictures).any():
        raise PosezooError(f"{told}: nobody is left to judge by")
    ids = people.image_ids[rows].tolist()
    truth = {
        "images": [{"id": image_id} for image_id in ids],
        "annotations": _truth(content, which, set(ids), where),
        "categories": [{"id": which.category_id, "name": "person"}],
    }
    notes = (_summary(where, people, rows), *_not_people(where, which))
    notes = (*notes, f"{told}, and nobody is found in them") if told else notes
    return Judged(truth, people, pictures, which.category_id, notes)


def _read(data: DataPart, path: Path, folder: Path, where: str) -> tuple[dict[str, Any], Personhood, People]:
    """The contents of a file, which of its annotations are people, and those of them who are no crowd."""
    content = read_json(path)
    which = find_people(content, where)
    kept = np.flatnonzero(which.is_person)
    # joints are none of a detector's business: a file may have any number of them
    entries = [{**content["annotations"][n], "keypoints": None} for n in kept]
    people = to_people({**content, "annotations": entries}, where, folder, get_skeleton(data.skeleton))
    return content, which, replace(people, index=kept[people.index])


def _usable(people: People, rows: NDArray[np.int64], where: str, max_missing: float) -> tuple[NDArray[np.int64], str]:
    """Those of the pictures in `rows` that are there and as annotated, and a line about the others, if any."""
    looks, told = look_for_faults(where, [people.images[row] for row in rows], people.sizes_wh[rows], max_missing)
    return rows[[not one.fault for one in looks]], told


def _nobody(which: Personhood, of: str) -> str:
    """Why there is nobody in these pictures."""
    has = f"{which.is_person.sum()} annotations are of category {which.category_id}, which people are"
    others = f", {_counted(which.others)}" if which.others else ""
    return (
        f"nobody has a box of their own in {of}: {has}{others}; name another file, or mend its category_id or iscrowd"
    )


def _truth(content: dict[str, Any], which: Personhood, image_ids: Set[int], where: str) -> list[dict[str, Any]]:
    """The people of the pictures as the engine wants them; crowds, too: who is found in one counts neither way."""
    own = [content["annotations"][n] for n in np.flatnonzero(which.is_person)]
    try:
        return [
            {
                "id": number,
                "image_id": entry["image_id"],
                "category_id": which.category_id,
                "bbox": [float(value) for value in entry["bbox"]],
                "area": float(entry.get("area") or entry["bbox"][2] * entry["bbox"][3]),
                "iscrowd": int(bool(entry.get("iscrowd", 0))),
            }
            for number, entry in enumerate(own, 1)
            if entry["image_id"] in image_ids
        ]
    except (IndexError, KeyError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not a COCO-style file: {type(err).__name__} {err}") from None


def _summary(where: str, people: People, pictures: NDArray[np.int64]) -> str:
    empty = len(pictures) - len(np.unique(people.image_row))
    more = f", {empty} of them without anybody" if empty else ""
    return f"{where}: {len(people)} people in {len(pictures)} pictures{more}"


def _not_people(where: str, which: Personhood) -> tuple[str, ...]:
    if which.others:
        return (f"{where}: people are category {which.category_id}; left out: {_counted(which.others)}",)
    if not which.is_listed:
        return (f"{where}: every annotation is of category {which.category_id}, which is not listed: taken as people",)
    return ()


def _counted(others: Mapping[str, int]) -> str:
    """Such as "15 of others (12 of 18 dog, 3 of 62 chair)"."""
    first = ", ".join(f"{count} of {name}" for name, count in list(others.items())[:_SHOWN])
    return f"{sum(others.values())} of others ({first}{', ...' if len(others) > _SHOWN else ''})"
