"""What all detector networks share: a picture laid into an input, boxes thresholded, suppressed and brought back.

What differs is data: how a picture is laid out (`Fit`), which thresholds belong to the weights (`Settings`), and what
the outputs mean (a `Read` function, in the module of each kind).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posezoo.crop import normalise
from posezoo.deploy.runtimes import Runtime
from posezoo.errors import PosezooError, unknown_name
from posezoo.types import Boxes

Pixels = NDArray[np.uint8]

PERSON = ("person",)
PLACES = ("top-left", "centre", "tight", "stretch", "as-is")
RESIZES = ("linear", "cubic", "area")
STRIDE = 32  # of a "tight" canvas: the coarsest map of every network here
_CANDIDATES = 1000  # more boxes than this never matter, and suppression is quadratic
_CPU_BATCH, _GPU_BATCH = 1, 16  # on a CPU a batch is no faster than its pictures one by one, and only takes memory
_CROWD_STEP = 0.05


@dataclass(frozen=True)
class Settings:
    """What belongs to a detector's weights.

    Attributes:
        long_side: pixels of the longer side of the network's input.
        score: boxes below it are dropped.
        nms: of two boxes that overlap by more than this intersection over union, the better one stays; 1: both.
        max_people: at most so many boxes an image.
        pixel: what is added to widths and heights before they are multiplied: 1 where a box has its last pixel inside.
        crowd: where more boxes than this are left, they are suppressed anew with `nms` lower by 0.05; 0: never.
    """

    long_side: int = 320
    score: float = 0.3
    nms: float = 0.6
    max_people: int = 100
    pixel: float = 0.0
    crowd: int = 0

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("long_side", self.long_side >= STRIDE, f"at least {STRIDE}"),
            ("score", 0 <= self.score <= 1, "between 0 and 1"),
            ("nms", 0 < self.nms <= 1, "above 0 and at most 1"),
            ("max_people", self.max_people >= 1, "at least 1"),
        ):
            if not fits:
                raise PosezooError(f"the detector's {name} must be {wanted}, but is {getattr(self, name):g}")

    @classmethod
    def of(cls, values: dict[str, Any], *, score: float | None = None, nms: float | None = None) -> Settings:
        """Settings from a table; what it leaves out has its default, and what is asked for goes before it.

        Raises:
            PosezooError: an unknown key, or a value out of range.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown_name("detector setting", key, names)
        asked = {"score": score, "nms": nms}
        return cls(**{**values, **{key: value for key, value in asked.items() if value is not None}})


class View(NamedTuple):
    """Where a picture lies in a network's input.

    Attributes:
        size_wh: of the picture.
        scaled_wh: what it is scaled to.
        corner_xy: of its top left corner in the input.
    """

    size_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    corner_xy: tuple[int, int]

    def to_picture(self, xyxy: NDArray) -> NDArray[np.float64]:
        """Boxes (A, 4) in pixels of the input to pixels of the picture, cut at its edges."""
        size = np.array(self.size_wh, np.float64)
        scale = np.tile(size / self.scaled_wh, 2)
        return np.clip((xyxy - np.tile(self.corner_xy, 2)) * scale, 0, np.tile(size, 2))

    def inside(self, xyxy: NDArray) -> NDArray:
        """Boxes (A, 4) in pixels of the input, cut at the picture's edges."""
        low = np.tile(self.corner_xy, 2)
        return np.clip(xyxy, low, low + np.tile(self.scaled_wh, 2))


@dataclass(frozen=True)
class Fit:
    """How a picture becomes a network's input.

    Attributes:
        size_wh: the input's width and height.
        place: "top-left" or "centre" of the input, scaled to fit in; "tight": the same in an input no larger than the
            next multiples of 32, whichever way up `size_wh` fits better; "stretch": its aspect is not kept; "as-is":
            it is the input.
        fill: the grey level around it.
        resize: "linear", "cubic" or "area" (which averages where it shrinks, and is linear where it enlarges).
        rounding: of the scaled size, "nearest" or "down".
        channels: the order that the network wants.
        mean: of each channel in that order, in 0..1.
        std: of each channel in that order, in 0..1.
        layout: "planes", (N, 3, h, w) float32, normalised; or "pixels", (N, h, w, 3) uint8.
    """

    size_wh: tuple[int, int]
    place: Literal["top-left", "centre", "tight", "stretch", "as-is"] = "top-left"
    fill: int = 114
    resize: Literal["linear", "cubic", "area"] = "linear"
    rounding: Literal["nearest", "down"] = "nearest"
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["planes", "pixels"] = "planes"

    def view(self, size_wh: tuple[int, int]) -> View:
        """Where a picture of this size lies."""
        if self.place == "as-is":
            return View(size_wh, size_wh, (0, 0))
        if self.place == "stretch":
            return View(size_wh, self.size_wh, (0, 0))
        room = self.size_wh
        if self.place == "tight" and (size_wh[0] < size_wh[1]) != (room[0] < room[1]):
            room = (room[1], room[0])
        scale = min(room[0] / size_wh[0], room[1] / size_wh[1])
        whole = round if self.rounding == "nearest" else int
        # where float arithmetic makes a pixel less of it, it does so in the peers' own code
        width, height = (max(1, min(space, whole(n * scale))) for n, space in zip(size_wh, room, strict=True))
        free = (room[0] - width, room[1] - height) if self.place == "centre" else (0, 0)
        return View(size_wh, (width, height), (free[0] // 2, free[1] // 2))

    def canvas_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Of the input for a picture of this size."""
        if self.place == "as-is":
            return size_wh
        if self.place != "tight":
            return self.size_wh
        width, height = self.view(size_wh).scaled_wh
        return -(-width // STRIDE) * STRIDE, -(-height // STRIDE) * STRIDE

    def inputs(self, images_rgb: Sequence[Pixels]) -> NDArray:
        """(H, W, 3) uint8 each, of one `canvas_wh`, to the network's input."""
        width, height = self.canvas_wh(size_of(images_rgb[0]))
        canvas = np.full((len(images_rgb), height, width, 3), self.fill, np.uint8)
        for image, target in zip(images_rgb, canvas, strict=True):
            self._lay(image, target)
        if self.layout == "pixels":
            return canvas if self.channels == "rgb" else np.ascontiguousarray(canvas[..., ::-1])
        return normalise(canvas, self.mean, self.std, self.channels)

    def _lay(self, image_rgb: Pixels, canvas: Pixels) -> None:
        """Scale a picture into its place on a canvas."""
        import cv2

        view = self.view(size_of(image_rgb))
        (x, y), (width, height) = view.corner_xy, view.scaled_wh
        how = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_LINEAR}[self.resize]
        if self.resize == "area" and max(width, height) < max(image_rgb.shape[:2]):
            how = cv2.INTER_AREA  # plain bilinear skips pixels when it shrinks
        cv2.resize(image_rgb, (width, height), dst=canvas[y : y + height, x : x + width], interpolation=how)


class Candidates(NamedTuple):
    """What a network says of one picture, before it is suppressed.

    Attributes:
        xyxy: (A, 4) in pixels of the input.
        scores: (A,) in [0, 1].
        classes: (A,) numbers of the classes; None: all are of class 0.
    """

    xyxy: NDArray
    scores: NDArray
    classes: NDArray | None = None


Read = Callable[[Sequence[NDArray], View, float], Candidates]
"""What a network's outputs for one picture mean: (outputs, where the picture lies, scores below this do not matter)."""


@dataclass(frozen=True)
class PersonDetector:
    """A detector network with all that belongs to it.

    Attributes:
        runtime: computes it.
        settings: its thresholds.
        fit: what it takes.
        read: what it gives.
        wanted: the numbers of the classes that are looked for.
        batch_size: pictures a network call; None: what suits the device.
    """

    runtime: Runtime
    settings: Settings
    fit: Fit
    read: Read = field(repr=False)
    wanted: frozenset[int] = frozenset({0})
    batch_size: int | None = None

    def __call__(self, images_rgb: Sequence[Pixels], names: Sequence[str | None] | None = None) -> list[Boxes]:
        """The people in each (H, W, 3) uint8 image, best score first."""
        found: list[Boxes] = [Boxes.empty()] * len(images_rgb)
        size = self.batch_size or (_CPU_BATCH if self.runtime.device == "cpu" else _GPU_BATCH)
        for rows in self._batches(images_rgb, size):
            outputs = self.runtime(self.fit.inputs([images_rgb[row] for row in rows]))
            for place, row in enumerate(rows):
                view = self.fit.view(size_of(images_rgb[row]))
                candidates = self.read([output[place] for output in outputs], view, self.settings.score)
                found[row] = select(candidates, view, self.settings, self.wanted)
        return found

    def _batches(self, images: Sequence[Pixels], size: int) -> Iterator[list[int]]:
        """Rows of images that share an input size, at most `size` at a time."""
        groups: dict[tuple[int, int], list[int]] = {}
        for row, image in enumerate(images):
            groups.setdefault(self.fit.canvas_wh(size_of(image)), []).append(row)
        for rows in groups.values():
            for start in range(0, len(rows), size):
                yield rows[start : start + size]


def size_of(image: NDArray) -> tuple[int, int]:
    """Width and height of an (H, W, ...) image."""
    return image.shape[1], image.shape[0]


def select(found: Candidates, view: View, settings: Settings, wanted: Collection[int] = (0,)) -> Boxes:
    """Threshold, class filter and suppression for one picture.

    Args:
        found: what the network says.
        view: where the picture lies in its input.
        settings: the thresholds.
        wanted: the numbers of the classes that stay; boxes of one never suppress those of another.

    Returns:
        Boxes in pixels of the picture, best score first.
    """
    keep = (found.scores >= settings.score) & np.isfinite(found.xyxy).all(axis=1)
    keep &= (found.xyxy[:, 2:] > found.xyxy[:, :2]).all(axis=1)
    if found.classes is not None:
        keep &= np.isin(found.classes, list(wanted))
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(-found.scores[kept], kind="stable")][:_CANDIDATES]
    xyxy, scores = found.xyxy[kept].astype(np.float64), found.scores[kept]
    classes = np.zeros(len(kept)) if found.classes is None else found.classes[kept]
    stay = [_suppressed(xyxy, scores, classes == one, settings) for one in np.unique(classes)]
    order = np.sort(np.concatenate([np.zeros(0, np.intp), *stay]))  # they were in order of score
    pictured = view.to_picture(xyxy[order])
    seen = np.flatnonzero((pictured[:, 2:] > pictured[:, :2]).all(axis=1))[: settings.max_people]
    return Boxes(pictured[seen].astype(np.float32), np.clip(scores[order][seen], 0, 1))


def _suppressed(xyxy: NDArray, scores: NDArray, of_class: NDArray, settings: Settings) -> NDArray[np.intp]:
    """Rows of one class that stay."""
    rows = np.flatnonzero(of_class)
    kept = box_nms(xyxy[rows], scores[rows], settings.nms, settings.pixel)
    if settings.crowd and len(kept) > settings.crowd:
        kept = box_nms(xyxy[rows], scores[rows], settings.nms - _CROWD_STEP, settings.pixel)
    return rows[kept]


def box_nms(boxes_xyxy: NDArray, scores: NDArray, threshold: float, pixel: float = 0.0) -> NDArray[np.intp]:
    """Greedy suppression by intersection over union: indices that stay, best score first.

    Args:
        boxes_xyxy: (N, 4); N may be 0.
        scores: (N,).
        threshold: overlaps above it are dropped.
        pixel: added to every width and height; 1 where a box has its last pixel inside.
    """
    order = np.argsort(-scores, kind="stable")
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:] + pixel
    areas = np.prod(high - low, axis=1)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest])
        overlap = np.prod(np.maximum(sides, 0), axis=1)
        order = rest[overlap <= threshold * (areas[best] + areas[rest] - overlap)]
    return np.array(kept, np.intp)


def class_numbers(asked: Sequence[str], known: Sequence[str], who: str) -> frozenset[int]:
    """The numbers of the classes with these names.

    Args:
        asked: the names.
        known: the names of the network's classes, by number; "" for a number without one.
        who: the network, for the message.

    Raises:
        PosezooError: it has no such class, or none was asked for.
    """
    if isinstance(asked, str) or not asked:
        raise PosezooError(f"classes must be one or more names, such as ('person',), but is {asked!r}")
    names = {name: number for number, name in enumerate(known) if name}
    for name in asked:
        if name not in names:
            raise unknown_name("class", name, names, f"({who} tells {len(names)} apart)")
    return frozenset(names[name] for name in asked)
