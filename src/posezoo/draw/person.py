"""One person: lines by the person's size, doubtful joints faded, fingers and faces finer than limbs."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.draw.layer import (
    Dot,
    Image,
    Limb,
    Points,
    Shapes,
    draw_shapes,
    draw_straight,
    lay_over,
    open_layer,
)
from posezoo.draw.paint import Paint
from posezoo.draw.themes import Theme
from posezoo.skeletons import Color, Skeleton
from posezoo.types import Floats, Poses


class Figure(NamedTuple):
    """What is to be seen of a person.

    Attributes:
        xy: (K, 2) float64 pixels of the picture; 0 where a joint is not shown.
        shown: (K,) bool.
        line: the width of a limb in pixels.
        size: of the person, the root of the box area, in pixels.
    """

    xy: Points
    shown: NDArray[np.bool_]
    line: float
    size: float

    @property
    def box_xyxy(self) -> list[float]:
        """Around the joints that are shown."""
        xy = self.xy[self.shown]
        return [*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist()]


def areas(boxes_xyxy: Floats) -> NDArray[np.float64]:
    """(N,) of the boxes, in square pixels; 0 where one is not finite."""
    boxes = boxes_xyxy.astype(np.float64)
    boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def figure(
    canvas: Image, poses: Poses, row: int, area: float, joint_score: float, theme: Theme, paint: Paint
) -> Figure:
    """The joints of a person that can be seen in the picture, and how wide the limbs are."""
    height, width = canvas.shape[:2]
    xy = poses.keypoints_xy[row].astype(np.float64)
    # a joint that a broken estimate threw far out of the picture would only draw a stray line across it;
    # nan is neither near nor large
    near = (np.abs(xy - (width / 2, height / 2)) < (1.5 * width + 16, 1.5 * height + 16)).all(axis=1)
    shown = near & (poses.scores[row] >= joint_score)
    if not shown.any():
        return Figure(xy, shown, 0.0, 0.0)
    if area <= 0:  # no proper box: the extent of the joints
        area = float(np.prod(np.maximum(np.ptp(xy[shown], axis=0), 1)))
    size = min(area**0.5, 2.0 * max(height, width))
    line = theme.line * size
    # what would be thinner than a third of a pixel is only dirt: the fingers of someone far away
    shown &= (paint.joint_widths * line > 1 / 3) | (paint.joint_widths > 0.3)
    return Figure(np.where(shown[:, None], xy, 0), shown, max(line, min(theme.thinnest, 3 * line + 0.1)), size)


def draw_figure(
    canvas: Image, seen: Figure, skeleton: Skeleton, scores: Floats, joint_score: float, theme: Theme, paint: Paint
) -> None:
    """Draw limbs and joints, in place."""
    if not seen.shown.any():
        return
    sure = np.clip((scores.astype(np.float64) - joint_score) / max(theme.opaque_score - joint_score, 1e-6), 0, 1)
    shapes = _shapes(seen, skeleton, theme.faintest + (1 - theme.faintest) * sure, paint)
    if not theme.blended:
        draw_straight(canvas, seen.xy, shapes)
        return
    layer = open_layer(canvas, seen.xy[seen.shown], margin=2 * seen.line + 3)
    if layer is not None and (shapes.limbs or shapes.dots):
        draw_shapes(layer, seen.xy, shapes, theme)
        lay_over(canvas, layer, seen.xy, shapes)


def _shapes(seen: Figure, skeleton: Skeleton, alphas: NDArray[np.float64], paint: Paint) -> Shapes:
    """The limbs and joints, the faint before the sure."""
    shown, line = seen.shown, seen.line
    ends = skeleton.edge_index
    whole = np.flatnonzero(shown[ends].all(axis=1))
    bare = shown.copy()
    bare[ends[whole]] = False
    limb_alphas = alphas[ends].min(axis=1)
    order = whole[np.argsort(limb_alphas[whole], kind="stable")]
    widths = np.maximum(paint.edge_widths * line, 0.6).tolist()
    faded, pairs = limb_alphas.tolist(), ends.tolist()
    limbs = [Limb(pairs[k][0], pairs[k][1], paint.edge_colors[k], faded[k], widths[k]) for k in order.tolist()]
    # where a line is all that can be seen, a disc would only be a bump in it
    discs = np.flatnonzero(shown & (bare | (paint.joint_widths * line >= 1.6)))
    opaque = alphas.tolist()
    dots = []
    for row in discs[np.argsort(alphas[discs], kind="stable")].tolist():
        radius, rim = _disc(float(paint.joint_widths[row]) * line)
        dots.append(Dot(row, paint.joint_colors[row], opaque[row], radius, rim))
    return Shapes(limbs, dots)


def _disc(width: float) -> tuple[float, float]:
    """Radius and rim of the joint of a limb so wide."""
    if width < 1.6:
        return max(0.5 * width, 0.6), 0.0
    radius = 0.72 * width + 0.35
    return radius, min(max(0.6, 0.24 * width), 0.4 * radius) if radius > 1.8 else 0.0


def draw_box(canvas: Image, box_xyxy: Floats, score: float, theme: Theme, color: Color | None) -> None:
    """A thin frame, as opaque as the detector was sure."""
    height, width = canvas.shape[:2]
    if not np.isfinite(box_xyxy).all() or math.isnan(score):
        return
    box = np.clip(box_xyxy.astype(np.float64), -16, np.array([width, height, width, height]) + 16)
    line = max(1, round(0.002 * float(box[2] - box[0] + box[3] - box[1])))
    left, top, right, bottom = np.round(box - line / 2 + 0.5).astype(int).tolist()
    outer = left, top, right + line, bottom + line
    alpha = theme.faintest + (0.8 - theme.faintest) * min(max(score, 0), 1)
    if theme.blended:
        around = outer[0] - 1, outer[1] - 1, outer[2] + 1, outer[3] + 1
        _frame(canvas, around, line + 2, theme.outline, 0.4 * theme.outline_alpha * alpha)
    _frame(canvas, outer, line, color or theme.rim, alpha)


def _frame(canvas: Image, outer: tuple[int, int, int, int], wide: int, color: Color, alpha: float) -> None:
    """A frame in whole pixels, within the rectangle `outer`; where it is narrower than two sides, it is filled."""
    left, top, right, bottom = outer
    x, y = min(left + wide, right), min(top + wide, bottom)
    under, beyond = max(bottom - wide, y), max(right - wide, x)
    strips = ((left, top, right, y), (left, under, right, bottom), (left, y, x, under), (beyond, y, right, under))
    for x1, y1, x2, y2 in strips:
        part = canvas[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
        if part.size:
            part[:] = cv2.addWeighted(part, 1 - alpha, np.full_like(part, color), alpha, 0)
