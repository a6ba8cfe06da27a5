"""What every format writes and reads: the people of one picture or frame; and what a writer of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np

from posezoo import suppress
from posezoo.errors import PosezooError
from posezoo.formats.values import number, optional, rounded, rounded_xys, whole
from posezoo.skeletons import Skeleton
from posezoo.types import Floats, Poses

DEFAULT_SKELETON = "coco17"
"""That of files that name none, where the caller names none either."""

XYS = Floats
"""(K, 3) or (N, K, 3): x, y and score of each joint; NaN where one was not placed."""


@dataclass(frozen=True, eq=False)
class Result:
    """The people of one picture, or of one frame of a video.

    Attributes:
        poses: nobody at all is fine. Joints that were not placed are NaN.
        image: the name or path of the picture, or of the video.
        frame: its number in the video, from 0; None for a picture.
        time_s: when it is shown, in seconds from the start of the video.
        size_wh: width and height in pixels; None where a file did not say.
        person_scores: (N,) the whole person's, where a file said; None: those of `suppress.person_scores`.

    Raises:
        PosezooError: there are not as many person scores as people.
    """

    poses: Poses
    image: str
    frame: int | None = None
    time_s: float | None = None
    size_wh: tuple[int, int] | None = None
    person_scores: Floats | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.person_scores is not None and len(self.person_scores) != len(self.poses):
            raise PosezooError(f"{len(self.poses)} people need as many scores, not {len(self.person_scores)}")

    @property
    def scores(self) -> list[float]:
        """The whole person's score of each."""
        own = suppress.person_scores(self.poses) if self.person_scores is None else self.person_scores
        return np.asarray(own, np.float64).tolist()

    def key(self) -> dict[str, Any]:
        """What a file says of the picture, rounded; `read_key` takes it. None where it is not known."""
        width, height = (None, None) if self.size_wh is None else map(int, self.size_wh)
        frame = None if self.frame is None else int(self.frame)
        time_s = None if self.time_s is None else rounded(self.time_s, 6)
        return {"image": self.image, "frame": frame, "time": time_s, "width": width, "height": height}

    def joints(self) -> list[list[list[float | None]]]:
        """Of each person x, y and score of each joint, rounded; None, None, 0 where one was not placed.

        Raises:
            PosezooError: a score is not finite.
        """
        xys = rounded_xys(self.xys())
        rows: list[list[list[float | None]]] = xys.tolist()
        for row, joint in np.argwhere(np.isnan(xys[..., 0])).tolist():
            rows[row][joint] = [None, None, 0.0]
        return rows

    def xys(self) -> XYS:
        """(N, K, 3) float32: x, y and score of each joint; those that were not placed are NaN, NaN, 0."""
        xys = np.concatenate([self.poses.keypoints_xy, self.poses.scores[..., None]], axis=2)
        xys[~np.isfinite(xys[..., :2]).all(axis=2)] = (np.nan, np.nan, 0)
        return xys


class Key(NamedTuple):
    """Whose people they are; the fields are those of `Result`."""

    image: str
    frame: int | None = None
    time_s: float | None = None
    size_wh: tuple[int, int] | None = None


def read_key(values: Mapping[str, Any], where: str, image: str | None = None) -> Key:
    """Whose people they are, from the fields that `Result.key` writes; only `image` must be there.

    Args:
        values: the fields; others may stand between them.
        where: what to call their source in errors.
        image: what it is if they do not say; None: they must.

    Raises:
        PosezooError: a field has the wrong kind of value.
    """
    name = values.get("image", image)
    if not isinstance(name, str):
        raise PosezooError(f"{where}: 'image' is {name!r}, expected a name")
    width, height = (optional(whole, values.get(field), f"{where}: '{field}'", 0) for field in ("width", "height"))
    frame = optional(whole, values.get("frame"), f"{where}: 'frame'", 0)
    time_s = optional(number, values.get("time"), f"{where}: 'time'")
    return Key(name, frame, time_s, None if width is None or height is None else (width, height))


class Person(NamedTuple):
    """One person as a file has it; None is what it does not say.

    Attributes:
        xys: (K, 3).
        box_xyxy: None: the extent of the joints with a score above 0.
        box_score: None: the person's score.
        score: the whole person's.
        track_id: of a tracker.
    """

    xys: XYS
    box_xyxy: list[float] | None = None
    box_score: float | None = None
    score: float | None = None
    track_id: int | None = None


def unplaced(xys: XYS) -> XYS:
    """Joints at 0, 0 with score 0 are those that were not placed, in formats that have no other way to say so."""
    return np.where((xys == 0).all(axis=-1, keepdims=True), np.array([np.nan, np.nan, 0], np.float32), xys)


def to_result(key: Key, people: list[Person], skeleton: Skeleton, where: str) -> Result:
    """The people of one picture as arrays.

    Raises:
        PosezooError: some people have a track id and some have none.
    """
    if not people:
        return Result(Poses.empty(skeleton), *key)
    xys = np.stack([person.xys for person in people])
    boxes = [extent(person.xys) if person.box_xyxy is None else person.box_xyxy for person in people]
    box_scores = [
        next(score for score in (person.box_score, person.score, 1.0) if score is not None) for person in people
    ]
    tracked = [person.track_id for person in people if person.track_id is not None]
    if tracked and len(tracked) != len(people):
        raise PosezooError(f"{where}: some people have a track id and some have none")
    poses = Poses(xys[..., :2], xys[..., 2], np.array(boxes), np.array(box_scores), skeleton, tracked or None)  # type: ignore[arg-type]
    scores = [person.score for person in people if person.score is not None]
    return Result(poses, *key, np.array(scores, np.float32) if len(scores) == len(people) else None)


def extent(xys: XYS) -> list[float]:
    """x1, y1, x2, y2 of the joints with a score above 0; of all if none has, of nothing if none was placed."""
    placed = xys[np.isfinite(xys[:, :2]).all(axis=1)]
    shown = placed[placed[:, 2] > 0] if (placed[:, 2] > 0).any() else placed
    if not len(shown):
        return [0.0, 0.0, 0.0, 0.0]
    return [*shown[:, :2].min(axis=0).tolist(), *shown[:, :2].max(axis=0).tolist()]


def group(rows: Iterable[tuple[Key, Person]]) -> Iterator[tuple[Key, list[Person]]]:
    """The people of each picture, in order of first mention, from a file that lists people in any order.

    All are held, as arrays, from the first to the last.
    """
    people: dict[Key, list[Person]] = {}
    for key, person in rows:
        people.setdefault(key, []).append(person)
    for key in list(people):
        yield key, people.pop(key)


@dataclass(frozen=True)
class Settings:
    """How a writer is to write.

    Attributes:
        video: the results are the frames of one video, not pictures.
        per_frame: a file for each picture or frame where the format has one list for all.
        resume: go on at the end of the file that is there.
        name: what to call the file of a result, without suffix; None: as its picture, with the frame's number.
        run: what the results depend on, for a run that goes on; of formats of lines.
        ending: of the names of OpenPose's and CMU's files; None: as these call them.
    """

    video: bool = False
    per_frame: bool = False
    resume: bool = False
    name: Callable[[Result], str] | None = None
    run: Mapping[str, Any] | None = None
    ending: str | None = None


class ResultWriter(Protocol):
    """Takes results one by one and keeps none of them in memory.

    Leaving its `with` block closes it, after an error or Ctrl-C too: what was added until then is a valid file.
    """

    def add(self, record: Result) -> Path | None:
        """Write a result.

        Returns:
            Its file, where it has one of its own.

        Raises:
            PosezooError: it is of another skeleton, is not finite, or the disk is full; what was written stays whole.
        """

    def close(self) -> list[Path]:
        """Finish.

        Returns:
            The file; or the folder, where there is a file for each result; nothing after `discard`.

        Raises:
            PosezooError: the end of the file cannot be written.
        """

    def discard(self) -> None:
        """Stop, and leave nothing of a file for all; files for each that are done stay."""

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self.close()
        except PosezooError:
            if kind is None:  # else the first error tells more
                raise


def check_skeleton(record: Result, skeleton: Skeleton) -> None:
    """One file is of one skeleton."""
    if record.poses.skeleton != skeleton:
        raise PosezooError(f"{record.image} has the joints of {record.poses.skeleton.name}, expected {skeleton.name}")
