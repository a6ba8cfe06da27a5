"""Small transparent cut-outs of a picture to draw on, with fractions of a pixel; only what was touched is blended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.draw.themes import Theme
from posezoo.skeletons import Color

Image = NDArray[np.uint8]
Points = NDArray[np.float64]

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel
_ZOOMS = ((4, 100_000), (2, 600_000))  # how far a layer is enlarged, and up to how many pixels
_CELL = 64  # pixels; a layer is blended in cells where it is larger than a few


class Limb(NamedTuple):
    """A line between two points, by their rows; widths and radii are pixels of the picture."""

    start: int
    end: int
    color: Color
    alpha: float
    width: float


class Dot(NamedTuple):
    """A joint."""

    row: int
    color: Color
    alpha: float
    radius: float
    rim: float


class Shapes(NamedTuple):
    """All of one person, the faint before the sure: these cover those where they cross."""

    limbs: Sequence[Limb]
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Layer:
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

    def points(self, xy: Points) -> list[tuple[int, int]]:
        """Pixels of the picture as OpenCV's fixed point pixels of the layer."""
        at = (xy + 0.5 - (self.left, self.top)) * self.zoom - 0.5
        return [(x, y) for x, y in np.rint(at * (1 << _SHIFT)).astype(np.int64).tolist()]


def open_layer(canvas: Image, xy: Points, margin: float) -> Layer | None:
    """A clear layer over `xy` and a margin, as far as it lies in the picture; None where nothing of it does."""
    height, width = canvas.shape[:2]
    (x1, y1), (x2, y2) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
    left, right = int(max(x1 - margin, 0)), int(min(x2 + margin + 2, width))
    top, bottom = int(max(y1 - margin, 0)), int(min(y2 + margin + 2, height))
    if right <= left or bottom <= top:
        return None
    area = (right - left) * (bottom - top)
    zoom = next((z for z, pixels in _ZOOMS if area * z * z <= pixels), 1)
    return Layer(np.zeros(((bottom - top) * zoom, (right - left) * zoom, 4), np.uint8), left, top, zoom)


def draw_shapes(layer: Layer, xy: Points, shapes: Shapes, theme: Theme) -> None:
    """Outlines first, then limbs, then joints, each in the order given."""
    points, rgba, zoom, one = layer.points(xy), layer.rgba, layer.zoom, layer.zoom << _SHIFT

    def stroke(limb: Limb, color: Color, alpha: float, width: float, kind: int = cv2.LINE_AA) -> None:
        thickness = max(1, round(width * zoom))
        cv2.line(rgba, points[limb.start], points[limb.end], _clear(color, alpha), thickness, kind, _SHIFT)

    def disc(dot: Dot, color: Color, alpha: float, radius: float, kind: int = cv2.LINE_AA) -> None:
        fixed = max(1, round(radius * one))
        cv2.circle(rgba, points[dot.row], fixed, _clear(color, alpha), cv2.FILLED, kind, _SHIFT)

    # the steps of an enlarged layer are smoothed when it is reduced, which is enough for an outline and quicker
    rough = cv2.LINE_8 if zoom > 1 else cv2.LINE_AA
    for limb in shapes.limbs if theme.outline_alpha > 0 else ():
        stroke(limb, theme.outline, theme.outline_alpha * limb.alpha, limb.width + 2 * _edge_of(limb), rough)
    for dot in shapes.dots if theme.outline_alpha > 0 else ():
        disc(dot, theme.outline, theme.outline_alpha * dot.alpha, dot.radius + _edge_around(dot), rough)
    for limb in shapes.limbs:
        stroke(limb, limb.color, limb.alpha, limb.width)
    for dot in shapes.dots:
        if dot.rim > 0:
            disc(dot, theme.rim, dot.alpha, dot.radius)
        disc(dot, dot.color, dot.alpha, dot.radius - dot.rim)


def _edge_of(limb: Limb) -> float:
    """How wide the outline is at each side of a limb."""
    return min(max(0.6, 0.22 * limb.width), 0.45 * limb.width)


def _edge_around(dot: Dot) -> float:
    return min(max(0.6, 0.28 * dot.radius), 0.7 * dot.radius)


def _clear(color: Color, alpha: float) -> tuple[float, float, float, float]:
    """RGBA, multiplied by the alpha."""
    red, green, blue = color
    return red * alpha, green * alpha, blue * alpha, 255 * alpha


def draw_straight(canvas: Image, xy: Points, shapes: Shapes) -> None:
    """On the picture itself, in place: neither outline nor rim, and as if all alphas were 1."""
    points = [(x, y) for x, y in np.rint(xy * (1 << _SHIFT)).astype(np.int64).tolist()]
    for limb in shapes.limbs:
        width = max(1, round(limb.width))
        cv2.line(canvas, points[limb.start], points[limb.end], limb.color, width, cv2.LINE_8, _SHIFT)
    for dot in shapes.dots:
        cv2.circle(
            canvas, points[dot.row], round(dot.radius * (1 << _SHIFT)), dot.color, cv2.FILLED, cv2.LINE_8, _SHIFT
        )


def lay_over(canvas: Image, layer: Layer, xy: Points, shapes: Shapes) -> None:
    """Blend the layer into the picture, in place, where the shapes have touched it."""
    for x1, y1, x2, y2 in _touched(layer, xy, shapes):
        _blend(canvas, layer, x1, y1, x2, y2)


def _blend(canvas: Image, layer: Layer, x1: int, y1: int, x2: int, y2: int) -> None:
    """A part of a layer, in pixels of the picture from the layer's corner."""
    zoom = layer.zoom
    rgba = layer.rgba[y1 * zoom : y2 * zoom, x1 * zoom : x2 * zoom]
    while zoom > 1:  # halving twice is four times as fast as quartering
        zoom //= 2
        rgba = cv2.resize(rgba, ((x2 - x1) * zoom, (y2 - y1) * zoom), interpolation=cv2.INTER_AREA)
    below = canvas[layer.top + y1 : layer.top + y2, layer.left + x1 : layer.left + x2]
    clear = cv2.bitwise_not(cv2.cvtColor(cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2BGR))
    below[:] = cv2.add(cv2.multiply(below, clear, scale=1 / 255), cv2.cvtColor(rgba, cv2.COLOR_BGRA2BGR))


def _touched(layer: Layer, xy: Points, shapes: Shapes) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles that hold all shapes, as left, top, right, bottom from the layer's corner: rows of cells."""
    height, width = (n // layer.zoom for n in layer.rgba.shape[:2])
    if height * width <= 4 * _CELL * _CELL:
        yield 0, 0, width, height
        return
    points, reach = _reached(xy - (layer.left, layer.top), shapes)
    # a square of the reach to each side of a point lies in two by two cells at most: its corners say in which
    cell = max(_CELL, 2 * reach)
    rows, columns = -(-height // cell), -(-width // cell)
    marks = np.zeros((rows + 2, columns + 2), bool)  # with a border, for what lies outside
    first, last = (np.floor((points + way) / cell + 1).astype(np.int64) for way in (-reach, reach))
    for x, y in ((first, first), (first, last), (last, first), (last, last)):
        marks[np.clip(y[:, 1], 0, rows + 1), np.clip(x[:, 0], 0, columns + 1)] = True
    marks[:, [0, -1]] = False
    at, changes = np.nonzero(marks[1:-1, 1:] != marks[1:-1, :-1])
    for row, begin, end in zip(at[::2].tolist(), changes[::2].tolist(), changes[1::2].tolist(), strict=True):
        yield begin * cell, row * cell, min(end * cell, width), min((row + 1) * cell, height)


def _reached(xy: Points, shapes: Shapes) -> tuple[Points, int]:
    """Points along all shapes, and how far from these everything lies that is drawn, in each direction."""
    limb, dot = max(shapes.limbs, key=_by_width, default=None), max(shapes.dots, key=_by_radius, default=None)
    thick = max(limb.width / 2 + _edge_of(limb) if limb else 0, dot.radius + _edge_around(dot) if dot else 0) + 2
    step = max(2 * thick, _CELL / 2)
    first = xy[[limb.start for limb in shapes.limbs]]
    way = xy[[limb.end for limb in shapes.limbs]] - first
    count = int(np.abs(way).max(initial=0) // step) + 2
    along = first[:, None] + np.linspace(0, 1, count)[:, None] * way[:, None]
    points = np.concatenate([along.reshape(-1, 2), xy[[dot.row for dot in shapes.dots]]])
    return points, int(np.ceil(thick + step / 2))


def _by_width(limb: Limb) -> float:
    return limb.width


def _by_radius(dot: Dot) -> float:
    return dot.radius
