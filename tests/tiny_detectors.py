"""Detector graphs of every kind that others export, small enough to read: each gives one box, as sure as red is bright.

`SCENE` is grey with one orange person in `PERSON_BOX`. A graph's outputs are constants, except that the score is what
its input has at the person's middle in the channel where red should be, brought back to 0..1: a wrong layout, order of
colours or normalisation gives another score, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

SIDE = 64
PERSON_BOX = [120.0, 20.0, 160.0, 80.0]
SCORE = 204 / 255
SCENE = np.full((100, 200, 3), 60, np.uint8)
SCENE[20:80, 120:160] = (204, 102, 51)

TOP_LEFT = np.array([38.4, 6.4, 51.2, 25.6])  # the person in a square of SIDE, 0.32 times as large
CENTRED = TOP_LEFT + np.array([0, 16, 0, 16])
STRETCHED = np.array([38.4, 12.8, 51.2, 51.2])
_TYPES = {np.float32: TensorProto.FLOAT, np.uint8: TensorProto.UINT8, np.float16: TensorProto.FLOAT16}


@dataclass
class Eye:
    """Where a graph looks in its input, and what it makes of what it sees."""

    channel: int = 0
    xy: tuple[int, int] = (44, 16)
    scale: float = 1.0
    offset: float = 0.0


RGB = Eye()
BGR_255 = Eye(2, scale=1 / 255)


def graph(
    path: Path,
    outputs: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    eye: Eye,
    shape: Sequence[int | str | None] = ("N", 3, SIDE, SIDE),
    *,
    dtype: type = np.float32,
    first: str = "Conv",
    more: Sequence[str] = (),
    others: Sequence[tuple[str, int, Sequence[int | str]]] = (),
    metadata: Mapping[str, str] | None = None,
    bare: bool = False,
) -> Path:
    """Write a graph.

    Args:
        path: the file.
        outputs: for each, what it is for one picture, and where the score is added to it (None: nowhere).
        eye: where it looks.
        shape: of the input; three sides for one that takes a single picture.
        dtype: of the input.
        first: the operator that takes the input, "Conv" or "Slice".
        more: further operators that do nothing, such as "Relu".
        others: further inputs: name, type and shape.
        metadata: of the file.
        bare: its outputs have no side for the batch, which is one.
    """
    batched, last = len(shape) == 4, shape[-1] == 3
    (x, y), axes = eye.xy, ([1, 2] if last else [2, 3])
    constants = {
        "starts": np.array([y, x, eye.channel]),
        "ends": np.array([y + 1, x + 1, eye.channel + 1]),
        "axes": np.array([*axes, 3 if last else 1]) - (0 if batched else 1),
        "one": np.ones((3, 1, 1, 1), np.float32),
        "scale": np.array(eye.scale, np.float32),
        "offset": np.array(eye.offset, np.float32),
    }
    nodes, image = [], "image"
    if dtype != np.float32:
        nodes, image = [helper.make_node("Cast", [image], ["cast"], to=TensorProto.FLOAT)], "cast"
    if first == "Conv" and batched and not last:
        nodes, image = [*nodes, helper.make_node("Conv", [image, "one"], ["same"], group=3)], "same"
    nodes.append(helper.make_node("Slice", [image, "starts", "ends", "axes"], ["pixel"]))
    names = ["pixel", "scaled", "seen"]
    for kind, (a, b), c in (("Mul", names[:2], "scale"), ("Add", names[1:], "offset")):
        nodes.append(helper.make_node(kind, [a, c], [b]))
    for number, kind in enumerate(more):
        nodes.append(helper.make_node(kind, [names[-1]], [f"more{number}"]))
        names.append(f"more{number}")
    for name, (base, where) in outputs.items():
        mask = np.zeros_like(base) if where is None else where
        whole = np.issubdtype(base.dtype, np.integer)
        sides = ([-1] if batched and not bare else []) + [1] * base.ndim
        constants |= {f"{name}_base": base.astype(np.float32), f"{name}_mask": mask.astype(np.float32)}
        constants[f"{name}_sides"] = np.array(sides or [1])
        nodes += [
            helper.make_node("Reshape", [names[-1], f"{name}_sides"], [f"{name}_seen"]),
            helper.make_node("Mul", [f"{name}_seen", f"{name}_mask"], [f"{name}_part"]),
            helper.make_node("Add", [f"{name}_part", f"{name}_base"], [f"{name}_all" if whole else name]),
        ]
        if whole:
            nodes.append(helper.make_node("Cast", [f"{name}_all"], [name], to=TensorProto.INT64))
    made = [
        helper.make_tensor_value_info(
            name,
            TensorProto.INT64 if np.issubdtype(base.dtype, np.integer) else TensorProto.FLOAT,
            [shape[0] if isinstance(shape[0], int) else "N", *base.shape] if batched and not bare else base.shape,
        )
        for name, (base, _) in outputs.items()
    ]
    taken = [helper.make_tensor_value_info("image", _TYPES[dtype], shape)]
    taken += [helper.make_tensor_value_info(*other) for other in others]
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", taken, made, arrays),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    helper.set_model_props(model, dict(metadata or {}))
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def at(shape: Sequence[int], *index: int) -> np.ndarray:
    """Zeros with a one."""
    where = np.zeros(shape, np.float32)
    where[tuple(index)] = 1
    return where


def middle(box: np.ndarray) -> np.ndarray:
    """Corners to centre and size."""
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def yolox(path: Path, raw: bool = True, classes: int = 80, label: int = 0, **options) -> Path:
    """One person in the cell of column 5, row 2 of the grid of stride 8."""
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(SIDE // s) for x in range(SIDE // s)]
    table = np.zeros((len(cells), 5 + classes), np.float32)
    row, box = cells.index((5, 2, 8)), middle(TOP_LEFT)
    if raw:
        table[row, :4] = [box[0] / 8 - 5, box[1] / 8 - 2, np.log(box[2] / 8), np.log(box[3] / 8)]
    else:
        table[:, :4] = [[(x + 0.5) * s, (y + 0.5) * s, s, s] for x, y, s in cells]
        table[row, :4] = box
    table[row, 5 + label] = 1
    return graph(path, {"output": (table, at(table.shape, row, 4))}, BGR_255, **options)


def yolov5(path: Path) -> Path:
    """The same with three boxes a cell, in pixels."""
    table = np.zeros((3 * 84, 85), np.float32)
    table[100, :4], table[100, 5] = middle(CENTRED), 1
    return graph(path, {"output": (table, at(table.shape, 100, 4))}, Eye(xy=(44, 32)))


def yolov6(path: Path) -> Path:
    """As YOLOX's with all in pixels, but of every box it says that there is something."""
    table = np.zeros((84, 85), np.float32)
    table[20, :4], table[:, 4] = middle(CENTRED), 1
    return graph(path, {"outputs": (table, at(table.shape, 20, 5))}, Eye(xy=(44, 32)))


def yolov10(path: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """(n, 6): the person, a car, and what fills it up."""
    table = np.array([[*CENTRED, 0, 0], [1, 1, 30, 20, 0.9, 2], *np.zeros((3, 6))], np.float32)
    return graph(path, {"output0": (table, at(table.shape, 0, 4))}, Eye(xy=(44, 32)), metadata=metadata)


def yolov8(path: Path, classes: int = 1, label: int = 0, metadata: Mapping[str, str] | None = None) -> Path:
    """(4 + classes, 84)."""
    table = np.zeros((4 + classes, 84), np.float32)
    table[:4, 7] = middle(CENTRED)
    where = at(table.shape, 4 + label, 7)
    return graph(path, {"output0": (table, where)}, Eye(xy=(44, 32)), metadata=metadata)


def dets(path: Path, eye: Eye, labels: Sequence[int] = (0, 0, 2), **options) -> Path:
    """(n, 5) and labels (n,): the person, a box that is not sure, and a car."""
    boxes = np.array([[*TOP_LEFT, 0], [0, 0, 9, 9, 0.1], [1, 1, 30, 20, 0.9]], np.float32)
    found = {"dets": (boxes, at(boxes.shape, 0, 4)), "labels": (np.array(labels), None)}
    return graph(path, found, eye, **options)


RTMDET = Eye(2, scale=58.395 / 255, offset=123.675 / 255)


PLAIN = ("boxes", "labels", "scores")


def plain(path: Path, box: np.ndarray, eye: Eye, label: int = 1, names: Sequence[str] = PLAIN, **options) -> Path:
    """(n, 4), labels (n,) and scores (n,), in this order: the person, and something else."""
    boxes = np.array([box, [1, 1, 9, 9]], np.float32)
    found = [(boxes, None), (np.array([label, 7]), None), (np.array([0, 0.9]), at((2,), 0))]
    return graph(path, dict(zip(names, found, strict=True)), eye, **options)


def detr(path: Path, classes: int, eye: Eye, size: tuple[int, int], box: np.ndarray, label: int, start: float) -> Path:
    """logits (2, classes) and shares of the input; the person's logit is `start` and what the eye sees."""
    logits = np.full((2, classes), -9.0, np.float32)
    logits[0, label], logits[1, 3] = start, 2
    boxes = np.array([middle(box / np.tile(size, 2)), [0.5, 0.5, 0.1, 0.1]], np.float32)
    found = {"logits": (logits, at(logits.shape, 0, label)), "pred_boxes": (boxes, None)}
    return graph(path, found, eye, ("N", 3, "H", "W") if classes == 92 else ("N", 3, SIDE, SIDE))
