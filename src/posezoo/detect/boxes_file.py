"""The detector for boxes that someone else found: a JSON file of them, looked up by the picture's name.

Three layouts are read, told apart by their shape:

    [{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]     COCO detections
    {"images": [{"id": 139, "file_name": "a.jpg"}], "annotations": [{"image_id": 139, ...}]}    COCO annotations
    {"a.jpg": [[x1, y1, x2, y2], [x1, y1, x2, y2, score]], ...}                                 the plain one

A COCO detection may say `file_name` or `image` instead of `image_id`. Only category 1 (person) is taken.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.types import Boxes

_PERSON = 1
_Row = tuple[str, list[float], float]  # the picture, x1 y1 x2 y2, score


@dataclass(frozen=True)
class BoxesFile:
    """Boxes by picture.

    Attributes:
        path: the file they were read from.
        by_name: the boxes under every name that a picture was given in the file, best score first.
    """

    path: Path
    by_name: Mapping[str, Boxes]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> BoxesFile:
        """Read a file in any of the three layouts.

        Raises:
            PosezooError: no such file, not JSON, another layout, or a box that is not finite or has a negative size;
                the message names the entry.
        """
        file = Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise PosezooError(f"no such boxes file: {file}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as err:
            raise PosezooError(f"the boxes file {file} is not JSON: {err}") from None
        except OSError as err:
            raise PosezooError(f"cannot read the boxes file {file}: {err.strerror or err}") from None
        try:
            grouped: dict[str, list[_Row]] = {name: [] for name in _names(content)}
            for row in _rows(content):
                grouped.setdefault(row[0], []).append(row)
        except PosezooError as err:
            raise PosezooError(f"boxes file {file}: {err}") from None
        return cls(file, {name: _boxes(rows) for name, rows in grouped.items()})

    def find(self, name: str) -> Boxes | None:
        """The boxes of a picture by its path, its file name, its stem, or the number its stem is; None if not there."""
        path = Path(name)
        number = [str(int(path.stem))] if path.stem.isdecimal() else []
        for key in (name, path.as_posix(), path.name, path.stem, *number):
            if key in self.by_name:
                return self.by_name[key]
        return None

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """The boxes of each image; empty for one that the file does not name, as COCO leaves out empty images.

        Raises:
            PosezooError: an image without a name.
        """
        known = list(names) if names is not None else [None] * len(images_rgb)
        if None in known:
            raise PosezooError(
                f"boxes from {self.path} are found by file name: give paths, or arrays together with boxes_xyxy"
            )
        return [self.find(name) or Boxes.empty() for name in known if name is not None]


def _names(content: Any) -> Iterable[str]:
    """Pictures that the file names even where they have no box."""
    if not isinstance(content, dict):
        return []
    return _file_names(content).values() if "annotations" in content else content


def _file_names(content: dict[str, Any]) -> dict[Any, str]:
    try:
        return {image["id"]: str(image["file_name"]) for image in content.get("images", [])}
    except (KeyError, TypeError):
        raise PosezooError("every entry of 'images' needs an id and a file_name") from None


def _rows(content: Any) -> Iterator[_Row]:
    if isinstance(content, list):
        yield from _coco_rows(content, {})
    elif isinstance(content, dict) and "annotations" in content:
        yield from _coco_rows(content["annotations"], _file_names(content))
    elif isinstance(content, dict):
        yield from _plain_rows(content)
    else:
        raise PosezooError("expected a list of detections or an object of boxes by file name")


def _coco_rows(entries: Any, file_names: Mapping[Any, str]) -> Iterator[_Row]:
    if not isinstance(entries, list):
        raise PosezooError("'annotations' must be a list")
    for index, entry in enumerate(entries):
        where = f"entry {index}"
        if not isinstance(entry, dict) or "bbox" not in entry:
            raise PosezooError(f"{where} has no bbox (x, y, width, height)")
        if entry.get("category_id", _PERSON) != _PERSON:
            continue
        image = next((entry[key] for key in ("file_name", "image", "image_id") if key in entry), None)
        if image is None:
            raise PosezooError(f"{where} names no picture (image_id, file_name or image)")
        name = file_names.get(image, str(image))
        where = f"{where} (picture {name})"
        x, y, width, height = _numbers(where, entry["bbox"], (4,))
        if width < 0 or height < 0:
            raise PosezooError(f"{where} has a negative size: bbox {entry['bbox']} is x, y, width, height")
        (score,) = _numbers(where, [entry.get("score", 1.0)], (1,))
        yield name, [x, y, x + width, y + height], score


def _plain_rows(content: dict[str, Any]) -> Iterator[_Row]:
    for name, boxes in content.items():
        if not isinstance(boxes, list):
            raise PosezooError(f"'{name}' must have a list of boxes [x1, y1, x2, y2, score]")
        for index, box in enumerate(boxes):
            where = f"box {index} of '{name}'"
            x1, y1, x2, y2, *score = _numbers(where, box, (4, 5))
            if x2 < x1 or y2 < y1:
                raise PosezooError(f"{where} has a negative size: {box} is x1, y1, x2, y2")
            yield name, [x1, y1, x2, y2], score[0] if score else 1.0


def _numbers(where: str, values: Any, lengths: tuple[int, ...]) -> list[float]:
    """Finite numbers, as many as one of `lengths`, or an error that says where."""
    if not isinstance(values, list) or len(values) not in lengths:
        raise PosezooError(f"{where} must have {' or '.join(map(str, lengths))} numbers, but is {values!r}")
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise PosezooError(f"{where} must have numbers only, but is {values!r}")
    if not all(math.isfinite(v) for v in values):
        raise PosezooError(f"{where} is not finite: {values!r}")
    return [float(v) for v in values]


def _boxes(rows: list[_Row]) -> Boxes:
    ordered = sorted(rows, key=lambda row: -row[2])
    return Boxes(np.array([row[1] for row in ordered]).reshape(-1, 4), np.array([row[2] for row in ordered]))
