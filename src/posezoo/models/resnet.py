"""ResNet backbones (arXiv 1512.03385) and what the pose zoos changed in them, each change one field of a `Style`.

`B` and `D` are the variants of "Bag of Tricks" (arXiv 1812.01187): in both the stride of a bottleneck sits on its 3x3
convolution, and D has a stem of three 3x3 convolutions and shortcuts that average-pool before a 1x1 of stride 1.
`CAFFE` has the stride on the first 1x1, as the paper had it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from posezoo.models.layers import ConvNorm

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

Conv = Callable[[int, int, int], nn.Module]  # channels in, channels out, stride


def conv3x3(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The ordinary 3x3 convolution of a block, without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


@dataclass(frozen=True)
class Style:
    """What sets one published ResNet apart from another; the defaults are the b variant.

    Attributes:
        deep_stem: three 3x3 convolutions in the place of the 7x7.
        pooled_shortcuts: shortcuts average-pool where they would stride.
        stride_first: a bottleneck strides in its first convolution, not in its second.
        convs: makes the 3x3 convolutions of the blocks, for each of the four stages.
        gate: makes, for so many channels, what a block's result goes through before it is added to the shortcut.
        gate_all: gate every block, not only the first of each stage.
    """

    deep_stem: bool = False
    pooled_shortcuts: bool = False
    stride_first: bool = False
    convs: tuple[Conv, Conv, Conv, Conv] = (conv3x3, conv3x3, conv3x3, conv3x3)
    gate: Callable[[int], nn.Module] | None = None
    gate_all: bool = True


B, D, CAFFE = Style(), Style(deep_stem=True, pooled_shortcuts=True), Style(stride_first=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; its first one strides in every style."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        downsample: nn.Module | None,
        style: Style = B,
        conv: Conv = conv3x3,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.se = gate or nn.Identity()
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.se(self.bn2(self.conv2(out))) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        downsample: nn.Module | None,
        style: Style = B,
        conv: Conv = conv3x3,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if style.stride_first else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.se = gate or nn.Identity()
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.se(self.bn3(self.conv3(out))) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int, style: Style) -> nn.Module | None:
    """Brings a block's input to its output's size: 1x1 convolution and BatchNorm, after a pool in the d variant."""
    if stride == 1 and inputs == outputs:
        return None
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if style.pooled_shortcuts:
        layers["pool"] = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    layers["conv"] = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    layers["bn"] = nn.BatchNorm2d(outputs)
    return nn.Sequential(layers)


class ResNet(nn.Module):
    """The convolutional part of a ResNet: (B, 3, H, W) to (B, out_channels, H/32, W/32).

    Args:
        depth: 18, 50, 101 or 152.
        style: how it differs from the b variant.
    """

    def __init__(self, depth: int, style: Style = B) -> None:
        super().__init__()
        widths = [(3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)] if style.deep_stem else [(3, 64, 7, 2)]
        self.stem = nn.Sequential(*(ConvNorm(*w, act=nn.ReLU(inplace=True)) for w in widths))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.out_channels = 64
        self.layer1, self.layer2, self.layer3, self.layer4 = (self._stage(depth, n, style) for n in range(4))

    def _stage(self, depth: int, number: int, style: Style) -> nn.Sequential:
        """The blocks of stage `number` (from 0), of which the first changes size and channels where it must."""
        block: type[BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        width = 64 * 2**number
        inputs, outputs = self.out_channels, width * block.expansion
        blocks = []
        for index in range(BLOCKS[depth][number]):
            stride = 2 if number > 0 and index == 0 else 1
            gate = style.gate(outputs) if style.gate and (style.gate_all or index == 0) else None
            shortcut = _shortcut(inputs, outputs, stride, style)
            blocks.append(block(inputs, width, stride, shortcut, style, style.convs[number], gate))
            inputs = outputs
        self.out_channels = outputs
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out_channels, H/32, W/32)."""
        x = self.pool(self.stem(x))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
