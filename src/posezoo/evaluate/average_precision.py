"""Average precision and recall of poses by object keypoint similarity, from arrays.

COCO's definition (https://cocodataset.org/#keypoints-eval): per picture, the best twenty poses take, one after the
other, the person they are most like; then precision over recall, at ten thresholds of similarity and in three ranges of
area. Every operation is done in the order in which pycocotools does it, so that the figures agree to the last bit; but
on all pictures, thresholds and ranges at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

KEYPOINT_KEYS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0.0, 1e10), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e10)}
MOST_PEOPLE = 20
_CHUNK = 8192  # pairs at a time, so that what is between two operations stays in the cache


@dataclass(frozen=True, eq=False)
class Truth:
    """The G people annotated, in the order of the annotation file.

    Attributes:
        image: (G,) which picture; pictures are judged in the order of these numbers.
        keypoints_xy: (G, K, 2) pixels.
        labelled: (G, K) which joints count.
        areas: (G,) square pixels.
        boxes_xywh: (G, 4) pixels; only used for people without a labelled joint.
        crowd: (G,) regions with many people, which any number of poses may take.
        ignored: (G,) people (crowds among them) that no pose must find, but may.
    """

    image: Rows
    keypoints_xy: Doubles
    labelled: Flags
    areas: Doubles
    boxes_xywh: Doubles
    crowd: Flags
    ignored: Flags


@dataclass(frozen=True, eq=False)
class Found:
    """The D poses to judge.

    Attributes:
        image: (D,) which picture.
        keypoints_xy: (D, K, 2) pixels.
        scores: (D,) any scale, the best highest.
        areas: (D,) square pixels; decides in which range of area a pose without a person counts as wrong.
    """

    image: Rows
    keypoints_xy: Doubles
    scores: Doubles
    areas: Doubles


@dataclass(frozen=True, eq=False)
class Matches:
    """Who found whom. A ranges of area, T thresholds, D poses in the order of pictures and scores, G people.

    Attributes:
        found: the D poses judged.
        truth_image: (G,) which picture each person is in.
        right: (A, T, D) the pose has found a person.
        counts: (A, T, D) the pose is right or wrong, not ignored.
        must: (A, G) the person is to be found.
    """

    found: Found
    truth_image: Rows
    right: Flags
    counts: Flags
    must: Flags


def average_precision(truth: Truth, found: Found, sigmas: Doubles) -> dict[str, float]:
    """AP AP50 AP75 APM APL AR AR50 AR75 ARM ARL, in [0, 1]; -1 where there is nobody of that size.

    Args:
        truth: the people annotated.
        found: the poses to judge.
        sigmas: (K,) spread of each joint, see `Skeleton.oks_sigmas`.
    """
    return summarise(match(truth, found, sigmas))


def match(truth: Truth, found: Found, sigmas: Doubles) -> Matches:
    """Give each pose, best first, the most similar person of its picture whom no better pose has taken.

    A person who must be found goes before one who is ignored, and of two equally similar the later annotation goes
    first. A pose that takes an ignored person, or nobody and has an area outside the range, counts neither way.
    """
    found = _best_of_each_picture(found)
    low, high = np.array(list(AREAS.values())).T[..., None]
    must = ~(truth.ignored | (truth.areas < low) | (truth.areas > high))
    outside = (found.areas < low) | (found.areas > high)
    pose, person = _pairs(found.image, truth.image)
    alike = similarity(truth, found, sigmas, pose, person)
    near = alike >= THRESHOLDS[0]  # pairs below cannot match at any threshold
    taken, spare = _assign(found.image, pose[near], person[near], alike[near], must, truth.crowd)
    right = _unpack(taken)
    counts = np.where(right, ~_unpack(spare), ~outside[:, None])
    return Matches(found, truth.image, right, counts, must)


def summarise(matches: Matches, images: Rows | None = None) -> dict[str, float]:
    """The figures of `average_precision`, of all pictures or only of `images`."""
    order = np.argsort(-matches.found.scores, kind="stable")
    must = matches.must
    if images is not None:
        order = order[np.isin(matches.found.image[order], images)]
        must = must[:, np.isin(matches.truth_image, images)]
    figures: dict[str, Doubles] = {}
    for size, right, counts, total in zip(AREAS, matches.right, matches.counts, must.sum(axis=1), strict=True):
        precision, recall = _curves(right[:, order], counts[:, order], int(total))
        figures |= {f"AP{size}": precision.ravel(), f"AR{size}": recall}
        if not size:
            figures |= {"AP50": precision[0], "AP75": precision[5], "AR50": recall[:1], "AR75": recall[5:6]}
    return {key: float(np.mean(figures[key])) for key in KEYPOINT_KEYS}


def similarity(truth: Truth, found: Found, sigmas: Doubles, pose: Rows, person: Rows) -> Doubles:
    """Object keypoint similarity of P pairs, (P,) in [0, 1].

    The mean over the joints that are labelled. For a person without any, a joint is as near as it is to their box
    grown to three times its width and height.

    Args:
        truth: the people annotated.
        found: the poses.
        sigmas: (K,) spread of each joint.
        pose: (P,) rows of `found`.
        person: (P,) rows of `truth`.
    """
    joints, variance = truth.labelled.shape[1], (sigmas * 2) ** 2
    size, area = truth.boxes_xywh[:, 2:], truth.areas + np.spacing(1)
    low, high = truth.boxes_xywh[:, :2] - size, truth.boxes_xywh[:, :2] + size * 2
    flat, labelled = found.keypoints_xy.reshape(-1, 2), truth.labelled.sum(axis=1)
    result = np.empty(len(pose))
    # people with equally many labelled joints at once: as arrays without gaps, their sums are those of one alone
    for count in np.unique(labelled[person]):
        rows = np.flatnonzero(labelled == count)
        columns = np.nonzero(truth.labelled[rows])[1].reshape(len(rows), -1) if count else np.arange(joints)[None]
        xy, spread = np.take_along_axis(truth.keypoints_xy[rows], columns[..., None], axis=1), variance[columns]
        pairs = np.flatnonzero(labelled[person] == count)
        for here in np.split(pairs, range(_CHUNK, len(pairs), _CHUNK)):
            who = person[here]
            of_group = np.searchsorted(rows, who) if count else np.zeros(len(here), np.intp)
            offset = flat.take(pose[here, None] * joints + columns.take(of_group, axis=0), axis=0)
            offset -= xy.take(of_group, axis=0) if count else np.clip(offset, low[who, None], high[who, None])
            offset *= offset
            distance = offset[..., 0] + offset[..., 1]
            distance /= spread.take(of_group, axis=0)
            distance /= area[who, None]
            distance /= 2
            near = np.exp(np.negative(distance, out=distance), out=distance)
            result[here] = near.sum(axis=1) / near.shape[1]
    return result


def _best_of_each_picture(found: Found) -> Found:
    """The poses by picture and falling score, at most `MOST_PEOPLE` a picture."""
    order = np.lexsort((-found.scores, found.image))
    image = found.image[order]
    order = order[_place_in_run(image) < MOST_PEOPLE]
    return replace(
        found,
        image=found.image[order],
        keypoints_xy=found.keypoints_xy[order],
        scores=found.scores[order],
        areas=found.areas[order],
    )


def _pairs(found_image: Rows, truth_image: Rows) -> tuple[Rows, Rows]:
    """Every pose with every person of its picture: rows of the poses and of the people."""
    order = np.argsort(truth_image, kind="stable")
    first, last = (np.searchsorted(truth_image[order], found_image, side) for side in ("left", "right"))
    pose = np.repeat(np.arange(len(found_image)), last - first)
    return pose, order[first[pose] + _place_in_run(pose)]


def _place_in_run(values: NDArray[np.integer]) -> Rows:
    """How many equal values stand right before each."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def _assign(
    found_image: Rows, pose: Rows, person: Rows, alike: Doubles, must: Flags, crowd: Flags
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """At which thresholds each pose finds somebody, and where that is somebody ignored: (A, D), bit t for threshold t.

    All ranges of area are worked off side by side, as if each had pictures of its own. Step by step the next choice of
    the next pose of every picture is tried, so that no two choices of a step can be after the same person.
    """
    ranges, people, poses = len(must), must.shape[1], len(found_image)
    shift = np.arange(ranges)[:, None]
    pose_of, person_of = (pose + shift * poses).ravel(), (person + shift * people).ravel()
    spare = ~must.ravel()[person_of]
    order = np.lexsort((-person_of, -np.tile(alike, ranges), spare, pose_of))
    pose_of, person_of, spare = pose_of[order], person_of[order], spare[order]
    reached = np.searchsorted(np.minimum(THRESHOLDS, 1 - 1e-10), np.tile(alike, ranges)[order], side="right")
    fits = ((1 << reached) - 1).astype(np.uint16)
    shared = np.where(np.tile(crowd, ranges), np.uint16(0), np.uint16(0xFFFF))  # what taking somebody leaves to others
    used, hit, hit_spare = (np.zeros(ranges * n, np.uint16) for n in (people, poses, poses))
    for step in _steps(np.tile(found_image, ranges)[pose_of], pose_of):
        mine, theirs = pose_of[step], person_of[step]
        won = fits[step] & ~used[theirs] & ~hit[mine]
        hit[mine] |= won
        hit_spare[mine] |= np.where(spare[step], won, np.uint16(0))
        used[theirs] |= won & shared[theirs]
    return hit.reshape(ranges, poses), hit_spare.reshape(ranges, poses)


def _steps(image: Rows, pose: Rows) -> list[Rows]:
    """The rows of choices (in runs of one pose, the runs in runs of one picture) that may be tried at the same time."""
    if not len(pose):
        return []
    choice = _place_in_run(pose)
    run = np.cumsum(choice == 0) - 1
    rank = _place_in_run(image[choice == 0])[run]
    number = rank * (choice.max() + 1) + choice
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def _unpack(bits: NDArray[np.uint16]) -> Flags:
    """(A, D) with one bit a threshold as (A, T, D)."""
    return (bits[:, None] >> np.arange(len(THRESHOLDS), dtype=np.uint16)[:, None] & 1).astype(bool)


def _curves(right: Flags, counts: Flags, total: int) -> tuple[Doubles, Doubles]:
    """Precision (T, R) at the R recalls and the highest recall (T,), of poses by falling score; -1 with nobody to find.

    Precision is highest where a pose is right, and recall only grows there: the others need not be looked at.
    """
    precision, recall = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    if total == 0:
        return precision - 1, recall - 1
    for t, (hits, counted) in enumerate(zip(right & counts, counts, strict=True)):
        judged = np.cumsum(counted)[hits]
        rights = np.arange(1, len(judged) + 1)
        # from here to the end, the best precision
        best = np.maximum.accumulate((rights / (judged + np.spacing(1)))[::-1])[::-1]
        reached = np.searchsorted(rights / total, RECALLS)
        within = reached < len(best)
        precision[t, within] = best[reached[within]]
        recall[t] = len(judged) / total
    return precision, recall
