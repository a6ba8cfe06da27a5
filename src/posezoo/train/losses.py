"""What a network is punished for."""

from __future__ import annotations

import torch
from torch import Tensor

from posezoo.codecs.integral import IntegralCodec
from posezoo.codecs.integral_torch import mean_place, profiles

SYMMETRIC_AMPLITUDE = 2.0  # in map pixels, as AlphaPose has it


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
