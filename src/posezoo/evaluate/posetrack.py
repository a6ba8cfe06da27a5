"""PoseTrack18: how precisely the joints of many people are found, and how well they are followed.

The protocol is that of the data set's own evaluation, poseval (Andriluka et al., CVPR 2018, section 4; the average
precision is from DeepCut, Pishchulin et al., CVPR 2016), down to its habits, as the published figures are made by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data import joints as names
from posezoo.data.catalog import get_dataset
from posezoo.data.coco_style import read_json
from posezoo.data.videos import polygons
from posezoo.errors import PosezooError, unknown_name
from posezoo.evaluate.mot import Followed, follow
from posezoo.evaluate.predictions import Prediction, to_columns
from posezoo.evaluate.truth import head_lengths
from posezoo.skeletons import get_skeleton

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]
Marks = NDArray[np.bool_]

# The 15 joints that are judged, in the order that their mean is taken in; the ears are never labelled.
JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "head_bottom", "nose", "head_top",
)  # fmt: skip
ROWS = {
    "Head": ("head_top", "head_bottom", "nose"),
    "Shou": ("right_shoulder", "left_shoulder"),
    "Elb": ("right_elbow", "left_elbow"),
    "Wri": ("right_wrist", "left_wrist"),
    "Hip": ("right_hip", "left_hip"),
    "Knee": ("right_knee", "left_knee"),
    "Ankl": ("right_ankle", "left_ankle"),
}
NO_TRACK = -1


@dataclass(frozen=True, eq=False)
class _Frames:
    """The F frames in which somebody is labelled, in the order of the files.

    Attributes:
        row: which frame an image id is; -1 where nobody is labelled.
        video: (F,) the number of its video.
        regions: per frame, the polygons (n, 2) within which nothing is judged.
    """

    row: dict[Any, int]
    video: Indices
    regions: list[list[Doubles]]

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True, eq=False)
class _Poses:
    """N poses ordered by frame (N,): xy and marked (whether there is such a joint), scores, head lengths, tracks."""

    frame: Indices
    xy: Doubles
    marked: Marks
    scores: Doubles
    heads: Doubles
    tracks: Indices

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, keep: Marks | Indices) -> _Poses:
        return _Poses(**{name: value[keep] for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Each pose found with each true one of its frame: both rows (M,); distances in heads and near (M, 15)."""

    found: Indices
    truth: Indices
    distances: Doubles
    near: Marks


def evaluate(
    predictions: Sequence[Prediction],
    annotations: Path | Mapping[str, Any],
    dataset: str = "posetrack18",
    *,
    threshold: float = 0.5,
    people: bool = False,
) -> dict[str, float]:
    """Judge predictions of PoseTrack18 as they are.

    Joints within ignored regions, and frames in which nobody is labelled, do not count. A joint at 0, 0 with score 0
    is one that was not predicted.

    Args:
        predictions: `{image_id, keypoints: [x, y, score] * 17, score}`. With `scores`, those are the joints' scores
            instead. With `track_id`, unique in a frame, it is also judged how people are followed.
        annotations: the folder of per-video files; or one file with every video, or its contents.
        dataset: "posetrack18".
        threshold: how far off a joint may be, in 0.6 of the diagonal of the head's box.
        people: judge too how whole people are followed, see `posezoo.evaluate.tracking` (needs TrackEval).

    Returns:
        Head, Shou, Elb, Wri, Hip, Knee, Ankl, Total: average precision in percent. With tracks: MOTA, MOTP, Precision,
        Recall in percent over all joints, then MOTA/Head ... Recall/Ankl, see `_tracking`. NaN where nothing is
        labelled; the totals are of the other joints. With `people`: people/HOTA, people/IDF1 and the others of
        `posezoo.evaluate.tracking.KEYS`.

    Raises:
        PosezooError: the annotations cannot be used, or a prediction is of no known picture or has a wrong form.
    """
    if dataset != "posetrack18":
        raise unknown_name("dataset judged by PoseTrack's metrics", dataset, ["posetrack18"])
    frames, truth = _read(annotations)
    found = _found(predictions, frames)
    follows = _has_tracks(predictions, found, truth, frames)
    truth, found = _outside_regions(truth, frames), _outside_regions(found, frames)
    pairs = _pairs(found, truth, threshold)
    table, total = _table(_average_precisions(found, truth, pairs))
    table["Total"] = total
    if follows:
        measures = {name: _table(values) for name, values in _tracking(found, truth, pairs, frames).items()}
        table |= {name: mean for name, (_, mean) in measures.items()}
        table |= {f"{name}/{row}": value for name, (rows, _) in measures.items() for row, value in rows.items()}
    if people:
        from posezoo.evaluate import tracking

        whole = tracking.evaluate(predictions, annotations, dataset)
        table |= {f"people/{name}": value for name, value in whole.items()}
    return table


def _table(values: Doubles) -> tuple[dict[str, float], float]:
    """The mean of each row's joints, and that of all joints that have a value, from (15,)."""
    rows = {row: float(np.mean([values[JOINTS.index(joint)] for joint in joints])) for row, joints in ROWS.items()}
    known = values[~np.isnan(values)]
    return rows, float(known.mean()) if len(known) else float("nan")


# ---- reading


def _read(annotations: Path | Mapping[str, Any]) -> tuple[_Frames, _Poses]:
    """The labelled frames and people of a folder, a file or a file's contents."""
    row: dict[Any, int] = {}
    videos: dict[tuple[int, Any], int] = {}
    video: list[int] = []
    regions: list[list[Doubles]] = []
    people: list[Mapping[str, Any]] = []
    labels: list[Doubles] = []
    dataset = get_dataset("posetrack18")
    for number, (where, content) in enumerate(_contents(annotations)):
        names.need_annotations(content, where)
        content = names.coco_content(content, where, dataset)
        columns, count = names.order(content, where, dataset)
        try:
            labels.append(names.labels(content["annotations"], columns, count))
            labelled = {person["image_id"] for person in content["annotations"]}
            for image in content["images"]:
                row[image["id"]] = len(video) if image["id"] in labelled else -1
                if image["id"] in labelled:
                    video.append(videos.setdefault((number, image.get("vid_id")), len(videos)))
                    sides = (polygons(image.get(f"ignore_regions_{axis}")) for axis in "xy")
                    outlines = zip(*sides, strict=True)
                    regions.append([np.array(outline, np.float64).T.reshape(-1, 2) for outline in outlines])
            people += content["annotations"]
        except PosezooError as err:
            raise PosezooError(f"{where}: {err}") from None
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
            raise PosezooError(f"{where} is not a PoseTrack18 file: {type(err).__name__} {err}") from None
    frames = _Frames(row, np.array(video, np.int64), regions)
    try:
        frame = np.array([row[person["image_id"]] for person in people], np.int64)
        boxes = np.array([person["bbox_head"] for person in people], np.float64).reshape(-1, 2, 2)
        tracks = np.array([_track(person) for person in people], np.int64)
    except (KeyError, OverflowError, TypeError, ValueError) as err:
        raise PosezooError(
            f"the annotations in {annotations if isinstance(annotations, Path) else 'the mapping'} are not all of "
            f"PoseTrack18, with a 'bbox_head': {type(err).__name__} {err}"
        ) from None
    boxes[:, 1] += boxes[:, 0]
    given = np.concatenate(labels)
    return frames, _poses(frame, given, given[..., 2], head_lengths(boxes), tracks)


def _contents(annotations: Path | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Where it is from and what it holds, of each annotation file."""
    if not isinstance(annotations, Path):
        yield "the annotations", annotations
        return
    files = sorted(annotations.glob("*.json")) if annotations.is_dir() else [annotations]
    if not files:
        raise PosezooError(f"{annotations} has no .json file; give the folder of per-video annotation files")
    for file in files:
        yield str(file), read_json(file)


def _track(person: Mapping[str, Any]) -> int:
    track = person.get("track_id")
    return NO_TRACK if track is None else int(track)


def _poses(frame: Indices, labels: Doubles, scores: Doubles, heads: Doubles, tracks: Indices) -> _Poses:
    """Ordered by frame, those of no frame left out, and with the joints that are judged."""
    skeleton = get_skeleton("posetrack17")
    columns = [skeleton.index(joint) for joint in JOINTS]
    marked = (labels != 0).any(axis=2) & np.isfinite(labels).all(axis=2) & np.isfinite(scores)
    poses = _Poses(frame, labels[:, columns, :2], marked[:, columns], scores[:, columns], heads, tracks)
    order = np.argsort(frame, kind="stable")
    return poses.where(order[frame[order] >= 0])


def _found(predictions: Sequence[Prediction], frames: _Frames) -> _Poses:
    """The predicted poses."""
    columns = to_columns(predictions, frames.row, get_skeleton("posetrack17").joints, "posetrack18")
    frame = np.array(list(frames.row.values()), np.int64)[columns.rows]
    scores = columns.keypoints[..., 2].copy()
    tracks = np.zeros(len(frame), np.int64)
    for number, prediction in enumerate(predictions):
        try:
            tracks[number] = _track(prediction)
            if prediction.get("scores") is not None and len(prediction["scores"]):
                scores[number] = prediction["scores"]
        except (TypeError, ValueError, OverflowError) as err:
            raise PosezooError(
                f"prediction {number} has a 'track_id' that is no whole number, or 'scores' that are not "
                f"{scores.shape[1]} numbers: {err}"
            ) from None
    return _poses(frame, columns.keypoints, scores, np.ones(len(frame)), tracks)


def _has_tracks(predictions: Sequence[Prediction], found: _Poses, truth: _Poses, frames: _Frames) -> bool:
    """Whether the predictions are of followed people, all of them, and the truth is too."""
    without = [number for number, prediction in enumerate(predictions) if prediction.get("track_id") is None]
    if len(without) == len(predictions):
        return False
    if without:
        raise PosezooError(f"prediction {without[0]} has no 'track_id', but others do; give one to all or to none")
    if (truth.tracks == NO_TRACK).any():
        raise PosezooError("the annotations have people without a 'track_id', so tracks cannot be judged")
    pairs, counts = np.unique(np.stack([found.frame, found.tracks]), axis=1, return_counts=True)
    for frame, track in pairs[:, counts > 1].T.tolist():
        image = next(image for image, row in frames.row.items() if row == frame)
        raise PosezooError(f"image {image!r} has two predictions with the 'track_id' {track}")
    return True


# ---- matching


def _outside_regions(poses: _Poses, frames: _Frames) -> _Poses:
    """Without the joints inside ignored regions, and in frames with such regions without poses that have no joint."""
    marked = poses.marked.copy()
    starts = np.searchsorted(poses.frame, np.arange(len(frames) + 1))
    bounded = np.zeros(len(frames), bool)
    for frame, outlines in enumerate(frames.regions):
        rows = slice(starts[frame], starts[frame + 1])
        bounded[frame] = len(outlines) > 0
        for polygon in outlines:
            marked[rows][marked[rows]] &= ~inside(poses.xy[rows][marked[rows]], polygon)
    keep = marked.any(axis=1) | ~bounded[poses.frame]
    return _Poses(**{**vars(poses), "marked": marked}).where(keep)


def inside(points_xy: Doubles, polygon_xy: Doubles) -> Marks:
    """Which points (N, 2) are inside a polygon (n, 2), not on its outline; even and odd where it crosses itself."""
    within = np.zeros(len(points_xy), bool)
    if len(polygon_xy) < 3:
        return within
    low, high = polygon_xy.min(axis=0), polygon_xy.max(axis=0)
    maybe = np.flatnonzero(((points_xy > low) & (points_xy < high)).all(axis=1))
    if len(maybe) == 0:
        return within
    maybe = maybe[np.argsort(points_xy[maybe, 1])]
    x, y = points_xy[maybe].T
    ends = np.concatenate([polygon_xy[1:], polygon_xy[:1]])
    lower, upper = np.minimum(polygon_xy, ends), np.maximum(polygon_xy, ends)
    first = np.searchsorted(y, lower[:, 1])
    edge, point = _runs(first, np.searchsorted(y, upper[:, 1], side="right") - first)  # each edge, points at its height
    (start_x, start_y), (end_x, end_y), x, y = polygon_xy[edge].T, ends[edge].T, x[point], y[point]
    side = (end_x - start_x) * (y - start_y) - (end_y - start_y) * (x - start_x)
    crosses = ((start_y >= y) != (end_y >= y)) & ((side > 0) == (end_y > start_y))
    odd = np.bincount(point[crosses], minlength=len(maybe)) % 2 == 1
    odd[point[(side == 0) & (x >= lower[edge, 0]) & (x <= upper[edge, 0])]] = False
    within[maybe] = odd
    return within


def _runs(first: Indices, count: Indices) -> tuple[Indices, Indices]:
    """Which of the runs `first`, `first + 1`, ... of `count` numbers, and which number: all runs in a row."""
    run = np.repeat(np.arange(len(count)), count)
    return run, np.arange(len(run)) - (np.cumsum(count) - count)[run] + first[run]


def _pairs(found: _Poses, truth: _Poses, threshold: float) -> _Pairs:
    """Every pose found beside every true one of its frame; by the found one, then the true one."""
    first = np.searchsorted(truth.frame, found.frame)
    count = np.searchsorted(truth.frame, found.frame, side="right") - first
    left, right = _runs(first, count)
    distances = np.full((len(left), len(JOINTS)), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for joint in range(len(JOINTS)):  # one at a time: all would take 15 times the memory
            off = found.xy[left, joint] - truth.xy[right, joint]
            both = found.marked[left, joint] & truth.marked[right, joint]
            distances[both, joint] = (np.sqrt((off * off).sum(axis=1)) / truth.heads[right])[both]
    return _Pairs(left, right, distances, distances <= threshold)


def _correct(found: _Poses, truth: _Poses, pairs: _Pairs) -> Marks:
    """Which joints of the poses found are right, (N, 15): near that of the one true pose that the whole pose is for.

    Each pose found is for the true one most of whose joints it meets; of those for the same true pose, the one that
    meets most stays. The first wins among equals. All joints of the others are wrong.
    """
    labels = truth.marked.sum(axis=1)[pairs.truth]
    share = pairs.near.sum(axis=1) / np.maximum(labels, 1)
    best = _first_of_each(pairs.found, np.lexsort((pairs.truth, -share, pairs.found)))
    best = best[share[best] > 0]
    winners = best[_first_of_each(pairs.truth[best], np.lexsort((pairs.found[best], -share[best], pairs.truth[best])))]
    correct = np.zeros((len(found), len(JOINTS)), bool)
    correct[pairs.found[winners]] = pairs.near[winners]
    return correct


def _first_of_each(groups: Indices, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first row of each group in an order that has the groups together."""
    ordered = groups[order]
    return order[np.append(True, ordered[1:] != ordered[:-1])] if len(order) else order


# ---- figures


def _average_precisions(found: _Poses, truth: _Poses, pairs: _Pairs) -> Doubles:
    """Of each joint, in percent (15,): the area under precision over recall, as in PASCAL VOC from 2010 on."""
    correct = _correct(found, truth, pairs)
    result = np.zeros(len(JOINTS))
    for joint in range(len(JOINTS)):
        rows = np.flatnonzero(found.marked[:, joint])
        if len(rows):  # a joint that nobody predicted has 0, even where none is labelled
            best_first = rows[np.argsort(found.scores[rows, joint], kind="stable")[::-1]]
            result[joint] = _area(correct[best_first, joint], int(truth.marked[:, joint].sum())) * 100
    return result


def _area(correct: Marks, labelled: int) -> float:
    """Average precision of detections, best first, of which `correct` (N,) tells right from wrong; NaN of no label."""
    if not labelled:
        return float("nan")
    hits = np.cumsum(correct)
    recall = np.concatenate([[0.0], hits / labelled, [1.0]])
    precision = np.concatenate([[0.0], hits / np.arange(1, len(hits) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def _tracking(found: _Poses, truth: _Poses, pairs: _Pairs, frames: _Frames) -> dict[str, Doubles]:
    """MOTA, MOTP, Precision and Recall of each joint in percent, (15,): each joint is followed on its own.

    MOTP is 100 % less the mean distance, in heads, of the pairs. Habits of poseval: the last labelled frame of each
    video is left out (not of a video that has only one, on which poseval breaks off), and a frame that has only
    predictions or only labels counts as one miss and one false positive of every joint.
    """
    lengths = np.bincount(frames.video)
    last = np.zeros(len(lengths), np.int64)
    last[frames.video] = np.arange(len(frames))
    counted = np.ones(len(frames), bool)
    counted[last[lengths > 1]] = False
    both = np.isin(np.arange(len(frames)), truth.frame) & np.isin(np.arange(len(frames)), found.frame)
    lone = int((counted & ~both).sum())
    judged = counted & both
    labels = truth.marked[judged[truth.frame]].sum(axis=0) + lone
    positives = found.marked[judged[found.frame]].sum(axis=0) + lone
    frame = truth.frame[pairs.truth]
    in_time = np.lexsort((pairs.found, pairs.truth, frames.video[frame]))
    in_time = in_time[judged[frame[in_time]]]
    followed = [_follow_joint(joint, in_time, found, truth, pairs, frames) for joint in range(len(JOINTS))]
    hits, switches, distance = (
        np.array([getattr(f, name) for f in followed], np.float64) for name in ("detections", "switches", "distance")
    )
    labels, positives = (np.where(count > 0, count, np.nan) for count in (labels, positives))
    return {
        "MOTA": 100 * (1 - (labels - hits + switches + np.nan_to_num(positives) - hits) / labels),
        "MOTP": 100 * (1 - distance / np.maximum(hits, 1)) * (hits > 0),
        "Precision": 100 * (hits / positives),
        "Recall": 100 * (hits / labels),
    }


def _follow_joint(
    joint: int, in_time: NDArray[np.intp], found: _Poses, truth: _Poses, pairs: _Pairs, frames: _Frames
) -> Followed:
    """One joint through all videos."""
    rows = in_time[pairs.near[in_time, joint]]
    left, right = pairs.found[rows], pairs.truth[rows]
    frame = truth.frame[right]
    columns = (frames.video[frame], frame, truth.tracks[right], found.tracks[left], pairs.distances[rows, joint])
    near = zip(*(column.tolist() for column in columns), strict=True)
    total = Followed()
    for _, video in groupby(near, itemgetter(0)):
        total += follow([pair[2:] for pair in frame] for _, frame in groupby(video, itemgetter(1)))
    return total
