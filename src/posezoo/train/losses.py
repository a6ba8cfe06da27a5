"""What a network is punished for: by the codec that its output is read with, each joint by its weight.

Every loss is a mean over the people of the batch and over all joints, labelled or not, as in the zoos' own code. So
the gradient of a batch is the mean of the gradients of its parts, however many devices share it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posezoo.codecs import Codec
from posezoo.codecs.combined import CombinedCodec
from posezoo.codecs.integral import IntegralCodec
from posezoo.codecs.integral_torch import mean_place, profiles

MAP_SCALE = 2000.0
"""Of the losses of heatmaps within `label_loss`: they are about 1e-3, where Adam's epsilon begins to count, and the
integral half of a combined loss is about 1."""
SYMMETRIC_AMPLITUDE = 2.0  # in map pixels, as AlphaPose has it


def label_loss(
    codec: Codec,
    maps: Tensor,
    targets: Any,
    weights: Tensor,
    hardest: int | None = None,
    integral_weight: float = 1.0,
) -> Tensor:
    """The loss of a network's output against labels, by the codec that encoded them.

    Args:
        codec: heatmaps are judged by `heatmap_mse` or `heatmap_ohkm` times `MAP_SCALE`, integrals by `integral_l1`,
            those of a combined codec by the sum of both.
        maps: (N, K, h, w), any floating type.
        targets: what `posezoo.codecs.combined_torch.encode` made.
        weights: (N, K), 0 for a joint without a label.
        hardest: count only so many joints of each person's heatmaps, those with the largest error; None: all.
        integral_weight: how much the integral half of a combined codec counts.

    Returns:
        A scalar, float32; 0 where nothing is labelled.
    """
    if isinstance(codec, CombinedCodec):
        first = slice(codec.heatmap_joints)
        rest = slice(codec.heatmap_joints, None)
        of_maps = label_loss(codec.heatmap, maps[:, first], targets[0], weights[:, first], hardest)
        of_places = label_loss(codec.integral, maps[:, rest], targets[1], weights[:, rest])
        return of_maps + integral_weight * of_places
    if isinstance(codec, IntegralCodec):
        return integral_l1(codec, maps, targets, weights)
    if hardest is None:
        return MAP_SCALE * heatmap_mse(maps, targets, weights)
    return MAP_SCALE * heatmap_ohkm(maps, targets, weights, hardest)


def heatmap_mse(maps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Half the mean squared error over people, joints and pixels: what HRNet, MMPose and GluonCV (its L2) minimise.

    Args:
        maps: (N, K, h, w), any floating type.
        targets: (N, K, h, w), see `HeatmapCodec.encode`.
        weights: (N, K). HRNet and MMPose multiply both maps by them, so that a weight of theirs counts as its square;
            here, as in GluonCV, it counts as it is. For 0 and 1 that is the same.

    Returns:
        A scalar; 0 for nobody.
    """
    return _half_errors(maps, targets, weights).sum() / max(weights.numel(), 1)


def heatmap_ohkm(maps: Tensor, targets: Tensor, weights: Tensor, hardest: int = 8) -> Tensor:
    """`heatmap_mse` of the `hardest` joints of each person (Chen et al. 2018, "Cascaded Pyramid Network", section 3.3).

    Args:
        maps: (N, K, h, w), any floating type.
        targets: (N, K, h, w).
        weights: (N, K); what counts as hard is the weighted error.
        hardest: how many; all where there are fewer.

    Returns:
        A scalar; 0 for nobody.
    """
    count = min(hardest, weights.shape[1])
    worst = _half_errors(maps, targets, weights).topk(count, dim=1).values
    return worst.sum() / max(worst.numel(), 1)


def _half_errors(maps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Of each joint, half the mean squared error over its pixels times its weight, (N, K) float32."""
    return 0.5 * (maps.float() - targets).square().mean(dim=(2, 3)) * weights


def integral_l1(codec: IntegralCodec, heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The distance of the mean places from the targets, with the symmetric gradient.

    The true gradient of a mean place grows with a pixel's distance from the map's first one, so that right and lower
    pixels learn faster. The symmetric one (Fang et al. 2022, "AlphaPose", section "Symmetric Integral Keypoints
    Regression") is of one size everywhere: up on the side of the place towards the target, down on the other.

    Args:
        codec: how the maps become probabilities.
        heatmaps: (N, K, h, w), any floating type.
        targets: (N, K, 2), see `IntegralCodec.encode`.
        weights: (N, K), or (N, K, 2) for x and y.

    Returns:
        The weighted sum of absolute differences, in crops, over joints and axes, for the mean person; 0 for nobody.
    """
    places = torch.stack([symmetric_place(profile) for profile in profiles(codec, heatmaps)], dim=-1)
    weights = weights if weights.ndim == 3 else weights[..., None]
    return ((places - targets).abs() * weights).sum() / max(len(heatmaps), 1)


def symmetric_place(profile: Tensor) -> Tensor:
    """The mean place of (N, K, size) probabilities in crops from the crop's middle, (N, K), gradient symmetric."""
    size = profile.shape[-1]
    pixel = torch.arange(size, device=profile.device, dtype=profile.dtype)
    mean = mean_place(profile.detach())
    side = (pixel - mean[..., None]).sign()
    slope = (profile * side).sum(dim=-1) * (SYMMETRIC_AMPLITUDE / size)
    return mean / size - 0.5 + (slope - slope.detach())  # the value of the mean, the gradient of the slope
