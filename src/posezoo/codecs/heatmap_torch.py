"""The heatmap codec on tensors: for training, for decoding where the network ran, and for exported graphs.

The same formulas as `posezoo.codecs.heatmap`, on any device, without control flow that depends on the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from posezoo.codecs.heatmap import (
    DARK_FLOOR,
    FAR_OUTSIDE,
    MEGVII_PEAK,
    UDP_CEILING,
    UDP_FLOOR,
    HeatmapCodec,
    blur_matrix,
    dark_step,
    udp_step,
)
from posezoo.constant_torch import constant


def decode(codec: HeatmapCodec, heatmaps: Tensor, size_wh: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Joints and scores.

    Args:
        codec: how to read the maps.
        heatmaps: (N, K, h, w), any floating type.
        size_wh: the crop's width and height; None: `codec.stride` times those of the maps.

    Returns:
        crop_xy (N, K, 2) float32 in crop pixels, and scores (N, K) float32 in [0, 1].
    """
    maps = heatmaps.float()
    height, width = int(maps.shape[2]), int(maps.shape[3])  # a tracer hands out tensors
    if codec.refine == "megvii":
        maps = _blur(maps, codec.blur_kernel)
    values, where = maps.flatten(2).max(dim=2)
    where = where * (values > 0)
    x, y = where % width, torch.div(where, width, rounding_mode="floor")
    step = torch.zeros_like(values)[..., None].expand(*values.shape, 2)
    if codec.refine == "dark":
        step = _dark(codec, maps, x, y)
    elif codec.refine != "none":
        step = _quarter(maps, x, y, 0.5 if codec.refine == "megvii" else 0.0)
    step = torch.where((values > 0)[..., None] & torch.isfinite(step), step, torch.zeros_like(step))
    pixels = torch.stack([x, y], dim=-1).float() + step
    if codec.refine == "megvii":
        values = values / MEGVII_PEAK + 0.5
    scores = torch.nan_to_num(values, nan=0.0).clamp(0.0, 1.0)
    return pixels * constant(maps.device, np.float32, codec.factors(width, height, size_wh)), scores


def encode(codec: HeatmapCodec, crop_xy: Tensor, visible: Tensor, size_wh: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gaussian targets and their weights; see `HeatmapCodec.encode`.

    Args:
        codec: how to write the maps.
        crop_xy: (N, K, 2) in crop pixels.
        visible: (N, K), 0 for a joint without a label; other values are kept as weights.
        size_wh: the crop's width and height.

    Returns:
        targets (N, K, h, w) and weights (N, K), float32, on the device of `crop_xy`.
    """
    width, height = codec.heatmap_size(size_wh)
    place = crop_xy.float() / crop_xy.new_tensor(codec.factors(width, height), dtype=torch.float32)
    place = torch.where(torch.isfinite(place), place, torch.full_like(place, FAR_OUTSIDE))
    column, inside_x = _profile(codec, place[..., 0], width)
    row, inside_y = _profile(codec, place[..., 1], height)
    seen = visible.float()
    weights = torch.where(inside_x & inside_y, seen, torch.zeros_like(seen))
    targets = (row * (weights > 0)[..., None])[..., :, None] * column[..., None, :]
    return targets, weights


def flip_back(flipped_heatmaps: Tensor, mirror_index: ArrayLike, shift: bool) -> Tensor:
    """Heatmaps of the mirrored crop in the order and direction of the crop itself; see `posezoo.codecs.heatmap`."""
    index = constant(flipped_heatmaps.device, np.int64, tuple(np.asarray(mirror_index).tolist()))
    maps = flipped_heatmaps.float().index_select(1, index).flip(3)
    return torch.cat([maps[..., :1], maps[..., :-1]], dim=3) if shift else maps


def average_flip(heatmaps: Tensor, flipped_heatmaps: Tensor, mirror_index: ArrayLike, shift: bool) -> Tensor:
    """The mean of the heatmaps and of those of the mirrored crop, (N, K, h, w) float32; see `flip_back`."""
    return (heatmaps.float() + flip_back(flipped_heatmaps, mirror_index, shift)) * 0.5


def _profile(codec: HeatmapCodec, place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """One axis of the target, (N, K, size), and whether the joint reaches the map at all, (N, K)."""
    if codec.refine == "megvii":
        rounded = place.trunc()
        hit = rounded.clamp(0, size - 1).long()
        spread = torch.tensor(blur_matrix(size, codec.blur_kernel, "reflect").T, device=place.device)[hit]
        peak = spread.gather(-1, hit[..., None])
        return spread / peak * MEGVII_PEAK**0.5, (rounded >= 0) & (rounded < size)
    rounded = (place + 0.5).trunc()
    reach = 3 * codec.sigma
    whole = codec.refine == "dark" and codec.grid == "legacy"
    first, last = (place - reach, place + reach) if whole else (rounded - reach, rounded + reach)
    inside = (first < size) & (last + 1 >= 0)
    center = place if codec.refine == "dark" or codec.grid == "unbiased" else rounded
    pixel = torch.arange(size, device=place.device, dtype=torch.float32)
    value = torch.exp(-((pixel - center[..., None]) ** 2) / (2 * codec.sigma**2))
    if not whole:
        value = value * ((pixel - rounded[..., None]).abs() <= reach)
    return value, inside


def _quarter(maps: Tensor, x: Tensor, y: Tensor, extra: float) -> Tensor:
    """The step of a quarter pixel towards the higher neighbour, (N, K, 2)."""
    height, width = int(maps.shape[2]), int(maps.shape[3])  # a tracer hands out tensors
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    offset = constant(maps.device, np.int64, (1, -1, width, -width))
    around = ((y * width + x) * inside)[..., None] + offset * inside[..., None]
    right, left, below, above = maps.flatten(2).gather(2, around).unbind(-1)
    step = torch.sign(torch.stack([right - left, below - above], dim=-1)) * 0.25
    return (torch.nan_to_num(step, nan=0.0) + extra) * inside[..., None]


def _dark(codec: HeatmapCodec, maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One Newton step on the logarithm of the blurred maps from each peak, (N, K, 2)."""
    people, joints = maps.shape[:2]
    height, width = int(maps.shape[2]), int(maps.shape[3])
    reach, border = (1, "reflect") if codec.grid == "unbiased" else (2, "zero")
    blurred = _plain_blur(maps, codec.blur_kernel, border)
    if codec.grid == "legacy":
        blurred = blurred * _ratio(maps, blurred)
    near = torch.arange(-reach, reach + 1, device=maps.device)
    rows = (y[..., None] + near).clamp(0, height - 1)
    columns = (x[..., None] + near).clamp(0, width - 1)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)
    patch = blurred.flatten(2).gather(2, index).reshape(people * joints, 2 * reach + 1, 2 * reach + 1)
    if codec.grid == "unbiased":
        return udp_step(torch.log(patch.clamp(UDP_FLOOR, UDP_CEILING))).reshape(people, joints, 2)
    step = dark_step(torch.log(patch.clamp(min=DARK_FLOOR))).reshape(people, joints, 2)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    return torch.where(inside[..., None], step, torch.zeros_like(step))


def _plain_blur(maps: Tensor, kernel: int, border: str) -> Tensor:
    """Every map blurred."""
    down = constant(maps.device, blur_matrix, int(maps.shape[2]), kernel, border)
    across = constant(maps.device, blur_matrix, int(maps.shape[3]), kernel, border).t()
    return down @ maps @ across


def _ratio(maps: Tensor, blurred: Tensor) -> Tensor:
    """The factor that gives a blurred map its former height, (N, K, 1, 1)."""
    top = blurred.amax(dim=(2, 3), keepdim=True)
    flat = top == 0
    return torch.where(flat, torch.ones_like(top), maps.amax(dim=(2, 3), keepdim=True) / (top + flat))


def _blur(maps: Tensor, kernel: int) -> Tensor:
    """Every map blurred, zero outside, and given its former height."""
    blurred = _plain_blur(maps, kernel, "zero")
    return blurred * _ratio(maps, blurred)
