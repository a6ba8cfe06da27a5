"""From a network's output to joints, and from joints to what a network should have put out.

`get_codec` gives one by the name that a zoo entry carries; `heatmap_torch` holds the same on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Protocol

from numpy.typing import ArrayLike

from posezoo.codecs.heatmap import Floats, HeatmapCodec
from posezoo.crop import Grid
from posezoo.errors import unknown_name

__all__ = ["CODECS", "Codec", "HeatmapCodec", "get_codec", "list_codecs"]


class Codec(Protocol):
    """What the estimator asks of a codec, always for a batch of people; every array may have length 0."""

    @property
    def grid(self) -> Grid:
        """The grid that crops are cut on, see `posezoo.crop`."""
        ...

    def decode(self, heatmaps: ArrayLike) -> tuple[Floats, Floats]:
        """The network's output -> crop_xy (N, K, 2) in crop pixels and scores (N, K) in [0, 1]."""
        ...

    def encode(self, crop_xy: ArrayLike, visible: ArrayLike, size_wh: Sequence[int]) -> tuple[Floats, Floats]:
        """Joints (N, K, 2) in crop pixels and their visibility (N, K) -> the wanted output and its weights."""
        ...

    def average_flip(
        self, heatmaps: ArrayLike, flipped_heatmaps: ArrayLike, mirror_index: ArrayLike, shift: bool
    ) -> Floats:
        """The network's output for a crop and for its mirror image -> one output."""
        ...


CODECS = MappingProxyType(
    {
        "heatmap": HeatmapCodec(refine="none"),
        "heatmap-quarter": HeatmapCodec(refine="quarter"),
        "heatmap-dark": HeatmapCodec(refine="dark"),
        "heatmap-dark-udp": HeatmapCodec(refine="dark", grid="unbiased"),
        "heatmap-megvii": HeatmapCodec(refine="megvii"),
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
