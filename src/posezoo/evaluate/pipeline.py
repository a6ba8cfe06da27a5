"""Between a protocol and a metric: how pictures reach the estimator, and what the metric is given of each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.codecs import codec_name, get_codec
from posezoo.crop import box_to_center_scale
from posezoo.data.pictures import open_labelled
from posezoo.errors import PosezooError
from posezoo.estimator import Estimator
from posezoo.evaluate.plan import Task
from posezoo.evaluate.protocol import Protocol
from posezoo.media.images import Encoded
from posezoo.skeletons import Skeleton, map_joints
from posezoo.stream import PathLike, estimate_files
from posezoo.suppress import PARAMETRIC_NMS, oks_nms, parametric_nms, rescore, soft_oks_nms
from posezoo.types import Poses

BATCHES_AHEAD = 4  # so many pictures are read together as fill so many batches: few batches are sent half full

Doubles = NDArray[np.float64]
Found = tuple[Task, Poses | PosezooError]


def apply(protocol: Protocol, estimator: Estimator) -> Protocol:
    """Set the estimator as the protocol says, and fill in what the protocol leaves to the model."""
    spec = estimator.spec
    estimator.flip = protocol.flip
    estimator.spec = spec = replace(
        spec,
        codec=spec.codec if protocol.decode is None else get_codec(protocol.decode),
        box_scale=spec.box_scale if protocol.box_scale is None else protocol.box_scale,
        flip_shift=spec.flip_shift if protocol.flip_shift is None else protocol.flip_shift,
    )
    return replace(protocol, decode=codec_name(spec.codec), box_scale=spec.box_scale, flip_shift=spec.flip_shift)


def joint_columns(estimator: Estimator, skeleton: Skeleton) -> NDArray[np.int64]:
    """Where each joint of a dataset is among those that the estimator gives, by name.

    Raises:
        PosezooError: the network does not know a joint that the dataset wants.
    """
    columns = map_joints(estimator.skeleton, skeleton)
    lacking = [joint for joint, column in zip(skeleton.joints, columns, strict=True) if column < 0]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise PosezooError(
            f"{estimator.spec.name} gives {estimator.skeleton.name}, which has no {', '.join(lacking[:3])}{more}; "
            f"this dataset wants {skeleton.name}: choose a model of those joints (posezoo list --keypoints "
            f"{skeleton.name})"
        )
    return columns


def trial_poses(task: Task, skeleton: Skeleton) -> Poses:
    """A pose for each box of a picture, all of whose joints are in its middle: to see what can be done with poses."""
    xyxy = task.boxes.xyxy
    middles = np.repeat(xyxy.reshape(-1, 1, 2, 2).mean(axis=2), len(skeleton), axis=1)
    return Poses(middles, np.ones(middles.shape[:2], np.float32), xyxy, task.boxes.scores, skeleton)


def estimate(estimator: Estimator, tasks: Sequence[Task]) -> Iterator[Found]:
    """The poses in each picture as its annotators saw it, or why it is not to be used."""

    def opening(path: PathLike) -> Encoded:
        return open_labelled(Path(path), sizes_wh[os.fspath(path)])

    each = max(1.0, sum(len(task.boxes) for task in tasks) / max(1, len(tasks)))
    ahead = math.ceil(BATCHES_AHEAD * estimator.batch_size / each)
    sizes_wh = {os.fspath(task.path): task.size_wh for task in tasks}
    paths, boxes = [task.path for task in tasks], [task.boxes for task in tasks]
    with estimate_files(estimator, paths, boxes, look_ahead=ahead, opening=opening) as found:
        for task, (_, poses) in zip(tasks, found, strict=True):
            yield task, poses


def judgeable(
    task: Task, poses: Poses, protocol: Protocol, estimator: Estimator, skeleton: Skeleton, columns: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """What the dataset's metric is given of one picture: joints of its own set, suppressed and scored.

    Args:
        task: the picture.
        poses: what the estimator found in it, one pose a box.
        protocol: as `apply` filled it in.
        estimator: whose crop the area of a pose is taken from.
        skeleton: the dataset's.
        columns: see `joint_columns`.

    Returns:
        `{image_id, category_id, keypoints: [x, y, score] * K, score}`, with `annotation` where the task has them.

    Raises:
        PosezooError: the network gave something that is not finite.
    """
    xy, joint_scores = poses.keypoints_xy[:, columns].astype(float), poses.scores[:, columns].astype(float)
    if not (np.isfinite(xy).all() and np.isfinite(joint_scores).all()):
        raise PosezooError(f"{estimator.spec.name} gave a joint in {task.path} that is not a finite number")
    rows = np.arange(len(poses))
    if protocol.nms == "parametric":
        body = [skeleton.index(joint) for joint in skeleton.parts.get("body", skeleton.joints)]
        numbers = PARAMETRIC_NMS.get(skeleton.name)
        rows, xy, joint_scores = parametric_nms(xy, joint_scores, poses.boxes_xyxy, body, numbers)
    scores = _person_scores(protocol, poses.box_scores[rows].astype(float), joint_scores)
    if protocol.nms in ("oks", "soft-oks"):
        # the area is that of the crop, not of the box: so have HRNet and MMPose
        spec = estimator.spec
        areas = box_to_center_scale(poses.boxes_xyxy, spec.input_size_wh, spec.box_scale)[1].prod(axis=1)
        suppress = oks_nms if protocol.nms == "oks" else soft_oks_nms
        kept = suppress(xy, scores, areas, skeleton.oks_sigmas, protocol.nms_threshold)
        rows, xy, joint_scores, scores = rows[kept], xy[kept], joint_scores[kept], scores[kept]
    triples = np.concatenate([xy.round(4), joint_scores.round(6)[..., None]], axis=2).reshape(len(rows), -1)
    found: list[dict[str, Any]] = [
        {"image_id": task.image_id, "category_id": 1, "keypoints": keypoints, "score": score}
        for keypoints, score in zip(triples.tolist(), scores.tolist(), strict=True)
    ]
    if task.annotations is not None:
        for prediction, annotation in zip(found, task.annotations[rows].tolist(), strict=True):
            prediction["annotation"] = annotation
    return found


def _person_scores(protocol: Protocol, box_scores: Doubles, joint_scores: Doubles) -> Doubles:
    if protocol.rescoring == "none":
        return box_scores
    of_boxes = box_scores if protocol.rescoring == "product" else np.ones_like(box_scores)
    return rescore(of_boxes, joint_scores, protocol.min_joint_score)
