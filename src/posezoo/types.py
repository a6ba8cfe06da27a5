"""The two things that flow between stages: `Boxes` and `Poses`.

Both are validated in shape, immutable, and legal at length 0. Pixels are those of the original image: x to the right,
y down, (0, 0) the centre of the top left pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.errors import PosezooError
from posezoo.skeletons import Skeleton
from posezoo.words import counted

Floats = NDArray[np.float32]
Index = int | slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]
_T = TypeVar("_T", "Boxes", "Poses")


def _array(name: str, value: ArrayLike, shape: tuple[int | None, ...], dtype: type = np.float32) -> NDArray:
    """`value` as a read-only array of `shape` (None: any length), or an error that names both shapes."""
    try:
        given: NDArray = np.array(value)
        array: NDArray = given.astype(dtype, copy=False)
    except (TypeError, ValueError, OverflowError) as err:
        raise PosezooError(f"{name} must be {_form(shape)} numbers: {type(value).__name__}, {err}") from None
    if dtype is np.int64 and given.size and given.dtype.kind not in "iu":
        raise PosezooError(f"{name} must be whole numbers, not {given.dtype}")
    if array.size == 0 and array.ndim < len(shape):
        array = array.reshape([0, *(1 if s is None else s for s in shape[1:])])
    if array.ndim != len(shape) or any(s is not None and s != n for s, n in zip(shape, array.shape, strict=True)):
        raise PosezooError(f"{name} must have shape {_form(shape)}, but has {array.shape}")
    array.flags.writeable = False
    return array


def _form(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"


def _reduce(value: Boxes | Poses) -> tuple[Any, ...]:
    """How pickle and copy make another: by the constructor, which leaves its arrays read-only too."""
    return type(value), tuple(getattr(value, f.name) for f in fields(value))


def _take(value: _T, index: Index) -> _T:
    """The people or boxes at `index` (an int keeps the axis: the result has length 1)."""
    rows = [index] if isinstance(index, int | np.integer) else index
    columns: dict[str, Any] = {f.name: getattr(value, f.name) for f in fields(value)}
    taken: dict[str, Any] = {k: v[rows] for k, v in columns.items() if isinstance(v, np.ndarray)}
    return replace(value, **taken)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Person boxes of one image.

    Attributes:
        xyxy: (N, 4) float32, left, top, right, bottom in pixels; right >= left and bottom >= top; finite.
        scores: (N,) float32, in [0, 1] where our detectors give them; 1 where none are given.

    Raises:
        PosezooError: no numbers, a wrong shape, a value that is not finite, or a box of negative size.
    """

    xyxy: Floats
    scores: Floats = None  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(self, xyxy: ArrayLike, scores: ArrayLike | None = None) -> None: ...

    def __post_init__(self) -> None:
        xyxy = _array("boxes_xyxy", self.xyxy, (None, 4))
        scores = _array("box scores", np.ones(len(xyxy)) if self.scores is None else self.scores, (len(xyxy),))
        for row in np.flatnonzero(~np.isfinite(xyxy).all(axis=1)):
            raise PosezooError(f"box {row} is not finite: {xyxy[row].tolist()}")
        for row in np.flatnonzero((xyxy[:, 2:] < xyxy[:, :2]).any(axis=1)):
            raise PosezooError(f"box {row} has a negative size: {xyxy[row].tolist()} (expected x1, y1, x2, y2)")
        for row in np.flatnonzero(~np.isfinite(scores)):
            raise PosezooError(f"box score {row} is not finite")
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "scores", scores)

    @classmethod
    def empty(cls) -> Boxes:
        """No box at all."""
        return cls(np.zeros((0, 4), np.float32))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: Index) -> Boxes:
        return _take(self, index)


@dataclass(frozen=True, eq=False)
class Poses:
    """The people of one image.

    Attributes:
        keypoints_xy: (N, K, 2) float32, pixels of the original image.
        scores: (N, K) float32, how sure the network is of each joint: in [0, 1] where one of ours found it, as they
            stand where they were read.
        boxes_xyxy: (N, 4) float32, the box that each person was looked for in.
        box_scores: (N,) float32, likewise.
        skeleton: the names, order and sigmas of the K joints.
        track_ids: (N,) int64, or None where nothing was tracked.

    Raises:
        PosezooError: no numbers, or shapes that do not belong together or to the skeleton.
    """

    keypoints_xy: Floats
    scores: Floats
    boxes_xyxy: Floats
    box_scores: Floats
    skeleton: Skeleton = field(repr=False)
    track_ids: NDArray[np.int64] | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            keypoints_xy: ArrayLike,
            scores: ArrayLike,
            boxes_xyxy: ArrayLike,
            box_scores: ArrayLike,
            skeleton: Skeleton,
            track_ids: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.skeleton, Skeleton):
            raise PosezooError(f"skeleton must be what get_skeleton gives, but is {self.skeleton!r:.60}")
        joints = len(self.skeleton.joints)
        keypoints_xy = _array("keypoints_xy", self.keypoints_xy, (None, joints, 2))
        people = len(keypoints_xy)
        checked = {
            "keypoints_xy": keypoints_xy,
            "scores": _array("scores", self.scores, (people, joints)),
            "boxes_xyxy": _array("boxes_xyxy", self.boxes_xyxy, (people, 4)),
            "box_scores": _array("box_scores", self.box_scores, (people,)),
        }
        if self.track_ids is not None:
            checked["track_ids"] = _array("track_ids", self.track_ids, (people,), np.int64)
        for name, array in checked.items():
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> Poses:
        """Nobody in the picture."""
        joints = len(skeleton.joints)
        nobody = np.zeros((0, joints, 2), np.float32)
        return cls(nobody, nobody[..., 0], np.zeros((0, 4), np.float32), nobody[:, 0, 0], skeleton)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)

    def __len__(self) -> int:
        return len(self.keypoints_xy)

    def __getitem__(self, index: Index) -> Poses:
        return _take(self, index)

    def __iter__(self) -> Iterator[Poses]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Poses({counted(len(self), 'person', 'people')}, skeleton={self.skeleton.name})"

    @property
    def person_scores(self) -> NDArray[np.float64]:
        """How sure the pipeline is of each person, (N,): what files of results call the score of a person.

        The commands leave out those below 0.16, unless --min-score says otherwise. See
        `posezoo.suppress.person_scores`.
        """
        from posezoo.suppress import person_scores

        return person_scores(self)
