"""How well whole people are followed: MOTA, IDF1 and HOTA, by TrackEval.

TrackEval is in no extra: what it asks for has a second OpenCV, which would take the place of ours. `INSTALL` is how it
comes without.

PoseTrack's own MOTA (`posetrack.evaluate`) follows each joint by itself. These measures follow people: somebody found
and somebody annotated are as similar as their object keypoint similarity (COCO's, over the annotated joints, with the
annotated box for the person's size). CLEAR MOT: Bernardin and Stiefelhagen 2008. IDF1: Ristani et al. 2016. HOTA:
Luiten et al. 2020, whose code TrackEval is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.catalog import get_dataset
from posezoo.data.coco_style import People
from posezoo.errors import PosezooError, unknown_name
from posezoo.evaluate.posetrack import inside
from posezoo.evaluate.predictions import Prediction, to_columns
from posezoo.skeletons import Skeleton
from posezoo.types import Poses

INSTALL = "pip install --no-deps trackeval scipy tabulate pillow"
BOX_FILL = 0.53
"""The share of a person's box that is person, as in COCO's evaluation of boxes without an area."""
KEYS = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDSW", "Frag", "IDF1", "IDP", "IDR")
"""In percent, except the counts IDSW (switches of ids) and Frag (tracks interrupted)."""

Doubles = NDArray[np.float64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Side:
    """The N followed people of a frame, annotated or found.

    Attributes:
        tracks: (N,) int64, who each is.
        keypoints_xy: (N, K, 2) pixels.
        shown: (N, K) the joints there are.
        areas: (N,) square pixels; of use for the annotated only.
    """

    tracks: NDArray[np.int64]
    keypoints_xy: Doubles
    shown: Marks
    areas: Doubles

    def where(self, rows: Marks) -> Side:
        """Those at `rows`."""
        return Side(*(values[rows] for values in vars(self).values()))


Frame = tuple[Side, Side]
"""Who is annotated in a frame, and who was found in it."""


def evaluate(
    predictions: Sequence[Prediction],
    annotations: Path | Mapping[str, Any],
    dataset: str = "posetrack18",
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Judge how the people of PoseTrack18's videos were followed.

    As in PoseTrack's evaluation, joints within ignored regions, people left without joints by that, and frames in which
    nobody is labelled do not count. Predictions with a negative `track_id` were not followed and are left out.

    Args:
        predictions: `{image_id, keypoints: [x, y, score] * 17, score, track_id}`; a joint at 0, 0 with score 0 is one
            that was not predicted.
        annotations: the folder of per-video files; or one file with every video.
        dataset: "posetrack18".
        threshold: the least similarity of a pair, for MOTA and IDF1; HOTA is the mean over 0.05, 0.1, ... 0.95.

    Returns:
        `KEYS`, of all videos together.

    Raises:
        PosezooError: TrackEval is not installed; annotations or predictions that cannot be used.
    """
    from posezoo.data.videos import read_posetrack

    if dataset != "posetrack18":
        raise unknown_name("dataset with followed people", dataset, ["posetrack18"])
    if not isinstance(annotations, Path):
        raise PosezooError("give the folder of PoseTrack18's annotation files, or one of them, not its contents")
    entry = get_dataset(dataset)
    people = read_posetrack(annotations, Path(), entry)
    tracks = _tracks_of(predictions)
    columns = to_columns(predictions, people.image_ids.tolist(), entry.joints.joints, dataset)
    found = Side(
        tracks,
        columns.keypoints[..., :2],
        (columns.keypoints != 0).any(axis=2),
        np.zeros(len(tracks)),
    )
    return judge(_videos(people, found, columns.rows), entry.joints, threshold=threshold)


def judge_poses(found: Sequence[Poses], truth: Sequence[Poses], *, threshold: float = 0.5) -> dict[str, float]:
    """Judge how the people of one video were followed.

    Args:
        found: of each frame, with track ids; those with a negative one were not followed and are left out.
        truth: as many frames, with track ids; joints that score 0 are not annotated.
        threshold: see `evaluate`.

    Returns:
        `KEYS`.
    """
    if len(found) != len(truth):
        raise PosezooError(f"{len(found)} frames were found, but {len(truth)} are annotated")
    frames = [(_side(right), _side(left)) for left, right in zip(found, truth, strict=True)]
    if not frames:
        raise PosezooError("a video without frames cannot be judged")
    if any(poses.skeleton != truth[0].skeleton for poses in (*found, *truth)):
        raise PosezooError(f"some of the poses are not of {truth[0].skeleton.name}")
    return judge([frames], truth[0].skeleton, threshold=threshold)


def judge(videos: Sequence[Sequence[Frame]], skeleton: Skeleton, *, threshold: float = 0.5) -> dict[str, float]:
    """Judge videos of annotated and found people; see `evaluate`."""
    try:
        from trackeval import metrics
    except ModuleNotFoundError as err:
        raise PosezooError(f"judging how whole people are followed needs {err.name}: {INSTALL}") from None
    config = {"THRESHOLD": threshold, "PRINT_CONFIG": False}
    sequences = [_sequence(video, skeleton) for video in videos]
    figures: dict[str, float] = {}
    for metric in (metrics.HOTA(), metrics.CLEAR(config), metrics.Identity(config)):
        each = {str(number): metric.eval_sequence(sequence) for number, sequence in enumerate(sequences)}
        total = metric.combine_sequences(each)
        figures |= {key: float(np.mean(total[key])) for key in KEYS if key in total}
    return {key: figures[key] * (1 if key in ("IDSW", "Frag") else 100) for key in KEYS}


def similarity(truth: Side, found: Side, skeleton: Skeleton) -> Doubles:
    """Object keypoint similarity of each annotated person and each found one, (G, N), over the annotated joints."""
    spread = 2 * (2 * skeleton.oks_sigmas) ** 2 * np.maximum(truth.areas, 1)[:, None]
    off = ((truth.keypoints_xy[:, None] - found.keypoints_xy[None]) ** 2).sum(axis=3)
    near = np.where(truth.shown[:, None] & found.shown[None], np.exp(-off / spread[:, None]), 0)
    return np.asarray(near.sum(axis=2) / np.maximum(truth.shown.sum(axis=1), 1)[:, None])


def _sequence(video: Sequence[Frame], skeleton: Skeleton) -> dict[str, Any]:
    """One video as TrackEval takes it; tracks are numbered from 0."""
    sides = {"gt": [truth for truth, _ in video], "tracker": [found for _, found in video]}
    sequence: dict[str, Any] = {"num_timesteps": len(video)}
    for name, frames in sides.items():
        tracks, numbers = np.unique(np.concatenate([frame.tracks for frame in frames]), return_inverse=True)
        ends = np.cumsum([len(frame.tracks) for frame in frames])
        sequence[f"{name}_ids"] = np.split(numbers, ends[:-1])
        sequence[f"num_{name}_ids"], sequence[f"num_{name}_dets"] = len(tracks), len(numbers)
    return sequence | {"similarity_scores": [similarity(truth, found, skeleton) for truth, found in video]}


def _videos(people: People, found: Side, row: NDArray[np.intp]) -> list[list[Frame]]:
    """The labelled frames of each video, in time; `row` says which picture each found person is in."""
    assert people.track_ids is not None
    marked = people.weights > 0
    truth = Side(people.track_ids, people.keypoints_xy.astype(np.float64), marked, _areas(people))
    if (truth.tracks < 0).any():
        raise PosezooError("the annotations have people without a 'track_id', so tracks cannot be judged")
    videos: dict[str, list[tuple[int, Frame]]] = {}
    for picture in np.unique(people.image_row).tolist():
        frame = people.frames[picture]
        sides = (truth.where(people.image_row == picture), found.where(row == picture))
        kept = [_outside(side, frame.ignore_xy) for side in sides]
        _check_once(kept[1].tracks, f"image {people.image_ids[picture]}")
        videos.setdefault(frame.video, []).append((frame.number, (kept[0], kept[1])))
    return [[sides for _, sides in sorted(frames, key=lambda each: each[0])] for frames in videos.values()]


def _areas(people: People) -> Doubles:
    low, high = people.boxes_xyxy[:, :2].astype(np.float64), people.boxes_xyxy[:, 2:]
    return np.asarray((high - low).prod(axis=1) * BOX_FILL)


def _outside(side: Side, regions: Sequence[NDArray[np.float32]]) -> Side:
    """Without the joints inside ignored regions, the people who then have none, and those who were not followed."""
    shown = side.shown.copy()
    for region in regions:
        shown[shown] &= ~inside(side.keypoints_xy[shown], region.astype(np.float64))
    return Side(side.tracks, side.keypoints_xy, shown, side.areas).where(shown.any(axis=1) & (side.tracks >= 0))


def _side(poses: Poses) -> Side:
    """The followed people of a frame."""
    if poses.track_ids is None and len(poses):
        raise PosezooError("the people of a frame have no track ids: give the poses to a Tracker first")
    tracks = np.zeros(0, np.int64) if poses.track_ids is None else poses.track_ids
    _check_once(tracks[tracks >= 0], "a frame")
    boxes = poses.boxes_xyxy.astype(np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * BOX_FILL
    shown = (poses.scores > 0) & np.isfinite(poses.keypoints_xy).all(axis=2)
    xy = np.where(shown[..., None], poses.keypoints_xy, 0).astype(np.float64)
    return Side(tracks, xy, shown, areas).where(tracks >= 0)


def _check_once(tracks: NDArray[np.int64], where: str) -> None:
    values, counts = np.unique(tracks, return_counts=True)
    for track in values[counts > 1].tolist():
        raise PosezooError(f"{where} has two people with the 'track_id' {track}")


def _tracks_of(predictions: Sequence[Prediction]) -> NDArray[np.int64]:
    """(N,) the tracks of predictions."""
    tracks = np.zeros(len(predictions), np.int64)
    for number, prediction in enumerate(predictions):
        track = prediction.get("track_id")
        if track is None:
            raise PosezooError(f"prediction {number} has no 'track_id': only followed people can be judged")
        try:
            tracks[number] = int(track)
        except (TypeError, ValueError, OverflowError):
            raise PosezooError(f"prediction {number} has the 'track_id' {track!r}, expected a whole number") from None
    return tracks
