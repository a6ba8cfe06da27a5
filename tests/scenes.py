"""Scenes of walking people, and what a detector and a pose network might find in them: noise, misses, false people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from posezoo.evaluate.mot import Followed, follow
from posezoo.skeletons import get_skeleton
from posezoo.types import Poses

SIZE_WH = (1280, 720)
FPS = 25.0
COCO = get_skeleton("coco17")
# x and y of each joint in shares of the height, hips at 0, 0, as somebody stands who faces the camera
STANCE = {
    "nose": (0, -0.42), "eye": (0.02, -0.44), "ear": (0.04, -0.43), "shoulder": (0.1, -0.32), "elbow": (0.13, -0.17),
    "wrist": (0.14, -0.03), "hip": (0.07, 0), "knee": (0.07, 0.23), "ankle": (0.07, 0.45),
}  # fmt: skip
SWING = {"elbow": 0.06, "wrist": 0.12, "knee": 0.08, "ankle": 0.14}  # of limbs, sideways, in shares of the height


@dataclass(frozen=True)
class Walker:
    """Somebody who walks from point to point: (second, x, y of the hips) each, and is in the picture all that time."""

    path: tuple[tuple[float, float, float], ...]
    height: float = 200
    steps: float = 1.8  # a second
    stride: float = 0.0  # the phase

    def hips(self, times: np.ndarray) -> np.ndarray:
        when, x, y = np.array(self.path, float).T
        return np.stack([np.interp(times, when, x), np.interp(times, when, y)], axis=-1)

    def here(self, times: np.ndarray) -> np.ndarray:
        return (times >= self.path[0][0] - 1e-9) & (times <= self.path[-1][0] + 1e-9)

    def joints(self, times: np.ndarray) -> np.ndarray:
        """(F, 17, 2)."""
        body = np.zeros((len(times), 17, 2))
        for row, joint in enumerate(COCO.joints):
            side = {"left": 1, "right": -1, "center": 0}[COCO.side(joint)]
            name = joint.split("_")[-1]
            x, y = STANCE[name]
            phase = 2 * np.pi * self.steps / 2 * times + self.stride
            arm = -1 if name in ("elbow", "wrist") else 1
            body[:, row, 0] = side * x + side * arm * SWING.get(name, 0) * np.sin(phase)
            body[:, row, 1] = y - 0.02 * np.abs(np.sin(phase))
        return self.hips(times)[:, None] + self.height * body


@dataclass(frozen=True)
class Trouble:
    """What goes wrong between a scene and what is found in it; lengths in shares of a person's height."""

    jitter: float = 0.01  # of joints
    box_jitter: float = 0.03
    missed: float = 0.0  # share of people
    doubtful: float = 0.0  # share of people found with a low score
    false: float = 0.0  # false people a frame
    twice: float = 0.0  # share of people found twice
    halved: float = 0.0  # share of people whose box holds the upper half only
    hidden: float = 0.75  # share of the box behind somebody nearer from which on nobody is found


@dataclass(frozen=True, eq=False)
class Scene:
    """F frames: who was there, what was found, and whom each pose found is of (-1: nobody)."""

    truth: list[Poses]
    found: list[Poses]
    owners: list[np.ndarray]
    times: np.ndarray

    def switches(self, followed: Sequence[Poses]) -> Followed:
        """How well the people of the scene were followed, by whom each pose is really of."""
        frames = []
        for poses, owners in zip(followed, self.owners, strict=True):
            assert poses.track_ids is not None
            near = [(int(o), int(t), 0.0) for o, t in zip(owners, poses.track_ids, strict=True) if o >= 0 and t >= 0]
            frames.append(sorted(near))
        return follow(frames)

    def ids(self, followed: Sequence[Poses]) -> dict[int, set[int]]:
        """The ids that each person had."""
        ids: dict[int, set[int]] = {}
        for poses, owners in zip(followed, self.owners, strict=True):
            for owner, track in zip(owners.tolist(), poses.track_ids.tolist(), strict=True):
                ids.setdefault(owner, set()).add(track)
        return ids


def make(walkers: Sequence[Walker], seconds: float, trouble: Trouble, seed: int = 0, fps: float = FPS) -> Scene:
    """The scene of these people; later ones walk behind earlier ones."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps)) / fps
    joints = np.stack([walker.joints(times) for walker in walkers])
    here = np.stack([walker.here(times) for walker in walkers])
    scene = Scene([], [], [], times)
    for frame in range(len(times)):
        rows = np.flatnonzero(here[:, frame])
        heights = np.array([walkers[row].height for row in rows])
        xy = joints[rows, frame]
        boxes = around(xy)
        scene.truth.append(poses_of(xy, boxes, np.full((len(rows), 17), 0.9), np.ones(len(rows)), rows))
        found, owners = _find(rng, xy, boxes, heights, rows, trouble)
        scene.found.append(found)
        scene.owners.append(owners)
    return scene


def around(xy: np.ndarray) -> np.ndarray:
    """Boxes a little larger than the joints, (N, 4)."""
    low, high = xy.min(axis=1), xy.max(axis=1)
    margin = 0.08 * (high - low).max(axis=1, keepdims=True)
    return np.concatenate([low - margin, high + margin], axis=1).reshape(-1, 4)


def poses_of(xy, boxes, scores, box_scores, ids=None) -> Poses:
    return Poses(xy.reshape(-1, 17, 2), scores, boxes.reshape(-1, 4), box_scores, COCO, ids)


def hidden_share(boxes: np.ndarray) -> np.ndarray:
    """How much of each box is behind one before it in the list, (N,)."""
    share = np.zeros(len(boxes))
    for row in range(1, len(boxes)):
        low, high = np.maximum(boxes[:row, :2], boxes[row, :2]), np.minimum(boxes[:row, 2:], boxes[row, 2:])
        common = np.maximum(high - low, 0).prod(axis=1)
        share[row] = common.max() / (boxes[row, 2:] - boxes[row, :2]).prod()
    return share


def _find(rng, xy, boxes, heights, rows, trouble: Trouble) -> tuple[Poses, np.ndarray]:
    seen = (hidden_share(boxes) < trouble.hidden) & (rng.random(len(rows)) >= trouble.missed)
    xy, boxes, heights, owners = xy[seen], boxes[seen], heights[seen], rows[seen]
    again = rng.random(len(owners)) < trouble.twice
    order = np.concatenate([np.arange(len(owners)), np.flatnonzero(again)])
    first = np.arange(len(order)) < len(owners)
    xy, boxes, heights, owners = xy[order], boxes[order].copy(), heights[order], np.where(first, owners[order], -1)
    count = len(order)
    half = rng.random(count) < trouble.halved
    boxes[half, 3] = boxes[half, 1::2].mean(axis=1)
    xy = xy + rng.normal(0, trouble.jitter, xy.shape) * heights[:, None, None]
    boxes = boxes + rng.normal(0, trouble.box_jitter, boxes.shape) * heights[:, None]
    scores = rng.uniform(0.6, 0.95, (count, 17))
    scores[half, 13:] = 0.1
    low = rng.random(count) < trouble.doubtful
    box_scores = np.where(low, rng.uniform(0.2, 0.4, count), rng.uniform(0.75, 1, count)) * np.where(first, 1, 0.9)
    false = rng.poisson(trouble.false)
    where = rng.uniform((0, 0), SIZE_WH, (false, 2))
    shape = where[:, None] + rng.normal(0, 60, (false, 17, 2))
    poses = poses_of(
        np.concatenate([xy, shape]),
        np.concatenate([boxes, around(shape)]),
        np.concatenate([scores, rng.uniform(0.2, 0.6, (false, 17))]),
        np.concatenate([box_scores, rng.uniform(0.3, 0.8, false)]),
    )
    owners = np.append(owners, np.full(false, -1))
    mixed = rng.permutation(len(owners))
    return poses[mixed], owners[mixed]


def crossing() -> list[Walker]:
    """Two who pass each other, one who comes, and one who leaves at the edge and is back a second later."""
    return [
        Walker(((0, 200, 400), (8, 1080, 400))),
        Walker(((0, 1080, 380), (8, 200, 380)), stride=1.0),
        Walker(((3, 30, 560), (8, 500, 560)), height=220, stride=2.0),
        Walker(((0, 900, 150), (4, 1250, 150)), height=180),
    ]


def back(walkers: list[Walker]) -> list[Walker]:
    """The last one again, as the same person: returned a second after leaving."""
    last = walkers[-1]
    when, x, y = last.path[-1]
    return [*walkers[:-1], replace(last, path=(*last.path, (when + 1.0, x, y), (8, x - 300, y)))]


def crowd(count: int = 20, seconds: float = 12.0, seed: int = 0) -> list[Walker]:
    """Many who walk to and fro through each other."""
    rng = np.random.default_rng(seed)
    walkers = []
    for _ in range(count):
        start, end = sorted(rng.uniform(0, seconds, 2))
        if end - start < seconds / 3:
            start, end = 0.0, seconds
        times = np.linspace(start, end, 4)
        height = rng.uniform(130, 260)
        speed = rng.uniform(0.3, 0.9) * height
        steps = rng.choice([-1, 1], (3, 1)) * np.diff(times)[:, None] * speed * np.array([[1.0, 0.15]])
        places = np.cumsum(np.vstack([rng.uniform((150, 150), (1130, 570)), steps]), axis=0)
        walkers.append(
            Walker(tuple(zip(times, *places.T, strict=True)), height, rng.uniform(1.5, 2.2), rng.uniform(0, 6))
        )
    return sorted(walkers, key=lambda walker: -walker.height)
