"""The share of joints found closely enough (PCK), where each annotated person or hand has one prediction.

The functions on arrays give MMPose's figures to the last bit (its `keypoint_pck_accuracy`, `keypoint_auc`,
`keypoint_epe`, `keypoint_nme`), so distances are float32 as there. `evaluate` judges MPII by PCKh, JHMDB by PCK of box
and torso, and hands by PCK, AUC and EPE. A person without a prediction is infinitely far off: every joint is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.errors import unknown_name
from posezoo.evaluate.predictions import Prediction
from posezoo.evaluate.truth import one_per_annotation, read_coco, read_mpii
from posezoo.skeletons import get_skeleton

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

# Left and right of each row of a table, by skeleton; both have these names.
_PAIRS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_MPII_ROWS = ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
_JHMDB_ROWS = ("Sho", "Elb", "Wri", "Hip", "Knee", "Ank")


def normalized_distances(predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, scale: ArrayLike) -> Floats:
    """How far each joint is off, in units of `scale`.

    Args:
        predicted: (N, K, 2) pixels.
        truth: (N, K, 2) pixels.
        visible: (N, K), true where the joint is labelled.
        scale: (N, 2) pixels, the unit along x and y. Nobody of unit 0 is judged.

    Returns:
        (N, K) float32; -1 where a joint is not judged, inf where it was not predicted.
    """
    found, real = np.asarray(predicted), np.asarray(truth)
    unit = np.array(scale)
    judged = np.asarray(visible).astype(bool) & (unit != 0).all(axis=1)[:, None]
    unit[unit <= 0] = 1e6
    distances = np.full(judged.shape, -1, np.float32)
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(((found - real) / unit[:, None, :])[judged], axis=-1)
    distances[judged] = np.where(np.isnan(off), np.inf, off)
    return distances


def accuracy_below(distances: Floats, threshold: float) -> tuple[Doubles, float, int]:
    """The share of each joint's distances (N, K) below `threshold`; see `pck_accuracy`."""
    judged = distances != -1
    people = judged.sum(axis=0)
    right = (judged & (distances < np.float32(threshold))).sum(axis=0)
    shares = np.where(people > 0, right / np.maximum(people, 1), -1.0)
    known = shares[shares >= 0]
    return shares, float(known.mean()) if len(known) else 0.0, len(known)


def pck_accuracy(
    predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, threshold: float, scale: ArrayLike
) -> tuple[Doubles, float, int]:
    """The share of joints nearer than `threshold`, strictly (Yang and Ramanan, TPAMI 2013).

    Args:
        predicted: (N, K, 2) pixels.
        truth: (N, K, 2) pixels.
        visible: (N, K), true where the joint is labelled.
        threshold: in units of `scale`.
        scale: (N, 2) pixels, see `normalized_distances`.

    Returns:
        each joint's share (K,), -1 where nobody has it; the mean of the others (0 if there are none); their number.
    """
    return accuracy_below(normalized_distances(predicted, truth, visible, scale), threshold)


def auc(predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, scale: float, steps: int = 20) -> float:
    """The mean PCK over the thresholds 0, 1/steps, ... 1 - 1/steps of `scale` pixels: the area under its curve."""
    distances = normalized_distances(predicted, truth, visible, np.full((len(np.asarray(truth)), 2), scale))
    means = [accuracy_below(distances, step / steps)[1] for step in range(steps)]
    return float(sum(1.0 / steps * mean for mean in means))


def epe(predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike) -> float:
    """The mean distance of the labelled joints, in pixels (end-point error); inf where a joint was not predicted."""
    return nme(predicted, truth, visible, np.ones((len(np.asarray(truth)), 2), np.float32))


def nme(predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, scale: ArrayLike) -> float:
    """The mean distance of the labelled joints in units of `scale`, see `normalized_distances`; 0 if none is."""
    by_joint = normalized_distances(predicted, truth, visible, scale).T
    judged = by_joint[by_joint != -1]
    return float(judged.sum() / max(1, len(judged)))


def pose_pck_accuracy(
    heatmaps: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    threshold: float = 0.05,
    scale: ArrayLike | None = None,
) -> tuple[Doubles, float, int]:
    """`pck_accuracy` of the highest pixels of two stacks of heatmaps.

    Args:
        heatmaps: (N, K, h, w), of a network.
        target: (N, K, h, w), the truth.
        visible: (N, K), true where the joint is labelled.
        threshold: in units of `scale`.
        scale: (N, 2) pixels; if not given, h along x and w along y, as MMPose has it.
    """
    from posezoo.codecs.heatmap import peaks

    found, real = (np.where(values[..., None] > 0, xy, -1) for xy, values in (peaks(heatmaps), peaks(target)))
    people, _, height, width = np.shape(heatmaps)
    if scale is None:
        scale = np.tile([[height, width]], (people, 1))
    return pck_accuracy(found, real, visible, threshold, scale)


def pckh(errors: ArrayLike, visible: ArrayLike, threshold: float = 0.5) -> Doubles:
    """Percent of each joint's labels met within `threshold`, inclusive (Andriluka et al., CVPR 2014).

    Args:
        errors: (N, K) distances in units of the head.
        visible: (N, K), true where the joint is labelled.
        threshold: in units of the head.

    Returns:
        (K,), NaN where nobody has the joint.
    """
    marked = np.asarray(visible).astype(bool)
    with np.errstate(invalid="ignore"):
        return 100.0 * (marked & (np.asarray(errors) <= threshold)).sum(axis=0) / marked.sum(axis=0)


def evaluate(
    predictions: Sequence[Prediction],
    annotations: Path | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    dataset: str,
    **options: float,
) -> dict[str, float]:
    """Judge predictions of mpii, jhmdb or hand21 as they are.

    Args:
        predictions: `{annotation: index in the file, keypoints: [x, y, score] * K, score}`; pixels, from 0.
        annotations: the file, or its contents. mpii: HRNet's gt_valid.mat; or the JSON list of people, each with its
            `headbox` (x1, y1, x2, y2), or with gt_valid.mat or mpii_gt_val.mat beside the file.
        dataset: "mpii", "jhmdb" or "hand21".
        options: what `mpii_pckh`, `jhmdb_pck` or `hand_pck` take.

    Returns:
        mpii: Head ... Ankle, Mean, Mean@0.1 in percent. jhmdb: PCK/Head ... PCK/Mean and tPCK/... as fractions; a joint
        that nobody has gives -1. hand21: PCK, AUC as fractions, EPE in pixels.

    Raises:
        PosezooError: the annotations cannot be read or used, or a prediction does not belong to one.
    """
    if dataset not in JUDGES:
        raise unknown_name("dataset judged by PCK", dataset, JUDGES)
    return JUDGES[dataset](predictions, annotations, **options)


def mpii_pckh(
    predictions: Sequence[Prediction], annotations: Any, threshold: float = 0.5, fine_threshold: float = 0.11
) -> dict[str, float]:
    """PCKh as HRNet and Simple Baselines report it, in percent.

    The unit is 0.6 of the head box's diagonal; labels count pixels from 1. The mean weighs joints by their labels and
    leaves out pelvis and thorax.

    Args:
        predictions: see `evaluate`.
        annotations: see `evaluate`.
        threshold: in heads.
        fine_threshold: that of "Mean@0.1": the eleventh hundredth in HRNet's code, and so in its tables; MMPose: 0.1.
    """
    skeleton = get_skeleton("mpii16")
    truth = read_mpii(annotations)
    poses = one_per_annotation(predictions, len(truth.head_sizes), "mpii") + 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.linalg.norm(poses - truth.joints_xy, axis=2) / truth.head_sizes[:, None]
    percent, fine = (pckh(errors, truth.visible, t) for t in (threshold, fine_threshold))
    counts = truth.visible.sum(axis=0).astype(np.float64)
    counts[[skeleton.index("pelvis"), skeleton.index("thorax")]] = 0
    with np.errstate(invalid="ignore"):
        ratio = counts / counts.sum()
    result = {"Head": float(percent[skeleton.index("head_top")])}
    for row, joint in zip(_MPII_ROWS, _PAIRS, strict=True):
        left, right = skeleton.index(f"left_{joint}"), skeleton.index(f"right_{joint}")
        result[row] = float(0.5 * (percent[left] + percent[right]))
    result["Mean"] = float(np.where(counts > 0, percent * ratio, ratio).sum())
    result["Mean@0.1"] = float(np.where(counts > 0, fine * ratio, ratio).sum())
    return result


def jhmdb_pck(
    predictions: Sequence[Prediction], annotations: Any, threshold: float = 0.2, offset: float = 1.0
) -> dict[str, float]:
    """PCK in units of the longer side of the box, and tPCK in units of the torso, as MMPose reports them.

    JHMDB's labels and boxes count pixels from 1. MMPose takes that 1 off its labels, and adds it to its predictions:
    a perfect pose is one pixel off along x and y. Its figures, and so these, are of that.

    Args:
        predictions: see `evaluate`.
        annotations: one sub's file; the published figure is the mean of the three subs.
        threshold: in boxes or torsos.
        offset: pixels added to predictions that count from 0; 0 for the figure without MMPose's slip.
    """
    skeleton = get_skeleton("jhmdb15")
    truth = read_coco(annotations, "jhmdb")
    found = one_per_annotation(predictions, len(truth.visible), "jhmdb").astype(np.float32) + np.float32(offset)
    real = (truth.joints_xy - 1).astype(np.float32)
    left_top = np.maximum(truth.boxes_xywh[:, :2] - 1, 0)
    right_bottom = np.minimum(truth.image_size_wh - 1, left_top + np.maximum(truth.boxes_xywh[:, 2:], 0))
    sides = right_bottom - left_top
    visible = truth.visible & (sides > 0).all(axis=1)[:, None]
    shoulder, hip = skeleton.index("left_shoulder"), skeleton.index("right_hip")
    torso, guessed = (np.linalg.norm(pose[:, shoulder] - pose[:, hip], axis=1) for pose in (real, found))
    units = {"PCK": sides.max(axis=1), "tPCK": np.where(torso < 1, guessed, torso)}
    result = {}
    for name, unit in units.items():
        shares, mean, _ = pck_accuracy(found, real, visible, threshold, np.stack([unit, unit], axis=1))
        result[f"{name}/Head"] = float(shares[skeleton.index("head")])
        for row, joint in zip(_JHMDB_ROWS, _PAIRS, strict=True):
            left, right = skeleton.index(f"left_{joint}"), skeleton.index(f"right_{joint}")
            result[f"{name}/{row}"] = float(0.5 * shares[right] + 0.5 * shares[left])
        result[f"{name}/Mean"] = mean
    return result


def hand_pck(
    predictions: Sequence[Prediction], annotations: Any, threshold: float = 0.2, auc_scale: float = 30
) -> dict[str, float]:
    """PCK in units of the box's longer side, AUC of PCK up to `auc_scale` pixels, EPE in pixels, as MMPose has them.

    Of a file of COCO-WholeBody each labelled hand is an annotation, see `posezoo.data.readers.hands_of`.
    """
    truth = read_coco(annotations, "hand21")
    found = one_per_annotation(predictions, len(truth.visible), "hand21")
    real = truth.joints_xy.astype(np.float32)
    side = truth.boxes_xywh[:, 2:].max(axis=1)
    return {
        "PCK": pck_accuracy(found, real, truth.visible, threshold, np.stack([side, side], axis=1))[1],
        "AUC": auc(found, real, truth.visible, auc_scale),
        "EPE": epe(found, real, truth.visible),
    }


JUDGES: dict[str, Callable[..., dict[str, float]]] = {"mpii": mpii_pckh, "jhmdb": jhmdb_pck, "hand21": hand_pck}
"""What judges each dataset, and takes its options."""
