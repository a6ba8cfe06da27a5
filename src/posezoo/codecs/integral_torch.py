"""The integral codec on tensors: for training, for decoding where the network ran, and for exported graphs.

The same formulas as `posezoo.codecs.integral`, on any device, without control flow that depends on the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from posezoo.codecs.heatmap_torch import flip_back
from posezoo.codecs.integral import IntegralCodec
from posezoo.constant_torch import constant


def decode(codec: IntegralCodec, heatmaps: Tensor, size_wh: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Joints and scores.

    Args:
        codec: how to read the maps.
        heatmaps: (N, K, h, w), any floating type.
        size_wh: the crop's width and height; None: `codec.stride` times those of the maps.

    Returns:
        crop_xy (N, K, 2) float32 in crop pixels, and scores (N, K) float32 in [0, 1].
    """
    height, width = int(heatmaps.shape[2]), int(heatmaps.shape[3])  # a tracer hands out tensors
    columns, rows = profiles(codec, heatmaps)
    pixels = torch.stack([mean_place(columns), mean_place(rows)], dim=-1)
    sound = torch.isfinite(pixels).all(dim=-1)
    scores = torch.ones_like(pixels[..., 0])
    if codec.norm == "sigmoid":
        scores = heatmaps.float().amax(dim=(2, 3)).sigmoid()
    crop_xy = pixels * constant(pixels.device, np.float32, codec.factors(width, height, size_wh))
    return (
        torch.where(sound[..., None], crop_xy, torch.zeros_like(crop_xy)),
        torch.where(sound, scores, torch.zeros_like(scores)),
    )


def encode(codec: IntegralCodec, crop_xy: Tensor, visible: Tensor, size_wh: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The coordinates that the network should give, and their weights; see `IntegralCodec.encode`.

    Args:
        codec: not looked at: both normalisations want the same.
        crop_xy: (N, K, 2) in crop pixels.
        visible: (N, K), 0 for a joint without a label; other values are kept as weights.
        size_wh: the crop's width and height.

    Returns:
        targets (N, K, 2) in crops from the crop's middle, and weights (N, K), float32, on the device of `crop_xy`.
    """
    place = crop_xy.float() / crop_xy.new_tensor(size_wh, dtype=torch.float32) - 0.5
    finite = torch.isfinite(place).all(dim=-1)
    seen = visible.float()
    weights = torch.where(finite, seen, torch.zeros_like(seen))
    return torch.where(finite[..., None], place, torch.zeros_like(place)), weights


def average_flip(
    codec: IntegralCodec, heatmaps: Tensor, flipped_heatmaps: Tensor, mirror_index: ArrayLike, shift: bool
) -> Tensor:
    """Maps (N, K, h, w) that decode to the mean of both places and scores; see `IntegralCodec.average_flip`."""
    both = [_heights(codec, maps) for maps in (heatmaps, flip_back(flipped_heatmaps, mirror_index, shift))]
    first, second = (heights / heights.sum(dim=(2, 3), keepdim=True) for heights in both)
    share = (first + second) * 0.5
    if codec.norm == "softmax":
        return share.log()
    first, second = (heights.amax(dim=(2, 3), keepdim=True) for heights in both)
    return (share * ((first + second) * 0.5 / share.amax(dim=(2, 3), keepdim=True))).logit()


def profiles(codec: IntegralCodec, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """How probable each column and each row is, (N, K, w) and (N, K, h) float32, each with the sum 1."""
    share = _heights(codec, heatmaps)
    if codec.norm == "sigmoid":
        share = share / share.sum(dim=(2, 3), keepdim=True)
    return share.sum(dim=2), share.sum(dim=3)


def _heights(codec: IntegralCodec, heatmaps: Tensor) -> Tensor:
    """The probabilities before they are divided by their sum, (N, K, h, w) float32."""
    maps = heatmaps.float()
    return maps.flatten(2).softmax(dim=2).view_as(maps) if codec.norm == "softmax" else maps.sigmoid()


def mean_place(profile: Tensor) -> Tensor:
    """The mean pixel of (N, K, size) probabilities, (N, K)."""
    pixel = torch.arange(profile.shape[-1], device=profile.device, dtype=profile.dtype)
    return (profile * pixel).sum(dim=-1)  # no matrix product: it would be rounded to TF32, or to half under autocast
