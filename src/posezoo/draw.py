"""Skeletons over a picture: colours by side, lines by the person's size, doubtful joints faded.

Each person is drawn on a small transparent layer of its own, enlarged where the person is small, so that lines have
fractions of a pixel in width and place; the layers are laid over the picture from the far people to the near ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError
from posezoo.skeletons import Color, Skeleton
from posezoo.types import Poses

Image = NDArray[np.uint8]

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel
_FINE_PARTS = {"face": 0.16, "left_hand": 0.3, "right_hand": 0.3, "contour": 0.5, "feet": 0.75}
_FINE_JOINTS = {"nose": 0.62, "left_eye": 0.62, "right_eye": 0.62, "left_ear": 0.62, "right_ear": 0.62}
_ZOOMS = ((4, 100_000), (3, 150_000), (2, 600_000))  # how far a layer is enlarged, and up to how many pixels


@dataclass(frozen=True)
class Theme:
    """How skeletons look. Lengths are shares of the person's size, the root of the box area.

    Attributes:
        colors: RGB by side ("left", "right", "center") or part, in place of the skeleton's own.
        line: the width of a limb.
        thinnest: the least width of a limb, in pixels, as long as the person is not tiny.
        outline: RGB around lines and joints, so that they are legible on any ground.
        outline_alpha: how opaque the outline is, in [0, 1].
        rim: RGB of the ring around a joint.
        opaque_score: the score from which on a joint is not faded.
        faintest: how opaque the most doubtful joint is, in [0, 1].
    """

    colors: Mapping[str, Color] = field(default_factory=dict)
    line: float = 0.02
    thinnest: float = 1.25
    outline: Color = (14, 17, 22)
    outline_alpha: float = 0.6
    rim: Color = (255, 255, 255)
    opaque_score: float = 0.6
    faintest: float = 0.3


DEFAULT = Theme()


@dataclass(frozen=True)
class _Paint:
    """What a skeleton and a theme say of each joint and edge: RGB, and widths relative to a limb's."""

    joint_colors: tuple[Color, ...]
    edge_colors: tuple[Color, ...]
    joint_widths: NDArray[np.float64]
    edge_widths: NDArray[np.float64]


class _Limb(NamedTuple):
    """A line between two joints; widths and radii are pixels of the picture."""

    start: int
    end: int
    color: Color
    alpha: float
    width: float


class _Dot(NamedTuple):
    """A joint."""

    row: int
    color: Color
    alpha: float
    radius: float
    rim: float


class _Shapes(NamedTuple):
    """All of one person, the faint before the sure: these cover those where they cross."""

    limbs: list[_Limb]
    dots: list[_Dot]


@dataclass(frozen=True)
class _Layer:
    """A transparent cut-out of the picture.

    Attributes:
        rgba: (h, w, 4) uint8, colours already multiplied by their alpha.
        left, top: where its corner lies in the picture.
        zoom: its pixels a pixel of the picture.
    """

    rgba: Image
    left: int
    top: int
    zoom: int

    def points(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Pixels of the picture as OpenCV's fixed point pixels of the layer."""
        at = (xy + 0.5 - (self.left, self.top)) * self.zoom - 0.5
        return np.rint(at * (1 << _SHIFT)).astype(np.int64)


def draw_poses(
    image_rgb: Image, poses: Poses, *, boxes: bool = False, min_score: float = 0.2, theme: Theme = DEFAULT
) -> Image:
    """Draw the people of one image.

    Args:
        image_rgb: (H, W, 3) uint8; it is not changed.
        poses: the people; small boxes are taken to be far away and are drawn first.
        boxes: draw the boxes too.
        min_score: leave out joints below this score, and the limbs that end in them.
        theme: colours and widths.

    Returns:
        (H, W, 3) uint8, a new picture.

    Raises:
        PosezooError: the picture has another shape or type.
    """
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8 or image_rgb.shape[2:] != (3,):
        what = f"{image_rgb.dtype} {image_rgb.shape}" if isinstance(image_rgb, np.ndarray) else type(image_rgb).__name__
        raise PosezooError(f"can only draw on an (H, W, 3) uint8 RGB array, but got {what}")
    canvas = np.ascontiguousarray(image_rgb).copy()
    if canvas.size == 0:
        return canvas
    paint = _paint(poses.skeleton, tuple(sorted(theme.colors.items())))
    for row in np.argsort(_areas(poses.boxes_xyxy), kind="stable").tolist():
        if boxes:
            _draw_box(canvas, poses.boxes_xyxy[row], float(poses.box_scores[row]), theme)
        _draw_person(canvas, poses, row, min_score, theme, paint)
        if poses.track_ids is not None:
            _draw_label(canvas, f"{poses.track_ids[row]}", poses.boxes_xyxy[row], theme)
    return canvas


def _areas(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
    boxes = np.nan_to_num(boxes_xyxy.astype(np.float64))
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@lru_cache(maxsize=32)
def _paint(skeleton: Skeleton, overrides: tuple[tuple[str, Color], ...]) -> _Paint:
    skeleton = replace(skeleton, colors={**skeleton.colors, **dict(overrides)})
    widths = np.ones(len(skeleton.joints))
    for row, joint in enumerate(skeleton.joints):
        parts = [width for part, width in _FINE_PARTS.items() if joint in skeleton.parts.get(part, ())]
        if joint in _FINE_JOINTS:
            # five points are all there is of most faces; beside sixty-eight they had better be small
            parts.append(_FINE_JOINTS[joint] * (0.6 if "face" in skeleton.parts else 1.0))
        widths[row] = min([1.0, *parts])
    return _Paint(
        joint_colors=tuple(skeleton.color(joint) for joint in skeleton.joints),
        edge_colors=tuple(_edge_color(skeleton, a, b) for a, b in skeleton.edges),
        joint_widths=widths,
        edge_widths=widths[skeleton.edge_index].min(axis=1),
    )


def _edge_color(skeleton: Skeleton, a: str, b: str) -> Color:
    """A limb has the colour of its ends; between left and right it is neutral, towards the middle it keeps its side."""
    first, second = skeleton.color(a), skeleton.color(b)
    center = skeleton.side_color("center")
    if first == second:
        return first
    if {skeleton.side(a), skeleton.side(b)} == {"left", "right"}:
        return center
    return first if second == center else second


def _draw_person(canvas: Image, poses: Poses, row: int, min_score: float, theme: Theme, paint: _Paint) -> None:
    height, width = canvas.shape[:2]
    xy, scores = poses.keypoints_xy[row].astype(np.float64), poses.scores[row].astype(np.float64)
    # a joint that a broken estimate threw far out of the picture would only draw a stray line across it
    near = (np.abs(xy - (width / 2, height / 2)) < (1.5 * width + 16, 1.5 * height + 16)).all(axis=1)
    shown = near & (scores >= min_score)  # nan is neither near nor large
    if not shown.any():
        return
    line = theme.line * _size(poses.boxes_xyxy[row], xy[shown], canvas)
    # what would be thinner than a third of a pixel is only dirt: the fingers of someone far away
    shown &= (paint.joint_widths * line > 1 / 3) | (paint.joint_widths > 0.3)
    line = max(line, min(theme.thinnest, 3 * line + 0.1))
    layer = _open_layer(canvas, xy[shown], margin=2 * line + 3) if shown.any() else None
    if layer is None:
        return
    sure = np.clip((scores - min_score) / max(theme.opaque_score - min_score, 1e-6), 0, 1)
    shapes = _shapes(poses.skeleton, shown, theme.faintest + (1 - theme.faintest) * sure, line, paint)
    _draw_shapes(layer, np.where(shown[:, None], xy, 0), shapes, theme)
    _lay_over(canvas, layer)


def _shapes(
    skeleton: Skeleton, shown: NDArray[np.bool_], alphas: NDArray[np.float64], line: float, paint: _Paint
) -> _Shapes:
    """The limbs and joints of a person whose limbs are `line` pixels wide."""
    limbs, bare = [], shown.copy()
    for k in np.flatnonzero(shown[skeleton.edge_index].all(axis=1)).tolist():
        start, end = skeleton.edge_index[k].tolist()
        bare[[start, end]] = False
        width = max(float(paint.edge_widths[k]) * line, 0.6)
        limbs.append(_Limb(start, end, paint.edge_colors[k], float(min(alphas[start], alphas[end])), width))
    dots = []
    for row in np.flatnonzero(shown).tolist():
        width = float(paint.joint_widths[row]) * line
        if width >= 1.6:
            radius = 0.72 * width + 0.35
            rim = min(max(0.6, 0.24 * width), 0.4 * radius) if radius > 1.8 else 0.0
        elif bare[row]:
            radius, rim = max(0.5 * width, 0.6), 0.0
        else:
            continue  # where a line is all that can be seen, a disc would only be a bump in it
        dots.append(_Dot(row, paint.joint_colors[row], float(alphas[row]), radius, rim))
    return _Shapes(sorted(limbs, key=lambda limb: limb.alpha), sorted(dots, key=lambda dot: dot.alpha))


def _size(box_xyxy: NDArray[np.float32], xy: NDArray[np.float64], canvas: Image) -> float:
    """The root of the box area, of the joints' extent where the box is missing; never much beyond the picture."""
    box = box_xyxy.astype(np.float64)
    area = float((box[2] - box[0]) * (box[3] - box[1])) if np.isfinite(box).all() else 0.0
    if area <= 0:
        area = float(np.prod(np.maximum(np.ptp(xy, axis=0), 1)))
    height, width = canvas.shape[:2]
    return min(area**0.5, 2.0 * max(height, width))


def _draw_shapes(layer: _Layer, xy: NDArray[np.float64], shapes: _Shapes, theme: Theme) -> None:
    """Outlines first, then limbs, then joints, each in the order given."""
    points = [tuple(point) for point in layer.points(xy).tolist()]
    one = layer.zoom << _SHIFT

    def stroke(limb: _Limb, color: Color, alpha: float, width: float) -> None:
        a, b, thickness = points[limb.start], points[limb.end], max(1, round(width * layer.zoom))
        cv2.line(layer.rgba, a, b, _premultiplied(color, alpha), thickness, cv2.LINE_AA, _SHIFT)

    def disc(dot: _Dot, color: Color, alpha: float, radius: float) -> None:
        fixed = max(1, round(radius * one))
        cv2.circle(layer.rgba, points[dot.row], fixed, _premultiplied(color, alpha), cv2.FILLED, cv2.LINE_AA, _SHIFT)

    for limb in shapes.limbs:
        around = 2 * min(max(0.6, 0.22 * limb.width), 0.45 * limb.width)
        stroke(limb, theme.outline, theme.outline_alpha * limb.alpha, limb.width + around)
    for dot in shapes.dots:
        around = min(max(0.6, 0.28 * dot.radius), 0.7 * dot.radius)
        disc(dot, theme.outline, theme.outline_alpha * dot.alpha, dot.radius + around)
    for limb in shapes.limbs:
        stroke(limb, limb.color, limb.alpha, limb.width)
    for dot in shapes.dots:
        if dot.rim > 0:
            disc(dot, theme.rim, dot.alpha, dot.radius)
        disc(dot, dot.color, dot.alpha, dot.radius - dot.rim)


def _premultiplied(color: Color, alpha: float) -> tuple[float, float, float, float]:
    red, green, blue = color
    return red * alpha, green * alpha, blue * alpha, 255 * alpha


def _open_layer(canvas: Image, xy: NDArray[np.float64], margin: float) -> _Layer | None:
    """A clear layer over `xy` and a margin, as far as it lies in the picture; None where nothing of it does."""
    height, width = canvas.shape[:2]
    left, top = np.clip(np.floor(xy.min(axis=0) - margin), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(xy.max(axis=0) + margin) + 1, 0, (width, height)).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    area = (right - left) * (bottom - top)
    zoom = next((z for z, pixels in _ZOOMS if area * z * z <= pixels), 1)
    return _Layer(np.zeros(((bottom - top) * zoom, (right - left) * zoom, 4), np.uint8), left, top, zoom)


def _lay_over(canvas: Image, layer: _Layer) -> None:
    """Blend the layer into the picture, in place."""
    height, width = (n // layer.zoom for n in layer.rgba.shape[:2])
    rgba = layer.rgba if layer.zoom == 1 else cv2.resize(layer.rgba, (width, height), interpolation=cv2.INTER_AREA)
    below = canvas[layer.top : layer.top + height, layer.left : layer.left + width]
    clear = cv2.bitwise_not(cv2.cvtColor(cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2BGR))
    below[:] = cv2.add(cv2.multiply(below, clear, scale=1 / 255), cv2.cvtColor(rgba, cv2.COLOR_BGRA2BGR))


def _draw_box(canvas: Image, box_xyxy: NDArray[np.float32], score: float, theme: Theme) -> None:
    """A thin frame, as opaque as the detector was sure."""
    box = box_xyxy.astype(np.float64).reshape(2, 2)
    height, width = canvas.shape[:2]
    if not np.isfinite(box).all():
        return
    box = np.clip(box, -16, (width + 16, height + 16))
    alpha = theme.faintest + (0.8 - theme.faintest) * min(max(np.nan_to_num(score), 0), 1)
    line = max(1.0, 0.004 * float(np.ptp(box, axis=0).mean()))
    layer = _open_layer(canvas, box, margin=2 * line + 2)
    if layer is None:
        return
    first, last = (tuple(p.tolist()) for p in layer.points(box))
    for color, opaque, wide in ((theme.outline, theme.outline_alpha * alpha, line + 1.2), (theme.rim, alpha, line)):
        thickness = max(1, round(wide * layer.zoom))
        cv2.rectangle(layer.rgba, first, last, _premultiplied(color, opaque), thickness, cv2.LINE_AA, _SHIFT)
    _lay_over(canvas, layer)


def _draw_label(canvas: Image, text: str, box_xyxy: NDArray[np.float32], theme: Theme) -> None:
    """A track's number at the top left corner of its box."""
    height, width = canvas.shape[:2]
    if not np.isfinite(box_xyxy).all():
        return
    scale = max(0.35, min(height, width) / 1000)
    thickness = max(1, round(1.5 * scale))
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = int(np.clip(box_xyxy[0] + 2, 0, max(width - wide, 0)))
    y = int(np.clip(box_xyxy[1] + high + 3, min(high, height), height))
    for color, extra in ((theme.outline, 2), (theme.rim, 0)):
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness + extra, cv2.LINE_AA)
