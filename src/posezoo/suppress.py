"""When several boxes found one person: keep the best pose, by how alike the poses are rather than the boxes.

Object keypoint similarity is COCO's (https://cocodataset.org/#keypoints-eval); greedy and soft suppression by it, and
the score of a pose, are those of the HRNet and Simple Baselines evaluation, which every later zoo took over. Parametric
pose NMS is that of Fang et al. 2017, "RMPE: Regional Multi-person Pose Estimation" (arXiv 1612.00137).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.errors import PosezooError
from posezoo.types import Poses

LEAST_JOINTS = 5  # of a face alone: nose, eyes and ears

Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]


def oks(
    keypoints: ArrayLike,
    areas: ArrayLike,
    reference: ArrayLike,
    ref_area: float,
    sigmas: ArrayLike,
    joint_scores: ArrayLike | None = None,
    score_threshold: float | None = None,
) -> Doubles:
    """Object keypoint similarity of each pose to one reference pose.

    Args:
        keypoints: (N, K, 2) pixels.
        areas: (N,) square pixels.
        reference: (K, 2) pixels.
        ref_area: its area; the mean of both areas sets the scale.
        sigmas: (K,) spread of each joint, see `Skeleton.oks_sigmas`.
        joint_scores: (N, K), needed with a threshold.
        score_threshold: leave out the joints of a pose that score no more than this (the reference's scores do not
            count, as in the HRNet code); a pose with no joint left has similarity 0.

    Returns:
        (N,) float64 in [0, 1].
    """
    poses = _poses(keypoints)
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    if poses.shape[1] != len(variance):
        raise PosezooError(f"poses of {poses.shape[1]} joints need as many sigmas, but there are {len(variance)}")
    squared = ((poses - np.asarray(reference, np.float64)) ** 2).sum(axis=2)
    area = (np.asarray(areas, np.float64).reshape(-1) + float(ref_area)) * 0.5 + np.spacing(1.0)
    near = np.exp(-squared / (2 * variance * area[:, None]))
    if score_threshold is None:
        return near.mean(axis=1)
    if joint_scores is None:
        raise PosezooError("a score threshold for similarity needs the scores of the joints")
    counted = np.asarray(joint_scores, np.float64).reshape(poses.shape[:2]) > score_threshold
    return (near * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def oks_nms(
    poses_xy: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    threshold: float = 0.9,
    joint_scores: ArrayLike | None = None,
    score_threshold: float | None = None,
) -> Indices:
    """Greedy suppression: a pose goes if its similarity to a better kept one is above `threshold`.

    Args:
        poses_xy: (N, K, 2) pixels.
        scores: (N,) of the poses.
        areas: (N,) square pixels.
        sigmas: (K,), see `oks`.
        threshold: similarity above which two poses are one person.
        joint_scores: (N, K), see `oks`.
        score_threshold: see `oks`.

    Returns:
        The rows kept, best first.
    """
    poses, score, area, joint_score = _inputs(poses_xy, scores, areas, joint_scores)
    waiting = np.argsort(-score, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        shown = None if joint_score is None else joint_score[waiting]
        alike = oks(poses[waiting], area[waiting], poses[best], area[best], sigmas, shown, score_threshold)
        waiting = waiting[alike <= threshold]
    return np.array(kept, np.intp)


def soft_oks_nms(
    poses_xy: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    threshold: float = 0.9,
    joint_scores: ArrayLike | None = None,
    score_threshold: float | None = None,
    max_people: int = 20,
) -> Indices:
    """Soft suppression: each kept pose lowers the scores of the others by `exp(-oks ** 2 / threshold)`.

    Args:
        poses_xy: (N, K, 2) pixels.
        scores: (N,) of the poses.
        areas: (N,) square pixels.
        sigmas: (K,), see `oks`.
        threshold: how gentle it is.
        joint_scores: (N, K), see `oks`.
        score_threshold: see `oks`.
        max_people: how many rows are kept at most; nothing else drops one.

    Returns:
        The rows kept, in the order in which they came to be the best.
    """
    poses, score, area, joint_score = _inputs(poses_xy, scores, areas, joint_scores)
    waiting = np.argsort(-score, kind="stable")
    score = score.copy()
    kept: list[np.intp] = []
    while len(waiting) and len(kept) < max_people:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        shown = None if joint_score is None else joint_score[waiting]
        alike = oks(poses[waiting], area[waiting], poses[best], area[best], sigmas, shown, score_threshold)
        score[waiting] *= np.exp(-(alike**2) / threshold)
        waiting = waiting[np.argsort(-score[waiting], kind="stable")]
    return np.array(kept, np.intp)


@dataclass(frozen=True)
class ParametricNms:
    """The numbers of parametric pose NMS. The paper learns them on a training set and prints none but the box share.

    Those here give what AlphaPose's code gave on the poses that it was tried on; poses can tell them only to within a
    fifth or so, hence the round numbers.

    Attributes:
        confidence: joint scores count as tanh(score / confidence).
        spread: of how near two joints are, exp(-distance ** 2 / spread), in square pixels.
        weight: how much nearness counts beside the matched joints.
        box_share: two joints match if one is within a box about the other of this share of the pose's own box.
        threshold: the similarity, a mean over the joints, from which on a pose goes.
        merge_pixels: how far from the kept pose's a joint may be to be averaged with it.
    """

    confidence: float = 0.1
    spread: float = 32.0
    weight: float = 1.5
    box_share: float = 0.1
    threshold: float = 0.4
    merge_pixels: float = 15.0


PARAMETRIC_NMS = {"wholebody133": ParametricNms(threshold=2.0)}
"""Keypoint sets that need other numbers: there the reference lets all but the closest copies live."""


def parametric_nms(
    poses_xy: ArrayLike,
    joint_scores: ArrayLike,
    boxes_xyxy: ArrayLike,
    joints: ArrayLike | None = None,
    settings: ParametricNms | None = None,
) -> tuple[Indices, Doubles, Doubles]:
    """Parametric pose NMS: poses that resemble a surer one go, and lend it their share of the joints (RMPE).

    The surest pose by its mean joint score is kept; those as similar to it as the threshold or more are merged into it,
    joint by joint, each weighing by its score; and so on with the rest. The similarity is the paper's: joints that
    match, softly by their scores, plus how near they are.

    Args:
        poses_xy: (N, K, 2) pixels.
        joint_scores: (N, K) in [0, 1].
        boxes_xyxy: (N, 4) the people's boxes in pixels.
        joints: which of the K joints decide how alike two poses are, as rows or a mask; None: all. For whole bodies
            those of the body, since the many joints of a face or a hand lie within one box share anyway.
        settings: the numbers; None: `ParametricNms()`.

    Returns:
        The M rows kept, surest first, and their merged poses (M, K, 2) and joint scores (M, K).
    """
    numbers = settings or ParametricNms()
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    poses = _poses(poses_xy)
    score = np.asarray(joint_scores, np.float64).reshape(poses.shape[:2])
    if len(poses) != len(boxes):
        raise PosezooError(f"{len(poses)} poses need as many boxes: {len(boxes)} given")
    decisive = slice(None) if joints is None else np.asarray(joints)
    waiting = np.argsort(-score.mean(axis=1), kind="stable") if len(poses) else np.zeros(0, np.intp)
    kept, merged_xy, merged_scores = [], np.zeros((0, *poses.shape[1:])), np.zeros((0, poses.shape[1]))
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        alike = _pose_similarity(poses[:, decisive], score[:, decisive], sides, waiting, best, numbers)
        group = np.append(best, waiting[alike >= numbers.threshold])
        waiting = waiting[alike < numbers.threshold]
        # the paper merges nothing; 15 pixels are the reference's, a share of the box keeps small people apart
        radius = min(numbers.merge_pixels, numbers.box_share * sides[best].max())
        xy, joint_score = _merge(poses[group], score[group], radius)
        kept.append(best)
        merged_xy, merged_scores = np.append(merged_xy, [xy], 0), np.append(merged_scores, [joint_score], 0)
    return np.array(kept, np.intp), merged_xy, merged_scores


def _pose_similarity(
    poses: Doubles, scores: Doubles, sides: Doubles, rows: Indices, best: np.intp, numbers: ParametricNms
) -> Doubles:
    """(len(rows),) similarity of each pose to the best one: RMPE's K_sim + weight * H_sim, as a mean over joints."""
    apart = np.abs(poses[rows] - poses[best])
    matched = (apart <= numbers.box_share / 2 * sides[rows, None]).all(axis=2)
    sure = np.tanh(scores[rows] / numbers.confidence) * np.tanh(scores[best] / numbers.confidence)
    near = np.exp(-(apart**2).sum(axis=2) / numbers.spread)
    return (sure * matched + numbers.weight * near).mean(axis=1)


def _merge(poses: Doubles, scores: Doubles, radius: float) -> tuple[Doubles, Doubles]:
    """One pose (K, 2) and its scores (K,): each joint of the first pose, averaged by score with those around it."""
    around = np.linalg.norm(poses - poses[0], axis=2) < radius
    weights = np.where(around, np.maximum(scores, 0), 0)
    weights[0] = np.maximum(weights[0], np.finfo(np.float64).tiny)  # a joint that nobody saw stays where it is
    shares = weights / weights.sum(axis=0)
    return (shares[..., None] * poses).sum(axis=0), (shares * scores).sum(axis=0)


def rescore(box_scores: ArrayLike, joint_scores: ArrayLike, threshold: float = 0.2, least: int = 1) -> Doubles:
    """The score of each pose: its box's, times the mean of its joint scores above `threshold` (0 if none is).

    Args:
        box_scores: (N,).
        joint_scores: (N, K).
        threshold: joints that score no more than this do not count.
        least: where fewer joints count, the best of the others make up this many.

    Returns:
        (N,) float64.
    """
    boxes = np.asarray(box_scores, np.float64).reshape(-1)
    joints = np.asarray(joint_scores, np.float64)
    joints = joints.reshape(len(boxes), -1) if joints.size else np.zeros((len(boxes), 0))
    counted = joints > threshold
    if least > 1:
        best = np.argsort(-joints, axis=1)[:, :least]
        np.put_along_axis(counted, best, counted.any(axis=1, keepdims=True), axis=1)
    return boxes * (joints * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def person_scores(poses: Poses) -> Doubles:
    """How sure the pipeline is of each person, (N,): `rescore`, of the best five joints at least.

    By its few sure joints alone, whatever looks like a nose would be as much of a person as somebody seen whole.
    """
    return rescore(poses.box_scores, poses.scores, least=LEAST_JOINTS)


def _poses(keypoints: ArrayLike) -> Doubles:
    """(N, K, 2) float64, or an error that says what came instead."""
    poses = np.asarray(keypoints, np.float64)
    if poses.ndim != 3 or poses.shape[2] != 2:
        raise PosezooError(f"poses must have shape (people, joints, 2), but have {poses.shape}")
    return poses


def _inputs(
    poses_xy: ArrayLike, scores: ArrayLike, areas: ArrayLike, joint_scores: ArrayLike | None
) -> tuple[Doubles, Doubles, Doubles, Doubles | None]:
    """All of it as float64, with lengths that agree."""
    poses = _poses(poses_xy)
    score = np.asarray(scores, np.float64).reshape(-1)
    area = np.asarray(areas, np.float64).reshape(-1)
    if not len(poses) == len(score) == len(area):
        raise PosezooError(f"{len(poses)} poses need as many scores and areas: {len(score)} and {len(area)} given")
    joint_score = None if joint_scores is None else np.asarray(joint_scores, np.float64).reshape(poses.shape[:2])
    return poses, score, area, joint_score
