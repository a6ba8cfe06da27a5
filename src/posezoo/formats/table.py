"""Results as a table, one row a person: the columns that CSV and Parquet share.

`image`, `frame`, `time` (seconds), `width`, `height`, `skeleton`, `person` (the number within the image), `track_id`,
`score` (the whole person's), `box_score`, `box_x1`, `box_y1`, `box_x2`, `box_y2`; then `nose_x`, `nose_y`, `nose_score`
and so on for each joint by name. What is not known, and where a joint was not placed, the cell is empty. A reader needs
`image` and the joints; it takes columns in any order, and passes over those it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from posezoo.errors import PosezooError, unknown_name
from posezoo.formats.result import Key, Person, Result, group, read_key, to_result
from posezoo.formats.values import number, optional, rounded, whole
from posezoo.skeletons import Skeleton, get_skeleton

HEAD = ("image", "frame", "time", "width", "height", "skeleton", "person", "track_id", "score", "box_score")
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")
PARTS = ("x", "y", "score")

Row = Mapping[str, Any]


def columns(skeleton: Skeleton) -> list[str]:
    """The names of all columns.

    Raises:
        PosezooError: a joint is called so that two columns get one name.
    """
    names = [*HEAD, *BOX, *joint_columns(skeleton)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PosezooError(f"skeleton {skeleton.name} has joints that make two columns '{twice}': rename one")
    return names


def joint_columns(skeleton: Skeleton) -> list[str]:
    """Those of the joints."""
    return [f"{joint}_{part}" for joint in skeleton.joints for part in PARTS]


def rows(record: Result) -> list[list[Any]]:
    """The cells of each person of a result, rounded as in every other format; None is an empty one.

    Raises:
        PosezooError: a box or a score is not finite.
    """
    poses = record.poses
    key = [*record.key().values(), poses.skeleton.name]
    found = []
    for row, (joints, score) in enumerate(zip(record.joints(), record.scores, strict=True)):
        track_id = None if poses.track_ids is None else int(poses.track_ids[row])
        own = [row, track_id, rounded(score, 4), rounded(float(poses.box_scores[row]), 4)]
        box = [rounded(v) for v in poses.boxes_xyxy[row].tolist()]
        found.append([*key, *own, *box, *(value for joint in joints for value in joint)])
    return found


class Reader:
    """Rows of one table to people: the skeleton is the one given, or that of the first row."""

    def __init__(self, names: Sequence[str], skeleton: Skeleton | None, where: str) -> None:
        """Look at the columns.

        Raises:
            PosezooError: there is no column of images, or none of a joint.
        """
        self._names, self.skeleton, self._where = list(names), skeleton, where
        if "image" not in self._names:
            raise PosezooError(f"{where} has no column 'image': it is not a table of people")
        if skeleton is not None:
            self._check(skeleton)

    def _check(self, skeleton: Skeleton) -> None:
        for name in joint_columns(skeleton):
            if name not in self._names:
                raise PosezooError(f"{self._where} lacks a column: {unknown_name('column', name, self._names)}")

    def __call__(self, row: Row, at: str) -> tuple[Key, Person]:
        """A person, and whose picture it is in.

        Raises:
            PosezooError: a cell has the wrong kind of value; the message has its column.
        """
        named = row.get("skeleton")
        if self.skeleton is None:
            if named is None:
                raise PosezooError(f"{at} names no skeleton: say which it is")
            self.skeleton = get_skeleton(str(named))
            self._check(self.skeleton)
        elif named is not None and named != self.skeleton.name:
            raise PosezooError(f"{at} is of skeleton {named}, expected {self.skeleton.name}")
        return read_key(row, at), self._person(row, self.skeleton, at)

    def _person(self, row: Row, skeleton: Skeleton, at: str) -> Person:
        cells = [optional(number, row[name], f"{at}: '{name}'") for name in joint_columns(skeleton)]
        xys = np.array(cells, np.float32).reshape(-1, 3)  # None becomes NaN
        unplaced = np.isnan(xys).any(axis=1)
        xys[unplaced] = (np.nan, np.nan, 0)
        box = [optional(number, row.get(name), f"{at}: '{name}'") for name in BOX]
        score, box_score = (optional(number, row.get(name), f"{at}: '{name}'") for name in ("score", "box_score"))
        track_id = optional(whole, row.get("track_id"), f"{at}: 'track_id'")
        return Person(xys, None if None in box else box, box_score, score, track_id)


Table = tuple[str, Sequence[str], Iterable[Row]]
"""What to call a table in errors, its columns, and its rows."""


def read_tables(tables: Iterable[Table], skeleton: Skeleton | None, first_row: int = 1) -> Iterator[Result]:
    """The people of each image, from tables that list people in any order.

    Args:
        tables: any number of them.
        skeleton: None: the one that the rows name.
        first_row: the number of a table's first row in errors.

    Raises:
        PosezooError: a table is not one of people; the message has the row and the column.
    """
    for where, names, found in tables:
        reader = Reader(names, skeleton, where)
        people = group(reader(row, f"{where}, row {at}") for at, row in enumerate(found, first_row))
        for key, rows in people:
            assert reader.skeleton is not None  # there was a row
            yield to_result(key, rows, reader.skeleton, f"{where}, image {key.image}")
