"""Clips of people who walk, and what a run of `predict` left of them."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from posezoo.media.sources import Frame, open_source
from posezoo.media.writer import VideoWriter
from posezoo.predict import Request
from posezoo.skeletons import get_skeleton
from posezoo.types import Poses

COCO = get_skeleton("coco17")
FPS = 25.0


class Walkers:
    """An estimator without a network: people walk to the right, one more for each 60 grey levels of the frame."""

    skeleton, batch_size, max_megapixels = COCO, 8, None

    def __init__(self, before: Callable[[int], None] = lambda _: None, detector: Any = None) -> None:
        self.before, self.detector = before, detector
        self.seen: list[weakref.ref] = []
        self.names: list[str] = []
        self.chunks: list[int] = []

    def stream(self, images: Any, boxes_xyxy: Any = None, look_ahead: int = 8) -> Iterator[Poses]:
        images = iter(images)
        while chunk := list(islice(images, look_ahead)):
            self.chunks.append(len(chunk))
            for picture in chunk:
                self.before(len(self.seen))
                if self.detector is not None:
                    self.detector([picture.image_rgb], names=[picture.name])
                self.seen.append(weakref.ref(picture.image_rgb))
                self.names.append(picture.name)
                yield walkers(round(float(picture.image_rgb.mean()) / 60), len(self.seen) - 1)


def walkers(people: int, step: int) -> Poses:
    rng = np.random.default_rng(3)
    shape = rng.uniform((6, 4), (14, 40), (17, 2))
    xy = np.stack([shape + np.array([16 * row + 0.05 * step, 0]) for row in range(people)] or [np.zeros((0, 2))])
    xy = xy.reshape(people, 17, 2)
    boxes = np.array([[16 * row + 4 + 0.05 * step, 2, 16 * row + 16 + 0.05 * step, 46] for row in range(people)])
    return Poses(xy, np.full((people, 17), 0.9), boxes.reshape(-1, 4), np.full(people, 0.8), COCO)


def clip(path: Path, people: Any, size_wh: tuple[int, int] = (64, 48)) -> Path:
    """A video with so many people in each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size_wh, FPS, backend="opencv") as video:
        for count in people:
            video.add(np.full((size_wh[1], size_wh[0], 3), 60 * count, np.uint8))
    return path


def request(path: Path, **options: Any) -> Request:
    return Request([str(path)], path.parent.parent / "out", **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def shown(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def no_leftovers(folder: Path) -> bool:
    return not [p for p in folder.rglob("*") if p.name.startswith(".")]
