"""What the outputs of other people's detectors mean: one function for each way of writing boxes down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posezoo.detect.network import Candidates

BOXES = ("xyxy", "xywh", "cxcywh", "yxyx")
UNITS = ("input", "share")
Outputs = Mapping[str, NDArray]  # of one picture, by what they are: "boxes", "scores", "labels"


@dataclass(frozen=True)
class Writing:
    """How boxes are written.

    Attributes:
        boxes: the four numbers: "xyxy" and "yxyx" two corners, "xywh" the top left corner and the size, "cxcywh" the
            centre and the size.
        unit: "input" pixels, or "share" of the input's sides.
        canvas_wh: the input's width and height.
    """

    boxes: str
    unit: str
    canvas_wh: tuple[int, int]

    def xyxy(self, boxes: NDArray) -> NDArray:
        """(A, 4) as written, to corners in pixels of the input."""
        if self.boxes == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        elif self.boxes != "xyxy":
            half = boxes[:, 2:] / 2
            low = boxes[:, :2] - half if self.boxes == "cxcywh" else boxes[:, :2]
            boxes = np.concatenate([low, low + boxes[:, 2:]], axis=1)
        return boxes * np.tile(self.canvas_wh, 2) if self.unit == "share" else boxes


def strides_of(anchors: int, canvas_wh: tuple[int, int]) -> tuple[int, ...] | None:
    """The strides of the grids that have so many cells in all, three or four grids from 8 on; None where none do."""
    for strides in ((8, 16, 32), (8, 16, 32, 64)):
        if sum((canvas_wh[0] // s) * (canvas_wh[1] // s) for s in strides) == anchors:
            return strides
    return None


@lru_cache(maxsize=8)
def _cells(strides: tuple[int, ...], canvas_wh: tuple[int, int]) -> NDArray[np.float32]:
    """(A, 3): column, row and stride of every cell, row by row, grid by grid."""
    grids = []
    for stride in strides:
        columns, rows = np.meshgrid(np.arange(canvas_wh[0] // stride), np.arange(canvas_wh[1] // stride))
        grids.append(np.stack([columns.ravel(), rows.ravel(), np.full(columns.size, stride)], axis=1))
    cells = np.concatenate(grids).astype(np.float32)
    cells.flags.writeable = False
    return cells


def is_decoded(rows: NDArray, canvas_wh: tuple[int, int]) -> bool:
    """Whether the centres of YOLOX's boxes (A, 5 + classes) are in pixels already; else they count from their cell."""
    return float(np.abs(rows[:, :2]).max(initial=0.0)) > max(canvas_wh) / 4


def grid(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """YOLOX (arXiv 2107.08430): the centre counts from the cell, in strides; sizes are logarithms of strides."""
    table = outputs["boxes"]
    strides = strides_of(len(table), writing.canvas_wh)
    assert strides is not None
    kept = np.flatnonzero(table[:, 4] >= least)
    cells, found = _cells(strides, writing.canvas_wh)[kept], table[kept].astype(np.float32)
    found[:, :2] = (found[:, :2] + cells[:, :2]) * cells[:, 2:]
    found[:, 2:4] = np.exp(np.minimum(found[:, 2:4], 20)) * cells[:, 2:]
    return rows({"boxes": found}, writing, least)


def rows(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(A, 5 + classes): a box, whether there is anything, and of which class it would be."""
    table = outputs["boxes"]
    table = table[table[:, 4] >= least]
    found = _best(table[:, :4], table[:, 5:], writing)
    return found._replace(scores=table[:, 4] * found.scores)


def columns(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(4 + classes, A): a box, and of each class whether it is of that class."""
    table = outputs["boxes"]
    kept = np.flatnonzero(table[4:].max(axis=0) >= least)
    return _best(table[:4, kept].T, table[4:, kept].T, writing)


def found(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(n, 6): a box, its score and the number of its class."""
    table = outputs["boxes"]
    table = table[table[:, 4] >= least]
    return Candidates(writing.xyxy(table[:, :4]), table[:, 4], table[:, 5].astype(np.int64))


def dets(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(n, 5), a box and its score, and (n,) labels."""
    found = outputs["boxes"]
    return Candidates(writing.xyxy(found[:, :4]), found[:, 4], outputs["labels"].astype(np.int64))


def plain(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(n, 4) boxes; (n,) scores, maybe with (n,) labels, or (n, classes) scores."""
    scores = outputs["scores"]
    if scores.ndim == 2:
        return _best(outputs["boxes"], scores, writing)
    labels = outputs.get("labels")
    return Candidates(writing.xyxy(outputs["boxes"]), scores, None if labels is None else labels.astype(np.int64))


def softmax(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(n, 4) boxes and (n, classes + 1) logits, the last for nothing (DETR, arXiv 2005.12872)."""
    logits = outputs["scores"].astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return _best(outputs["boxes"], shares[:, :-1], writing)


def sigmoid(outputs: Outputs, writing: Writing, least: float) -> Candidates:
    """(n, 4) boxes and (n, classes) logits."""
    return _best(outputs["boxes"], 1 / (1 + np.exp(-outputs["scores"].astype(np.float64))), writing)


def _best(boxes: NDArray, scores: NDArray, writing: Writing) -> Candidates:
    """Each box with its best class; `scores` are (A, classes)."""
    classes = scores.argmax(axis=1)
    return Candidates(writing.xyxy(boxes), scores[np.arange(len(scores)), classes], classes)


SHAPES: Mapping[str, Mapping[str, tuple[tuple[int | str, ...], ...]]] = {
    "grid": {"boxes": (("A", "5 + classes"),)},
    "rows": {"boxes": (("A", "5 + classes"),)},
    "columns": {"boxes": (("4 + classes", "A"),)},
    "found": {"boxes": (("n", 6),)},
    "dets": {"boxes": (("n", 5),), "labels": (("n",),)},
    "plain": {"boxes": (("n", 4),), "scores": (("n",), ("n", "classes")), "labels": (("n",),)},
    "softmax": {"boxes": (("n", 4),), "scores": (("n", "classes + 1"),)},
    "sigmoid": {"boxes": (("n", 4),), "scores": (("n", "classes"),)},
}
"""What each reader takes for one picture: of each output the shapes that it may have; "n" is the same for all."""
_LEAST = {"A": 0, "n": 0, "classes": 1, "classes + 1": 2, "4 + classes": 5, "5 + classes": 6}


def misread(reads: str, outputs: Outputs) -> tuple[str, str] | None:
    """Which output a reader cannot take, and what it must be; None where it can take all.

    Args:
        reads: a key of `READERS`.
        outputs: of one picture.
    """
    rows: int | None = None  # "n", once an output has told
    for role, shapes in SHAPES[reads].items():
        if role not in outputs:
            continue
        given = outputs[role]
        found = next((shape for shape in shapes if _is_of(given.shape, shape, rows)), None)
        if found is None or given.dtype.kind not in "biuf":
            wanted = " or ".join(f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})" for shape in shapes)
            return role, f"numbers {wanted}{f' with n = {rows}' if rows is not None else ''}"
        rows = len(given) if found[0] == "n" else rows
    return None


def _is_of(given: tuple[int, ...], shape: tuple[int | str, ...], rows: int | None) -> bool:
    if len(given) != len(shape) or (shape[0] == "n" and rows is not None and given[0] != rows):
        return False
    return all(n >= _LEAST[side] if isinstance(side, str) else n == side for n, side in zip(given, shape, strict=True))


READERS: dict[str, Callable[[Outputs, Writing, float], Candidates]] = {
    "grid": grid,
    "rows": rows,
    "columns": columns,
    "found": found,
    "dets": dets,
    "plain": plain,
    "softmax": softmax,
    "sigmoid": sigmoid,
}
