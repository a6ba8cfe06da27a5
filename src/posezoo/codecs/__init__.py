"""From a network's output to joints, and from joints to what a network should have put out.

`get_codec` gives one by the name that a zoo entry carries; `combined_torch` holds the same on tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import ArrayLike

from posezoo.codecs.combined import CombinedCodec
from posezoo.codecs.heatmap import Floats, HeatmapCodec
from posezoo.codecs.integral import IntegralCodec
from posezoo.crop import Grid
from posezoo.errors import unknown_name

__all__ = ["CODECS", "Codec", "CombinedCodec", "HeatmapCodec", "IntegralCodec", "get_codec", "list_codecs"]


class Codec(Protocol):
    """What the estimator asks of a codec, always for a batch of people; every array may have length 0."""

    @property
    def grid(self) -> Grid:
        """The grid that crops are cut on, see `posezoo.crop`."""
        ...

    def decode(self, heatmaps: ArrayLike, size_wh: Sequence[int] | None = None) -> tuple[Floats, Floats]:
        """The network's output for a crop of `size_wh` -> crop_xy (N, K, 2) in crop pixels, scores (N, K) in [0, 1]."""
        ...

    def encode(self, crop_xy: ArrayLike, visible: ArrayLike, size_wh: Sequence[int]) -> tuple[Any, Floats]:
        """Joints (N, K, 2) in crop pixels and their visibility (N, K) -> what is wanted, and its weights (N, K).

        Wanted are heatmaps (N, K, h, w), coordinates (N, K, 2), or a pair of both, each for its part of the joints.
        """
        ...

    def average_flip(
        self, heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool
    ) -> Floats:
        """The network's output for a crop and for its mirror image -> one output."""
        ...


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "heatmap": HeatmapCodec(refine="none"),
        "heatmap-quarter": HeatmapCodec(refine="quarter"),
        "heatmap-dark": HeatmapCodec(refine="dark"),
        "heatmap-dark-udp": HeatmapCodec(refine="dark", grid="unbiased"),
        "heatmap-megvii": HeatmapCodec(refine="megvii"),
        "integral-softmax": IntegralCodec(norm="softmax"),
        "integral-sigmoid": IntegralCodec(norm="sigmoid"),
        "combined-26": CombinedCodec(HeatmapCodec(), IntegralCodec(norm="sigmoid"), heatmap_joints=26),
        "combined-23": CombinedCodec(HeatmapCodec(), IntegralCodec(norm="sigmoid"), heatmap_joints=23),
    }
)
"""Every codec by name, with sigma 2 and stride 4; `dataclasses.replace` makes one with other numbers."""


def list_codecs() -> list[str]:
    """The names that `get_codec` knows."""
    return sorted(CODECS)


def get_codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        UnknownNameError: no such codec; the message has the nearest name.
    """
    if name not in CODECS:
        raise unknown_name("codec", name, CODECS)
    return CODECS[name]
