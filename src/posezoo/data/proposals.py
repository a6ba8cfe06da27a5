"""How a detector's boxes differ from annotated ones, learnt from data, so that training sees boxes as inference does.

The idea of the pose-guided proposals generator (Fang et al. 2017, "RMPE: Regional Multi-Person Pose Estimation",
arXiv:1612.00137, section 3.4): the four sides of a detected box, against the annotated one and as shares of its size,
follow a mixture of normals, whose shares depend on the person's atomic pose. Here atomic poses are clusters of joints
seen in the annotated box, and a person with too few joints for one has the shares of everybody.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.data.coco_style import People, read_json
from posezoo.data.pictures import read_labelled
from posezoo.detect import Detector
from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.files import write_atomic
from posezoo.skeletons import Skeleton, get_skeleton, map_joints
from posezoo.types import Boxes

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LEAST_IOU = 0.5  # with its person; less is somebody else's box, or a miss
LEAST_JOINTS = 5  # of those of the file's skeleton, for a person to have an atomic pose
_FILE = "proposals.json"
_TRIES = 16
_RIDGE = 1e-5  # added to variances, so that offsets that are all alike still have a density


@dataclass(frozen=True, eq=False)
class Proposals:
    """A mixture of M normals of the offsets (x1, y1, x2, y2) of a box, as shares of its width and height.

    Attributes:
        shares: (1 + P, M) float64, of the components; the first row is of everybody, the others of each atomic pose.
        means: (M, 4) float64.
        roots: (M, 4, 4) float64, lower triangular; roots @ roots.T are the covariances.
        poses: (P, K, 2) float64, the atomic poses: (0, 0) the centre of the box, (0.5, 0.5) its lower right corner.
        skeleton: their K joints.
        least_iou: of a sample with the annotated box; others are drawn again.
        how: what it was learnt from.
    """

    shares: Doubles
    means: Doubles
    roots: Doubles
    poses: Doubles
    skeleton: Skeleton
    least_iou: float = LEAST_IOU
    how: str = ""


def draw(
    rng: np.random.Generator,
    proposals: Proposals,
    box_xyxy: Floats,
    keypoints_xy: Floats,
    weights: Floats,
    skeleton: Skeleton,
) -> Floats:
    """A box such as the detector would give for a person.

    Args:
        rng: where chance comes from.
        proposals: what the detector does.
        box_xyxy: (4,) annotated, pixels.
        keypoints_xy: (K, 2) pixels.
        weights: (K,); 0: no label.
        skeleton: the K joints.

    Returns:
        (4,) float32 pixels; the annotated box where it has no size.
    """
    box = np.asarray(box_xyxy, np.float64)
    if not (box[2:] > box[:2]).all():
        return np.asarray(box_xyxy, np.float32)
    shares = proposals.shares[_pose_of(proposals, box, keypoints_xy, weights, skeleton)]
    # always so many numbers, whatever becomes of them: the samples of a run stay comparable
    component = np.searchsorted(np.cumsum(shares)[:-1], rng.random(_TRIES), side="right")
    normals = rng.standard_normal((_TRIES, 4))
    offsets = proposals.means[component] + np.einsum("nij,nj->ni", proposals.roots[component], normals)
    found = box + offsets * np.tile(box[2:] - box[:2], 2)
    good = np.flatnonzero(iou(found, box) >= proposals.least_iou)
    return (found[good[0]] if len(good) else box).astype(np.float32)


def draw_all(seed: int, proposals: Proposals, people: People) -> Floats:
    """`draw` for everybody, (N, 4)."""
    rng = np.random.default_rng(seed)
    labels = zip(people.boxes_xyxy, people.keypoints_xy, people.weights, strict=True)
    boxes = [draw(rng, proposals, *label, people.skeleton) for label in labels]
    return np.array(boxes, np.float32).reshape(-1, 4)


def iou(first: NDArray, second: NDArray) -> Doubles:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast; 0 for a box of negative size."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    areas = [np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12), np.float64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Annotated people and the boxes that a detector found for them: people N, detected (N, 4) float32 pixels."""

    people: People
    detected_xyxy: Floats

    @property
    def offsets(self) -> Doubles:
        """(N, 4), of the detected sides, as shares of the annotated box's width and height."""
        boxes = self.people.boxes_xyxy.astype(np.float64)
        return (self.detected_xyxy - boxes) / np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))

    def __len__(self) -> int:
        return len(self.detected_xyxy)

    def where(self, keep: NDArray[np.bool_]) -> Pairs:
        """The pairs that `keep` (N,) marks."""
        return Pairs(self.people.where(keep), self.detected_xyxy[keep])


def boxes_of_file(file: BoxesFile, people: People) -> list[Boxes]:
    """What a file of detections says of each picture of `people`."""
    each = file.find_each(people.image_ids.tolist(), people.images)
    return [Boxes.empty() if found is None else found for found in each]


def boxes_of_detector(detector: Detector, people: People) -> list[Boxes]:
    """What a detector finds in each picture of `people`."""
    pictures = zip(people.images, people.sizes_wh, strict=True)
    return [detector([read_labelled(path, size_wh)])[0] for path, size_wh in pictures]


def pair(people: People, found: Sequence[Boxes], least_iou: float = LEAST_IOU, least_score: float = 0.0) -> Pairs:
    """Who was found where: in each picture the best overlap first, every person and every box once.

    Args:
        people: the annotated people.
        found: the detected boxes of each of their pictures.
        least_iou: of a pair.
        least_score: of a detected box.
    """
    owners: list[int] = []
    boxes: list[Floats] = []
    order = np.argsort(people.image_row, kind="stable")
    ends = np.searchsorted(people.image_row[order], np.arange(len(found) + 1))
    for picture, detected in enumerate(found):
        rows = order[ends[picture] : ends[picture + 1]]
        given = detected.xyxy[detected.scores >= least_score]
        sides = people.boxes_xyxy[rows, 2:] - people.boxes_xyxy[rows, :2]
        overlap = iou(people.boxes_xyxy[rows, None], given[None]) * (sides > 0).all(1, keepdims=True)
        while overlap.size and overlap.max() >= max(least_iou, 1e-6):
            row, column = np.unravel_index(overlap.argmax(), overlap.shape)
            owners.append(int(rows[row]))
            boxes.append(given[column])
            overlap[row], overlap[:, column] = 0, 0
    kept = np.zeros(len(people), bool)
    kept[owners] = True
    columns = np.argsort(owners)  # `where` keeps the order of the people
    return Pairs(people.where(kept), np.array(boxes, np.float32).reshape(-1, 4)[columns])


def fit(pairs: Pairs, components: int = 8, poses: int = 8, seed: int = 0, how: str = "") -> Proposals:
    """Learn what a detector does; each pair counts a second time mirrored, as people have no handedness.

    Args:
        pairs: at least ten a component.
        components: how many normals.
        poses: how many atomic poses; 0: everybody alike.
        seed: of the first guess.
        how: to be kept with the numbers.

    Raises:
        PosezooError: there are too few pairs.
    """
    count = len(pairs)
    if components < 1 or poses < 0 or count < 10 * max(components, poses):
        raise PosezooError(
            f"{components} components and {poses} atomic poses need ten detected people each, but there are {count}"
        )
    rng = np.random.default_rng(seed)
    skeleton = pairs.people.skeleton
    offsets = np.concatenate([pairs.offsets, -pairs.offsets[:, [2, 1, 0, 3]] * [1, -1, 1, -1]])
    means, covariances, shares = _mixture(rng, offsets, components)
    places = _places(pairs.people.boxes_xyxy, pairs.people.keypoints_xy)
    mirrored = (places * [-1, 1])[:, skeleton.mirror_index]
    weights = np.tile(pairs.people.weights, (2, 1))
    weights[count:] = weights[count:, skeleton.mirror_index]
    centres = _atomic(rng, np.concatenate([places, mirrored]), weights, poses)
    density = _log_densities(offsets, means, covariances) + np.log(shares)
    belongs = np.exp(density - np.logaddexp.reduce(density, axis=1, keepdims=True))
    rows = _nearest(centres, np.concatenate([places, mirrored]), weights)
    # twenty people as everybody is beside those of a pose: a rare one is not taken at its word
    own = [(belongs[rows == p].sum(0) + 20 * shares) / ((rows == p).sum() + 20) for p in range(len(centres))]
    roots: Doubles = np.linalg.cholesky(covariances).astype(np.float64)
    return Proposals(np.stack([shares, *own]), means, roots, centres, skeleton, how=how)


def log_likelihood(proposals: Proposals, pairs: Pairs) -> float:
    """Mean log density of the offsets of each person, given the atomic pose; what tells two fits apart."""
    rows = _nearest(proposals.poses, _places(pairs.people.boxes_xyxy, pairs.people.keypoints_xy), pairs.people.weights)
    shares = np.log(proposals.shares[rows + 1])
    covariances = proposals.roots @ proposals.roots.transpose(0, 2, 1)
    density = _log_densities(pairs.offsets, proposals.means, covariances) + shares
    return float(np.logaddexp.reduce(density, axis=1).mean())


def save(proposals: Proposals, path: Path) -> None:
    """Write the numbers as JSON; of the poses four digits, of the rest six."""
    content = {
        "how": proposals.how,
        "skeleton": proposals.skeleton.name,
        "least_iou": proposals.least_iou,
        "shares": np.round(proposals.shares, 6).tolist(),
        "means": np.round(proposals.means, 6).tolist(),
        "roots": np.round(proposals.roots, 6).tolist(),
        "poses": np.round(proposals.poses, 4).tolist(),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load(path: Path) -> Proposals:
    """Read what `save` wrote.

    Raises:
        PosezooError: no such file, or another kind of file.
    """
    return _parse(read_json(path), str(path))


@cache
def get_proposals(path: Path | None = None) -> Proposals:
    """Those of a file, or without one those of the embedded detector."""
    if path is not None:
        return load(path)
    return _parse(json.loads(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")), _FILE)


def _parse(content: Any, where: str) -> Proposals:
    try:
        shares, means, roots, poses = (np.array(content[k], np.float64) for k in ("shares", "means", "roots", "poses"))
        skeleton = get_skeleton(content["skeleton"])
        poses = poses.reshape(-1, len(skeleton), 2)
        wanted = ((1 + len(poses), len(means)), (len(means), 4), (len(means), 4, 4))
        if (shares.shape, means.shape, roots.shape) != wanted or not len(means):
            raise ValueError(f"shares {shares.shape}, means {means.shape} and roots {roots.shape} do not go together")
        if not all(np.isfinite(values).all() for values in (shares, means, roots, poses)) or (shares < 0).any():
            raise ValueError("a number is not finite, or a share is negative")
        shares = shares / shares.sum(axis=1, keepdims=True)
        return Proposals(shares, means, roots, poses, skeleton, float(content["least_iou"]), str(content["how"]))
    except (KeyError, TypeError, ValueError) as err:
        raise PosezooError(
            f"{where} is not a file of box proposals, which posezoo.data.proposals.save writes: "
            f"{type(err).__name__} {err}"
        ) from None


def _places(boxes_xyxy: NDArray, keypoints_xy: NDArray) -> Doubles:
    """Joints (N, K, 2) as the boxes see them, within (-0.5, -0.5) and (0.5, 0.5)."""
    boxes = np.asarray(boxes_xyxy, np.float64)[:, None]
    return (keypoints_xy - (boxes[..., :2] + boxes[..., 2:]) / 2) / np.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)


@cache
def _rows(skeleton: Skeleton, wanted: Skeleton) -> NDArray[np.int64]:
    return map_joints(skeleton, wanted)


def _pose_of(proposals: Proposals, box: Doubles, keypoints_xy: Floats, weights: Floats, skeleton: Skeleton) -> int:
    """The row of `shares` that a person has."""
    if not len(proposals.poses):
        return 0
    rows = _rows(skeleton, proposals.skeleton)
    labelled = np.where(rows >= 0, np.asarray(weights)[rows], 0)
    places = _places(box[None], np.asarray(keypoints_xy)[None, rows])
    return int(_nearest(proposals.poses, places, labelled[None])[0]) + 1


def _nearest(poses: Doubles, places: Doubles, weights: NDArray) -> NDArray[np.int64]:
    """(N,) the atomic pose nearest to each person by labelled joints; -1 for those with too few."""
    seen = (weights > 0).astype(np.float64)
    if not len(poses):
        return np.full(len(places), -1)
    distance = np.einsum("npkc,nk->np", np.square(places[:, None] - poses), seen)
    return np.where(seen.sum(1) >= LEAST_JOINTS, distance.argmin(1), -1)


def _atomic(rng: np.random.Generator, places: Doubles, weights: NDArray, count: int) -> Doubles:
    """`count` atomic poses (P, K, 2), by k-means over the joints that are labelled; one nobody has is left out."""
    known = (weights > 0).sum(1) >= LEAST_JOINTS
    places, seen = places[known], (weights[known] > 0)[..., None]
    if not len(places) or not count:
        return np.zeros((0, *places.shape[1:]))
    everybody = (places * seen).sum(0) / np.maximum(seen.sum(0), 1)
    start = rng.choice(len(places), min(count, len(places)), replace=False)
    poses = np.where(seen[start], places[start], everybody)
    for _ in range(50):
        rows = _nearest(poses, places, seen[..., 0])
        held = [rows == p for p in range(len(poses)) if (rows == p).any()]
        # ten people with every joint where everybody has it: a joint that few of them show stays near the middle
        poses = np.stack([((places * seen)[h].sum(0) + 10 * everybody) / (seen[h].sum(0) + 10) for h in held])
    return poses


def _mixture(rng: np.random.Generator, points: Doubles, count: int) -> tuple[Doubles, Doubles, Doubles]:
    """Means (M, 4), covariances (M, 4, 4) and shares (M,) by expectation maximisation."""
    means = points[rng.choice(len(points), count, replace=False)]
    covariances = np.repeat(np.cov(points.T)[None] / count + _RIDGE * np.eye(4), count, axis=0)
    shares = np.full(count, 1 / count)
    for _ in range(300):
        density = _log_densities(points, means, covariances) + np.log(shares)
        belongs = np.exp(density - np.logaddexp.reduce(density, axis=1, keepdims=True))
        mass = belongs.sum(0) + 1e-6
        means = belongs.T @ points / mass[:, None]
        away = points[:, None] - means
        covariances = np.einsum("nm,nmi,nmj->mij", belongs, away, away) / mass[:, None, None] + _RIDGE * np.eye(4)
        shares = mass / mass.sum()
    return means, covariances, shares


def _log_densities(points: Doubles, means: Doubles, covariances: Doubles) -> Doubles:
    """(N, M) of each point under each normal."""
    away = points[:, None] - means
    distance = np.einsum("nmi,mij,nmj->nm", away, np.linalg.inv(covariances), away)
    return -0.5 * (distance + np.linalg.slogdet(covariances)[1] + points.shape[1] * np.log(2 * np.pi))
