"""The networks of the embedded pair: a MobileNetV2 with a feature pyramid, once for poses and once for people.

Backbone: MobileNetV2 (arXiv:1801.04381) with BatchNorm folded into its convolutions, which is how the weights it starts
from are published, and which makes training and inference the same function. A stride-2 convolution pads right and
bottom only, as those weights expect. Pyramid: 1x1 laterals, nearest upsampling, depthwise separable smoothing, after
FPN (arXiv:1612.03144). Both take RGB in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posezoo.errors import PosezooError

# (expansion, channels at width 1.0, blocks, stride of the first): MobileNetV2, table 2
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_FIRST, _LAST = (1, 3, 6, 13), (2, 5, 12, 16)  # blocks at strides 4, 8, 16 and 32


class Conv(nn.Module):
    """Convolution with bias and, unless `linear`, ReLU6; stride 2 pads right and bottom only."""

    def __init__(self, cin: int, cout: int, size: int = 1, stride: int = 1, groups: int = 1, linear: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, size, stride, size // 2 if stride == 1 else 0, groups=groups)
        self.pad, self.linear = stride == 2, linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, h / stride, w / stride), rounded up."""
        x = self.conv(F.pad(x, (0, 1, 0, 1)) if self.pad else x)
        return x if self.linear else F.relu6(x)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int):
        super().__init__()
        wide = cin * expansion
        self.expand = Conv(cin, wide) if expansion > 1 else nn.Identity()
        self.depthwise = Conv(wide, wide, 3, stride, groups=wide)
        self.project = Conv(wide, cout, linear=True)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, h / stride, w / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _width(channels: int, multiplier: float) -> int:
    """Channels scaled and rounded to a multiple of 8, never more than a tenth down (the paper's released code)."""
    scaled = max(8, int(channels * multiplier + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * multiplier else scaled


class FoldedMobileNetV2(nn.Module):
    """MobileNetV2 without BatchNorm, up to block `last` (16: all of it); gives the map at each stride from 4."""

    def __init__(self, multiplier: float = 1.0, last: int = 16):
        super().__init__()
        self.stem = Conv(3, _width(32, multiplier), 3, 2)
        plan = [(t, c, s if n == 0 else 1) for t, c, count, s in _STAGES for n in range(count)][: last + 1]
        blocks, cin = [], _width(32, multiplier)
        for expansion, channels, stride in plan:
            cout = _width(channels, multiplier)
            blocks.append(Block(cin, cout, stride, expansion))
            cin = cout
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(min(end, last) for first, end in zip(_FIRST, _LAST, strict=True) if first <= last)
        self.channels = tuple(blocks[t].project.conv.out_channels for t in self.taps)

    def freeze(self, through: int) -> None:
        """Leave the stem and the blocks up to and including `through` out of training (-1: train all)."""
        for module in (self.stem, *self.blocks[: through + 1]) if through >= 0 else ():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> maps at strides 4, 8, 16, 32 as far as the network goes."""
        x, maps = self.stem(x), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(x)
        return maps


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, each with BatchNorm, ReLU6 after the pointwise."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.depthwise = nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False)
        self.norm1 = nn.BatchNorm2d(cin)
        self.pointwise = nn.Conv2d(cin, cout, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) -> (B, cout, h, w)."""
        return F.relu6(self.norm2(self.pointwise(self.norm1(self.depthwise(x)))))


class Pyramid(nn.Module):
    """Top-down pathway: from the coarsest map to the finest, `widths` channels at each level, finest first."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...]):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in zip(channels, widths, strict=True))
        self.norm = nn.ModuleList(nn.BatchNorm2d(w) for w in widths)
        self.smooth = nn.ModuleList(
            Separable(w, down) for w, down in zip(widths, (widths[0], *widths[:-1]), strict=True)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps, finest first -> one smoothed map a level, finest first, each with the width of the next finer level."""
        out: list[Tensor] = []
        for level in reversed(range(len(maps))):
            x = self.norm[level](self.lateral[level](maps[level]))
            if out:
                x = x + F.interpolate(out[-1], scale_factor=2.0)
            out.append(self.smooth[level](F.relu6(x)))
        return out[::-1]


class MobilePoseFPN(nn.Module):
    """Top-down pose network: one heatmap a joint at a quarter of the crop's size."""

    def __init__(self, joints: int, multiplier: float = 1.0, widths: tuple[int, ...] = (64, 96, 128, 160)):
        super().__init__()
        self.backbone = FoldedMobileNetV2(multiplier)
        self.pyramid = Pyramid(self.backbone.channels, widths)
        self.refine = Separable(widths[0], widths[0])
        self.head = nn.Conv2d(widths[0], joints, 1)
        nn.init.normal_(self.head.weight, std=0.001)
        self.head.bias = nn.Parameter(torch.zeros(joints))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> heatmaps (B, K, H/4, W/4)."""
        return self.head(self.refine(self.pyramid(self.backbone(x))[0]))


class PersonDetector(nn.Module):
    """Single-class, anchor-free detector: one prediction a cell at strides 8, 16 and 32.

    A score that stands for the overlap of the box with the person (generalised focal loss, arXiv:2006.04388) and the
    distances to the four sides (FCOS, arXiv:1904.01355); one head for all strides.
    """

    strides = (8, 16, 32)

    def __init__(self, multiplier: float = 1.0, width: int = 96):
        super().__init__()
        # the last three blocks hold half of the weights; left out, the detector is small and quick
        self.backbone = FoldedMobileNetV2(multiplier, last=13)
        self.pyramid = Pyramid(self.backbone.channels[1:], (width,) * 3)
        self.tower = nn.Sequential(Separable(width, width), Separable(width, width))
        self.head = nn.Conv2d(width, 5, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        self.head.bias = nn.Parameter(torch.tensor([-4.0, 0, 0, 0, 0]))  # few cells hold a person

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> scores (B, A) and boxes_xyxy (B, A, 4) in pixels of the input.

        Scores are logits while training and in [0, 1] otherwise.
        """
        maps = self.pyramid(self.backbone(x)[1:])
        scores, boxes = [], []
        for stride, level in zip(self.strides, maps, strict=True):
            out = self.head(self.tower(level))
            rows = (torch.arange(out.shape[2], device=x.device, dtype=x.dtype) + 0.5) * stride
            columns = (torch.arange(out.shape[3], device=x.device, dtype=x.dtype) + 0.5) * stride
            left, top, right, bottom = (F.softplus(out[:, 1:]) * stride).unbind(1)
            sides = (columns - left, rows[:, None] - top, columns + right, rows[:, None] + bottom)
            scores.append(out[:, 0].flatten(1))
            boxes.append(torch.stack(sides, -1).flatten(1, 2))
        joined = torch.cat(scores, 1)
        return joined if self.training else joined.sigmoid(), torch.cat(boxes, 1)


def init_backbone(backbone: FoldedMobileNetV2, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the backbone from BatchNorm-folded arrays with Keras layer names (`block_3_expand.weight`, ...).

    Raises:
        PosezooError: an array is missing or has another shape, such as one of another width.
    """
    with torch.no_grad():
        for name, conv in _keras_names(backbone):
            for part, tensor in conv.named_parameters():
                key = f"{name}.{part}"
                if key not in arrays or arrays[key].shape != tuple(tensor.shape):
                    found = arrays[key].shape if key in arrays else "nothing"
                    raise PosezooError(
                        f"backbone weights: {key} should have shape {tuple(tensor.shape)}, found {found}"
                    )
                tensor.copy_(torch.from_numpy(np.asarray(arrays[key], np.float32)))


def _keras_names(backbone: FoldedMobileNetV2) -> Iterator[tuple[str, nn.Conv2d]]:
    """The convolutions by the name of their Keras layer."""
    yield "Conv1", backbone.stem.conv
    for name, module in backbone.blocks.named_modules():
        if isinstance(module, Conv):
            index, _, part = name.partition(".")
            yield f"block_{index}_{part}" if index != "0" else f"expanded_conv_{part}", module.conv
