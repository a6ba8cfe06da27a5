"""What predictions are judged against where each annotated person has one: the labels, and the poses in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.data import joints
from posezoo.data.catalog import get_dataset
from posezoo.data.coco_style import read_json
from posezoo.data.readers import coco_form
from posezoo.errors import PosezooError
from posezoo.evaluate.mat5 import read_mat
from posezoo.evaluate.predictions import SKELETONS, Prediction, to_columns
from posezoo.skeletons import get_skeleton

Doubles = NDArray[np.float64]
Marks = NDArray[np.bool_]

# Where HRNet (gt_valid) and MMPose (mpii_gt_val) keep the head boxes of MPII's validation people, beside the JSON file.
MPII_TRUTH = ("gt_valid.mat", "mpii_gt_val.mat")
HEAD_FACTOR = 0.6  # of the head box's diagonal; MPII's own evaluation: about the length of the head


def one_per_annotation(predictions: Sequence[Prediction], annotations: int, dataset: str) -> Doubles:
    """The predicted poses in the order of the annotations that they name by index.

    Args:
        predictions: `{annotation, keypoints: [x, y, score] * K, score}`.
        annotations: how many there are.
        dataset: whose keypoint set it is.

    Returns:
        (annotations, K, 2) pixels; NaN for those without a prediction.

    Raises:
        PosezooError: a prediction has a wrong form, or no valid index, or two have the same.
    """
    names = get_skeleton(SKELETONS[dataset]).joints
    columns = to_columns(predictions, range(annotations), names, dataset)
    counts = np.bincount(columns.rows, minlength=annotations)
    if (counts > 1).any():
        raise PosezooError(
            f"annotation {counts.argmax()} has {counts.max()} predictions; each person of {dataset} has one"
        )
    poses = np.full((annotations, len(names), 2), np.nan)
    poses[columns.rows] = columns.keypoints[..., :2]
    return poses


@dataclass(frozen=True, eq=False)
class MpiiTruth:
    """MPII's people: joints (N, 16, 2) in pixels from 1, visible (N, 16), and the length of each head (N,)."""

    joints_xy: Doubles
    visible: Marks
    head_sizes: Doubles


def read_mpii(annotations: Any) -> MpiiTruth:
    """MPII's truth from HRNet's or MMPose's files, see `evaluate`.

    Raises:
        PosezooError: the file cannot be read, is no such file, or nothing tells how large the heads are.
    """
    path = annotations if isinstance(annotations, Path) else None
    if path is not None and path.suffix == ".mat":
        return _mpii_mat(path)
    people, where = (annotations, "the annotations") if path is None else (read_json(path), str(path))
    if not isinstance(people, Sequence):
        raise PosezooError(f"{where} is not a list of MPII people, but {type(people).__name__}")
    try:
        unboxed = next((number for number, person in enumerate(people) if "headbox" not in person), None)
        xy = np.array([np.asarray(p["joints"], np.float64)[:, :2] for p in people]).reshape(len(people), 16, 2)
        visible = np.array([p["joints_vis"] for p in people], np.float64).reshape(len(people), 16) > 0
        boxes = np.array([p.get("headbox", (0, 0, 0, 0)) for p in people], np.float64).reshape(-1, 2, 2)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not a list of MPII people: {type(err).__name__} {err}") from None
    if unboxed is None:
        return MpiiTruth(xy, visible, head_lengths(boxes))
    beside = [path.with_name(name) for name in MPII_TRUTH if path.with_name(name).is_file()] if path else []
    if not beside:
        raise PosezooError(
            f"{where}: person {unboxed} has no 'headbox', the unit of PCKh; put {MPII_TRUTH[0]} of the HRNet code "
            f"beside the file, or give it as the annotations"
        )
    truth = _mpii_mat(beside[0])
    if len(truth.head_sizes) != len(people):
        raise PosezooError(f"{where} has {len(people)} people, {beside[0]} {len(truth.head_sizes)}")
    return truth


def head_lengths(boxes_xyxy: ArrayLike) -> Doubles:
    """0.6 of the diagonal of each head box, (N,) from (N, 4) or (N, 2, 2) pixels."""
    corners = np.asarray(boxes_xyxy, np.float64).reshape(-1, 2, 2)
    return np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1) * HEAD_FACTOR


def _mpii_mat(path: Path) -> MpiiTruth:
    """Of `gt_valid.mat`: `pos_gt_src` (16, 2, N), `jnt_missing` (16, N) and `headboxes_src` (2, 2, N)."""
    content = read_mat(path)
    wanted = {"pos_gt_src": (16, 2), "jnt_missing": (16,), "headboxes_src": (2, 2)}
    arrays = {}
    for name, shape in wanted.items():
        value = content.get(name)
        if not isinstance(value, np.ndarray) or value.shape[: len(shape)] != shape:
            has = f"has the shape {value.shape}" if isinstance(value, np.ndarray) else "is missing"
            raise PosezooError(f"{path} is not MPII's gt_valid.mat: '{name}' {has}")
        # MATLAB drops a last axis of length 1
        arrays[name] = np.moveaxis(value.reshape(*shape, -1), -1, 0).astype(np.float64)
    if len({len(a) for a in arrays.values()}) != 1:
        raise PosezooError(f"{path}: its arrays are of {sorted({len(a) for a in arrays.values()})} people")
    return MpiiTruth(arrays["pos_gt_src"], arrays["jnt_missing"] == 0, head_lengths(arrays["headboxes_src"]))


@dataclass(frozen=True, eq=False)
class CocoTruth:
    """Annotated people in their order in the file.

    Attributes:
        joints_xy: (N, K, 2), pixels as the file counts them, in the skeleton's order.
        visible: (N, K).
        boxes_xywh: (N, 4).
        image_size_wh: (N, 2) of each one's picture.
        entries: the N annotations, as COCO has them.
    """

    joints_xy: Doubles
    visible: Marks
    boxes_xywh: Doubles
    image_size_wh: Doubles
    entries: Sequence[Mapping[str, Any]]


def read_coco(annotations: Any, dataset: str) -> CocoTruth:
    """The people of a dataset's file, or of its contents, as its reader has them; a crowd is nobody to judge.

    Raises:
        PosezooError: the file cannot be read, is another dataset's or lacks a field.
    """
    content = read_json(annotations) if isinstance(annotations, Path) else annotations
    where = str(annotations) if isinstance(annotations, Path) else "the annotations"
    joints.need_annotations(content, where)
    content, columns, count = coco_form(content, where, get_dataset(dataset))
    entries = content["annotations"]
    try:
        sizes = {p["id"]: (p.get("width", np.inf), p.get("height", np.inf)) for p in content["images"]}
        labels = joints.labels(entries, columns, count)
        boxes = np.array([a.get("bbox", (0, 0, 0, 0)) for a in entries], np.float64).reshape(-1, 4)
        image = np.array([sizes[a["image_id"]] for a in entries], np.float64).reshape(-1, 2)
        single = np.array([not a.get("iscrowd", 0) for a in entries], bool)
    except PosezooError as err:
        raise PosezooError(f"{where}: {err}") from None
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not a COCO keypoint file: {type(err).__name__} {err}") from None
    return CocoTruth(labels[..., :2], (labels[..., 2] > 0) & single[:, None], boxes, image, entries)
