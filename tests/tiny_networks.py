"""Networks small enough to read, whose right answer is known: they see colours.

The pose network's even joints are where red is, its odd joints where blue is. The detector finds a person in every cell
of 32 x 32 network pixels that is green; the person's box is the cell with 32 pixels more on every side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 120, 120)
METADATA = {
    "skeleton": "coco17",
    "codec": "heatmap-dark",
    "input_size_wh": [192, 256],
    "channels": "rgb",
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "box_scale": 1.25,
    "flip_shift": False,
}


def _save(path: Path, nodes: list, outputs: dict[str, list], constants: dict[str, np.ndarray], metadata: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        helper.set_model_props(model, {"posezoo": text})
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def pose_network(path: Path, joints: int = 17, metadata: Any = METADATA, all_blue: bool = False) -> Path:
    """Heatmaps (N, joints, H/4, W/4) of input in [0, 1]: colour averaged over 4 x 4 pixels, then blurred."""
    sees = np.zeros((joints, 3, 4, 4), np.float32)
    sees[0::2] = np.array([1, -1, -1], np.float32)[:, None, None] / 16
    sees[0 if all_blue else 1 :: 1 if all_blue else 2] = np.array([-1, -1, 1], np.float32)[:, None, None] / 16
    bell = cv2.getGaussianKernel(9, 1.5).astype(np.float32)
    blur = np.tile(bell @ bell.T, (joints, 1, 1, 1))
    nodes = [
        helper.make_node("Conv", ["image", "sees"], ["seen"], strides=[4, 4]),
        helper.make_node("Relu", ["seen"], ["positive"]),
        helper.make_node("Conv", ["positive", "blur"], ["heatmaps"], pads=[4, 4, 4, 4], group=joints),
    ]
    return _save(path, nodes, {"heatmaps": ["N", joints, "h", "w"]}, {"sees": sees, "blur": blur}, metadata)


def detector_network(path: Path, metadata: Any = None) -> Path:
    """Scores (N, A) and boxes (N, A, 4) of input in [-1, 1]."""
    green = np.tile(np.array([-1, 1, -1], np.float32)[None, :, None, None] / 2048, (1, 1, 32, 32))
    corner = np.array([-32, -32, 64, 64], np.float32)
    constants = {
        "green": green,
        "bias": np.array([-0.5], np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "which": np.array([3, 2, 3, 2]),  # column, row, column, row
        "stride": np.array(32, np.float32),
        "corner": corner,
        "four": np.array([4]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "green", "bias"], ["raw"], strides=[32, 32]),
        helper.make_node("Clip", ["raw", "zero", "one"], ["cells"]),
        helper.make_node("Flatten", ["cells"], ["scores"]),
        helper.make_node("Add", ["cells", "one"], ["all"]),
        helper.make_node("NonZero", ["all"], ["index"]),
        helper.make_node("Gather", ["index", "which"], ["places"], axis=0),
        helper.make_node("Transpose", ["places"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["float_rows"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float_rows", "stride"], ["pixels"]),
        helper.make_node("Add", ["pixels", "corner"], ["flat"]),
        helper.make_node("Shape", ["scores"], ["count"]),
        helper.make_node("Concat", ["count", "four"], ["shape"], axis=0),
        helper.make_node("Reshape", ["flat", "shape"], ["boxes_xyxy"]),
    ]
    return _save(path, nodes, {"scores": ["N", "A"], "boxes_xyxy": ["N", "A", 4]}, constants, metadata)


def picture(width: int, height: int, people: list[tuple[int, int]], unit: int = 64) -> np.ndarray:
    """Grey, with people: a green square with its corner at these multiples of `unit`, red above and blue below it."""
    image = np.full((height, width, 3), GREY, np.uint8)
    for column, row in people:
        x, y = column * unit, row * unit
        image[y : y + unit, x : x + unit] = GREEN
        for colour, (px, py) in zip((RED, BLUE), joints_of(column, row, unit), strict=True):
            cv2.circle(image, (px, py), unit // 4, colour, -1)
    return image


def joints_of(column: int, row: int, unit: int = 64) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the even joints and the odd joints of a person of `picture` are."""
    x, y = column * unit, row * unit
    return (x + unit // 2, y - unit // 2), (x + unit * 3 // 4, y + unit * 3 // 2)
