"""Box -> affine -> batch of crops, and back: the only forward and inverse transform there is.

A crop has the network's aspect: the person's box grows about its centre to that aspect and then by `box_scale`
(Xiao et al. 2018, "Simple Baselines for Human Pose Estimation and Tracking", section 3). Two grids are in use:

* "legacy": pixel corners meet, one factor `width / box_width` for both axes. HRNet, Simple Baselines, GluonCV, MMPose.
* "unbiased": the centres of the first and the last pixel meet, factors `(size - 1) / box_size` for each axis
  (Huang et al. 2020, "The Devil Is in the Details: Unbiased Data Processing", section 3).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posezoo.errors import PosezooError, unknown_name

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Grid = Literal["legacy", "unbiased"]

SMALLEST_BOX = 1e-3  # pixels; keeps the affine of a box without size finite and invertible
_WARP_LIMIT = 32766  # cv2.warpAffine addresses its source with 16-bit coordinates
_WORTH_A_FOURTH = 12  # pixels of the image a pixel of its crops: up to here a fourth channel is worth its making


def box_to_center_scale(
    boxes_xyxy: ArrayLike, size_wh: Sequence[int], box_scale: float = 1.25
) -> tuple[Doubles, Doubles]:
    """The centre of each box, and the size of the image region of the crop's aspect that holds it.

    Args:
        boxes_xyxy: (N, 4) pixels; a side under `SMALLEST_BOX` counts as that.
        size_wh: the crop's width and height; only their ratio matters here.
        box_scale: how much larger than the box the region is.

    Returns:
        centers (N, 2) and regions_wh (N, 2), in pixels. HRNet's "scale" is regions_wh / 200.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    centers = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], SMALLEST_BOX)
    aspect = size_wh[0] / size_wh[1]
    heights = np.maximum(sides[:, 1], sides[:, 0] / aspect)
    return centers, np.stack([heights * aspect, heights], axis=1) * box_scale


def center_scale_to_affine(
    centers: ArrayLike,
    regions_wh: ArrayLike,
    size_wh: Sequence[int],
    rotation_deg: ArrayLike = 0.0,
    grid: Grid = "legacy",
) -> Doubles:
    """The affine that maps image pixels to pixels of a crop of `size_wh`.

    Args:
        centers: (N, 2) the image point that lands in the middle of the crop.
        regions_wh: (N, 2) the image region that fills the crop, in pixels. The legacy grid uses its width alone.
        size_wh: the crop's width and height.
        rotation_deg: one angle, or (N,); positive turns the person anticlockwise as seen on the screen, on both
            grids (the UDP code of other zoos counts the other way).
        grid: "legacy" or "unbiased".

    Returns:
        image_to_crop: (N, 2, 3) float64.
    """
    if grid not in ("legacy", "unbiased"):
        raise unknown_name("crop grid", str(grid), ("legacy", "unbiased"))
    center = np.asarray(centers, np.float64).reshape(-1, 2)
    region = np.asarray(regions_wh, np.float64).reshape(-1, 2)
    size = np.asarray(size_wh, np.float64)
    angle = np.deg2rad(np.asarray(rotation_deg, np.float64))
    if grid == "legacy":
        factor_x = factor_y = size[0] / region[:, 0]
        middle = size * 0.5
    else:
        factor_x, factor_y = ((size - 1) / region).T
        middle = (size - 1) * 0.5
    cos, sin = np.cos(angle), np.sin(angle)
    affine = np.empty((len(center), 2, 3))
    affine[:, 0, 0], affine[:, 0, 1] = cos * factor_x, sin * factor_x
    affine[:, 1, 0], affine[:, 1, 1] = -sin * factor_y, cos * factor_y
    affine[:, :, 2] = middle - (affine[:, :, 0] * center[:, :1] + affine[:, :, 1] * center[:, 1:])
    return affine


def box_to_affine(
    boxes_xyxy: ArrayLike,
    size_wh: Sequence[int],
    box_scale: float = 1.25,
    rotation_deg: ArrayLike = 0.0,
    grid: Grid = "legacy",
) -> Doubles:
    """The affine that cuts each box out of the image: `box_to_center_scale`, then `center_scale_to_affine`.

    Returns:
        image_to_crop: (N, 2, 3) float64, finite and invertible for every finite box, even one without size.
    """
    centers, regions_wh = box_to_center_scale(boxes_xyxy, size_wh, box_scale)
    return center_scale_to_affine(centers, regions_wh, size_wh, rotation_deg, grid)


def invert_affine(affine: ArrayLike) -> Doubles:
    """The inverse of each affine, (N, 2, 3) float64."""
    matrix = np.asarray(affine, np.float64)
    a, b, c, d = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1]
    linear = np.stack([d, -b, -c, a], axis=1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None]
    shift = -np.einsum("nij,nj->ni", linear, matrix[:, :, 2])
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def transform_points(affine: ArrayLike, points: ArrayLike) -> Doubles:
    """Each person's points (N, K, 2) through that person's affine (N, 2, 3) -> (N, K, 2) float64."""
    matrix = np.asarray(affine, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :, :2].transpose(0, 2, 1) + matrix[:, None, :, 2]


def crop_images(
    image_rgb: Pixels, image_to_crop: ArrayLike, size_wh: Sequence[int], out: Pixels | None = None
) -> Pixels:
    """Cut each person out of the image, bilinear, black outside.

    Args:
        image_rgb: (H, W, 3) uint8, of any size.
        image_to_crop: (N, 2, 3).
        size_wh: the crops' width and height.
        out: (N, h, w, 3) uint8, C-contiguous, to write into; a new array where not given.

    Returns:
        (N, h, w, 3) uint8: `out` where given.
    """
    import cv2

    matrices = np.asarray(image_to_crop, np.float64)
    width, height = int(size_wh[0]), int(size_wh[1])
    crops = _output(out, (len(matrices), height, width, 3), np.uint8)
    large = max(image_rgb.shape[:2]) > _WARP_LIMIT
    # OpenCV 5 cuts four channels in half the time of three, and to the same values
    fourth = not large and image_rgb.size <= _WORTH_A_FOURTH * crops.size
    image = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2RGBA) if fourth and image_rgb.size else image_rgb
    rgba = np.empty((height, width, 4), np.uint8)
    for crop, matrix in zip(crops, matrices, strict=True):
        source, to_crop = _region(image, matrix, (width, height)) if large else (image, matrix)
        if source.size == 0:
            crop[:] = 0
        elif fourth:
            cv2.warpAffine(source, to_crop, (width, height), dst=rgba, flags=cv2.INTER_LINEAR)
            cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB, dst=crop)
        else:
            cv2.warpAffine(source, to_crop, (width, height), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def _output(out: NDArray | None, shape: tuple[int, ...], dtype: type) -> NDArray:
    """`out`, checked, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise PosezooError(f"out must be a contiguous {np.dtype(dtype)} array of shape {shape}, but has {out.shape}")
    return out


def _region(image_rgb: Pixels, matrix: Doubles, size_wh: tuple[int, int]) -> tuple[Pixels, Doubles]:
    """The part of a very large image that the crop sees, thinned if even that is too large, and its own affine."""
    width, height = size_wh
    corners = np.array([[[-1, -1], [width, -1], [-1, height], [width, height]]], np.float64)
    seen = transform_points(invert_affine(matrix[None]), corners)[0]
    limit = np.array([image_rgb.shape[1], image_rgb.shape[0]])
    left, top = np.clip(np.floor(seen.min(0)) - 1, 0, limit).astype(int).tolist()
    right, bottom = np.clip(np.ceil(seen.max(0)) + 2, 0, limit).astype(int).tolist()
    step = max(1, math.ceil(max(right - left, bottom - top) / _WARP_LIMIT))
    linear = matrix[:, :2]
    moved = np.column_stack([linear * step, linear @ [left, top] + matrix[:, 2]])
    return image_rgb[top:bottom:step, left:right:step], moved


def normalise(
    crops: Pixels,
    mean: Sequence[float],
    std: Sequence[float],
    channels: Literal["rgb", "bgr"] = "rgb",
    out: Floats | None = None,
) -> Floats:
    """`(crop / 255 - mean) / std`, channels first.

    Args:
        crops: (N, h, w, 3) uint8 RGB.
        mean: three values in 0..1, in the order of `channels`.
        std: three values in 0..1, in the order of `channels`.
        channels: the order that the network wants.
        out: (N, 3, h, w) float32, C-contiguous, to write into; a new array where not given. Fresh memory costs more
            than the arithmetic, so a caller with many batches keeps one.

    Returns:
        (N, 3, h, w) float32: `out` where given.
    """
    import cv2

    if channels not in ("rgb", "bgr"):
        raise unknown_name("channel order", str(channels), ("rgb", "bgr"))
    tables = _tables(tuple(mean), tuple(std))
    people, height, width = crops.shape[:3]
    planes = _output(out, (people, 3, height, width), np.float32)
    order = (0, 1, 2) if channels == "rgb" else (2, 1, 0)
    split = [np.empty((height, width), np.uint8) for _ in range(3)]
    for crop, plane in zip(crops, planes, strict=True):
        cv2.split(crop, split)
        for channel, source in enumerate(order):
            cv2.LUT(split[source], tables[channel], dst=plane[channel])
    return planes


@functools.lru_cache
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """(3, 256): a byte has 256 values, and looking the result up is several times faster than computing it."""
    levels = np.arange(256)[:, None] / 255.0
    tables = np.ascontiguousarray(((levels - np.asarray(mean)) / np.asarray(std)).T, np.float32)
    tables.flags.writeable = False
    return tables
