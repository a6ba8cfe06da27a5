"""Curves as a picture, drawn with OpenCV: a few panels of a few lines each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = Sequence[tuple[float, float]]

PANEL_WH = (520, 330)
_OVER = 2  # drawn so much larger, then shrunk: the text is smoother
_MARGINS = (62, 40, 16, 34)  # left, top, right, bottom
_INK, _GREY, _GRID = (40, 40, 40), (120, 120, 120), (228, 228, 228)
# Okabe and Ito's colours, which most colour-blind people tell apart
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what it shows.
        lines: (x, y) of each line, by name.
        x_name: what x is.
        best: a point to mark, or None.
    """

    title: str
    lines: dict[str, Points]
    x_name: str = "step"
    best: tuple[float, float] | None = None


def draw(panels: Sequence[Panel], columns: int = 2) -> Image:
    """The panels side by side, row after row, (h, w, 3) uint8 RGB on white."""
    drawn = [_draw(panel) for panel in panels]
    blank = np.full_like(drawn[0], 255)
    drawn += [blank] * (-len(drawn) % columns)
    rows = [np.concatenate(drawn[start : start + columns], axis=1) for start in range(0, len(drawn), columns)]
    return np.concatenate(rows, axis=0)


def smooth(points: Points, share: float = 0.05) -> list[tuple[float, float]]:
    """The running mean over `share` of the points, as many before as after."""
    if not points:
        return []
    x, y = np.array(points, np.float64).T
    reach = int(len(y) * share / 2)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(y))
    return list(zip(x.tolist(), ((total[high] - total[low]) / (high - low)).tolist(), strict=True))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    """Short, such as "250", "0.05" or "2.5e-4"."""
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return f"{value:.4g}"
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest of the finite values, with a little air; never of no size."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    air = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return (low - air if low < 0 or low > air else 0.0), high + air


def _draw(panel: Panel) -> Image:
    width, height = (side * _OVER for side in PANEL_WH)
    left, top, right, bottom = (margin * _OVER for margin in _MARGINS)
    canvas = np.full((height, width, 3), 255, np.uint8)
    points = [point for line in panel.lines.values() for point in line if math.isfinite(point[1])]
    x_low, x_high = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=1.0)
    x_high = max(x_high, x_low + 1)
    y_low, y_high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[int, int]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return round(left + across * (width - left - right)), round(height - bottom - up * (height - top - bottom))

    for tick in ticks(y_low, y_high):
        cv2.line(canvas, place(x_low, tick), place(x_high, tick), _GRID, _OVER)
        _write(canvas, label(tick), (left - 6 * _OVER, place(x_low, tick)[1] + 4 * _OVER), _GREY, align=1.0)
    for tick in ticks(x_low, x_high):
        x = place(tick, y_low)[0]
        cv2.line(canvas, (x, height - bottom), (x, height - bottom + 4 * _OVER), _GREY, _OVER)
        _write(canvas, f"{tick:g}", (x, height - bottom + 16 * _OVER), _GREY, align=0.5)
    cv2.line(canvas, place(x_low, y_low), place(x_high, y_low), _GREY, _OVER)
    _write(canvas, panel.x_name, (width - right, height - 5 * _OVER), _GREY, align=1.0)
    _write(canvas, panel.title, (left, 18 * _OVER), _INK, size=0.5)
    across, coloured = left, list(zip(_COLOURS, panel.lines.items(), strict=False))
    for colour, (_, line) in reversed(coloured):  # the first line lies on top
        known = [place(x, y) for x, y in line if math.isfinite(y)]
        cv2.polylines(canvas, [np.array(known, np.int32).reshape(-1, 1, 2)], False, colour, 2 * _OVER, cv2.LINE_AA)
        if len(known) < 30:
            for point in known:
                cv2.circle(canvas, point, 3 * _OVER, colour, -1, cv2.LINE_AA)
    for colour, (name, _) in coloured if list(panel.lines) != [panel.title] else ():
        cv2.line(canvas, (across, 29 * _OVER), (across + 14 * _OVER, 29 * _OVER), colour, 3 * _OVER)
        across = _write(canvas, name, (across + 18 * _OVER, 33 * _OVER), _GREY) + 16 * _OVER
    if panel.best is not None:
        point = place(*panel.best)
        cv2.circle(canvas, point, 7 * _OVER, _INK, 2 * _OVER, cv2.LINE_AA)
        _write(canvas, label(float(f"{panel.best[1]:.4g}")), (point[0], point[1] - 11 * _OVER), _INK, align=0.5)
    return cv2.resize(canvas, PANEL_WH, interpolation=cv2.INTER_AREA)


def _write(
    canvas: Image,
    text: str,
    where: tuple[int, int],
    colour: tuple[int, int, int],
    align: float = 0.0,
    size: float = 0.4,
) -> int:
    """Text whose base line begins (`align` 0), has its middle (0.5) or ends (1) at `where`; its right end."""
    scale = size * _OVER
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, _OVER)[0][0]
    x = min(max(round(where[0] - align * width), 0), canvas.shape[1] - width)
    cv2.putText(canvas, text, (x, where[1]), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, _OVER, cv2.LINE_AA)
    return x + width
