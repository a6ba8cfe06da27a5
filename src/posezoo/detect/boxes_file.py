"""The detector for boxes that someone else found: a file of them, looked up by the picture's name.

These layouts are read, told apart by their shape:

    [{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]   COCO's and MMPose's
    {"images": [{"id": 139, "file_name": "a.jpg"}], "annotations": [{"image_id": 139, ...}]}  COCO annotations
    [{"image_id": "a.jpg", "box": [x, y, width, height], "score": 2.1, ...}, ...]             AlphaPose's results
    [{"bbox": [[x1, y1, x2, y2]], "bbox_score": 0.9, ...}, ...]                               MMPose's, of one picture
    [{"frame_id": 0, "instances": [{"bbox": ...}, ...]}, ...]                                 MMPose's, of a video
    {"format": "posezoo/1", "image": "a.jpg", "people": [{"box": [x1, y1, x2, y2], ...}]}     posezoo's; .jsonl too
    {"a.jpg": [[x1, y1, x2, y2], [x1, y1, x2, y2, score]], ...}                               the plain one
    [[x1, y1, x2, y2, score], ...]                                                            plain, of one picture

A COCO detection may say `file_name` or `image` instead of `image_id`. A file of one picture is named as that is. A CSV
file needs a header: a picture (image, image_id, file_name, ...) or `frame` or both, a box (x1, y1, x2, y2; xmin, ...;
left, top, right, bottom; x, y, width, height; ...), and maybe score, and category_id or class. Of a folder every .json
file is read. A frame of a video goes by "VIDEO#7", and is found under "7" and "7.jpg" too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from posezoo.detect.boxes_formats import Content, Row, read_content
from posezoo.detect.classes import COCO
from posezoo.errors import PosezooError, unknown_name
from posezoo.types import Boxes


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
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        score: float | None = None,
        nms: float | None = None,
        classes: Sequence[str] = ("person",),
    ) -> BoxesFile:
        """Read a file, or all of a folder.

        Args:
            path: a .json, .jsonl or .csv file, or a folder of .json files.
            score: leave out boxes below it; None: none. Scores above 1, as of AlphaPose's poses, count as 1.
            nms: of two boxes that overlap by more than this, leave out the worse one; None: none.
            classes: the names of those to take; boxes without a class are people.

        Raises:
            PosezooError: no such file, another layout, a class that is neither COCO's nor the file's, or a box that is
                not finite or has a negative size; the message names the entry.
        """
        file = Path(path)
        content = _folder(file) if file.is_dir() else read_content(file)
        _check_asked(file, score, nms, classes, content.rows)
        grouped: dict[str, list[Row]] = {name: [] for name in content.pictures}
        for row in content.rows:
            boxes = grouped.setdefault(row.picture, [])
            if row.label in classes and (score is None or row.score >= score):
                boxes.append(row)
        return cls(file, {name: _boxes(rows, nms) for name, rows in grouped.items()})

    def find(self, name: str) -> Boxes | None:
        """The boxes of a picture by its path, its file name, its stem, or the number its stem is; None if not there."""
        path = PurePath(name)
        number = [str(int(path.stem))] if path.stem.isdecimal() else []
        video, _, frame = path.name.rpartition("#")
        frames = [f"{PurePath(video).stem}#{frame}", frame, f"{frame}.jpg"] if video and frame.isdecimal() else []
        for key in (name, path.as_posix(), path.name, path.stem, *number, *frames):
            if key in self.by_name:
                return self.by_name[key]
        return self.by_name.get(self._by_file_name.get(path.name, ""))

    @cached_property
    def _by_file_name(self) -> dict[str, str]:
        """The names that have folders, by the file name alone, where no other shares that."""
        found: dict[str, list[str]] = {}
        for name in self.by_name:
            found.setdefault(PurePath(name).name, []).append(name)
        return {short: names[0] for short, names in found.items() if len(names) == 1}

    def check_has_any(self, names: Iterable[str]) -> None:
        """See that it is of these pictures: one that misses some had no box for them.

        Raises:
            PosezooError: it has none of them.
        """
        if all(self.find(name) is None for name in names):
            example = next(iter(self.by_name), None)
            named = f"it has, for example, '{example}'" if example is not None else "it is empty"
            raise PosezooError(f"the boxes file {self.path} has none of the pictures ({named})")

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


def _folder(folder: Path) -> Content:
    """What all files of a folder have."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise PosezooError(f"the folder {folder} has no .json file of boxes")
    contents = [read_content(file) for file in files]
    return Content([name for c in contents for name in c.pictures], [row for c in contents for row in c.rows])


def _check_asked(
    file: Path, score: float | None, nms: float | None, classes: Sequence[str], rows: Sequence[Row]
) -> None:
    if score is not None and not 0 <= score <= 1:
        raise PosezooError(f"score must be between 0 and 1, but is {score:g}")
    if nms is not None and not 0 < nms <= 1:
        raise PosezooError(f"nms must be above 0 and at most 1, but is {nms:g}")
    if isinstance(classes, str) or not classes:
        raise PosezooError(f"classes must be one or more names, such as ('person',), but is {classes!r}")
    unknown = set(classes) - set(COCO)
    known = {row.label for row in rows} if unknown else set()
    for name in sorted(unknown - known):
        raise unknown_name("class", name, known | set(COCO), f"(of the boxes file {file})")


def _boxes(rows: list[Row], nms: float | None) -> Boxes:
    ordered = sorted(rows, key=lambda row: -row.score)
    scores = np.clip(np.array([row.score for row in ordered]), 0, 1)
    boxes = Boxes(np.array([row.xyxy for row in ordered], np.float32).reshape(-1, 4), scores)
    if nms is None or len(boxes) < 2:
        return boxes
    from posezoo.detect.network import box_nms

    return boxes[np.sort(box_nms(boxes.xyxy, -np.arange(len(boxes), dtype=float), nms))]
