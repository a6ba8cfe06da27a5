"""What training does to a photograph before the network sees it.

Every function takes its own random generator, so that a sample depends on (seed, epoch, row) alone: however many
workers read it, and whenever a run is broken off and resumed, it comes out the same.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from posezoo.skeletons import Skeleton

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


class Augment(BaseModel):
    """How much of what; the defaults are those of the HRNet paper (arXiv:1902.09212, section 4.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: float = Field(0.5, ge=0, le=1)  # probability
    scale: float = Field(0.35, ge=0, lt=1)  # the box grows or shrinks by up to this share
    rotation_deg: float = Field(45.0, ge=0, le=180)  # at most, either way
    rotation: float = Field(0.6, ge=0, le=1)  # probability
    shift: float = Field(0.0, ge=0, le=0.5)  # the box moves by up to this share of its size
    half_body: float = Field(0.3, ge=0, le=1)  # probability of upper or lower body alone, if enough joints are labelled
    half_body_joints: int = Field(8, ge=2)
    cut: float = Field(0.0, ge=0, le=1)  # probability that the photograph ends in the middle of the person
    colour: float = Field(0.0, ge=0, le=1)  # strength of brightness, contrast, saturation and gamma changes
    blur: float = Field(0.0, ge=0, le=1)  # probability of a small or blurred person enlarged
    grey: float = Field(0.0, ge=0, le=1)  # probability
    occlusion: float = Field(0.0, ge=0, le=1)  # probability of hiding rectangles of the crop


def view(
    rng: np.random.Generator,
    settings: Augment,
    box_xyxy: Floats,
    keypoints_xy: Floats,
    weights: Floats,
    skeleton: Skeleton,
) -> tuple[Floats, float, bool]:
    """Which part of the picture to look at, and how.

    Returns:
        box_xyxy (4,), rotation in degrees, whether to mirror.
    """
    box = np.asarray(box_xyxy, np.float32)
    if rng.random() < settings.half_body and (weights > 0).sum() >= settings.half_body_joints:
        box = _half_body(rng, box, keypoints_xy, weights, skeleton)
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    size = size * (1 + settings.scale * np.clip(rng.standard_normal() / 2, -1, 1))
    centre = centre + settings.shift * rng.uniform(-1, 1, 2) * size
    rotation = 0.0
    if rng.random() < settings.rotation:
        rotation = settings.rotation_deg * float(np.clip(rng.standard_normal() / 2, -1, 1)) * 2
        rotation = float(np.clip(rotation, -settings.rotation_deg, settings.rotation_deg))
    flip = bool(rng.random() < settings.flip)
    return np.concatenate([centre - size / 2, centre + size / 2]).astype(np.float32), rotation, flip


def _half_body(
    rng: np.random.Generator, box: Floats, keypoints_xy: Floats, weights: Floats, skeleton: Skeleton
) -> Floats:
    """The box of the labelled joints of the upper or the lower half; the whole box if a half has too few."""
    upper = np.isin(skeleton.joints, skeleton.parts.get("upper_body", ()))
    half = upper if rng.random() < 0.7 else ~upper
    points = keypoints_xy[half & (weights > 0)]
    if len(points) < 3:
        return box
    low, high = points.min(0), points.max(0)
    centre, size = (low + high) / 2, np.maximum((high - low) * 1.5, 0.1 * (box[2:] - box[:2]))
    return np.concatenate([centre - size / 2, centre + size / 2]).astype(np.float32)


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
    return np.ascontiguousarray(crop[:, ::-1]), flipped_xy[order], weights[order]


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
    """One to three rectangles replaced by noise of one colour, or by another part of the same crop."""
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
