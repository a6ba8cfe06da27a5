"""From a network's output to joints, and from joints to what a network should have put out.

`get_codec` gives one by the name that a zoo entry carries; `combined_torch` holds the same on tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Protocol

from numpy.typing import ArrayLike

from posezoo.codecs.combined import CombinedCodec
from posezoo.codecs.heatmap import Floats, HeatmapCodec
from posezoo.codecs.integral import IntegralCodec
from posezoo.crop import Grid
from posezoo.errors import UnknownNameError, unknown_name

__all__ = [
    "CODECS",
    "Codec",
    "CombinedCodec",
    "HeatmapCodec",
    "IntegralCodec",
    "codec_name",
    "get_codec",
    "list_codecs",
]


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

    Beside those of `list_codecs` a name may say how the heatmaps of a combined codec are refined ("combined-26-dark")
    and how wide the blur of a codec is that has one ("heatmap-dark-blur17").

    Raises:
        UnknownNameError: no such codec; the message has the nearest name.
    """
    plain, _, blur = name.partition(_BLUR)
    base, _, refine = plain.rpartition("-")
    codec, combined = CODECS.get(plain), CODECS.get(base)
    if codec is None and isinstance(combined, CombinedCodec) and refine in _REFINES:
        codec = replace(combined, heatmap=replace(combined.heatmap, refine=refine))
    if codec is not None and _BLUR in name:
        codec = _blurred(codec, blur)
    if codec is None:
        raise unknown_name("codec", name, CODECS)
    return codec


def codec_name(codec: Codec) -> str | None:
    """The name by which `get_codec` gives one that reads heatmaps as this one does, None where none does.

    What targets look like, and the stride, do not count.
    """
    wanted = _as_read(codec)
    width = getattr(wanted.heatmap if isinstance(wanted, CombinedCodec) else wanted, "blur_kernel", None)
    refines, widths = ("", *(f"-{refine}" for refine in _REFINES)), ("", f"{_BLUR}{width}")
    for name in (f"{plain}{refine}{blur}" for plain in CODECS for refine in refines for blur in widths):
        try:
            if get_codec(name) == wanted:
                return name
        except UnknownNameError:
            continue
    return None


_BLUR = "-blur"
_WIDTHS = {str(width) for width in range(1, 100, 2)}  # a name may come from a stranger's file
_REFINES: tuple[Literal["none", "dark"], ...] = ("none", "dark")  # "quarter" is what a combined codec has


def _blurred(codec: Codec, width: str) -> Codec | None:
    """The codec with a blur of that odd width; None where it has none, or the width is no such number."""
    if width not in _WIDTHS:
        return None
    if isinstance(codec, CombinedCodec):
        heatmap = _blurred(codec.heatmap, width)
        return replace(codec, heatmap=heatmap) if isinstance(heatmap, HeatmapCodec) else None
    if isinstance(codec, HeatmapCodec) and codec.refine in ("dark", "megvii"):
        return replace(codec, blur_kernel=int(width))
    return None


def _as_read(codec: Codec) -> Codec:
    """The codec with the usual values of all that says nothing of how heatmaps are read."""
    if isinstance(codec, CombinedCodec):
        parts = _as_read(codec.heatmap), _as_read(codec.integral)
        assert isinstance(parts[0], HeatmapCodec) and isinstance(parts[1], IntegralCodec)
        return replace(codec, heatmap=parts[0], integral=parts[1])
    if isinstance(codec, HeatmapCodec):
        usual = HeatmapCodec()
        blur = codec.blur_kernel if codec.refine in ("dark", "megvii") else usual.blur_kernel
        return replace(codec, stride=usual.stride, sigma=usual.sigma, blur_kernel=blur)
    return replace(codec, stride=IntegralCodec(norm=codec.norm).stride) if isinstance(codec, IntegralCodec) else codec
