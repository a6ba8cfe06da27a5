"""Photographs laid out on one canvas, so that a detector sees many people at many sizes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]
GREY = 114


def lay_out(
    rng: np.random.Generator,
    photographs: list[tuple[Image, Floats]],
    canvas: int,
    scale: tuple[float, float],
    flip: float,
    least_side: float = 5.0,
    least_share: float = 0.1,
) -> tuple[Image, Floats]:
    """A square canvas of n x n photographs, each scaled against its cell, cut or moved at random, maybe mirrored.

    Args:
        rng: where chance comes from.
        photographs: n * n pairs of picture (h, w, 3) and boxes_xyxy (P, 4) in its pixels.
        canvas: side in pixels.
        scale: range of a photograph's longer side as a share of its cell's.
        flip: probability of mirroring each photograph.
        least_side: boxes that end with a shorter side, in pixels, are dropped.
        least_share: and so are those of which less than this share stays visible.

    Returns:
        image (canvas, canvas, 3) uint8 and boxes_xyxy (N, 4) float32 in its pixels.
    """
    rows = round(len(photographs) ** 0.5)
    image = np.full((canvas, canvas, 3), GREY, np.uint8)
    edges = np.linspace(0, canvas, rows + 1).astype(int)
    boxes = [np.zeros((0, 4), np.float32)]
    for cell, (photograph, people) in enumerate(photographs):
        top, left = edges[cell // rows], edges[cell % rows]
        height, width = edges[cell // rows + 1] - top, edges[cell % rows + 1] - left
        factor = max(height, width) * rng.uniform(*scale) / max(photograph.shape[:2])
        size = np.maximum(np.round(np.array(photograph.shape[1::-1]) * factor), 1).astype(int)
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        scaled = cv2.resize(photograph, tuple(int(n) for n in size), interpolation=how)
        moved = people * np.tile(size / np.array(photograph.shape[1::-1]), 2)
        if rng.random() < flip:
            scaled = scaled[:, ::-1]
            moved = np.stack([size[0] - moved[:, 2], moved[:, 1], size[0] - moved[:, 0], moved[:, 3]], 1)
        x, y = (int(rng.integers(min(0, room), max(0, room) + 1)) for room in (width - size[0], height - size[1]))
        ahead = scaled[max(0, -y) : height - y, max(0, -x) : width - x]
        above, beside = top + max(0, y), left + max(0, x)
        image[above : above + ahead.shape[0], beside : beside + ahead.shape[1]] = ahead
        shown = np.clip(moved + np.array([x, y, x, y]), 0, [width, height, width, height])
        sides = shown[:, 2:] - shown[:, :2]
        whole = np.prod(np.maximum(moved[:, 2:] - moved[:, :2], 1e-3), axis=1)
        keep = (sides.min(1, initial=np.inf) >= least_side) & (sides.prod(1) >= least_share * whole)
        boxes.append((shown[keep] + np.array([left, top, left, top])).astype(np.float32))
    return image, np.concatenate(boxes)
