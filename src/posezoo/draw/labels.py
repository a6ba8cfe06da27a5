"""Words on a picture: on a ground of their own, inside the picture, and not over each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posezoo.draw.layer import Image
from posezoo.draw.paint import Paint
from posezoo.draw.person import Figure
from posezoo.draw.themes import Theme
from posezoo.skeletons import Color, Skeleton

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_STEP = 0.04  # between sizes of words
_SMALLEST = 0.36  # of the font, that can still be read
_CELL = 4  # pixels; how finely free places are kept


class Text(NamedTuple):
    """A word and how large it is.

    Attributes:
        words: what it says.
        scale, thickness: as OpenCV's fonts take them.
        size_wh: of its ground, in pixels.
        start: where in it the word begins, and the line that it stands on.
    """

    words: str
    scale: float
    thickness: int
    size_wh: tuple[int, int]
    start: tuple[int, int]


def text(words: str, scale: float) -> Text:
    """A word that is about `scale` times OpenCV's 22 pixels high."""
    return _text(words, round(scale / _STEP))


@lru_cache(maxsize=4096)
def _text(words: str, steps: int) -> Text:
    scale = steps * _STEP
    thickness = max(1, round(1.6 * scale))
    (width, height), below = cv2.getTextSize(words, _FONT, scale, thickness)
    around = max(2, round(6 * scale))
    # one release's size is that of the words, the other's that of a line: what is seen of the words is the same in all
    page = np.zeros((3 * height + below, width + 2 * around), np.uint8)
    cv2.putText(page, words, (around, 2 * height), _FONT, scale, 255, thickness, cv2.LINE_AA)
    rows = np.flatnonzero((page > 127).any(axis=1)).tolist() or [height, 2 * height - 1]
    size_wh = width + 2 * around, rows[-1] - rows[0] + 1 + 2 * around
    return Text(words, scale, thickness, size_wh, (around, around + 2 * height - rows[0]))


def largest_scale(canvas: Image) -> float:
    """Of words on a picture of this size."""
    return max(_SMALLEST, min(canvas.shape[:2]) / 1100)


class Places:
    """What of a picture is still free for words."""

    def __init__(self, canvas: Image) -> None:
        self._size_wh = canvas.shape[1], canvas.shape[0]
        self._taken = np.zeros([-(-n // _CELL) + 1 for n in canvas.shape[:2]], bool)

    def find(self, size_wh: tuple[int, int], corners: Iterable[tuple[float, float]]) -> tuple[int, int] | None:
        """The first of the top left corners at which nothing is yet, moved into the picture, and it is taken now."""
        for corner in corners:
            x, y = (
                int(min(max(at, 0), max(most - n, 0)))
                for at, n, most in zip(corner, size_wh, self._size_wh, strict=True)
            )
            if self._take(x, y, *size_wh):
                return x, y
        return None

    def keep_free(self, xy: NDArray[np.float64], reach: NDArray[np.float64]) -> None:
        """Take the cells that lie within `reach` (N,) pixels of the points `xy` (N, 2)."""
        around = np.concatenate([xy - reach[:, None], xy + reach[:, None]], axis=1)
        cells = np.concatenate([np.floor(around[:, :2] / _CELL), np.ceil(around[:, 2:] / _CELL)], axis=1)
        cells = np.clip(cells, 0, np.tile(self._taken.shape[::-1], 2)).astype(np.int64)
        for x1, y1, x2, y2 in cells.tolist():
            self._taken[y1:y2, x1:x2] = True

    def _take(self, x: int, y: int, width: int, height: int) -> bool:
        cells = self._taken[y // _CELL : -(-(y + height) // _CELL), x // _CELL : -(-(x + width) // _CELL)]
        if cells.any():
            return False
        cells[:] = True
        return True


def write(canvas: Image, word: Text, x: int, y: int, ground: Color, ink: Color, opaque: float = 1.0) -> None:
    """Draw a word with its top left corner at (x, y), in place; what does not fit is cut off."""
    below = canvas[y : y + word.size_wh[1], x : x + word.size_wh[0]]
    if below.size == 0:
        return
    if opaque < 1:
        below[:] = cv2.addWeighted(below, 1 - opaque, np.full_like(below, ground), opaque, 0)
    else:
        below[:] = ground
    at = x + word.start[0], y + word.start[1]
    cv2.putText(canvas, word.words, at, _FONT, word.scale, ink, word.thickness, cv2.LINE_AA)


def ink_on(ground: Color) -> Color:
    """Black or white, whichever is the easier to read on `ground`."""
    red, green, blue = ground
    return (14, 17, 22) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)


def write_id(canvas: Image, number: int, box: Sequence[float], paint: Paint, theme: Theme, free: Places) -> None:
    """An id at a corner of a box, above it where there is room; nowhere, where those of nearer people leave none.

    Args:
        canvas: the picture, drawn on in place.
        number: the id.
        box: left, top, right, bottom in pixels; of somebody who is not in the picture nothing is written.
        paint: of the person.
        theme: of all.
        free: where there is room.
    """
    left, top, right, bottom = box
    if right < 0 or bottom < 0 or left >= canvas.shape[1] or top >= canvas.shape[0]:
        return
    size = (max(right - left, 0) * max(bottom - top, 0)) ** 0.5
    word = text(str(number), min(max(size / 320, _SMALLEST), largest_scale(canvas)))
    width, height = word.size_wh
    corners = [(left, top - height), (right - width, top - height), (left, top), (right - width, top)]
    corners += [(left, bottom), (right - width, bottom), (left - width, top), (right, top)]
    place = free.find(word.size_wh, corners)
    if place is not None:
        ground = paint.person or theme.outline
        write(canvas, word, *place, ground, ink_on(ground))


def keep_joints_free(seen: Figure, paint: Paint, free: Places) -> None:
    """Leave the joints of a person to be seen; not those of a face, which are closer than words."""
    rows = np.flatnonzero(seen.shown & (paint.joint_widths > 0.3))
    free.keep_free(seen.xy[rows], 0.7 * paint.joint_widths[rows] * seen.line)


def write_names(canvas: Image, seen: Figure, skeleton: Skeleton, theme: Theme, paint: Paint, free: Places) -> None:
    """The names of a person's joints beside them: of limbs first, and of those that have room."""
    if not seen.shown.any():
        return
    scale = min(max(seen.size / 900, _SMALLEST), 0.6 * max(largest_scale(canvas), 0.6))
    line = text("l", scale).size_wh[1]
    order = np.argsort(-paint.joint_widths, kind="stable")
    for row in order[seen.shown[order]].tolist():
        width = float(paint.joint_widths[row]) * seen.line
        if line > 4 * width + 1:
            continue  # the word would hide more than it says
        word = text(skeleton.joints[row], scale)
        x, y = seen.xy[row].tolist()
        if not (0 <= x < canvas.shape[1] and 0 <= y < canvas.shape[0]):
            continue
        far, (wide, high) = width + _CELL + 1, word.size_wh
        beside = [(x + far, y - high / 2), (x - far - wide, y - high / 2)]
        if skeleton.side(skeleton.joints[row]) == "right":
            beside.reverse()
        place = free.find(word.size_wh, [*beside, (x - wide / 2, y - far - high), (x - wide / 2, y + far)])
        if place is not None:
            write(canvas, word, *place, theme.outline, ink_on(theme.outline), opaque=0.72)
