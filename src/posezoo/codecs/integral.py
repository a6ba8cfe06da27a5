"""One map per joint, read as a probability: the joint is its mean place.

Sun et al. 2018, "Integral Human Pose Regression", with softmax; Fang et al. 2022, "AlphaPose: Whole-Body Regional
Multi-Person Pose Estimation and Tracking in Real-Time", section "Symmetric Integral Keypoints Regression", with a
sigmoid and then a division by the sum. What is symmetric there is the gradient of the loss, `posezoo.train.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from posezoo.codecs.heatmap import Floats, flip_back
from posezoo.crop import Grid
from posezoo.errors import PosezooError, unknown_name

Norm = Literal["softmax", "sigmoid"]
NORMS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class IntegralCodec:
    """How joints become normalised coordinates and maps become joints.

    Attributes:
        norm: how a map becomes a probability.
            "softmax": over its pixels; it says nothing of how sure the network is, so that every score is 1;
            "sigmoid": of each pixel, then divided by their sum; the score is the highest sigmoid.
        stride: crop pixels per map pixel, where `decode` is not told the crop's size.
    """

    norm: Norm = "softmax"
    stride: int = 4
    grid: ClassVar[Grid] = "legacy"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("normalisation", str(self.norm), NORMS)
        if self.stride < 1:
            raise PosezooError(f"an integral codec needs stride >= 1, but has {self.stride}")

    def factors(self, width: int, height: int, size_wh: Sequence[int] | None = None) -> tuple[float, float]:
        """Crop pixels per map pixel, in x and y, for maps of `width` x `height` of a crop of `size_wh`."""
        crop = (width * self.stride, height * self.stride) if size_wh is None else size_wh
        return crop[0] / width, crop[1] / height

    def decode(self, heatmaps: ArrayLike, size_wh: Sequence[int] | None = None) -> tuple[Floats, Floats]:
        """Joints and scores.

        Args:
            heatmaps: (N, K, h, w) float, any numbers.
            size_wh: the crop's width and height; None: `stride` times those of the maps.

        Returns:
            crop_xy (N, K, 2) float32 in crop pixels, and scores (N, K) float32 in [0, 1]. A map that is no probability
            (it has a NaN, or an infinity that softmax cannot take) gives the crop's first pixel and score 0.
        """
        heights = self._heights(heatmaps)
        height, width = heights.shape[2:]
        columns, rows = heights.sum(axis=2), heights.sum(axis=3)
        moments = np.stack([columns @ np.arange(width), rows @ np.arange(height)], axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            pixels = moments / columns.sum(axis=2, keepdims=True)
        sound = np.all(np.isfinite(pixels), axis=2, keepdims=True)
        crop_xy = np.where(sound, pixels * self.factors(width, height, size_wh), 0).astype(np.float32)
        scores = heights.max(axis=(2, 3)) if self.norm == "sigmoid" else np.float32(1)
        return crop_xy, np.where(sound[..., 0], scores, np.float32(0))

    def encode(self, crop_xy: ArrayLike, visible: ArrayLike, size_wh: Sequence[int]) -> tuple[Floats, Floats]:
        """The coordinates that the network should give, and their weights.

        Args:
            crop_xy: (N, K, 2) in crop pixels; outside the crop is as good as inside.
            visible: (N, K), 0 for a joint without a label; other values are kept as weights.
                A joint whose place is not finite counts as unlabelled.
            size_wh: the crop's width and height.

        Returns:
            targets (N, K, 2), -0.5 at the crop's left or top and 0.5 at its right or bottom, and weights (N, K), both
            float32.
        """
        place = np.asarray(crop_xy, np.float32) / np.asarray(size_wh, np.float32) - np.float32(0.5)
        finite = np.all(np.isfinite(place), axis=2, keepdims=True)
        weights = np.where(finite[..., 0], np.asarray(visible, np.float32), np.float32(0))
        return np.where(finite, place, np.float32(0)), weights

    def average_flip(
        self, heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool
    ) -> Floats:
        """Maps that decode to the mean of both places and of both scores.

        AlphaPose averages after the normalisation: the loud map of a sure crop has no more say than the other.

        Args:
            heatmaps: (N, K, h, w), of the crop.
            flipped_heatmaps: (N, K, h, w), of the crop mirrored left to right.
            mirror_index: (K,) the joint on the other side; `Skeleton.mirror_index`.
            shift: move the flipped maps one pixel to the right, see `posezoo.codecs.heatmap.flip_back`.
        """
        both = [self._heights(heatmaps), self._heights(flip_back(flipped_heatmaps, mirror_index, shift))]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.float32(0.5) * sum(one / one.sum(axis=(2, 3), keepdims=True) for one in both)
            if self.norm == "softmax":
                return np.log(share)
            top = np.float32(0.5) * sum(one.max(axis=(2, 3), keepdims=True) for one in both)
            sigmoid = share * (top / share.max(axis=(2, 3), keepdims=True))
            return np.log(sigmoid / (1 - sigmoid))

    def _heights(self, heatmaps: ArrayLike) -> Floats:
        """The probabilities before they are divided by their sum, (N, K, h, w), at most 1."""
        maps = np.asarray(heatmaps, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.norm == "softmax":
                heights = maps - maps.max(axis=(2, 3), keepdims=True)
                return np.exp(heights, out=heights)
            heights = np.exp(-maps)
            heights += 1
            return np.reciprocal(heights, out=heights)
