"""Heatmaps for the joints of body and feet, integrals for those of face and hands: one network, two ways to read it.

AlphaPose's models with "combined" loss: the joints of a body, far apart, are found surely at a heatmap's peak; those of
a face or a hand share a few pixels of the map, and only the mean place tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from posezoo.codecs.heatmap import Floats, HeatmapCodec
from posezoo.codecs.integral import IntegralCodec
from posezoo.crop import Grid
from posezoo.errors import PosezooError


@dataclass(frozen=True)
class CombinedCodec:
    """Two codecs, each for its part of the joints.

    Attributes:
        heatmap: the codec of the first joints.
        integral: the codec of the others.
        heatmap_joints: how many joints are the first: body and feet are 26 of Halpe's, 23 of COCO-WholeBody's.
    """

    heatmap: HeatmapCodec
    integral: IntegralCodec
    heatmap_joints: int

    def __post_init__(self) -> None:
        if self.heatmap_joints < 0:
            raise PosezooError(f"heatmap_joints is a number of joints, not {self.heatmap_joints}")
        if (self.heatmap.grid, self.heatmap.stride) != (self.integral.grid, self.integral.stride):
            raise PosezooError(
                "one crop has one grid and one stride, but the heatmaps have "
                f"{self.heatmap.grid} and {self.heatmap.stride}, the integrals {self.integral.grid} and "
                f"{self.integral.stride}"
            )

    @property
    def grid(self) -> Grid:
        """That of both codecs."""
        return self.heatmap.grid

    def decode(self, heatmaps: ArrayLike, size_wh: Sequence[int] | None = None) -> tuple[Floats, Floats]:
        """Joints and scores, see `HeatmapCodec.decode` and `IntegralCodec.decode`."""
        first, rest = np.split(np.asarray(heatmaps, np.float32), [self.heatmap_joints], axis=1)
        pairs = zip(self.heatmap.decode(first, size_wh), self.integral.decode(rest, size_wh), strict=True)
        crop_xy, scores = (np.concatenate(pair, axis=1) for pair in pairs)
        return crop_xy, scores

    def encode(
        self, crop_xy: ArrayLike, visible: ArrayLike, size_wh: Sequence[int]
    ) -> tuple[tuple[Floats, Floats], Floats]:
        """What the network should give, and the weights.

        Returns:
            targets: a pair, heatmaps (N, heatmap_joints, h, w) and coordinates (N, K - heatmap_joints, 2), each as its
            codec makes them; and weights (N, K).
        """
        xy, seen = (np.split(np.asarray(v), [self.heatmap_joints], axis=1) for v in (crop_xy, visible))
        maps, map_weights = self.heatmap.encode(xy[0], seen[0], size_wh)
        places, place_weights = self.integral.encode(xy[1], seen[1], size_wh)
        return (maps, places), np.concatenate([map_weights, place_weights], axis=1)

    def average_flip(
        self, heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool
    ) -> Floats:
        """Maps that decode to the joints of both crops, averaged as each codec does it."""
        first, rest = np.split(np.asarray(heatmaps, np.float32), [self.heatmap_joints], axis=1)
        to_first, to_rest = np.split(np.asarray(mirror_index, np.intp), [self.heatmap_joints])
        parts = [
            self.heatmap.average_flip(first, flipped_heatmaps, to_first, shift),
            self.integral.average_flip(rest, flipped_heatmaps, to_rest, shift),
        ]
        return np.concatenate(parts, axis=1)
