"""What training does to a photograph before the network sees it.

Every function takes its own random generator, so that a sample depends on (seed, epoch, row) alone: however many
workers read it, and whenever a run is broken off and resumed, it comes out the same. `sample` is all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from posezoo.crop import Grid, box_to_affine, crop_images, transform_points
from posezoo.data.fields import NoFile
from posezoo.data.proposals import draw, get_proposals
from posezoo.skeletons import Skeleton

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

HALF_BODY_SCALE = 1.5  # how much larger than its joints' extent the region around half a body is


class Augment(BaseModel):
    """How much of what; the defaults are those of HRNet on COCO (arXiv:1902.09212, section 4.1, and its code)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: float = Field(0.5, ge=0, le=1)  # probability
    scale: float = Field(0.35, ge=0, lt=1)  # standard deviation of the box's growth, and the most that it is
    rotation_deg: float = Field(45.0, ge=0, le=180)  # standard deviation of the turn, which is twice that at most
    rotation: float = Field(0.6, ge=0, le=1)  # probability
    shift: float = Field(0.0, ge=0, le=0.5)  # the box moves by up to this share of its width and height, either way
    shift_probability: float = Field(1.0, ge=0, le=1)
    # of which box: "view": the one that is looked at, half a body's too, as large as `scale` makes it; "box": the one
    # before it has grown, as MMPose has it, and half a body stays where it is
    shift_of: Literal["view", "box"] = "view"
    half_body: float = Field(0.3, ge=0, le=1)  # probability of upper or lower body alone ...
    half_body_joints: int = Field(8, ge=2)  # ... of people with more labelled joints than this
    proposals: float = Field(0.0, ge=0, le=1)  # probability of a box such as a detector finds, in place of the label's
    proposals_from: NoFile = None  # a file that `posezoo.data.proposals` wrote; None: the embedded one's
    cut: float = Field(0.0, ge=0, le=1)  # probability that the photograph ends in the middle of the person
    colour: float = Field(0.0, ge=0, le=1)  # strength of brightness, contrast, saturation and gamma changes
    blur: float = Field(0.0, ge=0, le=1)  # probability of a small or blurred person enlarged
    grey: float = Field(0.0, ge=0, le=1)  # probability
    occlusion: float = Field(0.0, ge=0, le=1)  # probability of coarse dropout: one to three rectangles hidden

    @model_validator(mode="after")
    def _proposals_are_there(self) -> Augment:
        if self.proposals:
            get_proposals(self.proposals_from)  # a wrong file is an error before the run, not within a worker
        return self


class View(NamedTuple):
    """Which part of the picture to look at, and how.

    Attributes:
        box_xyxy: (4,) float32, before the crop's margin.
        rotation_deg: as `posezoo.crop` takes it.
        flip: whether to mirror.
        of: what the box is around: "label", "proposal" or "half body".
    """

    box_xyxy: Floats
    rotation_deg: float
    flip: bool
    of: str = "label"


@dataclass(frozen=True, eq=False)
class Sample:
    """One person as the network is to see them.

    Attributes:
        crop: (h, w, 3) uint8.
        crop_xy: (K, 2) float32 joints, pixels of the crop.
        weights: (K,) float32; 0: no label.
        view: what was chosen.
        was_cut: whether the photograph was cut off.
    """

    crop: Image
    crop_xy: Floats
    weights: Floats
    view: View
    was_cut: bool


def sample(
    rng: np.random.Generator,
    settings: Augment,
    image: Image,
    box_xyxy: Floats,
    keypoints_xy: Floats,
    weights: Floats,
    skeleton: Skeleton,
    size_wh: Sequence[int],
    box_scale: float = 1.25,
    grid: Grid = "legacy",
) -> Sample:
    """Everything in its order: `cut`, `view`, the crop, `mirror`, `appearance`.

    Args:
        rng: where chance comes from.
        settings: how much of what.
        image: (H, W, 3) uint8.
        box_xyxy: (4,) the label's box, pixels of the image.
        keypoints_xy: (K, 2) pixels of the image.
        weights: (K,); 0: no label.
        skeleton: the K joints.
        size_wh: the crop's width and height.
        box_scale: the crop's margin.
        grid: the crop's, see `posezoo.crop`.
    """
    shown, box, xy, weights = cut(rng, settings, image, box_xyxy, keypoints_xy, weights)
    chosen = choose(rng, settings, box, xy, weights, skeleton, box_scale)
    affine = box_to_affine(chosen.box_xyxy[None], size_wh, box_scale, chosen.rotation_deg, grid)
    crop = crop_images(shown, affine, size_wh)[0]
    crop_xy = transform_points(affine, xy[None])[0].astype(np.float32)
    if chosen.flip:
        crop, crop_xy, weights = mirror(crop, crop_xy, weights, skeleton)
    return Sample(appearance(rng, settings, crop), crop_xy, weights, chosen, shown is not image)


def view(
    rng: np.random.Generator,
    settings: Augment,
    box_xyxy: Floats,
    keypoints_xy: Floats,
    weights: Floats,
    skeleton: Skeleton,
    box_scale: float = 1.25,
) -> tuple[Floats, float, bool]:
    """Which part of the picture to look at, and how: the first three of `choose`.

    Returns:
        box_xyxy (4,), rotation in degrees, whether to mirror.
    """
    return choose(rng, settings, box_xyxy, keypoints_xy, weights, skeleton, box_scale)[:3]


def choose(
    rng: np.random.Generator,
    settings: Augment,
    box_xyxy: Floats,
    keypoints_xy: Floats,
    weights: Floats,
    skeleton: Skeleton,
    box_scale: float = 1.25,
) -> View:
    """A box (the label's, a detector's, or that of half a body), scaled and moved, a turn, and whether to mirror.

    Scale and turn are HRNet's (those of Simple Baselines, MMPose and the Hourglass code too): normal, with what is
    beyond one deviation of the scale and two of the turn brought back there. `box_scale` is by how much the crop will
    be larger than the box: the region around half a body has a margin of its own, and no second one.
    """
    box, of = np.asarray(box_xyxy, np.float64), "label"
    if settings.proposals and rng.random() < settings.proposals:
        found = draw(rng, get_proposals(settings.proposals_from), box_xyxy, keypoints_xy, weights, skeleton)
        box, of = found.astype(np.float64), "proposal"
    if rng.random() < settings.half_body and (weights > 0).sum() > settings.half_body_joints:
        half = half_body(rng, keypoints_xy, weights, skeleton)
        if half is not None:
            reach = half[1] * (HALF_BODY_SCALE / box_scale / 2)
            box, of = np.concatenate([half[0] - reach, half[0] + reach]).astype(np.float64), "half body"
    centre, before = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    side = before * (1 + settings.scale * np.clip(rng.standard_normal(), -1, 1))
    share = settings.shift * rng.uniform(-1, 1, 2)
    # a sure shift draws no number more than none does
    moves = not settings.shift or settings.shift_probability == 1 or rng.random() < settings.shift_probability
    if moves and settings.shift_of == "view":
        centre = centre + share * side
    elif moves and of != "half body":
        centre = centre + share * before
    turn = 0.0
    if rng.random() < settings.rotation:
        turn = settings.rotation_deg * float(np.clip(rng.standard_normal(), -2, 2))
    flip = bool(rng.random() < settings.flip)
    return View(np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32), turn, flip, of)


def half_body(
    rng: np.random.Generator | np.random.RandomState, keypoints_xy: Floats, weights: Floats, skeleton: Skeleton
) -> tuple[Floats, Floats] | None:
    """The labelled joints of the upper or the lower half (in and not in the part `upper_body`), as HRNet takes them.

    The upper half has it with the probability that a normal number is below 0.5, 0.69; a half of fewer than three
    joints leaves it to the other.

    Returns:
        The mean (2,) of the joints and their extent (2,), pixels; None where there are fewer than two or all are in one
        place, or where the skeleton has no halves.
    """
    upper = _upper(skeleton)
    if not upper.any():
        return None
    above, below = (keypoints_xy[half & (weights > 0)].astype(np.float32) for half in (upper, ~upper))
    # the number is drawn first, whether or not there is a choice
    wants_upper = rng.standard_normal() < 0.5
    points = above if (wants_upper and len(above) > 2) or len(below) <= 2 else below
    if len(points) < 2 or float(np.ptp(points, axis=0).max()) < 1:
        return None
    return points.mean(axis=0), np.ptp(points, axis=0)


@cache
def _upper(skeleton: Skeleton) -> NDArray[np.bool_]:
    return np.isin(skeleton.joints, skeleton.parts.get("upper_body", ()))


def cut(
    rng: np.random.Generator, settings: Augment, image: Image, box_xyxy: Floats, keypoints_xy: Floats, weights: Floats
) -> tuple[Image, Floats, Floats, Floats]:
    """The photograph cut off through the person, mostly below, as those of people near the camera are.

    Returns:
        image, box_xyxy (4,), keypoints_xy (K, 2) and weights (K,), joints that were cut off having weight 0. All as
        they were where chance says so, or where fewer than three labelled joints would be left.
    """
    unchanged = image, box_xyxy, keypoints_xy, weights
    if rng.random() >= settings.cut:
        return unchanged
    side = rng.choice(["bottom", "left", "right"], p=[0.6, 0.2, 0.2])
    axis = 1 if side == "bottom" else 0
    low, high = float(box_xyxy[axis]), float(box_xyxy[axis + 2])
    kept = rng.uniform(0.25, 0.8) * (high - low)
    edge = round(high - kept if side == "left" else low + kept)
    inside = keypoints_xy[:, axis] > edge if side == "left" else keypoints_xy[:, axis] < edge
    if ((weights > 0) & inside).sum() < 3 or not 8 < edge < image.shape[1 - axis] - 8:
        return unchanged
    box, xy = box_xyxy.copy(), keypoints_xy
    if side == "bottom":
        image, box[3] = image[:edge], edge
    elif side == "right":
        image, box[2] = image[:, :edge], edge
    else:
        moved = np.array([edge, 0], np.float32)
        image, box[0], xy = image[:, edge:], edge, keypoints_xy - moved
        box -= np.tile(moved, 2)
    return np.ascontiguousarray(image), box, xy, np.where(inside, weights, 0).astype(np.float32)


def mirror(crop: Image, crop_xy: Floats, weights: Floats, skeleton: Skeleton) -> tuple[Image, Floats, Floats]:
    """The crop (h, w, 3) flipped left to right, with the joints (K, 2) and weights (K,) of left and right exchanged."""
    flipped_xy = crop_xy.copy()
    flipped_xy[:, 0] = crop.shape[1] - 1 - flipped_xy[:, 0]
    order = skeleton.mirror_index
    return cv2.flip(crop, 1), flipped_xy[order], weights[order]


def appearance(rng: np.random.Generator, settings: Augment, crop: Image) -> Image:
    """The crop (h, w, 3) in another light, through a worse lens, or partly hidden; joints stay where they are."""
    if rng.random() < settings.blur:
        crop = _blur(rng, crop)
    if settings.colour:
        crop = _colour(rng, settings.colour, crop)
    if rng.random() < settings.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < settings.occlusion:
        crop = _occlude(rng, crop)
    return crop


def _blur(rng: np.random.Generator, crop: Image) -> Image:
    """Shrunk and enlarged again, as a person far away is, or compressed as JPEG."""
    height, width = crop.shape[:2]
    if rng.random() < 0.7:
        factor = rng.uniform(0.2, 0.7)
        small = cv2.resize(
            crop, (max(2, int(width * factor)), max(2, int(height * factor))), interpolation=cv2.INTER_AREA
        )
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    packed = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def _colour(rng: np.random.Generator, strength: float, crop: Image) -> Image:
    """Gain, offset and gamma a channel (a shared part and an own part) by one look-up table, then saturation."""
    level = np.arange(256, dtype=np.float32)[:, None] / 255
    gamma = np.exp(strength * 0.5 * rng.uniform(-1, 1))
    gain = 1 + strength * (0.35 * rng.uniform(-1, 1) + 0.15 * rng.uniform(-1, 1, 3))
    offset = strength * 0.15 * rng.uniform(-1, 1)
    table = np.clip(255 * (gain * level**gamma + offset), 0, 255).astype(np.uint8)
    crop = cv2.merge([cv2.LUT(plane, np.ascontiguousarray(table[:, n])) for n, plane in enumerate(cv2.split(crop))])
    saturation = 1 + strength * 0.6 * rng.uniform(-1, 1)
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(crop, saturation, grey, 1 - saturation, 0)


def _occlude(rng: np.random.Generator, crop: Image) -> Image:
    """Coarse dropout: one to three rectangles replaced by noise of one colour, or by another part of the same crop."""
    crop = crop.copy()
    height, width = crop.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        h, w = (int(n * rng.uniform(0.08, 0.35)) + 1 for n in (height, width))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        if rng.random() < 0.5:
            v, u = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            crop[y : y + h, x : x + w] = crop[v : v + h, u : u + w].copy()
        else:
            noise = rng.integers(0, 256, 3) + rng.standard_normal((h, w, 3)) * 20
            crop[y : y + h, x : x + w] = np.clip(noise, 0, 255).astype(np.uint8)
    return crop
