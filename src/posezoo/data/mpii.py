"""Readers of MPII in HRNet's and MMPose's JSON, and of MPII-TRB. Neither has boxes: they have centres and scales."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.data import joints as names
from posezoo.data.catalog import Dataset
from posezoo.data.coco_style import BODY_SHARE, Floats, People, read_json, to_people
from posezoo.errors import PosezooError

Doubles = NDArray[np.float64]

UNIT = 200.0  # pixels: MPII's scale is the person's height in these
MARGIN = 1.25  # what the zoos' crop is larger than the person, and what a model's `box_scale` adds
TRB_SIZE = 256.0  # pixels: TRB's scale is that of the crop of this size to the picture


def crop_center_scale(centers: ArrayLike, scales: ArrayLike) -> tuple[Doubles, Doubles]:
    """MPII's centres and scales as HRNet crops by them: a little lower and larger, and in pixels from 0.

    The centre goes down by 15 scales and the scale grows by 1.25, so that limbs are not cut off; then the centre is
    counted from 0, as MATLAB's from 1. A centre of -1 stands for none and is left where it is.

    Args:
        centers: (N, 2) pixels from 1.
        scales: (N,) in 200 pixels.

    Returns:
        centers (N, 2) in pixels from 0, scales (N,) in 200 pixels.
    """
    center = np.array(centers, np.float64).reshape(-1, 2)
    scale = np.array(scales, np.float64).reshape(-1)
    known = center[:, 0] != -1
    center[known, 1] += 15 * scale[known]
    scale[known] *= MARGIN
    return center - 1, scale


def square_boxes(centers: Doubles, sides: Doubles) -> Floats:
    """(N, 4) boxes xyxy about `centers` (N, 2); a side under 0 counts as 0."""
    half = np.maximum(sides, 0)[:, None] / 2
    return np.concatenate([centers - half, centers + half], axis=1).astype(np.float32)


def read_mpii(annotations: Path, images: Path, dataset: Dataset) -> People:
    """A list of people: `image`, `center`, `scale`, `joints` (16, 2), `joints_vis` (16,); the test file has no joints.

    A box is the square that, grown by 1.25, is the region that HRNet and MMPose crop. The heads are those of HRNet's
    gt_valid.mat (MMPose's mpii_gt_val.mat) where it lies beside the file and has as many people. People are numbered
    by their place in the file.
    """
    content, where = read_json(annotations), str(annotations)
    if not isinstance(content, list) or not names.is_mpii(content):
        raise PosezooError(f"{where} {names.whose(content)}; mpii wants HRNet's or MMPose's JSON list of people")
    count = len(dataset.joints)
    try:
        keypoints = np.zeros((len(content), count, 3), np.float32)
        for row, person in enumerate(content):
            if "joints" in person:
                keypoints[row, :, :2] = np.array(person["joints"], np.float64).reshape(count, 2) - 1
                keypoints[row, :, 2] = np.reshape(person["joints_vis"], count)
        centers, scales = crop_center_scale([p["center"] for p in content], [p["scale"] for p in content])
        files = [str(person["image"]) for person in content]
    except (KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not a list of MPII's people: {type(err).__name__} {err}") from None
    rows = {file: row for row, file in enumerate(dict.fromkeys(files))}
    weights = (keypoints[..., 2] > 0).astype(np.float32)
    boxes = square_boxes(centers, scales * (UNIT / MARGIN))
    sides = boxes[:, 2] - boxes[:, 0]
    numbers = np.arange(len(content), dtype=np.int64)
    return People(
        images=tuple(images / file for file in rows),
        image_ids=np.arange(len(rows), dtype=np.int64),
        sources=("",) * len(rows),
        image_row=np.array([rows[file] for file in files], np.int64),
        ids=numbers,
        boxes_xyxy=boxes,
        areas=sides * sides * np.float32(BODY_SHARE),
        keypoints_xy=np.where(weights[..., None] > 0, keypoints[..., :2], np.float32(0)),
        weights=weights,
        skeleton=dataset.joints,
        index=numbers,
        sizes_wh=np.zeros((len(rows), 2), np.int64),
        heads_xyxy=_heads(annotations, len(content)),
    )


def _heads(annotations: Path, people: int) -> Floats | None:
    """The head boxes of the file beside `annotations`, in pixels from 0; None where it is of other people."""
    from posezoo.evaluate.mat5 import read_mat
    from posezoo.evaluate.truth import MPII_TRUTH

    for file in (annotations.with_name(name) for name in MPII_TRUTH):
        if file.is_file():
            heads = read_mat(file).get("headboxes_src")
            if isinstance(heads, np.ndarray) and heads.reshape(2, 2, -1).shape[2] == people:
                return np.moveaxis(heads.reshape(2, 2, -1), 2, 0).reshape(-1, 4).astype(np.float32) - 1
    return None


def read_trb(annotations: Path, images: Path, dataset: Dataset) -> People:
    """MMPose's COCO-style file of MPII-TRB: people have `center` and `scale`, and a `headbox` where they are judged.

    Its scale is that of a crop of 256 pixels to the picture: the larger, the smaller the person. A box is the square
    that, grown by 1.25, is that crop. Centres and joints are taken as they stand, as MMPose does.
    """
    where = str(annotations)
    content = names.coco_content(read_json(annotations), where, dataset)
    columns, count = names.order(content, where, dataset)
    entries = content["annotations"]
    try:
        centers = np.array([e["center"] for e in entries], np.float64).reshape(-1, 2)
        scales = np.array([e["scale"] for e in entries], np.float64)
        heads = np.array([e.get("headbox", [np.nan] * 4) for e in entries], np.float32).reshape(-1, 4)
        boxes = square_boxes(centers, TRB_SIZE / MARGIN / np.where(scales > 0, scales, np.inf))
        boxed = [_with_box(entry, box) for entry, box in zip(entries, boxes.tolist(), strict=True)]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(f"{where} is not MPII-TRB: {type(err).__name__} {err}") from None
    people = to_people({**content, "annotations": boxed}, where, images, dataset.joints, columns, count)
    headed = heads[people.index]
    return replace(people, heads_xyxy=headed if np.isfinite(headed).any() else None)


def _with_box(entry: dict[str, Any], box: list[float]) -> dict[str, Any]:
    return {**entry, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
