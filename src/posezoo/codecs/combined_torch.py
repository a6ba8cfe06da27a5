"""Any codec on tensors; here the torch twins of all codecs come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from posezoo.codecs import Codec, heatmap_torch, integral_torch
from posezoo.codecs.combined import CombinedCodec
from posezoo.codecs.heatmap import HeatmapCodec
from posezoo.codecs.integral import IntegralCodec
from posezoo.errors import PosezooError


def decode(codec: Codec, heatmaps: Tensor, size_wh: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Joints and scores.

    Args:
        codec: how to read the maps.
        heatmaps: (N, K, h, w), any floating type.
        size_wh: the crop's width and height; None: the codec's stride times those of the maps.

    Returns:
        crop_xy (N, K, 2) float32 in crop pixels, and scores (N, K) float32 in [0, 1].
    """
    if isinstance(codec, HeatmapCodec):
        return heatmap_torch.decode(codec, heatmaps, size_wh)
    if isinstance(codec, IntegralCodec):
        return integral_torch.decode(codec, heatmaps, size_wh)
    if isinstance(codec, CombinedCodec):
        first, rest = heatmaps[:, : codec.heatmap_joints], heatmaps[:, codec.heatmap_joints :]
        first_xy, first_scores = heatmap_torch.decode(codec.heatmap, first, size_wh)
        rest_xy, rest_scores = integral_torch.decode(codec.integral, rest, size_wh)
        return torch.cat([first_xy, rest_xy], dim=1), torch.cat([first_scores, rest_scores], dim=1)
    raise _unknown(codec)


def encode(codec: Codec, crop_xy: Tensor, visible: Tensor, size_wh: Sequence[int]) -> tuple[Any, Tensor]:
    """What the network should give and its weights; see `Codec.encode`.

    Args:
        codec: how to write the maps.
        crop_xy: (N, K, 2) in crop pixels.
        visible: (N, K), 0 for a joint without a label; other values are kept as weights.
        size_wh: the crop's width and height.

    Returns:
        targets, heatmaps (N, K, h, w), coordinates (N, K, 2), or a pair of both; and weights (N, K) float32.
    """
    if isinstance(codec, HeatmapCodec):
        return heatmap_torch.encode(codec, crop_xy, visible, size_wh)
    if isinstance(codec, IntegralCodec):
        return integral_torch.encode(codec, crop_xy, visible, size_wh)
    if isinstance(codec, CombinedCodec):
        split = codec.heatmap_joints
        maps, map_weights = heatmap_torch.encode(codec.heatmap, crop_xy[:, :split], visible[:, :split], size_wh)
        places, place_weights = integral_torch.encode(codec.integral, crop_xy[:, split:], visible[:, split:], size_wh)
        return (maps, places), torch.cat([map_weights, place_weights], dim=1)
    raise _unknown(codec)


def average_flip(
    codec: Codec, heatmaps: Tensor, flipped_heatmaps: Tensor, mirror_index: ArrayLike, shift: bool
) -> Tensor:
    """The network's output for a crop and for its mirror image -> one output; see `Codec.average_flip`.

    Args:
        codec: how to read the maps.
        heatmaps: (N, K, h, w), of the crop, any floating type.
        flipped_heatmaps: (N, K, h, w), of the crop mirrored left to right.
        mirror_index: (K,) the joint on the other side; `Skeleton.mirror_index`.
        shift: move the flipped maps one pixel to the right.

    Returns:
        (N, K, h, w) float32.
    """
    if isinstance(codec, HeatmapCodec):
        return heatmap_torch.average_flip(heatmaps, flipped_heatmaps, mirror_index, shift)
    if isinstance(codec, IntegralCodec):
        return integral_torch.average_flip(codec, heatmaps, flipped_heatmaps, mirror_index, shift)
    if isinstance(codec, CombinedCodec):
        split = codec.heatmap_joints
        to_first, to_rest = np.split(np.asarray(mirror_index), [split])
        first = heatmap_torch.average_flip(heatmaps[:, :split], flipped_heatmaps, to_first, shift)
        rest = integral_torch.average_flip(codec.integral, heatmaps[:, split:], flipped_heatmaps, to_rest, shift)
        return torch.cat([first, rest], dim=1)
    raise _unknown(codec)


def _unknown(codec: object) -> PosezooError:
    return PosezooError(f"{type(codec).__name__} has no torch twin: use a codec of posezoo.codecs")
