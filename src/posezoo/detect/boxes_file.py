"""The detector for boxes that someone else found: a file of them, looked up by the picture's name.

These layouts are read, told apart by their shape:

    [{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]   COCO's and MMPose's
    {"images": [{"id": 139, "file_name": "a.jpg"}], "annotations": [{"image_id": 139, ...}]}  COCO annotations
    [{"image_id": "a.jpg", "box": [x, y, width, height], "score": 2.1, ...}, ...]             AlphaPose's results
    [{"bbox": [[x1, y1, x2, y2]], "bbox_score": 0.9, ...}, ...]                               MMPose's, of one picture
    [{"frame_id": 0, "instances": [{"bbox": ...}, ...]}, ...]                                 MMPose's, of a video
    {"instance_info": [{"frame_id": 1, "instances": [...]}, ...]}                             its demo's, from 1
    {"format": "posezoo/1", "image": "a.jpg", "people": [{"box": [x1, y1, x2, y2], ...}]}     posezoo's; .jsonl too
    {"a.jpg": [[x1, y1, x2, y2], [x1, y1, x2, y2, score]], ...}                               the plain one
    [[x1, y1, x2, y2, score], ...]                                                            plain, of one picture

A COCO detection may say `file_name` or `image` instead of `image_id`. A file of one picture is named as that is. A CSV
file needs a header: a picture (image, image_id, file_name, ...) or `frame` or both, a box (x1, y1, x2, y2; xmin, ...;
left, top, right, bottom; x, y, width, height; ...), and maybe score, and category_id or class. Of a folder every .json
file is read. A frame of a video goes by "VIDEO#7", and is found under "7" and "7.jpg" too.

Of a picture and an entry of the file, one may have more folders than the other: "photos/in/a.jpg" is "in/a.jpg". Where
their folders differ they are the same only if nothing speaks against it, see `BoxesFile.find`.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from posezoo.detect.boxes_formats import Content, Row, read_content
from posezoo.detect.classes import COCO
from posezoo.errors import PosezooError, unknown_name
from posezoo.types import Boxes

_DEEPEST = 64  # folders that are compared: of a name of thousands, every trailing path would fill the memory


@dataclass(frozen=True)
class _Names:
    """Names by what they end in.

    Attributes:
        given: the name as it was given, by its whole path.
        by_trail: the whole path by every trailing path of it; None for what several end in.
        folders: the folders that names lie in, by every trailing path.
    """

    given: dict[str, str] = field(default_factory=dict)
    by_trail: dict[str, str | None] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def add(self, name: str, wanted: Container[str] | None = None) -> None:
        """One more name, maybe only by those of its trailing paths that are `wanted`."""
        trails = _trails(name)
        for trail in trails:
            if wanted is None or trail in wanted:
                known = self.by_trail.setdefault(trail, trails[0])
                self.by_trail[trail] = trails[0] if known == trails[0] else None
        self.folders.update(trail.rpartition("/")[0] for trail in trails[:-1])
        if trails:
            self.given.setdefault(trails[0], name)


@dataclass(frozen=True)
class BoxesFile:
    """Boxes by picture.

    Attributes:
        path: the file they were read from.
        by_name: the boxes under every name that a picture was given in the file, best score first.
    """

    path: Path
    by_name: Mapping[str, Boxes]
    _run: _Names = field(default_factory=_Names, init=False, repr=False, compare=False)

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
            classes: the names of those to take, in any case; boxes without a class are people.

        Raises:
            PosezooError: no such file, another layout, a class that is neither COCO's nor the file's, or a box that is
                not finite or has a negative size; the message names the entry.
        """
        file = Path(path)
        content = _folder(file) if file.is_dir() else read_content(file)
        _check_asked(file, score, nms, classes, content.rows)
        wanted = {name.lower() for name in classes}
        grouped: dict[str, list[Row]] = {name: [] for name in content.pictures}
        for row in content.rows:
            boxes = grouped.setdefault(row.picture, [])
            if row.label in wanted and (score is None or row.score >= score):
                boxes.append(row)
        return cls(file, {name: _boxes(rows, nms) for name, rows in grouped.items()})

    def find(self, name: str) -> Boxes | None:
        """The boxes of a picture by its path, its file name, its stem, or the number its stem is; None if not there.

        The entry with the longest trailing path in common is taken, and either name may have folders before it. If both
        have, and they differ, the picture may have been moved, or be another of the same name. It is taken for moved if
        this is the only picture of the run, and that the only entry of the file, that ends in what they share, and if
        the file has nothing in the picture's folder and the run nothing in the entry's.
        """
        entry = self._entry(name)
        return None if entry is None else self.by_name[entry]

    def find_each(self, ids: Sequence[int], paths: Sequence[Path]) -> list[Boxes | None]:
        """The boxes of a dataset's pictures: all by their ids or all by their paths, see `find`, whichever finds more.

        A mixture would take the number in a picture's name for the id that it is of another.
        """
        by_id = [self.by_name.get(str(number)) for number in ids]
        by_path = [self.find(str(path)) for path in paths]
        return min(by_id, by_path, key=lambda found: found.count(None))

    def _entry(self, name: str) -> str | None:
        """The name that the file has for a picture."""
        if name in self.by_name:
            return name
        trails, names = _trails(name), self._names
        for trail in trails:
            if trail in names.given:
                return names.given[trail]
            if trail == trails[0] and (entry := names.by_trail.get(trail)) is not None:
                return names.given[entry]
        path = PurePath(name)
        number = [str(int(path.stem))] if path.stem.isdecimal() else []
        video, _, frame = path.name.rpartition("#")
        frames = [f"{PurePath(video).stem}#{frame}", frame, f"{frame}.jpg"] if video and frame.isdecimal() else []
        for key in (path.stem, *number, *frames):
            if key in self.by_name:
                return key
        return self._moved(trails)

    def _moved(self, trails: Sequence[str]) -> str | None:
        """The entry for a picture, given by its trailing paths, where the folders before what they share differ."""
        names, run = self._names, self._run
        longer, shared = next((pair for pair in pairwise(trails) if pair[1] in names.by_trail), ("", ""))
        entry = names.by_trail.get(shared)
        if entry is None or run.by_trail.get(shared, trails[0]) != trails[0]:
            return None
        own = longer.rpartition("/")[0]
        its = next(longer for longer, trail in pairwise(_trails(entry)) if trail == shared).rpartition("/")[0]
        return None if own in names.folders or its in run.folders else names.given[entry]

    @cached_property
    def _names(self) -> _Names:
        names = _Names()
        for name in self.by_name:
            names.add(name)
        return names

    def check_has_any(self, names: Iterable[str]) -> None:
        """See that it is of these pictures: one that misses some had no box for them.

        From here on they belong to the run, and `find` minds which of them an entry can be of.

        Raises:
            PosezooError: it has none of them.
        """
        given = list(names)
        for name in given:
            self._run.add(name, self._names.by_trail)
        if all(self.find(name) is None for name in given):
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


def _trails(name: str) -> list[str]:
    """Every trailing path of a name, the longest first; what leads out of a folder names none."""
    parts = [part for part in PurePath(os.path.normpath(name)).parts if part != ".."][-_DEEPEST:]
    return ["/".join(parts[start:]) for start in range(len(parts))]


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
    unknown = {name.lower() for name in classes} - set(COCO)
    known = {row.label for row in rows} if unknown else set()
    for name in sorted(unknown - known):
        raise unknown_name("class", name, known | set(COCO), f"(of the boxes file {file})")


def _boxes(rows: list[Row], nms: float | None) -> Boxes:
    """As the file lists them: whoever gives boxes matches the poses to them by their places."""
    given = np.array([row.score for row in rows])
    boxes = Boxes(np.array([row.xyxy for row in rows], np.float32).reshape(-1, 4), np.clip(given, 0, 1))
    if nms is None or len(boxes) < 2:
        return boxes
    from posezoo.detect.network import box_nms

    ranks = np.argsort(np.argsort(-given, kind="stable"), kind="stable")  # of equal ones the first is the best
    return boxes[np.sort(box_nms(boxes.xyxy, -ranks.astype(float), nms))]
