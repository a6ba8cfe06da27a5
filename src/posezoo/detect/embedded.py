"""The person detector that ships inside the package, and any network that keeps its contract.

Input `image` (N, 3, h, w) float32, RGB in [-1, 1], h and w multiples of 32; outputs `scores` (N, A) in [0, 1] and
`boxes_xyxy` (N, A, 4) in pixels of the input. The image is scaled so that its longer side is `long_side`, put in the
top left corner and padded with grey.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.deploy.runtimes import Runtime, open_onnx, open_runtime
from posezoo.errors import PosezooError, unknown_name
from posezoo.types import Boxes

ENTRY = "embedded-detector"
_STRIDE = 32
_GREY = 114
_CANDIDATES = 1000  # more anchors than this never matter, and suppression is quadratic


@dataclass(frozen=True)
class Settings:
    """What belongs to a detector's weights.

    Attributes:
        long_side: pixels of the image's longer side as the network sees it.
        score: boxes below it are dropped.
        nms: of two boxes that overlap by more than this intersection over union, the better one stays.
        max_people: at most so many boxes an image.
    """

    long_side: int = 320
    score: float = 0.3
    nms: float = 0.6
    max_people: int = 100

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Settings from a table; what it leaves out has its default.

        Raises:
            PosezooError: an unknown key, or a value out of range.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown_name("detector setting", key, names)
        settings = cls(**values)
        if settings.long_side < _STRIDE or not 0 <= settings.score <= 1 or not 0 < settings.nms <= 1:
            raise PosezooError(f"detector settings out of range: {settings}")
        return settings


@dataclass(frozen=True)
class PersonDetector:
    """A detector network with its settings."""

    runtime: Runtime
    settings: Settings

    def __call__(
        self, images_rgb: Sequence[NDArray[np.uint8]], names: Sequence[str | None] | None = None
    ) -> list[Boxes]:
        """The people in each (H, W, 3) uint8 image, best score first."""
        found: list[Boxes] = [Boxes.empty()] * len(images_rgb)
        # on a CPU a batch is no faster than its images one by one, and only takes memory
        size = 16 if self.runtime.device == "cuda" else 1
        for rows in _equal_sizes(images_rgb, size):
            batch = np.concatenate([network_input(images_rgb[row], self.settings.long_side) for row in rows])
            outputs = self.runtime(batch)
            scores, boxes = outputs if outputs[0].ndim == 2 else outputs[::-1]
            for row, image_scores, image_boxes in zip(rows, scores, boxes, strict=True):
                found[row] = select(image_scores, image_boxes, images_rgb[row].shape, self.settings)
        return found


def select(scores: NDArray, boxes: NDArray, shape: tuple[int, ...], settings: Settings) -> Boxes:
    """Threshold and suppression for one image.

    Args:
        scores: (A,) in [0, 1].
        boxes: (A, 4) in pixels of the network's input.
        shape: of the image, height first.
        settings: the input's longer side, and the thresholds.

    Returns:
        Boxes in pixels of the image, best score first.
    """
    height, width = shape[:2]
    kept = np.flatnonzero((scores >= settings.score) & np.isfinite(boxes).all(axis=1))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:_CANDIDATES]
    new_wh = np.array(scaled_size((width, height), settings.long_side))
    scale = np.tile(np.array([width, height]) / new_wh, 2)
    xyxy = np.clip(boxes[kept] * scale, 0, [width, height, width, height])
    good = np.flatnonzero((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))
    order = good[box_nms(xyxy[good], scores[kept][good], settings.nms)][: settings.max_people]
    return Boxes(xyxy[order], np.clip(scores[kept][order], 0, 1))


def open_detector(
    name_or_file: str | os.PathLike[str] = "embedded",
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> PersonDetector:
    """The packaged detector, or an .onnx file that keeps its contract; arguments as for `get_detector`."""
    name = os.fspath(name_or_file)
    if name.lower().endswith(".onnx"):
        if runtime == "torch":
            raise PosezooError(f"{name} is an ONNX file: the torch runtime cannot run it")
        opened = open_onnx(name, device, threads)
        return PersonDetector(opened, Settings.of(opened.metadata().get("detector", {})))
    from posezoo.zoo import get_entry

    entry = get_entry(ENTRY)
    return PersonDetector(open_runtime(entry, runtime, device, threads), Settings.of(dict(entry.detector or {})))


def scaled_size(size_wh: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Width and height with the longer side at `long_side` and the aspect kept; neither is less than 1."""
    scale = long_side / max(size_wh)
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))


def network_input(image_rgb: NDArray[np.uint8], long_side: int) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1]: scaled, top left, padded with grey to multiples of 32."""
    import cv2

    height, width = image_rgb.shape[:2]
    new_wh = scaled_size((width, height), long_side)
    # plain bilinear skips pixels when it shrinks
    how = cv2.INTER_AREA if long_side < max(width, height) else cv2.INTER_LINEAR
    scaled = cv2.resize(image_rgb, new_wh, interpolation=how)
    canvas = np.full((-(-new_wh[1] // _STRIDE) * _STRIDE, -(-new_wh[0] // _STRIDE) * _STRIDE, 3), _GREY, np.uint8)
    canvas[: new_wh[1], : new_wh[0]] = scaled
    return (canvas.transpose(2, 0, 1)[None].astype(np.float32) / 127.5) - 1.0


def box_nms(boxes_xyxy: NDArray, scores: NDArray, threshold: float) -> NDArray[np.intp]:
    """Greedy suppression by intersection over union: indices that stay, best score first.

    Args:
        boxes_xyxy: (N, 4); N may be 0.
        scores: (N,).
        threshold: overlaps above it are dropped.
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(boxes_xyxy[best, :2], boxes_xyxy[rest, :2])
        high = np.minimum(boxes_xyxy[best, 2:], boxes_xyxy[rest, 2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        order = rest[overlap <= threshold * (areas[best] + areas[rest] - overlap)]
    return np.array(kept, np.intp)


def _equal_sizes(images: Sequence[NDArray[np.uint8]], size: int) -> Iterator[list[int]]:
    """Rows of images with the same height and width, at most `size` at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(image.shape, []).append(row)
    for rows in groups.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
